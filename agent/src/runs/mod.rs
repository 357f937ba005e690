//! Runs that survive the agent. Each run has a directory `DATA_DIR/runs/RUN_ID` and a process of its own
//! ([`supervise`]) that holds the command, writes its output to the [spool](crate::spool) there, and its exit
//! status at the end. The agent [follows](follow) the directory, now or after its next start.
//!
//! In the directory: `run.json` (what runs), `lock` (held by the run's supervisor as long as it lives; holds
//! its process id), `child.json` (which process the command is), segments of the spool, `end.json` (appears
//! whole, when everything else is written). Names come from our own run ids, never from text of others.

mod descendants;
pub mod follow;
pub mod supervise;

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use millstream_proto::v1;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::config::TOKEN_VARIABLE;
use crate::sources::process::CommandSpec;

const DESCRIPTION: &str = "run.json";
const LOCK: &str = "lock";
const CHILD: &str = "child.json";
const END: &str = "end.json";
const LOG: &str = "supervisor.log";

/// What a run is: all that its supervisor and a later agent have to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Description {
    pub run_id: String,
    pub source: String,
    pub labels: std::collections::BTreeMap<String, String>,
    pub command: CommandSpec,
    /// Working directory as the stream shows it.
    pub cwd: String,
    pub started_by: String,
    pub start_unix_us: i64,
    /// Bound of the spool, bytes.
    pub spool_max_bytes: u64,
}

impl Description {
    /// Facts for the stream.
    #[must_use]
    pub fn to_run(&self) -> v1::Run {
        v1::Run {
            run_id: self.run_id.clone(),
            argv: self.command.argv.clone(),
            cwd: self.cwd.clone(),
            env: std::collections::BTreeMap::new(),
            started_by: self.started_by.clone(),
            start_unix_us: self.start_unix_us,
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct End {
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    /// Why it did not start.
    pub start_failed: Option<String>,
    pub end_unix_us: i64,
}

impl End {
    fn is_success(&self) -> bool {
        self.exit_code == Some(0)
    }

    fn to_stream_end(&self) -> v1::StreamEnd {
        let reason = if self.start_failed.is_some() {
            v1::EndReason::StartFailed
        } else {
            v1::EndReason::Exited
        };
        v1::StreamEnd {
            reason: reason.into(),
            end_unix_us: self.end_unix_us,
            exit_code: self.exit_code,
            signal: self.signal,
            message: self.start_failed.clone().unwrap_or_default(),
            ..v1::StreamEnd::default()
        }
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

/// All runs of one agent: where they are, and which ones an earlier agent left.
#[derive(Debug, Clone)]
pub struct Runs {
    directory: PathBuf,
    /// The binary to start supervisors from.
    program: PathBuf,
    left: Arc<Mutex<HashMap<String, Vec<RunDir>>>>,
}

impl Runs {
    /// Looks what is there below the agent's data directory. `program` is the agent's own binary; `/proc/self/exe`
    /// stays right when the file is replaced by an upgrade.
    ///
    /// # Errors
    /// When the directory cannot be made or read. A run whose description cannot be read is logged and left.
    pub fn open(data_dir: &Path, program: PathBuf) -> io::Result<Self> {
        let directory = std::path::absolute(data_dir)?.join("runs");
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let mut left: HashMap<String, Vec<RunDir>> = HashMap::new();
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            match RunDir::open(path.clone()) {
                Ok(Some(run)) => left.entry(run.description.source.clone()).or_default().push(run),
                // The agent ended before the run began: there is nothing in it.
                Ok(None) => std::fs::remove_dir_all(&path)?,
                Err(error) => tracing::error!(
                    "cannot read the run in {}: {error}; its output stays there undelivered",
                    path.display()
                ),
            }
        }
        for runs in left.values_mut() {
            runs.sort_by(|one, other| one.description.run_id.cmp(&other.description.run_id));
        }
        Ok(Self {
            directory,
            program,
            left: Arc::new(Mutex::new(left)),
        })
    }

    /// The agent's own binary, for processes that it starts from itself.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Where the names of plugins' streams are kept, beside the runs.
    #[must_use]
    pub fn plugins_directory(&self) -> PathBuf {
        self.directory.with_file_name("plugins")
    }

    /// The runs that an earlier agent left of this source, oldest first; given once.
    #[must_use]
    pub fn take_left(&self, source: &str) -> Vec<RunDir> {
        let mut left = self.left.lock().expect("no code panics while it holds this");
        left.remove(source).unwrap_or_default()
    }

    /// Names of all sources that an earlier agent left runs of.
    #[must_use]
    pub fn left_sources(&self) -> Vec<String> {
        let left = self.left.lock().expect("no code panics while it holds this");
        left.keys().cloned().collect()
    }

    /// Starts a supervisor for a new run.
    ///
    /// # Errors
    /// When the directory cannot be written or the process cannot be started.
    pub fn start(&self, description: Description) -> io::Result<RunDir> {
        let path = self.directory.join(&description.run_id);
        DirBuilder::new().mode(0o700).create(&path)?;
        let started = self.start_in(&path, description);
        if started.is_err() {
            std::fs::remove_dir_all(&path).ok();
        }
        started
    }

    fn start_in(&self, path: &Path, description: Description) -> io::Result<RunDir> {
        write_whole(path, DESCRIPTION, &description)?;
        // The lock travels with the open file as standard input, so that there is no moment in which a
        // starting supervisor does not hold it.
        let lock = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(path.join(LOCK))?;
        lock.try_lock().map_err(io::Error::from)?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path.join(LOG))?;
        // Dropped, not waited for: the runtime reaps it, and it lives on without this agent.
        tokio::process::Command::new(&self.program)
            .arg("supervise-run")
            .arg(path)
            .env_remove(TOKEN_VARIABLE)
            .stdin(Stdio::from(lock))
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn()?;
        Ok(RunDir {
            path: path.to_path_buf(),
            description,
        })
    }
}

/// One run's directory.
#[derive(Debug)]
pub struct RunDir {
    pub path: PathBuf,
    pub description: Description,
}

impl RunDir {
    /// `None` when no description was ever written there.
    fn open(path: PathBuf) -> io::Result<Option<Self>> {
        let description = read_whole(&path, DESCRIPTION)?;
        Ok(description.map(|description| Self { path, description }))
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
        let lock = match File::open(self.path.join(LOCK)) {
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
        let text = std::fs::read_to_string(self.path.join(LOCK)).ok()?;
        Pid::from_raw(text.strip_suffix('\n')?.parse().ok()?)
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

    fn remove(&self) -> io::Result<()> {
        std::fs::remove_dir_all(&self.path)
    }
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

/// Writes beside and renames: it appears whole or not at all.
fn write_whole(directory: &Path, name: &str, value: &impl Serialize) -> io::Result<()> {
    let beside = directory.join(format!("{name}.new"));
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(&serde_json::to_vec_pretty(value)?)?;
    std::fs::rename(beside, directory.join(name))
}

fn read_whole<T: serde::de::DeserializeOwned>(directory: &Path, name: &str) -> io::Result<Option<T>> {
    match std::fs::read(directory.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        bytes => Ok(Some(serde_json::from_slice(&bytes?)?)),
    }
}
