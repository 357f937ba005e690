//! The store in a directory of its own, on the engine fjall.
//!
//! In the order in which data flows: [`directory`] locks and identifies the data directory, [`journal`]
//! mends the engine's journals, [`engine`] opens the files, [`home`] opens them anew after a failure when [`space`]
//! allows, [`kv`] lays out keys and values, [`write`] commits, [`read`] reads, [`backlog`] and [`settle`] turn
//! small blocks into large ones in the background.

mod backlog;
mod directory;
mod engine;
mod home;
mod journal;
mod kv;
mod options;
mod read;
mod settle;
mod space;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fjall::PersistMode;
use millstream_proto::v1;

use self::directory::DataDirectory;
use self::engine::{Engine, engine_error};
use self::home::{Failure, Home};
use self::read::View;
use self::settle::Settler;
use crate::{LogStore, StoreError, StreamRecord, WriteOp};

pub use self::options::{Clock, EmbeddedOptions};
pub use self::space::FreeSpace;

/// Damaged places that are remembered and logged; more say nothing new.
const MAX_DAMAGE: usize = 1000;

/// A [`LogStore`] in one directory, which it locks.
#[derive(Debug)]
pub struct EmbeddedStore {
    store_id: String,
    min_free_bytes: u64,
    /// Makes what commits read and then write one step.
    writing: Mutex<Writing>,
    settler: Settler,
    home: Home,
    /// Damage that readers met, by stream and the first line behind it; as stream 0, which does not exist, what
    /// was found in files when the store was opened.
    damage: Mutex<BTreeMap<(u64, u64), String>>,
    /// Last, so that the directory is free only after the engine has closed its files.
    _directory: DataDirectory,
}

/// What the writer's side has to remember of a failure.
#[derive(Debug, Default)]
struct Writing {
    /// The engine takes no more writes and has to be opened anew.
    failure: Option<Failure>,
    /// The last commit was answered with an error and may have been applied all the same.
    is_in_doubt: bool,
}

impl EmbeddedStore {
    /// Opens the store in `dir` and creates what is missing.
    ///
    /// # Errors
    /// [`StoreError::Directory`] when the directory cannot be used: it is a file, not writable, in use by
    /// another relay, or holds a store of a newer relay. [`StoreError::Damaged`] and
    /// [`StoreError::Engine`] when the store in it cannot be opened.
    pub fn open(dir: &Path, options: EmbeddedOptions) -> Result<Self, StoreError> {
        let directory = DataDirectory::lock(dir)?;
        let store_id = directory.open_or_create(|path| Engine::open(path, &options).map(drop))?;
        let found = journal::repair(&directory.engine(), &directory.damaged())?;
        let damage = (0..).map(|number| (0, number)).zip(found).collect();
        let home = Home::open(&directory.engine(), options.clone())?;
        Ok(Self {
            store_id,
            min_free_bytes: options.min_free_bytes,
            writing: Mutex::default(),
            settler: Settler::new(options),
            home,
            damage: Mutex::new(damage),
            _directory: directory,
        })
    }

    /// Brings all that only the journal has into tables; slow, and needed by nobody but tests and tools.
    ///
    /// # Errors
    /// As [`LogStore::commit`].
    pub fn write_out(&self) -> Result<(), StoreError> {
        let _writing = self.writing();
        self.home.with(Engine::write_out)
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        // Both of its facts are set before anything that could panic.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of each place once, however many readers meet it.
    fn note_damage(&self, stream_id: u64, next_sequence: u64, error: &StoreError) {
        let mut damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        if damage.len() < MAX_DAMAGE && !damage.contains_key(&(stream_id, next_sequence)) {
            tracing::error!("{error}");
            damage.insert((stream_id, next_sequence), error.to_string());
        }
    }

    fn mend(&self, writing: &mut Writing) -> Result<(), StoreError> {
        if let Some(failure) = writing.failure {
            self.home.reopen(failure)?;
            writing.failure = None;
        }
        Ok(())
    }
}

impl LogStore for EmbeddedStore {
    fn store_id(&self) -> &str {
        &self.store_id
    }

    fn load_streams(&self) -> Result<Vec<StreamRecord>, StoreError> {
        self.home.with(|engine| View::new(engine).streams())
    }

    fn load_agents(&self) -> Result<Vec<v1::Agent>, StoreError> {
        self.home.with(|engine| View::new(engine).agents())
    }

    fn commit(&self, ops: Vec<WriteOp>) -> Result<(), StoreError> {
        let mut writing = self.writing();
        self.home.check_room(self.min_free_bytes)?;
        self.mend(&mut writing)?;
        let attempt = self.home.wait_for_workers().and_then(|()| {
            self.home
                .with(|engine| write::commit(engine, ops, writing.is_in_doubt))
        });
        match attempt {
            Ok(events) => {
                writing.is_in_doubt = false;
                drop(writing);
                self.settler.observe(&events);
                Ok(())
            }
            Err(error) => {
                if !matches!(error, StoreError::Refused { .. } | StoreError::Damaged { .. }) {
                    writing.failure.get_or_insert(Failure::Commit);
                    writing.is_in_doubt = true;
                }
                Err(error)
            }
        }
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut writing = self.writing();
        self.mend(&mut writing)?;
        // The journal is one file whose size `fdatasync` writes along when it matters; the engine syncs
        // names of files itself when it makes them.
        let synced = self.home.with(|engine| {
            engine
                .database
                .persist(PersistMode::SyncData)
                .map_err(|error| engine_error("sync", &error))
        });
        if synced.is_err() {
            writing.failure = Some(Failure::Sync);
        }
        synced
    }

    fn read_blocks(&self, stream_id: u64, from: u64, max_bytes: usize) -> Result<Vec<v1::Block>, StoreError> {
        let page = self
            .home
            .with(|engine| View::new(engine).read_blocks(stream_id, from, max_bytes));
        if let Err(error @ StoreError::DamagedLines { next_sequence, .. }) = &page {
            self.note_damage(stream_id, *next_sequence, error);
        }
        page
    }

    fn damage(&self) -> Vec<String> {
        let damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        damage.values().cloned().collect()
    }

    fn seek_time(&self, stream_id: u64, unix_us: i64) -> Result<u64, StoreError> {
        self.home
            .with(|engine| View::new(engine).seek_time(stream_id, unix_us))
    }

    fn maintain(&self) -> Result<bool, StoreError> {
        // Half of the reserve is left to the engine, whose merging frees what settling replaced.
        if self.home.free_bytes()? < self.min_free_bytes / 2 {
            return Ok(false);
        }
        self.home.with(|engine| self.settler.maintain(engine))
    }

    fn disk_bytes(&self) -> u64 {
        let bytes = self.home.with(|engine| {
            engine
                .database
                .disk_space()
                .map_err(|error| engine_error("size", &error))
        });
        bytes.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot tell how much disk the store takes");
            0
        })
    }
}
