//! The three pipelines. Each is started around a file and read to a number of lines; what it took is returned.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::measure::{Measured, Usage};
use super::rsyslog;
use crate::step;

/// How long a program may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum System {
    Millstream,
    /// `tail -F` whose standard output is a TCP connection.
    Floor,
    Rsyslog,
}

/// Where the programs are.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) bin_dir: PathBuf,
    pub(super) rsyslogd: PathBuf,
}

/// What one run took.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) system: System,
    /// From the start of the program that reads the file to the last line at the reader.
    pub(super) seconds: f64,
    /// The pipeline's own processes, without writer and reader.
    pub(super) usage: Vec<Usage>,
    /// The reader's report.
    pub(super) report: Value,
}

/// The input of a run.
#[derive(Debug)]
pub(super) struct Input<'a> {
    pub(super) file: &'a Path,
    pub(super) lines: u64,
    /// Lines a second that a writer appends meanwhile; `None`: the file is complete.
    pub(super) rate: Option<u64>,
}

impl System {
    pub(super) const ALL: [Self; 3] = [Self::Millstream, Self::Floor, Self::Rsyslog];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Millstream => "Millstream",
            Self::Floor => "tail -F over TCP (nothing stored)",
            Self::Rsyslog => "rsyslog",
        }
    }

    /// Runs the pipeline in the fresh directory `dir`.
    pub(super) fn run(self, programs: &Programs, dir: &Path, input: &Input<'_>) -> Result<Outcome> {
        step::say(&format!(
            "{}: {} lines{}",
            self.name(),
            input.lines,
            paced(input.rate)
        ));
        std::fs::create_dir_all(dir)?;
        let run = Run { programs, dir, input };
        let outcome = match self {
            Self::Millstream => run.millstream(),
            Self::Floor => run.floor(),
            Self::Rsyslog => run.rsyslog(),
        };
        let outcome =
            outcome.with_context(|| format!("{} (its logs are in {})", self.name(), dir.display()))?;
        let lines = outcome.report["lines"].as_u64();
        if lines != Some(input.lines) {
            bail!("{} delivered {lines:?} lines of {}", self.name(), input.lines);
        }
        eprintln!("    all lines delivered in {:.2} s", outcome.seconds);
        Ok(outcome)
    }
}

fn paced(rate: Option<u64>) -> String {
    rate.map_or_else(String::new, |rate| format!(" at {rate} lines/s"))
}

struct Run<'a> {
    programs: &'a Programs,
    dir: &'a Path,
    input: &'a Input<'a>,
}

impl Run<'_> {
    fn millstream(&self) -> Result<Outcome> {
        let bin = |name: &str| Command::new(self.programs.bin_dir.join(name));
        let mut relay = bin("millstream-relay");
        relay
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(self.dir.join("relay"));
        let mut relay = Measured::start("millstream-relay", &mut relay, &self.dir.join("relay.log"), None)?;
        let url = relay.line()?;
        let url = url
            .strip_prefix("millstream-relay listening on ")
            .context("the relay says where it listens")?;
        let mut reader = self.reader(&["subscribe", "--relay", url])?;
        reader.line()?;
        let mut agent = bin("millstream-agent");
        agent
            .args(["--relay", url, "--data-dir"])
            .arg(self.dir.join("agent"))
            .arg("--file")
            .arg(self.input.file);
        let began = Instant::now();
        let agent = Measured::start("millstream-agent", &mut agent, &self.dir.join("agent.log"), None)?;
        self.finish(System::Millstream, began, reader, vec![agent, relay])
    }

    fn floor(&self) -> Result<Outcome> {
        let mut reader = self.reader(&["tcp"])?;
        let ready = reader.line()?;
        let port: u16 = ready
            .trim_start_matches("ready ")
            .parse()
            .context("the reader prints its port")?;
        let connection = TcpStream::connect(("127.0.0.1", port))?;
        connection.set_nodelay(true)?;
        let mut tail = Command::new("tail");
        tail.args(["-n", "+1", "-F"]).arg(self.input.file);
        let began = Instant::now();
        let stdout = Stdio::from(OwnedFd::from(connection));
        let tail = Measured::start("tail", &mut tail, &self.dir.join("tail.log"), Some(stdout))?;
        self.finish(System::Floor, began, reader, vec![tail])
    }

    fn rsyslog(&self) -> Result<Outcome> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let output = self.dir.join("received.log");
        let receiver = rsyslog::start_receiver(&self.programs.rsyslogd, self.dir, port, &output)?;
        wait_for_port(port)?;
        let mut reader = self.reader(&["file", &output.display().to_string()])?;
        reader.line()?;
        let began = Instant::now();
        let sender = rsyslog::start_sender(&self.programs.rsyslogd, self.dir, self.input.file, port)?;
        self.finish(System::Rsyslog, began, reader, vec![sender, receiver])
    }

    /// The probe in the role of `args`, with the goal of this run.
    fn reader(&self, args: &[&str]) -> Result<Measured> {
        let mut probe = Command::new(self.programs.bin_dir.join("millstream-bench-probe"));
        probe.args(args).arg("--lines").arg(self.input.lines.to_string());
        if self.input.rate.is_some() {
            probe.arg("--latency");
        }
        Measured::start("reader", &mut probe, &self.dir.join("reader.log"), None)
    }

    /// Lets the writer write, waits for the reader, and measures the pipeline before it is stopped.
    fn finish(
        &self,
        system: System,
        began: Instant,
        mut reader: Measured,
        pipeline: Vec<Measured>,
    ) -> Result<Outcome> {
        let mut writer = match self.input.rate {
            None => None,
            Some(rate) => {
                let mut probe = Command::new(self.programs.bin_dir.join("millstream-bench-probe"));
                probe
                    .arg("write")
                    .arg(self.input.file)
                    .arg("--rate")
                    .arg(rate.to_string());
                probe.arg("--lines").arg(self.input.lines.to_string());
                Some(Measured::start(
                    "writer",
                    &mut probe,
                    &self.dir.join("writer.log"),
                    None,
                )?)
            }
        };
        if let Some(writer) = &mut writer {
            writer.json()?;
        }
        let report = reader.json()?;
        let seconds = began.elapsed().as_secs_f64();
        let usage = pipeline.iter().map(Measured::usage).collect::<Result<_>>()?;
        for process in pipeline {
            process.stop()?;
        }
        Ok(Outcome {
            system,
            seconds,
            usage,
            report,
        })
    }
}

fn wait_for_port(port: u16) -> Result<()> {
    let began = Instant::now();
    // A channel that nobody sends to: its timed receive is a wait.
    let (_sender, never) = mpsc::channel::<()>();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if began.elapsed() > START_LIMIT {
            bail!("nothing listens on port {port} after {START_LIMIT:?}");
        }
        never.recv_timeout(Duration::from_millis(20)).ok();
    }
    Ok(())
}
