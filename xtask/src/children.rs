//! Child processes of a command that runs until Ctrl-C: started in process groups of their own, so that Ctrl-C
//! reaches only xtask, which then stops them in order and makes sure that nothing is left.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

/// Every child inherits this variable with the set's directory as value: it is how descendants are found that
/// outlived their parents.
const MARK: &str = "MILLSTREAM_XTASK_DIR";

/// How long children may take to stop when asked to.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A set of children with a directory for their output.
#[derive(Debug)]
pub(crate) struct Children {
    dir: PathBuf,
    running: Vec<(String, Child)>,
}

impl Children {
    /// An empty set; `dir` is temporary, and no other process works in its name.
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_path_buf(),
            running: Vec::new(),
        }
    }

    /// Gives `command` what every child of this set has.
    pub(crate) fn mark(&self, command: &mut Command) {
        command
            .env(MARK, &self.dir)
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
    }

    /// Starts `command` with its standard error in `NAME.log`; standard output goes where `stdout` says.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(&mut self, name: &str, command: &mut Command, stdout: Stdio) -> Result<&mut Child> {
        self.mark(command);
        let log = self.log_file(name);
        let log = File::create(&log).with_context(|| format!("{} cannot be written", log.display()))?;
        let child = command.stdout(stdout).stderr(log).spawn();
        let child = child.with_context(|| format!("{name} cannot be started"))?;
        self.running.push((name.to_owned(), child));
        self.running
            .last_mut()
            .map(|(_, child)| child)
            .context("a child was just added")
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    /// The last lines that `name` said, for an error message.
    pub(crate) fn last_words(&self, name: &str) -> String {
        let log = std::fs::read_to_string(self.log_file(name)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Fails when one of the children has ended, with its last words.
    ///
    /// # Errors
    /// As said.
    pub(crate) fn check(&mut self) -> Result<()> {
        let mut ended = None;
        for (name, child) in &mut self.running {
            if let Some(status) = child.try_wait()? {
                ended = Some((name.clone(), status));
            }
        }
        if let Some((name, status)) = ended {
            bail!(
                "{name} ended unexpectedly ({status}); it said:\n{}",
                self.last_words(&name)
            );
        }
        Ok(())
    }

    /// Asks the children to stop, the last one first, waits for each, and kills what does not stop, with every
    /// descendant.
    pub(crate) async fn stop(&mut self) {
        for (_, child) in self.running.iter().rev() {
            signal(child.id(), Signal::INT);
        }
        let deadline = Instant::now() + STOP_LIMIT;
        while let Some((name, mut child)) = self.running.pop() {
            let left = deadline.saturating_duration_since(Instant::now());
            if timeout(left, child.wait()).await.is_err() {
                eprintln!("    {name} did not stop when asked to; killing it");
                child.kill().await.ok();
            }
        }
        self.sweep();
    }

    /// Kills every process that carries this set's mark.
    fn sweep(&self) {
        for pid in marked(&self.dir) {
            signal(Some(pid), Signal::KILL);
        }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.sweep();
    }
}

fn signal(pid: Option<u32>, signal: Signal) {
    let pid = pid
        .and_then(|pid| i32::try_from(pid).ok())
        .and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended meanwhile, which is what was wanted.
        kill_process(pid, signal).ok();
    }
}

/// Processes that inherited the mark of `dir`.
fn marked(dir: &Path) -> Vec<u32> {
    let mark = format!("{MARK}={}", dir.display()).into_bytes();
    let own = std::process::id();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != own)
        .filter(|pid| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == mark)
        })
        .collect()
}
