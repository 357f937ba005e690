//! Index and log of one store, and what both are needed for: reading a record, moving records to the log's end, and
//! setting damaged files aside.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use super::disk::Disk;
use super::index::{Entry, Index, Stored};
use super::layout::block::{self, BlockFacts, FLAG_LOST};
use super::layout::frame::{Kind, body_check};
use super::layout::stream::{self, Head};
use super::log::{Draft, Log};
use super::segment::{self, Segment};
use crate::StoreError;

/// Records that are moved in one batch, which holds up commits for some milliseconds.
const MOVE_BYTES: u64 = 1 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct Volume {
    /// Held for moments, never during I/O.
    pub(crate) index: RwLock<Index>,
    /// Held while something is written. Taken before `index`.
    pub(crate) log: Mutex<Log>,
    pub(crate) disk: Disk,
    /// Where damaged files go.
    pub(crate) aside: PathBuf,
}

pub(crate) fn read(index: &RwLock<Index>) -> RwLockReadGuard<'_, Index> {
    // Changes of the index are small steps that do not panic halfway.
    index.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn write(index: &RwLock<Index>) -> RwLockWriteGuard<'_, Index> {
    index.write().unwrap_or_else(PoisonError::into_inner)
}

impl Volume {
    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Index> {
        read(&self.index)
    }

    pub(crate) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        write(&self.index)
    }

    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves whatever is the newest in the segment to the end of the log. Blocks whose text is damaged become
    /// lines that are known to be lost.
    pub(crate) fn evacuate(&self, number: u32) -> Result<(), StoreError> {
        let Some(segment) = self.index().segment(number).cloned() else {
            return Ok(());
        };
        loop {
            let live = self.live_in(number, MOVE_BYTES);
            if live.is_empty() {
                return Ok(());
            }
            let moved = read_live(&segment, live);
            self.put_moved(&mut self.log(), moved)
                .map_err(|error| io_error("move records of a segment", &error))?;
        }
    }

    /// After a sync failed: writes again, elsewhere, what was not known to be on disk.
    pub(crate) fn mend(&self, log: &mut Log) -> Result<(), StoreError> {
        let Some((number, from)) = log.suspect() else {
            return Ok(());
        };
        log.abandon_suspect();
        let failed = |error: &io::Error| io_error("write again what a failed sync left in doubt", error);
        let segment = self.index().segment(number).cloned();
        if let Some(segment) = segment {
            let mut live = self.live_in(number, u64::MAX);
            live.retain(|live| u64::from(live.offset()) >= from);
            let moved = read_live(&segment, live);
            self.put_moved(log, moved).map_err(|error| failed(&error))?;
            if let Some(state) = self.index_mut().segments.get_mut(&number) {
                state.bytes = from;
            }
        }
        log.clear_suspect();
        log.sync().map_err(|error| failed(&error))
    }

    /// What is the newest in a segment: at least one thing when there is any, and no more than so many bytes.
    fn live_in(&self, number: u32, max_bytes: u64) -> Vec<Live> {
        let index = self.index();
        let mut live = Vec::new();
        let mut bytes = 0;
        for (stream_id, stream) in &index.streams {
            if let Some(stored) = &stream.stored
                && stored.placed.segment == number
            {
                bytes += stored.placed.record_bytes();
                live.push(Live::Stream {
                    stream_id: *stream_id,
                    created: stream.created.clone(),
                    stored: stored.clone(),
                });
            }
            for entry in stream.blocks.iter().filter(|entry| entry.segment == number) {
                if bytes > 0 && bytes + entry.record_bytes() > max_bytes {
                    return live;
                }
                bytes += entry.record_bytes();
                live.push(Live::Block {
                    stream_id: *stream_id,
                    entry: *entry,
                });
            }
        }
        for (agent_id, stored) in &index.agents {
            if stored.placed.segment == number {
                live.push(Live::Agent {
                    agent_id: agent_id.clone(),
                    stored: stored.clone(),
                });
            }
        }
        live
    }

    /// Appends what is still the newest of what was read.
    fn put_moved(&self, log: &mut Log, mut moved: Vec<(Live, Draft)>) -> io::Result<()> {
        {
            // Nothing changes after this: the log is held.
            let index = self.index();
            moved.retain(|(live, _)| live.is_newest_in(&index));
        }
        if moved.is_empty() {
            return Ok(());
        }
        let (live, drafts): (Vec<Live>, Vec<Draft>) = moved.into_iter().unzip();
        let placed = log.append(&self.index, &drafts)?;
        let mut index = self.index_mut();
        for ((live, draft), placed) in live.into_iter().zip(&drafts).zip(&placed) {
            match live {
                Live::Block { stream_id, entry } => {
                    // What was just encoded can be read.
                    if let Ok(facts) = BlockFacts::from_meta(&draft.meta) {
                        index.move_block(stream_id, &entry, Entry::new(&facts, placed));
                    }
                }
                Live::Stream {
                    stream_id,
                    created,
                    stored,
                } => index.put_stream(stream_id, created, *placed, stored.body),
                Live::Agent { stored, .. } => {
                    if let Err(error) = index.put_agent(*placed, stored.body) {
                        tracing::warn!(%error, "an agent's record cannot be read");
                    }
                }
            }
        }
        Ok(())
    }

    /// Keeps a copy of a damaged file for those who want to look at it; costs no room, and once a file.
    pub(crate) fn keep_copy(&self, segment: &Segment) {
        if segment.is_set_aside.swap(true, Ordering::Relaxed) {
            return;
        }
        let kept = self.disk.create_folder(&self.aside).and_then(|()| {
            self.disk
                .link(&segment.path, &free_name(&self.aside, &segment.path))
        });
        if let Err(error) = kept {
            tracing::warn!(%error, "{}: damaged, and cannot be kept in {}", segment.path.display(), self.aside.display());
        }
    }
}

/// A name in the folder that is free.
pub(crate) fn free_name(folder: &Path, path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    (0_u32..)
        .map(|number| folder.join(format!("{name}.{number}")))
        .find(|path| !path.exists())
        .unwrap_or_else(|| folder.join(&*name))
}

/// Something in a segment that is the newest of its kind.
#[derive(Debug)]
enum Live {
    Block {
        stream_id: u64,
        entry: Entry,
    },
    Stream {
        stream_id: u64,
        created: Head,
        stored: Stored,
    },
    Agent {
        agent_id: String,
        stored: Stored,
    },
}

impl Live {
    fn offset(&self) -> u32 {
        match self {
            Self::Block { entry, .. } => entry.offset,
            Self::Stream { stored, .. } | Self::Agent { stored, .. } => stored.placed.offset,
        }
    }

    fn is_newest_in(&self, index: &Index) -> bool {
        match self {
            Self::Block { stream_id, entry } => index.streams.get(stream_id).is_some_and(|stream| {
                let at = stream.block_at(entry.first_sequence);
                stream.blocks.get(at) == Some(entry)
            }),
            Self::Stream {
                stream_id, stored, ..
            } => {
                let newest = index
                    .streams
                    .get(stream_id)
                    .and_then(|stream| stream.stored.as_ref());
                newest.is_some_and(|newest| newest.placed == stored.placed)
            }
            Self::Agent { agent_id, stored } => {
                let newest = index.agents.get(agent_id);
                newest.is_some_and(|newest| newest.placed == stored.placed)
            }
        }
    }
}

fn read_live(segment: &Segment, live: Vec<Live>) -> Vec<(Live, Draft)> {
    let file = segment.open();
    let mut moved = Vec::with_capacity(live.len());
    for live in live {
        let draft = match &live {
            Live::Block { stream_id, entry } => block_draft(file.as_ref().ok(), *stream_id, entry),
            Live::Stream {
                stream_id,
                created,
                stored,
            } => stream_draft(*stream_id, created, stored.body.clone()),
            Live::Agent { stored, .. } => agent_draft(stored.body.clone()),
        };
        moved.push((live, draft));
    }
    moved
}

/// The block's record once more; with the facts of the index where its own are damaged, and as lost lines where its
/// text is.
fn block_draft(file: Option<&File>, stream_id: u64, entry: &Entry) -> Draft {
    let mut facts = file
        .and_then(|file| facts_at(file, stream_id, entry))
        .unwrap_or_else(|| facts_of(stream_id, entry));
    let seed = block::seed(stream_id, entry.first_sequence);
    let body = file
        .filter(|_| !entry.is_lost())
        .and_then(|file| segment::read_at(file, entry.body_at(), entry.body_bytes as usize).ok())
        .filter(|body| body_check(&[body], seed) == entry.body_check);
    if body.is_none() {
        facts.flags |= FLAG_LOST;
    }
    Draft {
        kind: Kind::Block,
        meta: facts.to_meta(),
        small: Bytes::new(),
        text: body.unwrap_or_default(),
        seed,
    }
}

/// What a block's own record says of it.
pub(crate) fn facts_at(file: &File, stream_id: u64, entry: &Entry) -> Option<BlockFacts> {
    let (_, meta) = segment::read_head(file, entry.place()).ok()??;
    let facts = BlockFacts::from_meta(&meta).ok()?;
    let is_it = facts.stream_id == stream_id
        && facts.first_sequence == entry.first_sequence
        && facts.next_sequence == entry.next_sequence;
    is_it.then_some(facts)
}

/// What the index knows of a block.
pub(crate) fn facts_of(stream_id: u64, entry: &Entry) -> BlockFacts {
    BlockFacts {
        stream_id,
        first_sequence: entry.first_sequence,
        next_sequence: entry.next_sequence,
        first_time_unix_us: entry.first_time_unix_us,
        last_time_unix_us: entry.last_time_unix_us,
        text_bytes: entry.text_bytes,
        stream_text_bytes: 0,
        flags: entry.flags,
        checkpoint: Bytes::new(),
    }
}

pub(crate) fn stream_draft(stream_id: u64, created: &Head, body: Bytes) -> Draft {
    Draft {
        kind: Kind::Stream,
        meta: stream::to_meta(stream_id, created),
        small: Bytes::new(),
        text: body,
        seed: 0,
    }
}

pub(crate) fn agent_draft(body: Bytes) -> Draft {
    Draft {
        kind: Kind::Agent,
        meta: Vec::new(),
        small: Bytes::new(),
        text: body,
        seed: 0,
    }
}

/// What the checksum of a record's body is tied to.
pub(crate) fn seed_of(kind: Kind, meta: &[u8]) -> u64 {
    match kind {
        Kind::Block => {
            BlockFacts::from_meta(meta).map_or(0, |facts| block::seed(facts.stream_id, facts.first_sequence))
        }
        _ => 0,
    }
}

/// An error of the system while `what` was done.
pub(crate) fn io_error(what: &str, error: &io::Error) -> StoreError {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    match error.kind() {
        StorageFull | QuotaExceeded => StoreError::Full {
            place: what.to_owned(),
            cause: error.to_string(),
        },
        _ => StoreError::Engine {
            what: what.to_owned(),
            cause: error.to_string(),
        },
    }
}

/// Segments by number, held so that their files stay.
pub(crate) type Held = BTreeMap<u32, Arc<Segment>>;
