//! The engine's place in the store: opened, watched for room on its disk, and opened anew after it failed.
//!
//! After one failed write the engine refuses every later one, because it cannot know what reached the disk.
//! Opening it anew finds that out: it replays the journal up to the last whole batch. Reads go on with the
//! failed engine until there is room to open a new one.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use fjall::PersistMode;

use super::EmbeddedOptions;
use super::engine::{Engine, engine_error};
use crate::StoreError;

/// Opening the engine writes a little even into a store that nothing was written to.
const MIN_OPEN_BYTES: u64 = 1 << 20;

/// Distance of looks at the engine's flushes.
const FLUSH_TICK: Duration = Duration::from_millis(2);

/// Memtables of one family that wait to be written out before commits wait. The engine waits by itself at 4,
/// without an end when its workers have failed, so it must never come to that.
const MAX_WAITING_MEMTABLES: usize = 3;

/// How the engine failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A commit may have been applied although it was answered with an error.
    Commit,
    /// Commits that were taken may not be on disk, and the system will not say so again.
    Sync,
}

/// Owns the engine.
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    options: EmbeddedOptions,
    /// `None` only when it could not be opened anew. Held for reading by everybody who works with the engine,
    /// for writing while it is replaced.
    engine: RwLock<Option<Engine>>,
}

impl Home {
    pub(crate) fn open(path: &Path, options: EmbeddedOptions) -> Result<Self, StoreError> {
        let engine = Engine::open(path, &options)?;
        Ok(Self {
            path: path.to_owned(),
            options,
            engine: RwLock::new(Some(engine)),
        })
    }

    /// Works with the engine, which is not replaced meanwhile.
    pub(crate) fn with<T>(
        &self,
        work: impl FnOnce(&Engine) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // A panic under the lock leaves the engine itself consistent; it has locks of its own.
        let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        match &*engine {
            Some(engine) => work(engine),
            None => Err(StoreError::Away),
        }
    }

    /// Free bytes of the disk for this user.
    pub(crate) fn free_bytes(&self) -> Result<u64, StoreError> {
        let free = self.options.free_space.of(&self.path);
        free.map_err(|error| StoreError::Engine {
            what: format!("free space of {}", self.path.display()),
            cause: error.to_string(),
        })
    }

    /// Refuses when the disk has less room than the floor.
    pub(crate) fn check_room(&self, floor_bytes: u64) -> Result<(), StoreError> {
        let free_bytes = self.free_bytes()?;
        if free_bytes >= floor_bytes {
            return Ok(());
        }
        Err(StoreError::Full {
            place: self.path.display().to_string(),
            cause: format!("{free_bytes} bytes are free, and {floor_bytes} are kept (min_free_bytes)"),
        })
    }

    /// Replaces an engine that failed.
    pub(crate) fn reopen(&self, failure: Failure) -> Result<(), StoreError> {
        self.check_room(self.options.min_free_bytes.max(MIN_OPEN_BYTES))?;
        let mut place = self.engine.write().unwrap_or_else(PoisonError::into_inner);
        // The old one closes its files first: two on the same files would be one too many.
        drop(place.take());
        let engine = Engine::open(&self.path, &self.options)?;
        if failure == Failure::Sync {
            // What the failed sync was about may be in memory only, marked as written. Only writing it again
            // brings it to the disk, and that is what writing memtables out does.
            engine.write_out()?;
        }
        *place = Some(engine);
        tracing::info!("the store was opened anew after its failure");
        Ok(())
    }

    /// Waits until the engine's own workers have caught up; an error when they have failed.
    pub(crate) fn wait_for_workers(&self) -> Result<(), StoreError> {
        self.with(|engine| engine.wait_for_memtables(MAX_WAITING_MEMTABLES))
    }
}

impl Engine {
    /// Brings all that only the journal has into tables, which are synced.
    pub(crate) fn write_out(&self) -> Result<(), StoreError> {
        for family in self.families() {
            family
                .rotate_memtable()
                .map_err(|error| engine_error("write memtables out", &error))?;
        }
        self.wait_for_memtables(1)
    }

    /// Waits until each family has fewer than `limit` memtables that wait to be written out.
    fn wait_for_memtables(&self, limit: usize) -> Result<(), StoreError> {
        use fjall::AbstractTree as _;
        while self
            .families()
            .iter()
            .any(|family| family.tree.sealed_memtable_count() >= limit)
        {
            // Does nothing but tell that a worker has failed, and then nobody would ever write them out.
            self.database
                .persist(PersistMode::Buffer)
                .map_err(|error| engine_error("write memtables out", &error))?;
            std::thread::park_timeout(FLUSH_TICK);
        }
        Ok(())
    }
}
