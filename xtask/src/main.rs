//! `cargo xtask`: everything that is done to this repository beyond plain `cargo`.
//!
//! Needs a Rust toolchain and Node.js 20 or later; whatever else a command wants, it installs through apt where
//! it runs as root, and otherwise says what to install.

mod bench;
mod build;
mod children;
mod demo;
mod machine;
mod sim;
mod step;
mod test;
mod torture;
mod web_client;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Builds, shows, tests and measures Millstream.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build everything: the web client, then relay, agent and CLI in release.
    Build,
    /// Build everything and show it: a relay, three agents and real builds, in the browser.
    Demo(demo::Options),
    /// Run every check and test.
    Test(test::Options),
    /// The same as `test`.
    Ci(test::Options),
    /// Break real agents, relays and networks again and again, and compare every line.
    Torture(torture::Options),
    /// Run agent, relay and client on a virtual network and clock; one seed decides everything.
    Sim(sim::Options),
    /// Measure.
    #[command(subcommand)]
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Task::Build => build::everything(build::Profile::Release).map(|_| ExitCode::SUCCESS),
        Task::Demo(options) => demo::run(&options),
        Task::Test(options) | Task::Ci(options) => test::run(&options),
        Task::Torture(options) => torture::run(&options),
        Task::Sim(options) => sim::run(&options),
        Task::Bench(bench) => bench::run(&bench),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// The repository's root.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
}

/// Cargo's target directory, honouring `CARGO_TARGET_DIR`.
fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// A multi-threaded runtime for the commands that watch several things at once.
fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(future)
}
