//! Flags and sub-commands.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use millstream_dial::CredentialFlags;

use super::settings::{check_spool_bytes, parse_duration};
use crate::spool::{Bound, DEFAULT_SPOOL_BYTES, WhenFull};

/// Sends the lines of files and commands of this host to a Millstream relay.
#[derive(Debug, Parser)]
#[command(name = "millstream-agent", version, args_conflicts_with_subcommands = false)]
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Settings that every sub-command takes.
#[derive(Debug, Default, Args)]
pub struct GlobalArgs {
    /// Configuration file (TOML).
    #[arg(long, global = true, env = "MILLSTREAM_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Relay to send to; several (repeated or separated by commas) are tried in turn.
    #[arg(
        long,
        global = true,
        env = "MILLSTREAM_RELAY",
        value_name = "URL",
        value_delimiter = ','
    )]
    pub relay: Vec<String>,
    /// Label of every stream of this agent.
    #[arg(
        long, global = true, env = "MILLSTREAM_LABEL", value_name = "KEY=VALUE", value_delimiter = ',',
        value_parser = parse_label
    )]
    pub label: Vec<(String, String)>,
    /// File or glob to follow.
    #[arg(
        long,
        global = true,
        env = "MILLSTREAM_FILE",
        value_name = "GLOB",
        value_delimiter = ','
    )]
    pub file: Vec<String>,
    /// File to follow with `tail -F`.
    #[arg(
        long,
        global = true,
        env = "MILLSTREAM_TAIL",
        value_name = "PATH",
        value_delimiter = ','
    )]
    pub tail: Vec<String>,
    /// Directory of plugins (manifests and `millstream-source-NAME`); several are separated by colons.
    #[arg(
        long,
        global = true,
        env = "MILLSTREAM_PLUGIN_PATH",
        value_name = "DIR",
        value_delimiter = ':'
    )]
    pub plugin_path: Vec<PathBuf>,
    /// Directory of the agent's id and of output that the relay has not stored.
    #[arg(long, global = true, env = "MILLSTREAM_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Name of this host.
    #[arg(long, global = true, env = "MILLSTREAM_HOST", value_name = "NAME")]
    pub host: Option<String>,
    /// How to know the relay, and how to be known; the token itself can be in MILLSTREAM_TOKEN.
    #[command(flatten)]
    pub credentials: CredentialFlags,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the configured sources (the default).
    Run,
    /// Runs one command, shows and sends its output, and exits with its status.
    Exec {
        /// Name of the source; by default the command's.
        #[arg(long)]
        name: Option<String>,
        /// Give the command a terminal, so that it keeps colours and progress bars.
        #[arg(long)]
        pty: bool,
        #[command(flatten)]
        holding: Holding,
        /// The command and its arguments.
        #[arg(required = true, last = true, value_name = "CMD")]
        argv: Vec<String>,
    },
    /// Sends standard input.
    Pipe {
        /// Name of the source.
        #[arg(long)]
        name: String,
        #[command(flatten)]
        holding: Holding,
    },
    /// Lists the source plugins and their settings, or checks one.
    Sources {
        #[command(subcommand)]
        command: Option<SourcesCommand>,
    },
    /// Checks the configuration and exits.
    CheckConfig,
    /// Holds one run; started by the agent.
    #[command(hide = true)]
    SuperviseRun {
        directory: PathBuf,
        /// Standard output is where orders come from.
        #[arg(long)]
        controlled: bool,
    },
    /// Bounds itself and becomes a plugin; started by the agent.
    #[command(hide = true)]
    Contain {
        #[arg(long)]
        memory_max_bytes: u64,
        #[arg(long)]
        parent: i32,
        #[arg(required = true, last = true)]
        argv: Vec<String>,
    },
}

/// How output is held until it is delivered.
#[derive(Debug, Clone, Args)]
pub struct Holding {
    /// How long to wait at the end until everything is delivered; what is not waits in the data directory.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub drain_timeout: Duration,
    /// Disk for output that the relay has not stored.
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_SPOOL_BYTES, value_parser = parse_spool_bytes)]
    pub spool_max_bytes: u64,
    /// What to do when that is full.
    #[arg(long, value_enum, default_value_t = WhenFull::Block)]
    pub spool_when_full: WhenFull,
}

impl Holding {
    /// Of the spool.
    #[must_use]
    pub fn bound(&self) -> Bound {
        Bound {
            max_bytes: self.spool_max_bytes,
            when_full: self.spool_when_full,
        }
    }
}

fn parse_spool_bytes(text: &str) -> Result<u64, String> {
    let bytes = text
        .parse()
        .map_err(|_| format!("{text:?} is no number of bytes"))?;
    check_spool_bytes(bytes).map(|()| bytes)
}

#[derive(Debug, Subcommand)]
pub enum SourcesCommand {
    /// Runs a plugin and tells its author what is wrong with it. Nothing is sent.
    Check {
        /// The plugin's file: a manifest or `millstream-source-NAME`.
        path: PathBuf,
        /// A setting for the run; the value is TOML or plain text.
        #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
        setting: Vec<(String, String)>,
        /// How long to let it run.
        #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
        time: Duration,
    },
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("{text:?} is no setting; write KEY=VALUE"))
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("{text:?} is no label; write KEY=VALUE"))
}
