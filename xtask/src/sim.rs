//! `cargo xtask sim`: builds `millstream-sim` and lets it run seeds.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::build::{self, Profile};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many seeds, one after the other; thousands take minutes.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed [default: one of the clock's; it is printed].
    #[arg(long)]
    seed: Option<u64>,
    /// Print every event, and what the product logs; for one seed.
    #[arg(long)]
    trace: bool,
    /// Profile to build with.
    #[arg(long, value_enum, default_value_t = Profile::Dev)]
    profile: Profile,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let mut sim = build::cargo();
    // Debug assertions are on in the default profile, and are worth more here than speed.
    sim.args(["run", "--quiet", "--profile", options.profile.name()]);
    sim.args([
        "-p",
        "millstream-sim",
        "--",
        "--seeds",
        &options.seeds.to_string(),
    ]);
    if let Some(seed) = options.seed {
        sim.args(["--seed", &seed.to_string()]);
    }
    if options.trace {
        sim.arg("--trace");
    }
    let status = sim.status().context("cargo cannot be started")?;
    Ok(match status.success() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
