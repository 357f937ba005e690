//! Reads: a page's blocks are looked up in the index at one moment, and loaded without any lock. Their segments are
//! held meanwhile, so that their files stay.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use bytes::Bytes;
use millstream_proto::block::OpenBlock;
use millstream_proto::v1;

use super::index::{Entry, Stream};
use super::layout::block;
use super::layout::frame::body_check;
use super::segment;
use super::volume::{Held, Volume};
use crate::StoreError;

/// A page that is to be loaded.
struct Page {
    entries: Vec<Entry>,
    segments: Held,
}

/// See [`crate::LogStore::read_blocks`].
pub(crate) fn read_blocks(
    volume: &Volume,
    stream_id: u64,
    from: u64,
    max_bytes: usize,
) -> Result<Vec<v1::Block>, StoreError> {
    let Some(page) = look_up(volume, stream_id, from, max_bytes)? else {
        return Ok(Vec::new());
    };
    let mut loader = Loader::new(volume, page.segments);
    let mut blocks = Vec::with_capacity(page.entries.len());
    let mut reached = None;
    for entry in &page.entries {
        match loader.load(stream_id, entry) {
            Ok(block) => blocks.push(cut_before(block, reached)?),
            // The next call begins there.
            Err(StoreError::Damaged { .. }) if !blocks.is_empty() => break,
            Err(StoreError::Damaged { place, cause }) => {
                return Err(StoreError::DamagedLines {
                    stream_id,
                    first_sequence: from.max(entry.first_sequence),
                    next_sequence: entry.next_sequence,
                    cause: format!("{place}: {cause}"),
                });
            }
            Err(error) => return Err(error),
        }
        reached = Some(entry.next_sequence);
    }
    Ok(blocks)
}

/// Leaves out lines that the block before has as well, which only damage brings about.
fn cut_before(block: v1::Block, reached: Option<u64>) -> Result<v1::Block, StoreError> {
    let Some(reached) = reached.filter(|reached| block.first_sequence < *reached) else {
        return Ok(block);
    };
    let damaged = |cause: String| StoreError::Damaged {
        place: format!("line {reached}"),
        cause,
    };
    let open = OpenBlock::open(&block).map_err(|error| damaged(error.to_string()))?;
    open.slice(reached..u64::MAX)
        .ok_or_else(|| damaged("its block ends before it".to_owned()))
}

fn look_up(volume: &Volume, stream_id: u64, from: u64, max_bytes: usize) -> Result<Option<Page>, StoreError> {
    let index = volume.index();
    let Some(stream) = index.streams.get(&stream_id) else {
        return Ok(None);
    };
    if from >= stream.head.next_sequence {
        return Ok(None);
    }
    let lost = |next_sequence: u64, cause: &str| StoreError::DamagedLines {
        stream_id,
        first_sequence: from,
        next_sequence,
        cause: cause.to_owned(),
    };
    let mut page = Page {
        entries: Vec::new(),
        segments: Held::new(),
    };
    let mut reached = from;
    let mut total_bytes = 0_usize;
    for entry in &stream.blocks[stream.block_at(from)..] {
        let is_first = page.entries.is_empty();
        if entry.next_sequence <= reached {
            continue;
        }
        if entry.first_sequence > reached {
            // A hole. Above the oldest stored line nothing is ever removed on purpose.
            match is_first {
                true if reached < stream.head.first_sequence => {}
                true => return Err(lost(entry.first_sequence, "they are missing from the store")),
                false => break,
            }
        }
        if entry.is_lost() {
            match is_first {
                true => return Err(lost(entry.next_sequence, "they were lost with a damaged file")),
                false => break,
            }
        }
        total_bytes = total_bytes.saturating_add(entry.body_bytes as usize);
        if !is_first && total_bytes > max_bytes {
            break;
        }
        reached = entry.next_sequence;
        if let Some(segment) = index.segment(entry.segment) {
            page.segments
                .entry(entry.segment)
                .or_insert_with(|| segment.clone());
        }
        page.entries.push(*entry);
    }
    if page.entries.is_empty() {
        return Err(lost(stream.head.next_sequence, "they are missing from the store"));
    }
    Ok(Some(page))
}

/// Loads blocks, and opens each segment once.
pub(crate) struct Loader<'a> {
    volume: &'a Volume,
    segments: Held,
    files: BTreeMap<u32, File>,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(volume: &'a Volume, segments: Held) -> Self {
        Self {
            volume,
            segments,
            files: BTreeMap::new(),
        }
    }

    fn file(&mut self, number: u32) -> io::Result<&File> {
        match self.files.entry(number) {
            std::collections::btree_map::Entry::Occupied(known) => Ok(known.into_mut()),
            std::collections::btree_map::Entry::Vacant(vacant) => {
                let segment = self.segments.get(&number).ok_or(io::ErrorKind::NotFound)?;
                Ok(vacant.insert(segment.open()?))
            }
        }
    }

    /// Loads a block and checks that it is what was written. Damage is [`StoreError::Damaged`] with the file and
    /// the place in it, and a copy of the file is kept.
    pub(crate) fn load(&mut self, stream_id: u64, entry: &Entry) -> Result<v1::Block, StoreError> {
        let found = self.body(entry);
        let seed = block::seed(stream_id, entry.first_sequence);
        let cause = match found {
            Ok(body) if body_check(&[&body], seed) == entry.body_check => match block::decode(body) {
                Ok(block) => return Ok(block),
                Err(error) => error.to_string(),
            },
            Ok(_) => "they are not what was written".to_owned(),
            Err(error) if segment::is_damage(&error) => error.to_string(),
            Err(error) => {
                return Err(StoreError::Engine {
                    what: self.place(entry),
                    cause: error.to_string(),
                });
            }
        };
        if let Some(segment) = self.segments.get(&entry.segment) {
            self.volume.keep_copy(segment);
        }
        Err(StoreError::Damaged {
            place: self.place(entry),
            cause,
        })
    }

    fn body(&mut self, entry: &Entry) -> io::Result<Bytes> {
        let file = self.file(entry.segment)?;
        segment::read_at(file, entry.body_at(), entry.body_bytes as usize)
    }

    fn place(&self, entry: &Entry) -> String {
        let path = self
            .segments
            .get(&entry.segment)
            .map(|segment| segment.path.display());
        format!(
            "{}, bytes {} to {}",
            path.map_or_else(|| format!("segment {}", entry.segment), |path| path.to_string()),
            entry.body_at(),
            entry.body_at() + u64::from(entry.body_bytes)
        )
    }
}

/// See [`crate::LogStore::seek_time`]. Looks at the index only, but for the one block that holds the line.
pub(crate) fn seek_time(volume: &Volume, stream_id: u64, unix_us: i64) -> Result<u64, StoreError> {
    let (entry, segments) = {
        let index = volume.index();
        let Some(stream) = index.streams.get(&stream_id) else {
            return Ok(0);
        };
        let Some(entry) = block_of_time(stream, unix_us) else {
            return Ok(stream.head.next_sequence);
        };
        let segment = index.segment(entry.segment).cloned();
        let segments = segment.into_iter().map(|segment| (segment.number, segment));
        (entry, segments.collect())
    };
    if entry.first_time_unix_us >= unix_us {
        return Ok(entry.first_sequence);
    }
    let block = match Loader::new(volume, segments).load(stream_id, &entry) {
        Ok(block) => block,
        // Its reader will be told more.
        Err(StoreError::Damaged { .. }) => return Ok(entry.first_sequence),
        Err(error) => return Err(error),
    };
    let Ok(open) = OpenBlock::open(&block) else {
        return Ok(entry.first_sequence);
    };
    Ok(open
        .lines()
        .find(|line| line.time_unix_us >= unix_us)
        .map_or(entry.next_sequence, |line| line.sequence))
}

/// The first block that ends at the time or later.
fn block_of_time(stream: &Stream, unix_us: i64) -> Option<Entry> {
    let at = stream
        .blocks
        .partition_point(|block| block.last_time_unix_us < unix_us);
    stream.blocks[at..].iter().find(|block| !block.is_lost()).copied()
}
