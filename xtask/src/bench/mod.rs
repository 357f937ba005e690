//! `cargo xtask bench`: measurements, each beside what people would use otherwise, in one run on one machine.

mod browser;
mod latency;
mod masking;
mod measure;
mod pipeline;
mod rsyslog;
mod systems;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::build::Profile;

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// File → agent → durable relay → gRPC subscriber, beside `tail -F` over TCP and rsyslog.
    Pipeline(Pipeline),
    /// What a reader sees in Chromium and what it costs, beside `tail -f` through a WebSocket into the document.
    Browser(Browser),
    /// File → blocks, with and without secrets taken out.
    Masking(Masking),
}

#[derive(Debug, Args)]
pub(crate) struct Masking {
    /// Size of the input, GiB.
    #[arg(long, default_value_t = 0.5)]
    gib: f64,
    /// Rounds, in each of which every variant runs once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Profile of what is measured.
    #[arg(long, value_enum, default_value_t = Profile::Dist)]
    profile: Profile,
}

#[derive(Debug, Args)]
pub(crate) struct Pipeline {
    /// Size of the bulk input, GiB.
    #[arg(long, default_value_t = 1.0)]
    gib: f64,
    /// Duration of each latency run, seconds.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Profile of the binaries that are measured.
    #[arg(long, value_enum, default_value_t = Profile::Dist)]
    profile: Profile,
    /// Build nothing and take the binaries that are there.
    #[arg(long)]
    prebuilt: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Browser {
    /// Lines of the log that is opened at its end.
    #[arg(long, default_value_t = 10_000_000)]
    open_lines: u64,
    /// Duration of each run that follows, seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Lines after which memory is measured; an hour's worth of 1,000 a second.
    #[arg(long, default_value_t = 3_600_000)]
    hour_lines: u64,
    /// Profile of the binaries that are measured.
    #[arg(long, value_enum, default_value_t = Profile::Dist)]
    profile: Profile,
    /// Build nothing and take the binaries that are there.
    #[arg(long)]
    prebuilt: bool,
}

pub(crate) fn run(bench: &Bench) -> Result<ExitCode> {
    match bench {
        Bench::Pipeline(options) => pipeline::run(options),
        Bench::Masking(options) => masking::run(options),
        Bench::Browser(options) => browser::run(options),
    }
}
