//! `cargo xtask demo`: one command, and real builds of three hosts scroll in a browser.
//!
//! Everything runs below one temporary directory, which is removed at the end together with every process.

mod hosts;
mod on_demand;
mod replay;
mod scratch;

use std::net::TcpListener;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::build::{self, Profile};
use crate::children::Children;
use crate::{block_on, machine, step};

/// Ports that are tried, beginning with the one that was asked for.
const PORTS_TRIED: u16 = 50;

/// How long the relay may take to answer.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long the URL is held back until every host has said something.
const FIRST_LINES_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Port of the relay; when it is taken, the next free one. 0: any.
    #[arg(long, default_value_t = 7171)]
    port: u16,
    /// Do not open the browser.
    #[arg(long)]
    no_open: bool,
    /// Build nothing and take the binaries that are there for this profile.
    #[arg(long, value_name = "PROFILE")]
    prebuilt: Option<Profile>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let bin_dir = match options.prebuilt {
        Some(profile) => profile.dir(),
        None => build::everything(Profile::Release)?,
    };
    // The directory goes when this value goes, also when the demo fails.
    let dir = tempfile::Builder::new().prefix("millstream-demo-").tempdir()?;
    block_on(show(options, &bin_dir, dir.path()))?;
    let path = dir.path().to_path_buf();
    dir.close()
        .with_context(|| format!("{} cannot be removed", path.display()))?;
    eprintln!("    everything is stopped and removed");
    Ok(ExitCode::SUCCESS)
}

async fn show(options: &Options, bin_dir: &Path, dir: &Path) -> Result<()> {
    // From here on Ctrl-C does not end xtask by itself.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = CancellationToken::new();
    let mut children = Children::new(dir);
    let mut tasks = JoinSet::new();

    let outcome = tokio::select! {
        outcome = play(options, bin_dir, dir, &mut children, &mut tasks, &stop) => outcome,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    eprintln!();
    step::say("stopping");
    stop.cancel();
    // The builds' tasks stop the builds that they started.
    while let Some(task) = tasks.join_next().await {
        if let Ok(Err(error)) = task {
            eprintln!("    {error:#}");
        }
    }
    children.stop().await;
    outcome
}

/// Starts everything and watches it for ever.
async fn play(
    options: &Options,
    bin_dir: &Path,
    dir: &Path,
    children: &mut Children,
    tasks: &mut JoinSet<Result<()>>,
    stop: &CancellationToken,
) -> Result<()> {
    step::say("preparing scratch folders for the builds");
    let hosts = hosts::prepare(dir)?;
    step::say("starting the relay and three agents");
    let url = start_relay(children, bin_dir, dir, options.port).await?;
    hosts.start(children, tasks, stop, bin_dir, &url)?;
    let page = format!("{url}{}", builds_page(bin_dir, &url).await);
    println!(
        "\nOpen {page}\n\n\
         Three hosts are building now: build-linux, build-arm and ci-runner. Try this:\n\
         \x20 1. Scroll up to pause, and click \"new lines\" to return. Choose other hosts and builds on the left;\n\
         \x20    every third build of build-arm does not compile.\n\
         \x20 2. Close the page, wait, open it again: everything is there. Click a line's number for a link to it.\n\
         \x20 3. Start \"on-demand\" of build-linux; stop it, or run it again with another word than build: check.\n\
         \x20 4. Read the same from a program:\n\
         \x20      {} --relay {url} tail -f 'host=build-*'\n\n\
         Ctrl-C stops everything and leaves nothing behind.",
        bin_dir.join("millstream").display(),
    );
    if !options.no_open {
        open(&page);
    }
    let mut look = tokio::time::interval(Duration::from_secs(1));
    loop {
        look.tick().await;
        children.check()?;
        if let Some(task) = tasks.try_join_next() {
            task.context("a part of the demo failed")??;
        }
    }
}

/// Path of the page that shows a busy stream of every host: the first build of each, and the nightly log. The
/// whole list, when they do not appear in time.
async fn builds_page(bin_dir: &Path, url: &str) -> String {
    let deadline = tokio::time::Instant::now() + FIRST_LINES_LIMIT;
    while tokio::time::Instant::now() < deadline {
        let mut list = Command::new(bin_dir.join("millstream"));
        list.args([
            "--relay",
            url,
            "ls",
            "streams",
            "source in (cargo,tail)",
            "-o",
            "json",
        ])
        .stdin(Stdio::null());
        let listed = list
            .output()
            .await
            .map(|output| output.stdout)
            .unwrap_or_default();
        let streams: Vec<serde_json::Value> = listed
            .split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect();
        let ids: Vec<String> = streams
            .iter()
            .filter(|stream| stream["next_sequence"].as_u64() > Some(0))
            .map(|stream| stream["stream"].to_string())
            .collect();
        if ids.len() == hosts::COUNT {
            return format!("/streams/{}", ids.join(","));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    String::new()
}

async fn start_relay(children: &mut Children, bin_dir: &Path, dir: &Path, port: u16) -> Result<String> {
    let port = free_port(port)?;
    let mut command = Command::new(bin_dir.join("millstream-relay"));
    command
        .arg("--listen")
        .arg(format!("127.0.0.1:{port}"))
        .arg("--data-dir")
        .arg(dir.join("relay"));
    let stdout = children
        .start("relay", &mut command, Stdio::piped())?
        .stdout
        .take();
    let mut lines = BufReader::new(stdout.context("the relay's output is piped")?).lines();
    let ready = timeout(START_LIMIT, lines.next_line())
        .await
        .context("the relay does not say that it is ready")?;
    match ready?
        .as_deref()
        .and_then(|line| line.strip_prefix("millstream-relay listening on "))
    {
        Some(url) => Ok(url.to_owned()),
        None => bail!(
            "the relay did not start; it said:\n{}",
            children.last_words("relay")
        ),
    }
}

/// `port`, or the next one that nobody listens on.
fn free_port(port: u16) -> Result<u16> {
    if port == 0 {
        return Ok(0);
    }
    (port..=port.saturating_add(PORTS_TRIED))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .with_context(|| {
            format!("the {PORTS_TRIED} ports from {port} on are all taken; choose one with --port")
        })
}

/// Opens the page where there is a desktop; the URL is printed anyway.
fn open(url: &str) {
    let desktop = std::env::var_os("DISPLAY")
        .or_else(|| std::env::var_os("WAYLAND_DISPLAY"))
        .is_some();
    if let Some(opener) = machine::find(&["xdg-open"]).filter(|_| desktop) {
        let opened = std::process::Command::new(opener)
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if opened.is_err() {
            eprintln!("    (the browser could not be opened)");
        }
    }
}
