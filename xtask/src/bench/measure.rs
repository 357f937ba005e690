//! Processes under measurement: their processor time and memory, from `/proc`.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A process of one of the measured systems; killed when dropped.
#[derive(Debug)]
pub(super) struct Measured {
    name: &'static str,
    child: Child,
    output: Option<BufReader<ChildStdout>>,
}

/// What a process used so far.
#[derive(Debug, Clone)]
pub(super) struct Usage {
    pub(super) name: &'static str,
    pub(super) cpu_seconds: f64,
    pub(super) peak_memory_bytes: u64,
}

impl Measured {
    /// Starts `command` with its standard error in `log`. Standard output is read by [`Measured::line`], unless
    /// `stdout` says where it goes.
    pub(super) fn start(
        name: &'static str,
        command: &mut Command,
        log: &Path,
        stdout: Option<Stdio>,
    ) -> Result<Self> {
        let log =
            std::fs::File::create(log).with_context(|| format!("{} cannot be written", log.display()))?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(stdout.unwrap_or_else(Stdio::piped))
            .stderr(log)
            .spawn()
            .with_context(|| format!("{name} ({:?}) cannot be started", command.get_program()))?;
        let output = child.stdout.take().map(BufReader::new);
        Ok(Self { name, child, output })
    }

    /// The next line of standard output.
    pub(super) fn line(&mut self) -> Result<String> {
        let output = self
            .output
            .as_mut()
            .with_context(|| format!("{}'s output is not read", self.name))?;
        let mut line = String::new();
        if output.read_line(&mut line)? == 0 {
            bail!(
                "{} ended without an answer ({:?})",
                self.name,
                self.child.try_wait()?
            );
        }
        Ok(line.trim_end().to_owned())
    }

    /// The next line of standard output as JSON.
    pub(super) fn json(&mut self) -> Result<Value> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("{} said: {line}", self.name))
    }

    /// Processor time and peak memory of the process itself so far.
    pub(super) fn usage(&self) -> Result<Usage> {
        let proc = format!("/proc/{}", self.child.id());
        let stat = std::fs::read_to_string(format!("{proc}/stat"))
            .with_context(|| format!("{} is not running any more", self.name))?;
        // The name in parentheses may contain anything; utime and stime are the 12th and 13th fields after it.
        let fields: Vec<&str> = stat
            .rsplit_once(") ")
            .map_or("", |(_, rest)| rest)
            .split(' ')
            .collect();
        let ticks = |at: usize| {
            fields
                .get(at)
                .and_then(|field| field.parse::<u64>().ok())
                .unwrap_or(0)
        };
        let status = std::fs::read_to_string(format!("{proc}/status"))?;
        let peak_kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|size| size.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
            .unwrap_or(0);
        Ok(Usage {
            name: self.name,
            cpu_seconds: (ticks(11) + ticks(12)) as f64 / rustix::param::clock_ticks_per_second() as f64,
            peak_memory_bytes: peak_kib << 10,
        })
    }

    /// Asks it to stop and waits for it.
    pub(super) fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .context("a child has a process id")?;
        kill_process(pid, Signal::TERM).ok();
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
