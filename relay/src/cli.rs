//! The command line of `millstream-relay`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use millstream_relay::config::Settings;

/// Takes log lines from agents, stores them durably, and serves them to browsers and programs.
#[derive(Debug, Parser)]
#[command(name = "millstream-relay", version, about)]
pub(crate) struct Cli {
    /// Configuration file (TOML); its keys are the names of the flags below with underscores
    #[arg(long, env = "MILLSTREAM_CONFIG", value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the relay (the default)
    Serve,
    /// Check the configuration and say in plain words what it means
    CheckConfig,
    /// Tokens for agents and people
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token
    Create,
    /// List tokens
    List,
    /// Revoke a token
    Revoke,
}
