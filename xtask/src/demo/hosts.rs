//! The three hosts of the demo and what happens on them.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::on_demand;
use super::replay::Replay;
use super::scratch::Scratch;
use crate::children::Children;

/// Number of hosts.
pub(super) const COUNT: usize = 3;
/// Between two builds of one host.
const PAUSE: Duration = Duration::from_secs(4);
/// How long a build may take to stop when the demo stops.
const STOP_LIMIT: Duration = Duration::from_secs(8);
/// Where a person may start and stop builds.
const ON_DEMAND_HOST: &str = "build-linux";
/// Every n-th build of `build-arm` does not compile.
const FAILING: u32 = 3;

/// Scratch folders and recordings, ready to be set going.
#[derive(Debug)]
pub(crate) struct Hosts {
    dir: PathBuf,
    linux: Scratch,
    arm: Scratch,
    on_demand: Scratch,
    rotating: Replay,
    tailed: Replay,
}

/// Makes the folders of the hosts below `dir`.
///
/// # Errors
/// When a file cannot be read or written.
pub(crate) fn prepare(dir: &Path) -> Result<Hosts> {
    let ci = dir.join("ci-runner");
    std::fs::create_dir_all(&ci).with_context(|| format!("{} cannot be made", ci.display()))?;
    let hosts = Hosts {
        dir: dir.to_path_buf(),
        linux: Scratch::create(&dir.join("build-linux"))?,
        arm: Scratch::create(&dir.join("build-arm"))?,
        on_demand: Scratch::create(&dir.join("build-linux-on-demand"))?,
        rotating: Replay {
            file: ci.join("integration.log"),
            logs: &["cpython-build-1.log"],
            head_lines: 600,
            rotate_lines: Some(1_000),
        },
        tailed: Replay {
            file: ci.join("nightly.log"),
            logs: &[
                "pip-progress.ansi.log",
                "cargo-build-failed.ansi.log",
                "cpython-build-2.log",
            ],
            head_lines: 5,
            rotate_lines: None,
        },
    };
    hosts.rotating.begin()?;
    hosts.tailed.begin()?;
    Ok(hosts)
}

impl Hosts {
    /// Starts the agents and the builds.
    ///
    /// # Errors
    /// When an agent cannot be started.
    pub(crate) fn start(
        self,
        children: &mut Children,
        tasks: &mut JoinSet<Result<()>>,
        stop: &CancellationToken,
        bin_dir: &Path,
        url: &str,
    ) -> Result<()> {
        let mut ci = agent(bin_dir, &self.dir, "ci-runner", url);
        ci.arg("--file")
            .arg(&self.rotating.file)
            .arg("--tail")
            .arg(&self.tailed.file);
        ci.args(["--label", "job=nightly"]);
        children.start("ci-runner", &mut ci, Stdio::null())?;
        tasks.spawn(self.rotating.go_on(stop.clone()));
        tasks.spawn(self.tailed.go_on(stop.clone()));

        for (host, scratch, failing) in [
            ("build-linux", self.linux, None),
            ("build-arm", self.arm, Some(FAILING)),
        ] {
            let diary = scratch.dir().join("builds.log");
            std::fs::write(
                &diary,
                format!("{host} builds millstream-proto again and again\n"),
            )?;
            let mut resident = agent(bin_dir, &self.dir, host, url);
            resident.arg("--file").arg(&diary);
            if host == ON_DEMAND_HOST {
                resident
                    .arg("--config")
                    .arg(on_demand::configure(&self.on_demand)?);
            }
            children.start(host, &mut resident, Stdio::null())?;
            let builder = Builder {
                host,
                diary,
                scratch,
                failing,
                bin_dir: bin_dir.to_path_buf(),
                dir: self.dir.clone(),
                url: url.to_owned(),
                // Only for its mark: the builder waits for its builds itself.
                marker: Children::new(&self.dir),
            };
            tasks.spawn(builder.build_again_and_again(stop.clone()));
        }
        Ok(())
    }
}

/// The command of an agent that believes to be on `host`.
fn agent(bin_dir: &Path, dir: &Path, host: &str, url: &str) -> Command {
    let mut agent = Command::new(bin_dir.join("millstream-agent"));
    agent.env("MILLSTREAM_HOST", host).env_remove("MILLSTREAM_RELAY");
    agent
        .args(["--relay", url, "--data-dir"])
        .arg(dir.join(format!("agent-{host}")));
    agent
}

/// A host that builds the scratch crate for ever, each time as a run of its own.
#[derive(Debug)]
struct Builder {
    host: &'static str,
    scratch: Scratch,
    /// A log file in which each build leaves a line; the host's own agent follows it.
    diary: PathBuf,
    failing: Option<u32>,
    bin_dir: PathBuf,
    dir: PathBuf,
    url: String,
    marker: Children,
}

impl Builder {
    async fn build_again_and_again(self, stop: CancellationToken) -> Result<()> {
        for number in 1.. {
            let fails = self.failing.is_some_and(|every| number % every == 0);
            self.scratch.change(fails)?;
            if number > 1 {
                // What depends on it is compiled again too, so that every build has something to say.
                self.clean(&stop).await?;
            }
            let began = Instant::now();
            let Some(status) = self.build(number, &stop).await? else {
                break;
            };
            let outcome = if status.success() { "passed" } else { "FAILED" };
            self.note(&format!(
                "build {number} {outcome} after {:.1} s ({status})",
                began.elapsed().as_secs_f64()
            ))?;
            if stop
                .run_until_cancelled(tokio::time::sleep(PAUSE))
                .await
                .is_none()
            {
                break;
            }
        }
        Ok(())
    }

    fn note(&self, text: &str) -> Result<()> {
        let mut diary = OpenOptions::new().append(true).open(&self.diary)?;
        writeln!(diary, "{text}").with_context(|| format!("{} cannot be written", self.diary.display()))
    }

    /// One build, wrapped by `millstream-agent exec`.
    async fn build(&self, number: u32, stop: &CancellationToken) -> Result<Option<ExitStatus>> {
        let mut exec = agent(&self.bin_dir, &self.dir, self.host, &self.url);
        exec.args([
            "exec",
            "--name",
            "cargo",
            "--label",
            "branch=main",
            "--label",
            &format!("build={number}"),
        ]);
        exec.args([
            "--pty",
            "--",
            "cargo",
            "build",
            "--offline",
            "-j",
            "1",
            "-p",
            "millstream-proto",
        ]);
        self.run(exec, stop).await
    }

    /// Removes what cargo made of a crate on which most others depend, and of our own.
    async fn clean(&self, stop: &CancellationToken) -> Result<()> {
        let mut cargo = Command::new("cargo");
        cargo.args([
            "clean",
            "--quiet",
            "--offline",
            "-p",
            "bytes",
            "-p",
            "millstream-proto",
        ]);
        self.run(cargo, stop).await?;
        Ok(())
    }

    /// Runs `command` in the scratch folder to its end; how it ends is the build's affair. None: it was stopped.
    async fn run(&self, mut command: Command, stop: &CancellationToken) -> Result<Option<ExitStatus>> {
        self.marker.mark(&mut command);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir(self.scratch.dir());
        command
            .env("CARGO_TERM_COLOR", "always")
            .env("TERM", "xterm-256color");
        command.env("CARGO_TARGET_DIR", self.scratch.dir().join("target"));
        // What xtask itself was started with does not concern these builds.
        for variable in ["CARGO", "CARGO_MANIFEST_DIR", "RUSTFLAGS", "NO_COLOR", "CI"] {
            command.env_remove(variable);
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("a build on {} cannot be started", self.host))?;
        if let Some(status) = stop.run_until_cancelled(child.wait()).await {
            return Ok(Some(status?));
        }
        if let Some(pid) = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw)
        {
            kill_process(pid, Signal::INT).ok();
        }
        if timeout(STOP_LIMIT, child.wait()).await.is_err() {
            child.kill().await?;
        }
        Ok(None)
    }
}
