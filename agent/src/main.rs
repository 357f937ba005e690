//! `millstream-agent`: parses the command line, builds what it asks for, runs it, and exits with its status.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use millstream_agent::agent::{self, AgentConfig};
use millstream_agent::config::cli::{Cli, Command, GlobalArgs, Holding, SourcesCommand};
use millstream_agent::config::{self, Settings};
use millstream_agent::control::Desk;
use millstream_agent::control::commands::Commands;
use millstream_agent::health::HealthBoard;
use millstream_agent::identity::{Identity, ephemeral_id};
use millstream_agent::plugins::catalog::Catalog;
use millstream_agent::plugins::{check, containment, listing};
use millstream_agent::runs::{Runs, supervise};
use millstream_agent::uplink::UplinkConfig;
use millstream_agent::wrap::{self, WrapConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Stays right when the file is replaced by an upgrade.
const OWN_BINARY: &str = "/proc/self/exe";

const USAGE: u8 = 2;
const FAILURE: u8 = 1;

/// Blocking threads beside the reactor: one compresses, the others serve standard input, output and error of
/// `exec` and `pipe`.
const BLOCKING_THREADS: usize = 4;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let wraps = matches!(cli.command, Some(Command::Exec { .. } | Command::Pipe { .. }));
    start_log(if wraps { "error" } else { "info" });
    if let Some(Command::Contain {
        memory_max_bytes,
        parent,
        argv,
    }) = &cli.command
    {
        let status = containment::become_contained(*memory_max_bytes, *parent, argv);
        return ExitCode::from(u8::try_from(status).unwrap_or(FAILURE));
    }
    if let Some(Command::Sources { command }) = &cli.command {
        return sources(&cli.global, command.as_ref());
    }
    if let Some(Command::SuperviseRun {
        directory,
        controlled,
    }) = &cli.command
    {
        return supervise_run(directory, *controlled);
    }
    let settings = match Settings::load(&cli.global) {
        Ok(settings) => settings,
        Err(error) => return fail(&error, USAGE),
    };
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    if matches!(cli.command, Some(Command::CheckConfig)) {
        let count = settings.sources.len();
        let sources = if count == 1 { "source" } else { "sources" };
        println!("the configuration is valid: {count} {sources}");
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}"), FAILURE),
    };
    let status = runtime.block_on(async {
        match cli.command {
            None | Some(Command::Run) => run(settings).await,
            Some(Command::Exec {
                name,
                pty,
                holding,
                argv,
            }) => {
                let name = name.unwrap_or_else(|| command_name(&argv));
                let config = wrap_config(&settings, "exec", name, &holding);
                wrap::exec(config, argv, pty)
                    .await
                    .unwrap_or_else(|error| say(&error, FAILURE))
            }
            Some(Command::Pipe { name, holding }) => {
                match wrap::pipe(wrap_config(&settings, "pipe", name, &holding)).await {
                    Ok(true) => 0,
                    Ok(false) => FAILURE,
                    Err(error) => say(&error, FAILURE),
                }
            }
            Some(
                Command::Sources { .. }
                | Command::CheckConfig
                | Command::SuperviseRun { .. }
                | Command::Contain { .. },
            ) => 0,
        }
    });
    // A thread may still sit in a read of standard input; it cannot be interrupted and holds nothing.
    runtime.shutdown_background();
    ExitCode::from(status)
}

/// Lists plugins, or checks one for its author.
fn sources(args: &GlobalArgs, command: Option<&SourcesCommand>) -> ExitCode {
    let Some(SourcesCommand::Check { path, setting, time }) = command else {
        let catalog = Catalog::load(&config::plugin_path(args));
        print!("{}", listing::describe(&catalog));
        return ExitCode::SUCCESS;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let checked = runtime.map(|runtime| runtime.block_on(check::run(path, setting, *time)));
    match checked {
        Ok(report) => {
            print!("{report}");
            ExitCode::from(u8::from(!report.is_good()) * FAILURE)
        }
        Err(error) => fail(&format!("cannot start: {error}"), FAILURE),
    }
}

/// The process that holds one run.
fn supervise_run(directory: &Path, controlled: bool) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let held = runtime.and_then(|runtime| {
        let held = runtime.block_on(supervise::run(directory, controlled));
        // A thread may still sit in a read of standard input.
        runtime.shutdown_background();
        held
    });
    match held {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(
            &format!("cannot hold the run in {}: {error}", directory.display()),
            FAILURE,
        ),
    }
}

async fn run(settings: Settings) -> u8 {
    if settings.sources.is_empty() {
        let cure =
            "no sources are configured; add --file GLOB, --tail PATH or [sources.NAME] in --config FILE";
        return say(&cure, USAGE);
    }
    let identity = match Identity::acquire(&settings.data_dir) {
        Ok(identity) => identity,
        Err(error) => return say(&error, FAILURE),
    };
    let (mut interrupt, mut terminate) =
        match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
            (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
            (Err(error), _) | (_, Err(error)) => {
                return say(&format!("cannot catch signals: {error}"), FAILURE);
            }
        };
    let runs = match Runs::open(&settings.data_dir, OWN_BINARY.into()) {
        Ok(runs) => runs,
        Err(error) => {
            let place = settings.data_dir.join("runs");
            return say(&format!("cannot use {}: {error}", place.display()), FAILURE);
        }
    };
    let commands = match Commands::open(&settings.data_dir) {
        Ok(commands) => commands,
        Err(error) => return say(&error, FAILURE),
    };
    let stop = CancellationToken::new();
    let config = AgentConfig {
        runs,
        edge: settings.edge.clone(),
        desk: Desk::new(settings.control.clone(), commands, settings.masks()),
        health: HealthBoard::default(),
        uplink: uplink_config(&settings, identity.agent_id.clone()),
        sources: settings.sources,
    };
    let running = agent::run(config, stop.clone());
    tokio::pin!(running);
    tokio::select! {
        () = &mut running => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    stop.cancel();
    tokio::select! {
        () = running => 0,
        _ = interrupt.recv() => FAILURE,
    }
}

fn uplink_config(settings: &Settings, agent_id: String) -> UplinkConfig {
    UplinkConfig {
        relays: settings.relays.clone(),
        credentials: settings.credentials.clone(),
        agent_id,
        host: settings.host.clone(),
        labels: settings.labels.clone(),
        compress_level: settings.compress_level,
    }
}

fn wrap_config(settings: &Settings, kind: &str, name: String, holding: &Holding) -> WrapConfig {
    let agent_id = ephemeral_id(&settings.data_dir, kind);
    WrapConfig {
        uplink: uplink_config(settings, agent_id),
        name,
        labels: std::collections::BTreeMap::new(),
        edge: settings.edge.clone(),
        drain_timeout: holding.drain_timeout,
        data_dir: settings.data_dir.clone(),
        spool: holding.bound(),
        program: OWN_BINARY.into(),
    }
}

/// Name of a source for a command: its last path component.
fn command_name(argv: &[String]) -> String {
    let program = argv.first().map_or("exec", String::as_str);
    program
        .rsplit('/')
        .next()
        .filter(|name| !name.is_empty())
        .unwrap_or("exec")
        .to_owned()
}

fn start_log(default: &str) {
    let filter = EnvFilter::try_from_env("MILLSTREAM_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}

fn say(error: &impl std::fmt::Display, status: u8) -> u8 {
    eprintln!("millstream-agent: {error}");
    status
}

fn fail(error: &impl std::fmt::Display, status: u8) -> ExitCode {
    ExitCode::from(say(error, status))
}
