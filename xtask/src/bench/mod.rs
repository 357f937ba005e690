//! `cargo xtask bench`: measurements, each beside what people would use otherwise, in one run on one machine.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// File → agent → durable relay → gRPC subscriber, beside `tail -F` over TCP and rsyslog.
    Pipeline(Pipeline),
}

#[derive(Debug, Args)]
pub(crate) struct Pipeline {
    /// Size of the bulk input, GiB.
    #[arg(long, default_value_t = 1.0)]
    gib: f64,
}

pub(crate) fn run(bench: &Bench) -> Result<ExitCode> {
    match bench {
        Bench::Pipeline(options) => {
            anyhow::bail!("{options:?}")
        }
    }
}
