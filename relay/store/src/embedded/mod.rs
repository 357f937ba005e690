//! The store in a directory of its own: a log of segments, each block in it with all that must be known of it, and
//! an index in memory.
//!
//! In the order in which data flows: [`directory`] locks and identifies the data directory, [`recover`] opens what is
//! in it, [`layout`] lays out records, [`write`] makes a batch of a commit, [`log`] writes it to the active
//! [`segment`], [`index`] knows what is where, [`catalog`] is a second copy of what is precious, [`read`] reads,
//! [`backlog`] and [`settle`] turn small blocks into large ones in the background, [`upkeep`] seals segments and empties
//! them. [`volume`] is index and log together; every change of a file goes through [`disk`].

mod backlog;
mod catalog;
mod directory;
mod disk;
mod index;
mod layout;
mod log;
mod options;
mod read;
mod recover;
mod segment;
mod settle;
mod space;
#[cfg(test)]
mod tests;
mod upkeep;
mod volume;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use millstream_proto::v1;
use prost::Message as _;

use self::catalog::Note;
use self::directory::DataDirectory;
use self::settle::Settler;
use self::volume::{Volume, io_error};
use crate::{LogStore, StoreError, StreamRecord, WriteOp};

pub use self::disk::{Disk, DiskChange, DiskFault};
pub use self::options::{Clock, EmbeddedOptions};
pub use self::space::FreeSpace;

/// Damaged places that are remembered and logged; more say nothing new.
const MAX_DAMAGE: usize = 1000;

/// A [`LogStore`] in one directory, which it locks.
#[derive(Debug)]
pub struct EmbeddedStore {
    store_id: String,
    min_free_bytes: u64,
    free_space: FreeSpace,
    path: PathBuf,
    settler: Settler,
    volume: Volume,
    /// Damage that readers met, by stream and the first line behind it; as stream 0, which does not exist, what
    /// was found in files when the store was opened.
    damage: Mutex<BTreeMap<(u64, u64), String>>,
    /// Last, so that the directory is free only after everything else is done.
    _directory: DataDirectory,
}

impl EmbeddedStore {
    /// Opens the store in `dir` and creates what is missing. Damage does not keep it from opening: see
    /// [`LogStore::damage`].
    ///
    /// # Errors
    /// [`StoreError::Directory`] when the directory cannot be used: it is a file, not writable, in use by
    /// another relay, or holds a store of another version. [`StoreError::Full`] and [`StoreError::Engine`] when a
    /// file in it cannot be read or written for another reason than damage.
    pub fn open(dir: &Path, options: EmbeddedOptions) -> Result<Self, StoreError> {
        let directory = DataDirectory::lock(dir)?;
        let (store_id, volume, found) = recover::open(&directory, &options)?;
        let damage = (0..)
            .map(|number| (0, number))
            .zip(found)
            .take(MAX_DAMAGE)
            .collect();
        let settler = Settler::new(options.clone());
        settler.find(&volume);
        Ok(Self {
            store_id,
            min_free_bytes: options.min_free_bytes,
            free_space: options.free_space,
            path: dir.to_owned(),
            settler,
            volume,
            damage: Mutex::new(damage),
            _directory: directory,
        })
    }

    /// Ends and seals the active segment, as happens by itself when it is full; for tests and tools.
    ///
    /// # Errors
    /// As [`LogStore::sync`].
    pub fn seal(&self) -> Result<(), StoreError> {
        self.volume
            .log()
            .end_segment()
            .map_err(|error| io_error("end a segment", &error))?;
        while upkeep::maintain(&self.volume)? {}
        Ok(())
    }

    /// Tells of each place once, however many readers meet it.
    fn note_damage(&self, stream_id: u64, next_sequence: u64, error: &StoreError) {
        let mut damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        if damage.len() < MAX_DAMAGE && !damage.contains_key(&(stream_id, next_sequence)) {
            tracing::error!("{error}");
            damage.insert((stream_id, next_sequence), error.to_string());
        }
    }

    fn free_bytes(&self) -> Result<u64, StoreError> {
        let free = self.free_space.of(&self.path);
        free.map_err(|error| StoreError::Engine {
            what: format!("free space of {}", self.path.display()),
            cause: error.to_string(),
        })
    }

    fn check_room(&self) -> Result<(), StoreError> {
        let free_bytes = self.free_bytes()?;
        if free_bytes >= self.min_free_bytes {
            return Ok(());
        }
        Err(StoreError::Full {
            place: self.path.display().to_string(),
            cause: format!(
                "{free_bytes} bytes are free, and {} are kept (min_free_bytes)",
                self.min_free_bytes
            ),
        })
    }
}

impl LogStore for EmbeddedStore {
    fn store_id(&self) -> &str {
        &self.store_id
    }

    fn load_streams(&self) -> Result<Vec<StreamRecord>, StoreError> {
        let index = self.volume.index();
        let streams = index.streams.iter();
        streams
            .map(|(stream_id, stream)| stream.record(*stream_id))
            .collect()
    }

    fn load_agents(&self) -> Result<Vec<v1::Agent>, StoreError> {
        let index = self.volume.index();
        let agents = index.agents.iter().map(|(agent_id, stored)| {
            v1::Agent::decode(stored.body.clone()).map_err(|error| StoreError::Damaged {
                place: format!("agent {agent_id}"),
                cause: error.to_string(),
            })
        });
        agents.collect()
    }

    fn commit(&self, ops: Vec<WriteOp>) -> Result<(), StoreError> {
        self.check_room()?;
        let mut log = self.volume.log();
        self.volume.mend(&mut log)?;
        let events = write::commit(&self.volume, &mut log, ops)?;
        drop(log);
        self.settler.observe(&events);
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut log = self.volume.log();
        self.volume.mend(&mut log)?;
        log.sync().map_err(|error| io_error("sync", &error))
    }

    fn read_blocks(&self, stream_id: u64, from: u64, max_bytes: usize) -> Result<Vec<v1::Block>, StoreError> {
        let page = read::read_blocks(&self.volume, stream_id, from, max_bytes);
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
        read::seek_time(&self.volume, stream_id, unix_us)
    }

    fn maintain(&self) -> Result<bool, StoreError> {
        // Half of the reserve is left to this, which frees more than it takes.
        if self.free_bytes()? < self.min_free_bytes / 2 {
            return Ok(false);
        }
        if self.settler.maintain(&self.volume)? {
            return Ok(true);
        }
        upkeep::maintain(&self.volume)
    }

    /// Tells the catalog where every stream stands and how long the log is, so that whatever is missing at the next
    /// start is known exactly.
    fn close(&self) {
        let mut log = self.volume.log();
        if log.suspect().is_some() || log.sync().is_err() {
            return;
        }
        let mut index = self.volume.index_mut();
        for (stream_id, stream) in &mut index.streams {
            if stream.bound != stream.head.next_sequence {
                stream.bound = stream.head.next_sequence;
                log.catalog.note(Note::bound(*stream_id, stream.bound));
            }
        }
        drop(index);
        log.note_known();
        log.catalog.sync();
    }

    fn disk_bytes(&self) -> u64 {
        let segments: u64 = {
            let index = self.volume.index();
            index.segments.values().map(|state| state.bytes).sum()
        };
        segments + self.volume.log().catalog.bytes()
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.close();
    }
}
