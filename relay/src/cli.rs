//! The command line of `millstream-relay`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};
use millstream_relay::auth::Role;
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
    /// Tokens for agents, programs and people; the relay may run meanwhile
    #[command(subcommand)]
    Token(TokenCommand),
    /// Certificates for trials and small installations, from an authority of one's own
    #[command(subcommand)]
    Certs(CertsCommand),
}

/// All of it works on `certs/` in the data directory unless `--dir` says otherwise.
#[derive(Debug, Subcommand)]
pub(crate) enum CertsCommand {
    /// Make an authority with a key of its own
    Init {
        /// Where it is kept [default: certs/ in the data directory]
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Make a certificate for the relay, or for the agents of a host
    Issue {
        /// Name or IP address by which the relay is reached, or the agents' host; may be given several times
        #[arg(long, value_name = "NAME", required = true)]
        name: Vec<String>,
        /// It is for the agents of these hosts (tls_client_ca), not for a relay
        #[arg(long)]
        agent: bool,
        /// Where the authority is, and where the certificate goes [default: certs/ in the data directory]
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Print the pin of a certificate's key, for `--pin` of agents and programs
    Pin {
        /// The certificate (PEM)
        #[arg(value_name = "FILE")]
        cert: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it, this once: only a hash of it is kept
    Create(CreateToken),
    /// List tokens: who, role, scope, validity, last use
    List,
    /// End a token's validity; calls that use it are ended within seconds
    Revoke {
        /// Id or name, as `list` shows them
        #[arg(value_name = "ID|NAME")]
        token: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CreateToken {
    /// Who will use it, for lists and the audit: A-Z a-z 0-9 _ . @ -
    #[arg(long)]
    pub(crate) name: String,
    /// agent (sends the streams of its host), viewer (reads), operator (also starts and stops builds), admin
    /// (also reads the audit)
    #[arg(long)]
    pub(crate) role: Role,
    /// Selector of the streams that it may see or send, such as `team=web,host=build-*` [default: all]
    #[arg(long, value_name = "SELECTOR", default_value = "", hide_default_value = true)]
    pub(crate) scope: String,
    /// Host that an agent may send for (added to the scope; globs allowed); every agent token needs one, or a scope
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// Source that an agent may send, may be given several times (added to the scope) [default: all]
    #[arg(long, value_name = "SOURCE")]
    pub(crate) source: Vec<String>,
    /// How long it is valid: 12h, 30d, never [default: 90d, for agents never]
    #[arg(long, value_name = "TIME")]
    pub(crate) expires: Option<Lifetime>,
}

/// How long a token is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifetime {
    Seconds(i64),
    Forever,
}

impl FromStr for Lifetime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self::Forever);
        }
        let problem = || "write it as 90m, 12h, 30d or never".to_owned();
        let unit = text.chars().last().ok_or_else(problem)?;
        let seconds = match unit {
            'm' => 60,
            'h' => 3600,
            'd' => 86400,
            _ => return Err(problem()),
        };
        let count: i64 = text[..text.len() - 1].parse().map_err(|_| problem())?;
        // A century is for ever; beyond, times could not be shown.
        (1..=100 * 366 * 86400 / seconds)
            .contains(&count)
            .then_some(Self::Seconds(count * seconds))
            .ok_or_else(problem)
    }
}
