//! What can be set of an embedded store, with defaults for a small server.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Disk, FreeSpace};

/// What emptying segments and an agent's own window take.
const DEFAULT_MIN_FREE_BYTES: u64 = 128 << 20;

/// Sizes and times of an [`crate::EmbeddedStore`]. All of them count from the next start on.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// A segment is followed by the next one when it is so long. At most 1 GiB.
    pub segment_bytes: u64,
    /// Small blocks of a stream are settled as soon as they hold this much text. Raised to 1 MiB they
    /// settle into full blocks; less trades compression for fewer small blocks at the head.
    pub settle_text_bytes: u64,
    /// Small blocks of a stream that got no line for so long are settled however few they are.
    pub settle_idle: Duration,
    /// Free space of the disk, in bytes, below which nothing more is taken: settling and emptying segments, which
    /// free space, need some first. 0: take lines until the disk is full.
    pub min_free_bytes: u64,
    /// Every change of a file.
    pub disk: Disk,
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
            segment_bytes: 64 << 20,
            settle_text_bytes: 512 << 10,
            settle_idle: Duration::from_secs(30),
            min_free_bytes: DEFAULT_MIN_FREE_BYTES,
            disk: Disk::default(),
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
