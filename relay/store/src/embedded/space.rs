//! Room on the disk: no commit begins when less than a reserve is left, so that the engine can always finish
//! what it began, merge its files and stop in order. Knows nothing of what is written.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::StoreError;

/// How many bytes a file system has left for this process; tests bring their own.
#[derive(Clone)]
pub struct FreeSpace(Arc<FreeBytes>);

type FreeBytes = dyn Fn(&Path) -> io::Result<u64> + Send + Sync;

impl FreeSpace {
    pub fn new(free_bytes: impl Fn(&Path) -> io::Result<u64> + Send + Sync + 'static) -> Self {
        Self(Arc::new(free_bytes))
    }
}

impl Default for FreeSpace {
    fn default() -> Self {
        Self::new(|path| {
            let stat = rustix::fs::statvfs(path)?;
            Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
        })
    }
}

impl fmt::Debug for FreeSpace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("FreeSpace")
    }
}

/// The reserve of one directory.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    free: FreeSpace,
    min_free_bytes: u64,
}

impl Reserve {
    pub(crate) fn new(path: PathBuf, free: FreeSpace, min_free_bytes: u64) -> Self {
        Self {
            path,
            free,
            min_free_bytes,
        }
    }

    /// One system call, so cheap beside a commit.
    ///
    /// # Errors
    /// [`StoreError::Full`] when the reserve is touched. A file system that does not tell is taken to have room.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        if self.min_free_bytes == 0 {
            return Ok(());
        }
        match (self.free.0)(&self.path) {
            Ok(free_bytes) if free_bytes < self.min_free_bytes => Err(StoreError::Full {
                path: self.path.display().to_string(),
                free_bytes,
                min_free_bytes: self.min_free_bytes,
            }),
            _ => Ok(()),
        }
    }
}
