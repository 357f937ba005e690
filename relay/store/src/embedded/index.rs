//! What is stored where: every stream with its head and the places of its blocks, in memory. Made from the segments
//! when the store is opened, and kept in step by whoever writes. A block costs 64 bytes here.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use millstream_proto::v1;
use prost::Message as _;

use super::layout::block::{BlockFacts, FLAG_COMPRESSED, FLAG_LOST, FLAG_SETTLED};
use super::layout::frame::{HEADER_BYTES, Place};
use super::layout::stream::{self, Head};
use super::segment::Segment;
use crate::{StoreError, StreamRecord};

/// Blocks with less text are small.
pub(crate) const SMALL_TEXT_BYTES: u32 = 64 << 10;

/// Where a record was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    pub(crate) meta_bytes: u32,
    pub(crate) body_bytes: u32,
    pub(crate) body_check: u64,
    pub(crate) batch: u64,
}

impl Placed {
    pub(crate) fn record_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.meta_bytes) + u64::from(self.body_bytes)
    }
}

/// A block's place, and what must be known to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) first_sequence: u64,
    pub(crate) next_sequence: u64,
    pub(crate) first_time_unix_us: i64,
    pub(crate) last_time_unix_us: i64,
    pub(crate) body_check: u64,
    pub(crate) text_bytes: u32,
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    pub(crate) meta_bytes: u32,
    pub(crate) body_bytes: u32,
    pub(crate) flags: u8,
}

impl Entry {
    pub(crate) fn new(facts: &BlockFacts, placed: &Placed) -> Self {
        Self {
            first_sequence: facts.first_sequence,
            next_sequence: facts.next_sequence,
            first_time_unix_us: facts.first_time_unix_us,
            last_time_unix_us: facts.last_time_unix_us,
            body_check: placed.body_check,
            text_bytes: facts.text_bytes,
            segment: placed.segment,
            offset: placed.offset,
            meta_bytes: placed.meta_bytes,
            body_bytes: placed.body_bytes,
            flags: facts.flags,
        }
    }

    /// These lines are known to be lost.
    pub(crate) fn is_lost(&self) -> bool {
        self.flags & FLAG_LOST != 0
    }

    pub(crate) fn is_compressed(&self) -> bool {
        self.flags & FLAG_COMPRESSED != 0
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.flags & FLAG_SETTLED != 0
    }

    pub(crate) fn place(&self) -> Place {
        Place {
            file: self.segment,
            offset: self.offset.into(),
        }
    }

    pub(crate) fn body_at(&self) -> u64 {
        u64::from(self.offset) + HEADER_BYTES as u64 + u64::from(self.meta_bytes)
    }

    pub(crate) fn record_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.meta_bytes) + u64::from(self.body_bytes)
    }
}

/// The newest record of a stream or an agent.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) placed: Placed,
    pub(crate) body: Bytes,
}

#[derive(Debug)]
pub(crate) struct Stream {
    /// Where it stood when it was created.
    pub(crate) created: Head,
    pub(crate) head: Head,
    /// No line from here on was ever given out, as far as the catalog was told.
    pub(crate) bound: u64,
    /// `None`: its record is lost, its lines are not.
    pub(crate) stored: Option<Stored>,
    /// By first sequence. Only damage makes holes or overlaps.
    pub(crate) blocks: Vec<Entry>,
}

impl Stream {
    fn new(created: Head) -> Self {
        Self {
            head: created.clone(),
            bound: created.next_sequence,
            created,
            stored: None,
            blocks: Vec::new(),
        }
    }

    pub(crate) fn record(&self, stream_id: u64) -> Result<StreamRecord, StoreError> {
        let Some(stored) = &self.stored else {
            return Ok(StreamRecord {
                stream_id,
                agent_id: String::new(),
                source: "lost".to_owned(),
                instance: format!("stream {stream_id}, whose name is lost with a damaged file"),
                labels: BTreeMap::new(),
                created_unix_us: 0,
                first_sequence: self.head.first_sequence,
                next_sequence: self.head.next_sequence,
                text_bytes: self.head.text_bytes,
                last_line_unix_us: self.head.last_line_unix_us,
                checkpoint: self.head.checkpoint.clone(),
                run: None,
                end: None,
            });
        };
        stream::to_record(stream_id, &stored.body, self.head.clone()).map_err(|error| StoreError::Damaged {
            place: format!("stream {stream_id}"),
            cause: error.to_string(),
        })
    }

    /// Number of the first block that holds the line or, when that is not there, begins after it.
    pub(crate) fn block_at(&self, sequence: u64) -> usize {
        let after = self
            .blocks
            .partition_point(|block| block.first_sequence <= sequence);
        match after.checked_sub(1) {
            Some(before) if self.blocks[before].next_sequence > sequence => before,
            _ => after,
        }
    }

    /// Lines that are in no block, or known to be lost.
    pub(crate) fn holes(&self) -> Vec<Range<u64>> {
        let mut holes: Vec<Range<u64>> = Vec::new();
        let mut reached = self.created.first_sequence;
        let mut add = |hole: Range<u64>| match holes.last_mut() {
            Some(last) if last.end == hole.start => last.end = hole.end,
            _ => holes.push(hole),
        };
        for block in &self.blocks {
            if block.first_sequence > reached {
                add(reached..block.first_sequence);
            }
            if block.is_lost() {
                add(block.first_sequence..block.next_sequence);
            }
            reached = reached.max(block.next_sequence);
        }
        if reached < self.head.next_sequence && !self.blocks.is_empty() {
            add(reached..self.head.next_sequence);
        }
        holes
    }
}

#[derive(Debug)]
pub(crate) struct SegmentState {
    pub(crate) segment: Arc<Segment>,
    pub(crate) bytes: u64,
    /// Of records that are the newest of what they are about.
    pub(crate) live_bytes: u64,
    pub(crate) is_sealed: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) streams: BTreeMap<u64, Stream>,
    pub(crate) agents: BTreeMap<String, Stored>,
    pub(crate) segments: BTreeMap<u32, SegmentState>,
}

impl Index {
    pub(crate) fn add_segment(&mut self, segment: Arc<Segment>, bytes: u64, is_sealed: bool) {
        self.segments.insert(
            segment.number,
            SegmentState {
                segment,
                bytes,
                live_bytes: 0,
                is_sealed,
            },
        );
    }

    fn add_live(&mut self, segment: u32, bytes: u64) {
        if let Some(state) = self.segments.get_mut(&segment) {
            state.live_bytes += bytes;
        }
    }

    fn remove_live(&mut self, segment: u32, bytes: u64) {
        if let Some(state) = self.segments.get_mut(&segment) {
            state.live_bytes = state.live_bytes.saturating_sub(bytes);
        }
    }

    /// The newest record of a stream; an older one than what is known changes nothing.
    pub(crate) fn put_stream(&mut self, stream_id: u64, created: Head, placed: Placed, body: Bytes) {
        let stream = match self.streams.entry(stream_id) {
            std::collections::btree_map::Entry::Vacant(vacant) => vacant.insert(Stream::new(created)),
            std::collections::btree_map::Entry::Occupied(known) => {
                let stream = known.into_mut();
                if stream.stored.is_none() {
                    stream.head.first_sequence = created.first_sequence;
                    if stream.blocks.is_empty() {
                        stream.head = created.clone();
                    }
                    stream.created = created;
                }
                stream
            }
        };
        if stream
            .stored
            .as_ref()
            .is_some_and(|known| known.placed.batch > placed.batch)
        {
            return;
        }
        let before = stream.stored.replace(Stored { placed, body });
        if let Some(before) = before {
            self.remove_live(before.placed.segment, before.placed.record_bytes());
        }
        self.add_live(placed.segment, placed.record_bytes());
    }

    pub(crate) fn put_agent(&mut self, placed: Placed, body: Bytes) -> Result<(), prost::DecodeError> {
        let agent_id = v1::Agent::decode(body.clone())?.agent_id;
        let known = self.agents.get(&agent_id);
        if known.is_some_and(|known| known.placed.batch > placed.batch) {
            return Ok(());
        }
        let before = self.agents.insert(agent_id, Stored { placed, body });
        if let Some(before) = before {
            self.remove_live(before.placed.segment, before.placed.record_bytes());
        }
        self.add_live(placed.segment, placed.record_bytes());
        Ok(())
    }

    /// Puts a block in the place of all that it covers, and lets the head follow.
    pub(crate) fn put_block(&mut self, facts: &BlockFacts, placed: &Placed) {
        let entry = Entry::new(facts, placed);
        let stream = self
            .streams
            .entry(facts.stream_id)
            .or_insert_with(|| Stream::new(Head::default()));
        let head = &mut stream.head;
        let is_newest = facts.next_sequence > head.next_sequence;
        if is_newest || (facts.next_sequence == head.next_sequence && facts.stream_text_bytes != 0) {
            head.text_bytes = match facts.stream_text_bytes {
                0 => head.text_bytes.saturating_add(facts.text_bytes.into()),
                known => known,
            };
            head.next_sequence = facts.next_sequence;
            head.last_line_unix_us = facts.last_time_unix_us;
            if !facts.checkpoint.is_empty() {
                head.checkpoint = facts.checkpoint.clone();
            }
        }
        let blocks = &mut stream.blocks;
        if blocks
            .last()
            .is_none_or(|last| last.next_sequence <= entry.first_sequence)
        {
            blocks.push(entry);
            self.add_live(entry.segment, entry.record_bytes());
            return;
        }
        let start = blocks.partition_point(|block| block.first_sequence < entry.first_sequence);
        if let Some(before) = start.checked_sub(1)
            && blocks[before].next_sequence >= entry.next_sequence
        {
            // A larger block that is newer has these lines.
            return;
        }
        let covered = blocks[start..]
            .iter()
            .take_while(|block| block.next_sequence <= entry.next_sequence)
            .count();
        let removed: Vec<Entry> = blocks.splice(start..start + covered, [entry]).collect();
        for block in removed {
            self.remove_live(block.segment, block.record_bytes());
        }
        self.add_live(entry.segment, entry.record_bytes());
    }

    /// Notes that lines are lost, as far as no block has them.
    pub(crate) fn put_lost(&mut self, facts: &BlockFacts, placed: &Placed) {
        let held: Vec<Range<u64>> = self
            .streams
            .get(&facts.stream_id)
            .map_or_else(Vec::new, |stream| {
                let at = stream.block_at(facts.first_sequence);
                let blocks = stream.blocks[at..].iter();
                blocks
                    .take_while(|block| block.first_sequence < facts.next_sequence)
                    .map(|block| block.first_sequence..block.next_sequence)
                    .collect()
            });
        let mut reached = facts.first_sequence;
        let end = facts.next_sequence..facts.next_sequence;
        for range in held.into_iter().chain(std::iter::once(end)) {
            if range.start > reached {
                let mut piece = facts.clone();
                (piece.first_sequence, piece.next_sequence) = (reached, range.start);
                self.put_block(&piece, placed);
            }
            reached = reached.max(range.end);
        }
    }

    /// Notes that a block's record was copied to another place, unless it was replaced meanwhile.
    pub(crate) fn move_block(&mut self, stream_id: u64, from: &Entry, to: Entry) -> bool {
        let Some(stream) = self.streams.get_mut(&stream_id) else {
            return false;
        };
        let at = stream
            .blocks
            .partition_point(|block| block.first_sequence < from.first_sequence);
        match stream.blocks.get_mut(at) {
            Some(block) if block == from => *block = to,
            _ => return false,
        }
        self.remove_live(from.segment, from.record_bytes());
        self.add_live(to.segment, to.record_bytes());
        true
    }

    pub(crate) fn segment(&self, number: u32) -> Option<&Arc<Segment>> {
        self.segments.get(&number).map(|state| &state.segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn facts(range: &Range<u64>) -> BlockFacts {
        BlockFacts {
            stream_id: 1,
            first_sequence: range.start,
            next_sequence: range.end,
            first_time_unix_us: 0,
            last_time_unix_us: 0,
            text_bytes: 1,
            stream_text_bytes: 0,
            flags: 0,
            checkpoint: Bytes::new(),
        }
    }

    fn placed(segment: u32, offset: u32) -> Placed {
        Placed {
            segment,
            offset,
            meta_bytes: 1,
            body_bytes: 2,
            body_check: 3,
            batch: 4,
        }
    }

    proptest! {
        /// Blocks are appended and then covered by larger ones: every line is in exactly one block, the newest.
        #[test]
        fn covering_keeps_every_line_once(sizes in prop::collection::vec(1_u64..9, 1..40), merges in prop::collection::vec((0_usize..40, 1_usize..9), 0..20)) {
            let mut index = Index::default();
            for number in [1, 2] {
                let segment = Segment::new(std::path::Path::new("x"), number, super::super::disk::Disk::default());
                index.add_segment(segment, 0, true);
            }
            let mut model: Vec<Range<u64>> = Vec::new();
            for size in sizes {
                let start = model.last().map_or(0, |last| last.end);
                model.push(start..start + size);
                index.put_block(&facts(&(start..start + size)), &placed(1, u32::try_from(start).unwrap()));
            }
            for (at, count) in merges {
                let at = at % model.len();
                let count = count.min(model.len() - at);
                let merged = model[at].start..model[at + count - 1].end;
                model.splice(at..at + count, [merged.clone()]);
                index.put_block(&facts(&merged), &placed(2, u32::try_from(merged.start).unwrap()));
            }
            let stream = &index.streams[&1];
            let blocks: Vec<_> = stream.blocks.iter().map(|block| block.first_sequence..block.next_sequence).collect();
            prop_assert_eq!(&blocks, &model);
            prop_assert!(stream.holes().is_empty());
            prop_assert_eq!(stream.head.next_sequence, model.last().unwrap().end);
            let live: u64 = index.segments.values().map(|state| state.live_bytes).sum();
            prop_assert_eq!(live, model.len() as u64 * placed(1, 0).record_bytes());
            for (number, range) in model.iter().enumerate() {
                prop_assert_eq!(stream.block_at(range.start), number);
                prop_assert_eq!(stream.block_at(range.end - 1), number);
            }
        }
    }
}
