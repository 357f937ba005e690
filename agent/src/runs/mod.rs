//! Processes that survive the agent. Each has a directory and a process of its own, its supervisor
//! ([`supervise`]), that holds the command (or standard input), writes what it gives to the
//! [spool](crate::spool) there, and how it ended. Whoever delivers it [follows](follow) the directory, now or
//! after its next start.
//!
//! An agent's own are in `DATA_DIR/runs/ID` ([`own`]); those of `exec` and `pipe`, which are agents of their own,
//! in `DATA_DIR/wrapped/ID` ([`wrapped`]), where the next agent or wrapper finds what one of them left.
//!
//! In the directory: `run.json` (what runs), `supervisor.log` (locked by the supervisor as long as it lives),
//! `supervisor.pid`, `child.json` (which process the command is), segments of the spool, `end.json` (appears
//! whole, when everything else is written). Names come from our own ids, never from text of others.

pub mod ci;
mod descendants;
pub mod follow;
mod notes;
pub mod own;
pub mod show;
pub mod supervise;
mod watch;
pub mod wrapped;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use millstream_proto::v1;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

pub use notes::Note;
pub use own::Runs;

use crate::config::TOKEN_VARIABLE;
use crate::outbox::now_unix_us;
use crate::replace::replace;
use crate::sources::process::CommandSpec;
use crate::spool::Bound;

const DESCRIPTION: &str = "run.json";
const CHILD: &str = "child.json";
const END: &str = "end.json";
const LOG: &str = "supervisor.log";
const PID: &str = "supervisor.pid";

/// What is held: all that its supervisor and a later agent have to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Description {
    pub run_id: String,
    pub source: String,
    pub labels: BTreeMap<String, String>,
    pub work: Work,
    /// Working directory as the stream shows it.
    pub cwd: String,
    pub started_by: String,
    /// What made it start; may be empty.
    #[serde(default)]
    pub reason: String,
    /// Chosen environment variables, for the stream.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    #[serde(default)]
    pub limits: RunLimits,
    pub start_unix_us: i64,
    pub spool: Bound,
    /// Who sends it, when that is not the agent of this data directory.
    pub sender: Option<Sender>,
}

/// What a supervisor watches a command for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RunLimits {
    /// Stopped after this long.
    pub time: Option<Duration>,
    /// Said in the stream when nothing was written for this long, and again each time that has doubled.
    pub quiet: Option<Duration>,
}

/// What a supervisor does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Work {
    /// One execution of a command: a run.
    Command(CommandSpec),
    /// Reads its standard input to the end.
    Input,
    /// A command that is executed again whenever it ends, until the supervisor is told to stop.
    Kept(Kept),
}

/// A command that cannot resume, kept running as one stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kept {
    /// Path that the stream is of.
    pub path: String,
    /// What the very first execution is; `None` when there was one before.
    pub first: Option<CommandSpec>,
    /// Every other execution.
    pub again: CommandSpec,
    /// Stands in the stream before the output of every other execution.
    pub notice: String,
}

/// An agent as the relay knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sender {
    pub agent_id: String,
    pub host: String,
    pub labels: BTreeMap<String, String>,
}

impl Description {
    /// Of something that starts now, in the directory where this process is.
    #[must_use]
    pub fn new(source: &str, labels: BTreeMap<String, String>, work: Work, spool: Bound) -> Self {
        let cwd = match &work {
            Work::Command(command) => command.cwd.clone(),
            Work::Input | Work::Kept(_) => None,
        };
        let cwd = cwd.or_else(|| std::env::current_dir().ok()).unwrap_or_default();
        Self {
            run_id: crate::identity::sortable_id(),
            source: source.to_owned(),
            labels,
            work,
            cwd: cwd.to_string_lossy().into_owned(),
            started_by: "agent".to_owned(),
            reason: String::new(),
            env: BTreeMap::new(),
            limits: RunLimits::default(),
            start_unix_us: now_unix_us(),
            spool,
            sender: None,
        }
    }

    /// Which of the source's streams it is.
    #[must_use]
    pub fn instance(&self) -> &str {
        match &self.work {
            Work::Kept(kept) => &kept.path,
            Work::Command(_) | Work::Input => &self.run_id,
        }
    }

    /// Facts for the stream of a run.
    #[must_use]
    pub fn to_run(&self) -> Option<v1::Run> {
        let Work::Command(command) = &self.work else {
            return None;
        };
        Some(v1::Run {
            run_id: self.run_id.clone(),
            argv: command.argv.clone(),
            cwd: self.cwd.clone(),
            env: self.env.clone(),
            started_by: self.started_by.clone(),
            start_unix_us: self.start_unix_us,
            reason: self.reason.clone(),
            time_limit_ms: self
                .limits
                .time
                .map_or(0, |limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        })
    }
}

/// How it ended, when, and what it cost.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct End {
    pub how: How,
    pub end_unix_us: i64,
    /// Why it was stopped; empty when it was not.
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub cost: Cost,
}

/// What a process tree took; 0 where it is not known.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Cost {
    pub peak_memory_bytes: u64,
    pub cpu_time_us: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum How {
    Exited {
        code: Option<i32>,
        signal: Option<i32>,
    },
    StartFailed {
        message: String,
        not_found: bool,
    },
    EndOfInput,
    InputFailed {
        message: String,
    },
    /// Its supervisor was told to stop.
    Stopped,
}

impl End {
    fn now(how: How) -> Self {
        Self {
            how,
            end_unix_us: now_unix_us(),
            message: String::new(),
            cost: Cost::default(),
        }
    }

    fn to_stream_end(&self) -> v1::StreamEnd {
        let mut end = v1::StreamEnd {
            end_unix_us: self.end_unix_us,
            message: self.message.clone(),
            peak_memory_bytes: self.cost.peak_memory_bytes,
            cpu_time_us: self.cost.cpu_time_us,
            ..v1::StreamEnd::default()
        };
        let reason = match &self.how {
            How::Exited { code, signal } => {
                (end.exit_code, end.signal) = (*code, *signal);
                v1::EndReason::Exited
            }
            How::StartFailed { message, .. } => {
                end.message.clone_from(message);
                v1::EndReason::StartFailed
            }
            How::EndOfInput => v1::EndReason::EndOfInput,
            How::InputFailed { message } => {
                end.message.clone_from(message);
                v1::EndReason::Lost
            }
            How::Stopped => {
                "it was told to stop before its input ended".clone_into(&mut end.message);
                v1::EndReason::Lost
            }
        };
        end.set_reason(reason);
        end
    }
}

/// Which process the command is; together these are never reused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ChildProcess {
    pid: i32,
    boot_id: String,
    /// Clock ticks since that boot.
    start_ticks: u64,
}

impl ChildProcess {
    fn of(pid: Pid) -> io::Result<Self> {
        let facts = descendants::Facts::of(pid)?;
        Ok(Self {
            pid: pid.as_raw_nonzero().get(),
            boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?
                .trim()
                .to_owned(),
            start_ticks: facts.start_ticks,
        })
    }
}

/// The directory of one of them.
#[derive(Debug)]
pub struct RunDir {
    pub path: PathBuf,
    pub description: Description,
}

impl RunDir {
    /// Makes a directory that stays empty but for the description.
    fn create(path: PathBuf, description: Description) -> io::Result<Self> {
        write_whole(&path, DESCRIPTION, &description)?;
        Ok(Self { path, description })
    }

    /// `None` when no description was ever written there.
    fn open(path: PathBuf) -> io::Result<Option<Self>> {
        let description = read_whole(&path, DESCRIPTION)?;
        Ok(description.map(|description| Self { path, description }))
    }

    /// Starts a supervisor where there is none, in a spool that may have had one before.
    ///
    /// `program` is the agent's own binary; `/proc/self/exe` stays right when the file is replaced by an upgrade.
    /// `input` is what the command gets, or what is read; `control` is the other end of a [`supervise::Control`].
    ///
    /// # Errors
    /// When the directory cannot be written, the process cannot be started, or there is one.
    pub fn start_supervisor(
        &self,
        program: &Path,
        input: Stdio,
        control: Option<OwnedFd>,
    ) -> io::Result<tokio::process::Child> {
        // The lock travels with the open file as standard error, so that there is no moment in which a
        // starting supervisor does not hold it.
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(self.path.join(LOG))?;
        log.try_lock().map_err(io::Error::from)?;
        for of_the_one_before in [END, PID] {
            remove_if_there(&self.path.join(of_the_one_before))?;
        }
        let mut command = tokio::process::Command::new(program);
        command
            .arg("supervise-run")
            .arg(&self.path)
            .env_remove(TOKEN_VARIABLE);
        if control.is_some() {
            command.arg("--controlled");
        }
        command
            .stdin(input)
            .stdout(control.map_or_else(Stdio::null, Stdio::from))
            .stderr(Stdio::from(log))
            .spawn()
    }

    /// How it ended; `None` while it has not.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn end(&self) -> io::Result<Option<End>> {
        read_whole(&self.path, END)
    }

    /// Its supervisor lives.
    ///
    /// # Errors
    /// When the lock cannot be tried.
    pub fn is_supervised(&self) -> io::Result<bool> {
        let lock = match File::open(self.path.join(LOG)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            lock => lock?,
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Process id of its supervisor, once that has written it.
    fn supervisor(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.path.join(PID)).ok()?;
        Pid::from_raw(text.strip_suffix('\n')?.parse().ok()?)
    }

    /// Has its supervisor write something into the stream, where it stands now. Nothing happens when it is over.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn note(&self, note: &Note) -> io::Result<()> {
        notes::write(&self.path, note)?;
        if let Some(pid) = self
            .supervisor()
            .filter(|_| self.is_supervised().unwrap_or(false))
        {
            // Gone between the two looks: then it is over.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::USR1);
        }
        Ok(())
    }

    /// Kills what a supervisor that was killed left of the command's group. Only when the group's leader is
    /// provably the process that it started: a number alone may belong to somebody else by now.
    fn kill_leftovers(&self) -> io::Result<bool> {
        let Some(child) = read_whole::<ChildProcess>(&self.path, CHILD)? else {
            return Ok(false);
        };
        let now = Pid::from_raw(child.pid).and_then(|pid| ChildProcess::of(pid).ok());
        if now.as_ref() != Some(&child) {
            return Ok(false);
        }
        crate::sources::process::signal_group(Pid::from_raw(child.pid), rustix::process::Signal::KILL);
        Ok(true)
    }

    /// Deletes it with everything in it.
    ///
    /// # Errors
    /// As the system gives them; it is no error when it is gone.
    pub fn remove(&self) -> io::Result<()> {
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// It appears whole or not at all.
fn write_whole(directory: &Path, name: &str, value: &impl Serialize) -> io::Result<()> {
    replace(&directory.join(name), &serde_json::to_vec_pretty(value)?)
}

fn read_whole<T: serde::de::DeserializeOwned>(directory: &Path, name: &str) -> io::Result<Option<T>> {
    match std::fs::read(directory.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        bytes => Ok(Some(serde_json::from_slice(&bytes?)?)),
    }
}
