//! How much room a disk has left.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// How many bytes a file system has left for this process; tests bring their own.
#[derive(Clone)]
pub struct FreeSpace(Arc<FreeBytes>);

type FreeBytes = dyn Fn(&Path) -> io::Result<u64> + Send + Sync;

impl FreeSpace {
    pub fn new(free_bytes: impl Fn(&Path) -> io::Result<u64> + Send + Sync + 'static) -> Self {
        Self(Arc::new(free_bytes))
    }

    /// One system call, so cheap beside a commit.
    pub(crate) fn of(&self, path: &Path) -> io::Result<u64> {
        (self.0)(path)
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
