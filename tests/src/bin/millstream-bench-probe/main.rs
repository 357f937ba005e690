//! The measuring ends of `cargo xtask bench`: a writer that stamps its lines, and readers that count and time
//! what arrives. Each prints one JSON object on standard output when it is done.

mod latency;
mod readers;
mod tally;
mod writer;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The measuring ends of `cargo xtask bench`.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Append stamped lines to a file at a steady rate.
    Write {
        path: PathBuf,
        #[arg(long)]
        rate: u64,
        #[arg(long)]
        lines: u64,
    },
    /// Read from a relay by gRPC until so many lines are there.
    Subscribe {
        #[arg(long)]
        relay: String,
        #[command(flatten)]
        goal: Goal,
    },
    /// Accept one TCP connection and read until so many lines are there. Prints its port first.
    Tcp {
        #[command(flatten)]
        goal: Goal,
    },
    /// Follow a file until so many lines are there.
    File {
        path: PathBuf,
        #[command(flatten)]
        goal: Goal,
    },
}

#[derive(Debug, Clone, Copy, clap::Args)]
struct Goal {
    #[arg(long)]
    lines: u64,
    /// The lines carry stamps: report latencies.
    #[arg(long)]
    latency: bool,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().role {
        Role::Write { path, rate, lines } => writer::write(&path, rate, lines),
        Role::Subscribe { relay, goal } => readers::subscribe(&relay, goal),
        Role::Tcp { goal } => readers::tcp(goal),
        Role::File { path, goal } => readers::file(&path, goal),
    };
    match outcome {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
