//! `millstream-relay`: parse, build, run.
//!
//! Exit status: 0 after a stop that was asked for, 1 when the relay cannot start or run, 2 for a command
//! line or configuration that is wrong.

mod cli;
mod tokens;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use millstream_relay::certs::{self, CertsError, Purpose};
use millstream_relay::config::Config;
use millstream_relay::server::Relay;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use cli::{CertsCommand, Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = match Config::load(cli.settings, cli.config.as_deref()) {
        Ok(config) => config,
        Err(error) => return fail(2, &error.to_string()),
    };
    match cli.command.unwrap_or(Command::Serve) {
        Command::CheckConfig => {
            print!("{}", config.explain());
            ExitCode::SUCCESS
        }
        Command::Token(command) => match tokens::run(&command, &config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(1, &error.to_string()),
        },
        Command::Certs(command) => match certificates(&command, &config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(1, &error.to_string()),
        },
        Command::Serve => {
            start_log();
            let mut config = config;
            raise_descriptors(&mut config);
            match run(config) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(1, &format!("{error:#}")),
            }
        }
    }
}

fn fail(status: u8, message: &str) -> ExitCode {
    eprintln!("millstream-relay: {message}");
    ExitCode::from(status)
}

fn certificates(command: &CertsCommand, config: &Config) -> Result<(), CertsError> {
    let directory = |dir: &Option<PathBuf>| dir.clone().unwrap_or_else(|| config.data_dir.join("certs"));
    match command {
        CertsCommand::Init { dir } => {
            let made = certs::init(&directory(dir))?;
            println!("{}: give it to agents and programs (--ca)", made.cert.display());
            println!(
                "{}: keep it; who has it can pretend to be this relay",
                made.key.display()
            );
        }
        CertsCommand::Issue { name, agent, dir } => {
            let purpose = if *agent { Purpose::Agent } else { Purpose::Relay };
            let made = certs::issue(&directory(dir), name, purpose)?;
            println!("tls_cert = \"{}\"", made.cert.display());
            println!("tls_key = \"{}\"", made.key.display());
            match purpose {
                Purpose::Agent => eprintln!("copy both to the host, into agent.toml"),
                Purpose::Relay => eprintln!("for relay.toml; its pin is {}", made.pin),
            }
        }
        CertsCommand::Pin { cert } => println!("{}", certs::pin(cert)?),
    }
    Ok(())
}

/// The log goes to standard error: standard output is for the one line that says where the relay is.
fn start_log() {
    let filter = EnvFilter::try_from_env("MILLSTREAM_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}

/// Descriptors that are not for connections: the store's files, and what the system needs.
const OTHER_DESCRIPTORS: u64 = 512;

/// Each connection takes a file descriptor, and the usual limit of a process (1,024) is for programs that have none: it
/// is raised as far as the system lets everybody raise it, and the limit of connections kept below it.
fn raise_descriptors(config: &mut Config) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of file descriptors");
            current
        }
    };
    let Some(descriptors) = now else { return };
    let room = descriptors.saturating_sub(OTHER_DESCRIPTORS).max(descriptors / 2);
    let room = u32::try_from(room).unwrap_or(u32::MAX);
    if room < config.limits.max_connections {
        tracing::info!(
            "{descriptors} file descriptors allow {room} connections, fewer than limits.max_connections = {}; raise \
             the hard limit (LimitNOFILE of systemd) for more",
            config.limits.max_connections
        );
        config.limits.max_connections = room;
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    // Readers that are behind block on the disk. Few do so at a time and the rest wait their turn: threads by the dozen
    // would keep those that deliver live lines from their processors.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads((2 * cores).max(4))
        .build()?;
    let outcome = runtime.block_on(serve(config));
    // Whatever still blocks, a stop that was cut off must not wait for it.
    runtime.shutdown_background();
    outcome
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    for warning in config.access.warnings() {
        tracing::warn!("{warning}");
    }
    let relay = Relay::start(config).await?;
    let mut output = std::io::stdout();
    // Nobody has to read this line.
    let _ = writeln!(output, "millstream-relay listening on {}", relay.url());
    let _ = output.flush();
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping; a second signal stops at once");
    tokio::select! {
        () = relay.stop() => tracing::info!("stopped"),
        _ = interrupt.recv() => tracing::warn!("stopped at once"),
        _ = terminate.recv() => tracing::warn!("stopped at once"),
    }
    Ok(())
}
