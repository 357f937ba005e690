//! What can be set of an embedded store, with defaults for a small server.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::FreeSpace;

/// Memtables that wait to be written out, and what merging takes.
const DEFAULT_MIN_FREE_BYTES: u64 = 128 << 20;

/// Sizes and times of an [`crate::EmbeddedStore`].
///
/// The engine notes a family's own settings (`memtable_bytes`) when the store is created; a later change
/// of that one has no effect on an existing store. All others count at every start.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// Cache of what was read from disk, shared by all families.
    pub cache_bytes: u64,
    /// Memory in which writes of one family are sorted before they go to disk. At most five of these
    /// exist for each of the two families that hold blocks.
    pub memtable_bytes: u64,
    /// Journals on disk before the oldest is freed by writing memtables out; bounds the time that a start
    /// after a crash takes. At least 64 MiB.
    pub journal_bytes: u64,
    /// Threads of the engine that write memtables out and merge files.
    pub worker_threads: usize,
    /// Small blocks of a stream are settled as soon as they hold this much text. Raised to 1 MiB they
    /// settle into full blocks; less trades compression for fewer small blocks at the head.
    pub settle_text_bytes: u64,
    /// Small blocks of a stream that got no line for so long are settled however few they are.
    pub settle_idle: Duration,
    /// Free space of the disk, in bytes, below which nothing more is taken: the engine needs room to write out
    /// what it has taken already and to merge files, which is what frees space. 0: take lines until the disk
    /// is full.
    pub min_free_bytes: u64,
    /// Tells how much room there is.
    pub free_space: FreeSpace,
    /// Of zstd, for settled blocks.
    pub compression_level: i32,
    /// Tells how long a stream has been idle.
    pub clock: Clock,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            memtable_bytes: 16 << 20,
            journal_bytes: 128 << 20,
            worker_threads: 2,
            settle_text_bytes: 512 << 10,
            settle_idle: Duration::from_secs(30),
            min_free_bytes: DEFAULT_MIN_FREE_BYTES,
            free_space: FreeSpace::default(),
            compression_level: 3,
            clock: Clock::default(),
        }
    }
}

/// Time since some fixed moment; never goes back. Tests bring their own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Clock {
    pub fn new(now: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    pub(crate) fn now(&self) -> Duration {
        (self.0)()
    }
}

impl Default for Clock {
    fn default() -> Self {
        let start = Instant::now();
        Self::new(move || start.elapsed())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Clock")
    }
}
