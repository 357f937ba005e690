//! The catalog: a second copy of what is small and precious, in a file of its own. It names every stream and agent,
//! every segment with the length that it has for certain, and for each stream a sequence below which lines may have
//! been given out. The segments alone are enough to open a store; the catalog is there to tell what is missing when
//! one of them is damaged, and the segments are there when the catalog is.
//!
//! Its records are appended after those of the log and made durable with them. It is written anew when half of it is
//! outdated.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use millstream_proto::v1;
use prost::Message as _;

use super::directory::FORMAT_VERSION;
use super::disk::{Disk, DiskFile};
use super::index::Index;
use super::layout::frame::{self, Head as RecordHead, Kind, Place, body_check};
use super::layout::notes::{BoundNote, SegmentNote, header_meta, store_id_of};
use super::layout::stream::{self, Head};

/// Smaller ones are not worth writing anew.
const MIN_REWRITE_BYTES: u64 = 1 << 20;

/// A record for the catalog.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    kind: Kind,
    batch: u64,
    meta: Vec<u8>,
    body: Bytes,
}

impl Note {
    pub(crate) fn stream(batch: u64, stream_id: u64, created: &Head, body: Bytes) -> Self {
        Self {
            kind: Kind::Stream,
            batch,
            meta: stream::to_meta(stream_id, created),
            body,
        }
    }

    pub(crate) fn agent(batch: u64, body: Bytes) -> Self {
        Self {
            kind: Kind::Agent,
            batch,
            meta: Vec::new(),
            body,
        }
    }

    pub(crate) fn bound(stream_id: u64, bound: u64) -> Self {
        Self {
            kind: Kind::Bound,
            batch: 0,
            meta: BoundNote { stream_id, bound }.to_meta(),
            body: Bytes::new(),
        }
    }

    pub(crate) fn segment(note: SegmentNote) -> Self {
        Self {
            kind: Kind::Segment,
            batch: 0,
            meta: note.to_meta(),
            body: Bytes::new(),
        }
    }

    fn write(&self, out: &mut Vec<u8>, file_offset: u64, synced_bytes: u64) {
        let head = RecordHead {
            kind: self.kind,
            is_last: true,
            batch: self.batch,
            // Records are bounded by what a message of the protocol may hold.
            meta_bytes: u32::try_from(self.meta.len()).unwrap_or(u32::MAX),
            body_bytes: u32::try_from(self.body.len()).unwrap_or(u32::MAX),
            body_check: body_check(&[&self.body], 0),
            synced_bytes: u32::try_from(synced_bytes).unwrap_or(0),
        };
        let place = Place {
            file: 0,
            offset: file_offset + out.len() as u64,
        };
        head.write(&self.meta, place, out);
        out.extend(&self.body);
    }
}

/// What a catalog says.
#[derive(Debug, Default)]
pub(crate) struct Saying {
    pub(crate) store_id: Option<String>,
    /// By id: batch, where it began, record.
    pub(crate) streams: BTreeMap<u64, (u64, Head, Bytes)>,
    pub(crate) agents: BTreeMap<String, (u64, Bytes)>,
    pub(crate) bounds: BTreeMap<u64, u64>,
    /// Those that are not removed.
    pub(crate) segments: BTreeMap<u32, SegmentNote>,
    pub(crate) last_segment: u32,
    pub(crate) last_batch: u64,
    /// Ranges of bytes that are damaged.
    pub(crate) damaged: Vec<std::ops::Range<usize>>,
    /// Bytes that are in use.
    bytes: u64,
}

/// Reads what can be read. `None`: there is no catalog.
pub(crate) fn read(path: &Path) -> io::Result<Option<Saying>> {
    let bytes = match super::segment::read_whole(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let contents = frame::look_through(&bytes, 0, 0, |_, _| 0);
    let mut saying = Saying {
        bytes: contents.end() as u64,
        damaged: contents.damaged,
        ..Saying::default()
    };
    for record in contents.records {
        let is_read =
            record.is_body_sound && saying.hear(&record.head, &bytes[record.meta], &bytes[record.body]);
        if !is_read {
            saying
                .damaged
                .push(record.offset..record.offset + record.head.record_bytes());
        }
    }
    if saying.store_id.is_none() && saying.damaged.is_empty() {
        // Cut off at its very begin.
        saying.damaged.push(0..bytes.len());
    }
    Ok(Some(saying))
}

impl Saying {
    /// False: the record cannot be read.
    fn hear(&mut self, head: &RecordHead, meta: &[u8], body: &[u8]) -> bool {
        self.last_batch = self.last_batch.max(head.batch);
        match head.kind {
            Kind::Header => match store_id_of(meta) {
                Ok(store_id) => self.store_id = Some(store_id),
                Err(_) => return false,
            },
            Kind::Stream => {
                let Ok((stream_id, created)) = stream::from_meta(meta) else {
                    return false;
                };
                let known = self.streams.get(&stream_id).map(|known| known.0);
                if known.is_none_or(|known| known <= head.batch) {
                    // A copy of its own, so that it does not hold the whole file.
                    let body = Bytes::copy_from_slice(body);
                    self.streams.insert(stream_id, (head.batch, created, body));
                }
            }
            Kind::Agent => {
                let Ok(agent) = v1::Agent::decode(body) else {
                    return false;
                };
                let known = self.agents.get(&agent.agent_id).map(|known| known.0);
                if known.is_none_or(|known| known <= head.batch) {
                    let body = Bytes::copy_from_slice(body);
                    self.agents.insert(agent.agent_id, (head.batch, body));
                }
            }
            Kind::Bound => {
                let Ok(note) = BoundNote::from_meta(meta) else {
                    return false;
                };
                self.bounds.insert(note.stream_id, note.bound);
            }
            Kind::Segment => {
                let Ok(note) = SegmentNote::from_meta(meta) else {
                    return false;
                };
                self.last_segment = self.last_segment.max(note.number);
                if note.is_removed {
                    self.segments.remove(&note.number);
                } else {
                    self.segments.insert(note.number, note);
                }
            }
            Kind::Block | Kind::Footer | Kind::End => return false,
        }
        true
    }
}

/// The open catalog, appended to beside the log.
#[derive(Debug)]
pub(crate) struct Catalog {
    path: PathBuf,
    store_id: String,
    disk: Disk,
    /// `None`: it is missing or damaged and has to be written anew.
    file: Option<DiskFile>,
    bytes: u64,
    synced_bytes: u64,
    rewritten_bytes: u64,
    /// Not written yet. It is a second copy, so what cannot be written now does not stop the log.
    waiting: Vec<Note>,
    is_dirty: bool,
    is_warned: bool,
}

impl Catalog {
    /// Goes on with the catalog that was read, or waits to be written anew.
    pub(crate) fn open(path: &Path, store_id: &str, disk: Disk, saying: Option<&Saying>) -> io::Result<Self> {
        let mut catalog = Self {
            path: path.to_owned(),
            store_id: store_id.to_owned(),
            disk,
            file: None,
            bytes: 0,
            synced_bytes: 0,
            rewritten_bytes: 0,
            waiting: Vec::new(),
            is_dirty: false,
            is_warned: false,
        };
        if let Some(saying) = saying
            && saying.damaged.is_empty()
        {
            let file = catalog.disk.open(path)?;
            // A write that never came to its end.
            file.set_len(saying.bytes)?;
            file.sync()?;
            catalog.file = Some(file);
            catalog.bytes = saying.bytes;
            catalog.synced_bytes = saying.bytes;
        }
        Ok(catalog)
    }

    /// A new one, of a store that has nothing.
    pub(crate) fn create(path: &Path, store_id: &str, disk: &Disk) -> io::Result<()> {
        let mut content = Vec::new();
        header(store_id).write(&mut content, 0, 0);
        disk.replace(path, &content).map(drop)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn note(&mut self, note: Note) {
        self.waiting.push(note);
    }

    /// Writes what waits. A failure is told once; the notes wait on.
    pub(crate) fn write(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let Some(file) = &self.file else {
            return;
        };
        let mut content = Vec::new();
        for note in &self.waiting {
            note.write(&mut content, self.bytes, self.synced_bytes);
        }
        match file.write_at(&content, self.bytes) {
            Ok(()) => {
                self.bytes += content.len() as u64;
                self.waiting.clear();
                self.is_dirty = true;
                self.is_warned = false;
            }
            Err(error) => {
                if file.set_len(self.bytes).is_err() {
                    // What is behind its end is unknown; it is written anew when there is room.
                    self.file = None;
                }
                self.warn(&error);
            }
        }
    }

    pub(crate) fn sync(&mut self) {
        self.write();
        if !self.is_dirty {
            return;
        }
        let Some(file) = &self.file else {
            return;
        };
        match file.sync() {
            Ok(()) => {
                self.is_dirty = false;
                self.synced_bytes = self.bytes;
            }
            Err(error) => {
                self.warn(&error);
                self.file = None;
            }
        }
    }

    fn warn(&mut self, error: &io::Error) {
        if !self.is_warned {
            tracing::warn!(%error, "{}: the store's second copy of what is precious is behind", self.path.display());
            self.is_warned = true;
        }
    }

    /// Whether it should be written anew.
    pub(crate) fn is_outdated(&self) -> bool {
        self.file.is_none() || self.bytes > MIN_REWRITE_BYTES.max(2 * self.rewritten_bytes)
    }

    /// Writes it anew, as the index has it.
    pub(crate) fn rewrite(
        &mut self,
        index: &Index,
        known_bytes: impl Fn(u32) -> Option<u64>,
    ) -> io::Result<()> {
        let mut content = Vec::new();
        header(&self.store_id).write(&mut content, 0, 0);
        for (number, state) in &index.segments {
            let note = SegmentNote {
                number: *number,
                is_removed: false,
                known_bytes: known_bytes(*number).unwrap_or(state.bytes),
            };
            Note::segment(note).write(&mut content, 0, 0);
        }
        for (stream_id, stream) in &index.streams {
            if let Some(stored) = &stream.stored {
                let note = Note::stream(
                    stored.placed.batch,
                    *stream_id,
                    &stream.created,
                    stored.body.clone(),
                );
                note.write(&mut content, 0, 0);
            }
            Note::bound(*stream_id, stream.bound).write(&mut content, 0, 0);
        }
        for stored in index.agents.values() {
            Note::agent(stored.placed.batch, stored.body.clone()).write(&mut content, 0, 0);
        }
        self.file = Some(self.disk.replace(&self.path, &content)?);
        self.bytes = content.len() as u64;
        self.rewritten_bytes = self.bytes;
        self.synced_bytes = self.bytes;
        self.waiting.clear();
        self.is_dirty = false;
        self.is_warned = false;
        Ok(())
    }
}

fn header(store_id: &str) -> Note {
    Note {
        kind: Kind::Header,
        batch: 0,
        meta: header_meta(FORMAT_VERSION, store_id),
        body: Bytes::new(),
    }
}
