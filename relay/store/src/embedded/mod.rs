//! The store in a directory of its own, on the engine fjall.
//!
//! In the order in which data flows: [`directory`] locks and identifies the data directory, [`engine`]
//! opens the files, [`slot`] holds it and opens it again after a failed write, [`kv`] lays out keys and values, [`write`] commits
//! while [`space`] allows, [`read`] reads, [`backlog`] and [`settle`] turn small blocks into large ones in the background.

mod backlog;
mod directory;
mod engine;
mod kv;
mod options;
mod read;
mod settle;
mod slot;
mod space;
#[cfg(test)]
mod tests;
mod write;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use fjall::PersistMode;
use millstream_proto::v1;

use self::directory::DataDirectory;
use self::engine::{Engine, engine_error, write_error};
use self::read::View;
use self::settle::Settler;
use self::slot::EngineSlot;
use self::space::Reserve;
use crate::{LogStore, StoreError, StreamRecord, WriteOp};

pub use self::options::{Clock, EmbeddedOptions};
pub use self::space::FreeSpace;

/// A [`LogStore`] in one directory, which it locks.
#[derive(Debug)]
pub struct EmbeddedStore {
    store_id: String,
    /// Makes what commits read and then write one step.
    writing: Mutex<()>,
    settler: Settler,
    reserve: Reserve,
    engine: EngineSlot,
    /// Last, so that the directory is free only after the engine has closed its files.
    _directory: DataDirectory,
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
        let engine = EngineSlot::open(directory.engine(), options.clone())?;
        let reserve = Reserve::new(
            directory.engine(),
            options.free_space.clone(),
            options.min_free_bytes,
        );
        Ok(Self {
            store_id,
            writing: Mutex::new(()),
            settler: Settler::new(options),
            reserve,
            engine,
            _directory: directory,
        })
    }
}

impl LogStore for EmbeddedStore {
    fn store_id(&self) -> &str {
        &self.store_id
    }

    fn load_streams(&self) -> Result<Vec<StreamRecord>, StoreError> {
        self.engine.with(|engine| View::new(engine).streams())
    }

    fn load_agents(&self) -> Result<Vec<v1::Agent>, StoreError> {
        self.engine.with(|engine| View::new(engine).agents())
    }

    fn commit(&self, ops: Vec<WriteOp>) -> Result<(), StoreError> {
        self.reserve.check()?;
        let events = {
            // It guards no data of its own that a panic could have left half changed.
            let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            self.engine
                .write(|engine, may_be_there| write::commit(engine, ops, may_be_there))?
        };
        self.settler.observe(&events);
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        // The journal is one file whose size `fdatasync` writes along when it matters; the engine syncs
        // names of files itself when it makes them.
        self.engine.write(|engine, _| {
            engine
                .database
                .persist(PersistMode::SyncData)
                .map_err(|error| write_error("sync", &error))
        })
    }

    fn read_blocks(&self, stream_id: u64, from: u64, max_bytes: usize) -> Result<Vec<v1::Block>, StoreError> {
        self.engine
            .with(|engine| View::new(engine).read_blocks(stream_id, from, max_bytes))
    }

    fn seek_time(&self, stream_id: u64, unix_us: i64) -> Result<u64, StoreError> {
        self.engine
            .with(|engine| View::new(engine).seek_time(stream_id, unix_us))
    }

    fn maintain(&self) -> Result<bool, StoreError> {
        self.engine.with(|engine| self.settler.maintain(engine))
    }

    fn disk_bytes(&self) -> u64 {
        let disk_space = |engine: &Engine| {
            let failed = |error| engine_error("disk space", &error);
            engine.database.disk_space().map_err(failed)
        };
        self.engine.with(disk_space).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot tell how much disk the store takes");
            0
        })
    }
}
