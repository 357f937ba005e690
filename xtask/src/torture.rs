//! `cargo xtask torture`: builds the binaries and lets `millstream-torture` break them.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::build::{self, Profile};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Faults, one after the other; a thousand take about twenty minutes.
    #[arg(long, default_value_t = 1000)]
    cycles: usize,
    /// Decides everything that is random [default: one of the clock's; it is printed].
    #[arg(long)]
    seed: Option<u64>,
    /// Profile of the binaries that are broken.
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    profile: Profile,
}

/// Cycles and seed of the short form in `cargo xtask test`.
const SHORT: (usize, u64) = (30, 1);

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    build::binaries(options.profile, &["millstream-tests"])?;
    let status = command(options.profile, options.cycles, options.seed)
        .status()
        .context("millstream-torture cannot be started")?;
    Ok(match status.success() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The short form, with binaries that were built before.
pub(crate) fn short(profile: Profile) -> Command {
    command(profile, SHORT.0, Some(SHORT.1))
}

fn command(profile: Profile, cycles: usize, seed: Option<u64>) -> Command {
    let mut torture = Command::new(profile.dir().join("millstream-torture"));
    torture.args(["--cycles", &cycles.to_string()]);
    if let Some(seed) = seed {
        torture.args(["--seed", &seed.to_string()]);
    }
    torture
}
