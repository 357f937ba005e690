//! The engine (fjall) with its families opened, and its errors in our words. Knows the families' names
//! and settings, not their layouts.

use std::path::Path;

use fjall::config::BlockSizePolicy;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions};

use super::EmbeddedOptions;
use crate::StoreError;

/// Memory for the families whose values are few and small.
const SMALL_MEMTABLE_BYTES: u64 = 4 << 20;

/// Bodies from this size on are kept out of the sorted files, so that merging those does not rewrite
/// them. Smaller ones are likely to be settled, and so removed, soon.
const SEPARATE_BODY_BYTES: u32 = 32 << 10;

/// The database and a handle for each key family of [`super::kv`].
pub(crate) struct Engine {
    pub(crate) streams: Keyspace,
    pub(crate) heads: Keyspace,
    pub(crate) block_index: Keyspace,
    pub(crate) block_bodies: Keyspace,
    pub(crate) frontiers: Keyspace,
    pub(crate) agents: Keyspace,
    pub(crate) database: Database,
}

impl Engine {
    /// Opens the engine's files, creating what is missing.
    pub(crate) fn open(path: &Path, options: &EmbeddedOptions) -> Result<Self, StoreError> {
        const MIN_JOURNAL_BYTES: u64 = 64 << 20;
        let failed = |error| engine_error(&format!("open {}", path.display()), &error);
        let database = Database::builder(path)
            .cache_size(options.cache_bytes)
            .max_journaling_size(options.journal_bytes.max(MIN_JOURNAL_BYTES))
            .worker_threads(options.worker_threads.max(1))
            .open()
            .map_err(failed)?;
        let small = || KeyspaceCreateOptions::default().max_memtable_size(SMALL_MEMTABLE_BYTES);
        // The index is read in runs, mostly near its end.
        let index = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(options.memtable_bytes)
                .data_block_size_policy(BlockSizePolicy::all(8 << 10))
        };
        // Only read by keys that the index has, so a filter would never say no.
        let bodies = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(options.memtable_bytes)
                .expect_point_read_hits(true)
                .with_kv_separation(Some(
                    KvSeparationOptions::default().separation_threshold(SEPARATE_BODY_BYTES),
                ))
        };
        Ok(Self {
            streams: database.keyspace("streams", small).map_err(failed)?,
            heads: database.keyspace("heads", small).map_err(failed)?,
            block_index: database.keyspace("block_index", index).map_err(failed)?,
            block_bodies: database.keyspace("block_bodies", bodies).map_err(failed)?,
            frontiers: database.keyspace("frontiers", small).map_err(failed)?,
            agents: database.keyspace("agents", small).map_err(failed)?,
            database,
        })
    }
}

impl Engine {
    pub(crate) fn families(&self) -> [&Keyspace; 6] {
        [
            &self.streams,
            &self.heads,
            &self.block_index,
            &self.block_bodies,
            &self.frontiers,
            &self.agents,
        ]
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Engine")
    }
}

/// An error of the engine while it did `what`. What its own checksums found is damage.
pub(crate) fn engine_error(what: &str, error: &fjall::Error) -> StoreError {
    match error {
        fjall::Error::Storage(
            fjall::LsmError::ChecksumMismatch { .. }
            | fjall::LsmError::InvalidTag(_)
            | fjall::LsmError::InvalidTrailer
            | fjall::LsmError::InvalidHeader(_)
            | fjall::LsmError::Decompress(_)
            | fjall::LsmError::Utf8(_)
            | fjall::LsmError::InvalidVersion(_)
            | fjall::LsmError::Unrecoverable,
        )
        | fjall::Error::InvalidVersion(_)
        | fjall::Error::JournalRecovery(_)
        | fjall::Error::InvalidTag(_)
        | fjall::Error::InvalidTrailer
        | fjall::Error::Unrecoverable => StoreError::Damaged {
            place: what.to_owned(),
            cause: error.to_string(),
        },
        fjall::Error::Poisoned => StoreError::Engine {
            what: what.to_owned(),
            cause: "an earlier write failed; the store is opened anew before the next one".to_owned(),
        },
        fjall::Error::Io(cause) | fjall::Error::Storage(fjall::LsmError::Io(cause)) if is_full(cause) => {
            StoreError::Full {
                place: what.to_owned(),
                cause: cause.to_string(),
            }
        }
        // A file that ends too early, or is gone.
        fjall::Error::Io(cause) | fjall::Error::Storage(fjall::LsmError::Io(cause))
            if matches!(
                cause.kind(),
                std::io::ErrorKind::UnexpectedEof
                    | std::io::ErrorKind::NotFound
                    | std::io::ErrorKind::InvalidData
            ) =>
        {
            StoreError::Damaged {
                place: what.to_owned(),
                cause: cause.to_string(),
            }
        }
        _ => StoreError::Engine {
            what: what.to_owned(),
            cause: error.to_string(),
        },
    }
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}
