//! An agent's own runs: those that it starts, and those that an earlier agent of this data directory left.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use super::wrapped::Wrapped;
use super::{Description, RunDir, Work};

/// All runs of one agent: where they are, and which ones an earlier agent left.
#[derive(Debug, Clone)]
pub struct Runs {
    data_dir: PathBuf,
    /// The binary to start supervisors from.
    program: PathBuf,
    left: Arc<Mutex<Vec<RunDir>>>,
}

impl Runs {
    /// Looks what is there below the agent's data directory. `program` is the agent's own binary.
    ///
    /// # Errors
    /// When the directory cannot be made or read. A run whose description cannot be read is logged and left.
    pub fn open(data_dir: &Path, program: PathBuf) -> io::Result<Self> {
        let data_dir = std::path::absolute(data_dir)?;
        let directory = data_dir.join("runs");
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let mut left = Vec::new();
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            match RunDir::open(path.clone()) {
                Ok(Some(run)) => left.push(run),
                // The agent ended before the run began: there is nothing in it.
                Ok(None) => std::fs::remove_dir_all(&path)?,
                Err(error) => tracing::error!(
                    "cannot read the run in {}: {error}; its output stays there undelivered",
                    path.display()
                ),
            }
        }
        left.sort_by(|one, other| one.description.run_id.cmp(&other.description.run_id));
        Ok(Self {
            data_dir,
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
        self.data_dir.join("plugins")
    }

    /// What an earlier agent left that satisfies `wanted`, oldest first; given once.
    #[must_use]
    pub fn take_left(&self, mut wanted: impl FnMut(&Description) -> bool) -> Vec<RunDir> {
        let mut left = self.left.lock().expect("no code panics while it holds this");
        left.extract_if(.., |run| wanted(&run.description)).collect()
    }

    /// A directory for something new; nothing runs in it yet.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn create(&self, description: Description) -> io::Result<RunDir> {
        let path = self.data_dir.join("runs").join(&description.run_id);
        DirBuilder::new().mode(0o700).create(&path)?;
        let created = RunDir::create(path.clone(), description);
        if created.is_err() {
            std::fs::remove_dir_all(&path).ok();
        }
        created
    }

    /// Starts a supervisor for a new run of a command.
    ///
    /// # Errors
    /// When the directory cannot be written or the process cannot be started.
    pub fn start(&self, description: Description) -> io::Result<RunDir> {
        debug_assert!(matches!(description.work, Work::Command(_)));
        let run = self.create(description)?;
        if let Err(error) = self.start_supervisor(&run) {
            run.remove().ok();
            return Err(error);
        }
        Ok(run)
    }

    /// Starts a supervisor in a directory that has none.
    ///
    /// # Errors
    /// As [`RunDir::start_supervisor`].
    pub fn start_supervisor(&self, run: &RunDir) -> io::Result<()> {
        // Dropped, not waited for: the runtime reaps it, and it lives on without this agent.
        run.start_supervisor(&self.program, Stdio::null(), None).map(drop)
    }

    /// What wrapped commands have left in the same data directory.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn wrapped(&self) -> io::Result<Wrapped> {
        Wrapped::open(&self.data_dir)
    }
}
