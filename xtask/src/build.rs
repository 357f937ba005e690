//! Builds the web client, then the binaries that embed it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use clap::ValueEnum;

use crate::{root, step, target_dir, web_client};

/// A profile of the workspace's Cargo.toml.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    Dev,
    Release,
    Dist,
}

impl Profile {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Release => "release",
            Self::Dist => "dist",
        }
    }

    /// Where its binaries are.
    pub(crate) fn dir(self) -> PathBuf {
        target_dir().join(match self {
            Self::Dev => "debug",
            Self::Release | Self::Dist => self.name(),
        })
    }
}

/// `cargo`, the one that runs this.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// The web client and the three binaries; returns the directory with them.
///
/// # Errors
/// When a tool is missing or a build fails.
pub(crate) fn everything(profile: Profile) -> Result<PathBuf> {
    web_client::build()?;
    binaries(profile, &[])
}

/// One example of a package; returns its path.
///
/// # Errors
/// When the build fails.
pub(crate) fn example(profile: Profile, package: &str, name: &str) -> Result<PathBuf> {
    let mut build = cargo();
    build.args([
        "build",
        "--profile",
        profile.name(),
        "--package",
        package,
        "--example",
        name,
    ]);
    step::run(
        &format!("building {name}"),
        &mut build,
        "fix what the compiler says",
    )?;
    Ok(profile.dir().join("examples").join(name))
}

/// Relay, agent, CLI, and the binaries of the further packages `more`.
///
/// # Errors
/// When the build fails.
pub(crate) fn binaries(profile: Profile, more: &[&str]) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--profile", profile.name(), "--bins"]);
    for package in ["millstream-relay", "millstream-agent", "millstream-client"]
        .iter()
        .chain(more)
    {
        build.args(["-p", package]);
    }
    step::run(
        &format!(
            "building relay, agent and CLI (profile {}; minutes the first time)",
            profile.name()
        ),
        &mut build,
        "see cargo's message above",
    )?;
    Ok(profile.dir())
}
