//! An agent under test.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::binaries::binary;
use crate::process::{Finished, Process};

/// What the agent says on standard error whenever a session with the relay begins.
const CONNECTED: &str = "millstream-agent connected to ";

/// One agent with a host name and a data directory of its own, which it keeps over restarts.
#[derive(Debug)]
pub struct Agent {
    process: Option<Process>,
    host: String,
    relay_url: String,
    data_dir: PathBuf,
    log_dir: PathBuf,
    args: Vec<OsString>,
}

impl Agent {
    /// Starts `millstream-agent --relay URL --data-dir … ARGS` as `host`, with its data in `dir/agent-HOST`, and
    /// waits until it is connected.
    pub async fn start(dir: &Path, relay_url: &str, host: &str, args: &[&str]) -> Self {
        let mut agent = Self::stopped(dir, relay_url, host, args);
        agent.start_again().await;
        agent
    }

    /// An agent that is not running yet.
    pub fn stopped(dir: &Path, relay_url: &str, host: &str, args: &[&str]) -> Self {
        Self {
            process: None,
            host: host.to_owned(),
            relay_url: relay_url.to_owned(),
            data_dir: dir.join(format!("agent-{host}")),
            log_dir: dir.join("logs"),
            args: args.iter().map(OsString::from).collect(),
        }
    }

    /// The command, for tests that start one which must fail, or that wrap a build.
    pub fn command(relay_url: &str, host: &str, data_dir: &Path) -> Command {
        let mut command = Command::new(binary("millstream-agent"));
        command.args(["--relay", relay_url, "--data-dir"]).arg(data_dir);
        command.env("MILLSTREAM_HOST", host).stdin(Stdio::null());
        command
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the agent is running")
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGTERM, and waits for its end.
    pub async fn stop(&mut self) -> Finished {
        let mut process = self.process.take().expect("the agent is running");
        process.signal(Signal::TERM);
        process.finish().await
    }

    /// Starts it (again) with the same data, and waits until it is connected.
    pub async fn start_again(&mut self) {
        self.start_unconnected();
        self.process().stderr_says(CONNECTED).await;
    }

    /// Starts it without waiting for anything.
    pub fn start_unconnected(&mut self) {
        let mut command = Self::command(&self.relay_url, &self.host, &self.data_dir);
        command.args(&self.args);
        let name = format!("agent-{}", self.host);
        self.process = Some(Process::start(&name, &self.log_dir, &mut command));
    }
}
