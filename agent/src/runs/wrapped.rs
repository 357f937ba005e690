//! What `exec` and `pipe` hold: directories that several processes share. Who delivers one claims it with a lock,
//! so that the next agent or wrapper finds what nobody delivers any more, and only that.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{DESCRIPTION, Description, RunDir};

const CLAIM: &str = "claim";

/// A directory without a description is one that is being made, or was when its maker was killed: this long
/// ago it is the latter.
const ABANDONED: Duration = Duration::from_secs(60);

/// Runs that may wait here for a relay. More are not kept beyond the end of their wrapper.
pub const MAX_LEFT: usize = 1000;

/// The wrapped runs of a data directory.
#[derive(Debug, Clone)]
pub struct Wrapped {
    directory: PathBuf,
}

/// A run that this process delivers, and nobody else meanwhile.
#[derive(Debug)]
pub struct Claimed {
    pub run: RunDir,
    _claim: File,
}

impl Wrapped {
    /// Below a data directory.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let directory = std::path::absolute(data_dir)?.join("wrapped");
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        Ok(Self { directory })
    }

    /// A directory for a new run, claimed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(&self, description: Description) -> io::Result<Claimed> {
        let path = self.directory.join(&description.run_id);
        DirBuilder::new().mode(0o700).create(&path)?;
        // Before the description, which makes it a run for others.
        let claim =
            claim(&path)?.ok_or_else(|| io::Error::other("somebody claimed a run before it was made"))?;
        let run = RunDir::create(path, description)?;
        Ok(Claimed { run, _claim: claim })
    }

    /// Runs that nobody delivers, oldest first, now claimed. One that cannot be read is logged and left.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn claim_left(&self, most: usize) -> io::Result<Vec<Claimed>> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            paths.push(entry?.path());
        }
        // Names are ids that sort by time.
        paths.sort_unstable();
        let mut found = Vec::new();
        for path in paths {
            if found.len() == most {
                break;
            }
            match claim_run(&path) {
                Ok(claimed) => found.extend(claimed),
                Err(error) => tracing::error!(
                    "cannot read the run in {}: {error}; its output stays there undelivered",
                    path.display()
                ),
            }
        }
        Ok(found)
    }

    /// How many there are, also those that somebody delivers.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn count(&self) -> io::Result<usize> {
        Ok(std::fs::read_dir(&self.directory)?.count())
    }
}

fn claim_run(path: &Path) -> io::Result<Option<Claimed>> {
    if !path.join(DESCRIPTION).exists() {
        let made = path.metadata().and_then(|facts| facts.modified());
        let age = made.map(|made| SystemTime::now().duration_since(made).unwrap_or_default());
        if age.is_ok_and(|age| age > ABANDONED) {
            std::fs::remove_dir_all(path)?;
        }
        return Ok(None);
    }
    let claim = match claim(path) {
        // Delivered and deleted between the two looks.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        claim => claim?,
    };
    let Some(claim) = claim else {
        return Ok(None);
    };
    let run = RunDir::open(path.to_path_buf())?;
    Ok(run.map(|run| Claimed { run, _claim: claim }))
}

/// `None`: somebody else has it.
fn claim(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path.join(CLAIM))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
