//! One child process whose output goes to files, so that nothing blocks it, nothing is lost when it is killed,
//! and a failing test can show the end of it.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::{PATIENCE, eventually_within};

/// How much of a process's output a failing test prints, in bytes.
const SHOWN_BYTES: usize = 6 * 1024;

/// A running (or finished) child. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// A finished process.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Finished {
    /// Exit status; a signal counts as 128 + its number, as in a shell.
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl Process {
    /// Starts `command` with its output in `log_dir`, in files that begin with `name`.
    pub fn start(name: &str, log_dir: &Path, command: &mut Command) -> Self {
        std::fs::create_dir_all(log_dir).expect("the test's temporary directory is writable");
        // A restarted process writes into files of its own, so that nobody reads its forerunner's lines.
        let free = (0..)
            .find(|n| !log_dir.join(format!("{name}.{n}.err")).exists())
            .expect("there is a free number");
        let stdout = log_dir.join(format!("{name}.{free}.out"));
        let stderr = log_dir.join(format!("{name}.{free}.err"));
        let child = command
            .stdout(File::create(&stdout).expect("the test's temporary directory is writable"))
            .stderr(File::create(&stderr).expect("the test's temporary directory is writable"))
            .env_remove("MILLSTREAM_RELAY")
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start ({:?}): {error}", command.get_program()));
        Self {
            name: name.to_owned(),
            child,
            stdout,
            stderr,
        }
    }

    /// Runs `command` to its end, without standard input, within [`PATIENCE`].
    pub async fn run(name: &str, log_dir: &Path, command: &mut Command) -> Finished {
        Self::start(name, log_dir, command.stdin(Stdio::null()))
            .finish()
            .await
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything on standard output so far.
    pub fn stdout(&self) -> Vec<u8> {
        std::fs::read(&self.stdout).expect("the process's output file is there")
    }

    /// Bytes on standard output so far.
    pub fn stdout_len(&self) -> u64 {
        std::fs::metadata(&self.stdout).map_or(0, |metadata| metadata.len())
    }

    /// Everything on standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stderr).expect("the process's output file is there"))
            .into_owned()
    }

    /// The child's standard input, when it was piped.
    pub fn take_stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// Exit status, when it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits until a line of standard output begins with `prefix`, and returns the rest of that line.
    pub async fn stdout_line(&mut self, prefix: &str) -> String {
        let what = format!("a line {prefix:?} on the standard output of {}", self.name);
        eventually_within(PATIENCE, &what, async || {
            let ended = self.ended();
            let text = String::from_utf8_lossy(&self.stdout()).into_owned();
            let complete = text.rfind('\n').map_or("", |end| &text[..end]);
            let found = complete
                .lines()
                .find_map(|line| line.strip_prefix(prefix))
                .map(str::to_owned);
            assert!(
                found.is_some() || ended.is_none(),
                "{} ended ({ended:?}) before: {what}",
                self.name
            );
            found
        })
        .await
    }

    /// Waits until standard error contains `text`.
    pub async fn stderr_says(&mut self, text: &str) {
        let what = format!("{text:?} on the standard error of {}", self.name);
        eventually_within(PATIENCE, &what, async || {
            let ended = self.ended();
            let found = self.stderr().contains(text);
            assert!(
                found || ended.is_none(),
                "{} ended ({ended:?}) before: {what}",
                self.name
            );
            found.then_some(())
        })
        .await;
    }

    /// Sends a signal; one to a process that has ended is lost.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
            kill_process(pid.expect("a child's id is a process id"), signal)
                .expect("a child can be signalled");
        }
    }

    /// `kill -9`, and waits for it.
    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Waits for its own end within [`PATIENCE`].
    pub async fn finish(self) -> Finished {
        self.finish_within(PATIENCE).await
    }

    /// Waits for its own end within `limit`.
    pub async fn finish_within(mut self, limit: Duration) -> Finished {
        let what = format!("the end of {}", self.name);
        let status = eventually_within(limit, &what, async || self.ended()).await;
        Finished {
            status,
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }

    fn show(&self, kind: &str, path: &Path) {
        let bytes = std::fs::read(path).unwrap_or_default();
        if !bytes.is_empty() {
            let tail = &bytes[bytes.len().saturating_sub(SHOWN_BYTES)..];
            eprintln!(
                "--- {} {kind}, last {} of {} bytes",
                self.name,
                tail.len(),
                bytes.len()
            );
            eprintln!("{}", String::from_utf8_lossy(tail));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            self.show("standard error", &self.stderr);
            self.show("standard output", &self.stdout);
        }
    }
}
