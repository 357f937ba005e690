//! Any number of streams, looked through together about in order of time.
//!
//! The stream whose rest is nearest in time goes next, for one step; so of a great many streams those that can
//! hold the wanted lines are read first, and no more than one step's blocks are in memory.

use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::Arc;

use millstream_proto::block::last_time_unix_us;
use millstream_store::{LogStore, StoreError};

use super::plan::Scope;
use super::walk::{Step, Walk};
use crate::streams::StreamHandle;

/// See the module.
#[derive(Debug)]
pub(super) struct Merge {
    slots: Vec<Slot>,
    /// Streams with lines left; the nearest in time is the greatest.
    queue: BinaryHeap<(i64, usize)>,
    times: Range<i64>,
    newest_first: bool,
    /// An estimate of the text in the ranges.
    total_text_bytes: u64,
}

#[derive(Debug)]
struct Slot {
    walk: Walk,
    /// What the walk began with.
    sequences: Range<u64>,
    text_bytes_estimate: u64,
    /// The store was asked where the range of time lies.
    is_timed: bool,
}

impl Merge {
    pub(super) fn new(scope: Scope, newest_first: bool) -> Self {
        let mut merge = Self {
            slots: Vec::with_capacity(scope.streams.len()),
            queue: BinaryHeap::with_capacity(scope.streams.len()),
            newest_first,
            total_text_bytes: 0,
            times: scope.times,
        };
        for stream in scope.streams {
            merge.add(stream, &scope.sequences);
        }
        merge
    }

    fn add(&mut self, stream: Arc<StreamHandle>, wanted: &Range<u64>) {
        let record = stream.record();
        let sequences = wanted.start.max(record.first_sequence)..wanted.end.min(record.next_sequence);
        if sequences.is_empty() {
            return;
        }
        let text_bytes_estimate = estimate(&stream, &sequences);
        self.total_text_bytes += text_bytes_estimate;
        let key = if self.newest_first {
            record.last_line_unix_us
        } else {
            // No line is captured before its run starts; of other streams this is when the relay first saw them.
            let start = record.run.map_or(record.created_unix_us, |run| run.start_unix_us);
            start.min(record.created_unix_us).saturating_neg()
        };
        self.queue.push((key, self.slots.len()));
        self.slots.push(Slot {
            walk: Walk {
                stream,
                rest: sequences.clone(),
                newest_first: self.newest_first,
            },
            sequences,
            text_bytes_estimate,
            is_timed: self.times == (i64::MIN..i64::MAX),
        });
    }

    /// The next step of the stream that is next; `None` when all are done.
    pub(super) fn next(&mut self, store: &dyn LogStore) -> Result<Option<(usize, Step)>, StoreError> {
        while let Some((key, index)) = self.queue.pop() {
            let slot = &mut self.slots[index];
            if !slot.is_timed {
                slot.is_timed = true;
                let stream_id = slot.walk.stream.stream_id;
                let seek = |time: i64, open: i64, otherwise: u64| match time == open {
                    true => Ok(otherwise),
                    false => store.seek_time(stream_id, time),
                };
                let start = seek(self.times.start, i64::MIN, slot.sequences.start)?;
                let end = seek(self.times.end, i64::MAX, slot.sequences.end)?;
                slot.sequences = start.max(slot.sequences.start)..end.min(slot.sequences.end);
                slot.walk.rest = slot.sequences.clone();
                self.total_text_bytes -= slot.text_bytes_estimate;
                slot.text_bytes_estimate = estimate(&slot.walk.stream, &slot.sequences);
                self.total_text_bytes += slot.text_bytes_estimate;
            }
            let step = slot.walk.step(store)?;
            let key = match &step {
                Step::End => continue,
                Step::Lost(..) => key,
                Step::Blocks(blocks) => match (self.newest_first, blocks.first(), blocks.last()) {
                    (true, Some(oldest), _) => oldest.first_time_unix_us,
                    (false, _, Some(newest)) => last_time_unix_us(newest).saturating_neg(),
                    _ => key,
                },
            };
            self.queue.push((key, index));
            return Ok(Some((index, step)));
        }
        Ok(None)
    }

    pub(super) fn stream(&self, index: usize) -> &Arc<StreamHandle> {
        &self.slots[index].walk.stream
    }

    /// Which lines of the stream are wanted.
    pub(super) fn sequences(&self, index: usize) -> Range<u64> {
        self.slots[index].sequences.clone()
    }

    pub(super) fn times(&self) -> &Range<i64> {
        &self.times
    }

    pub(super) fn is_done(&self) -> bool {
        self.queue
            .iter()
            .all(|(_, index)| self.slots[*index].walk.rest.is_empty())
    }

    pub(super) fn total_text_bytes(&self) -> u64 {
        self.total_text_bytes
    }
}

/// Text of a range of lines, if all lines of the stream were equally long.
fn estimate(stream: &StreamHandle, sequences: &Range<u64>) -> u64 {
    let record = stream.record();
    let lines = sequences.end.saturating_sub(sequences.start);
    let text_bytes =
        u128::from(record.text_bytes) * u128::from(lines) / u128::from(record.next_sequence.max(1));
    u64::try_from(text_bytes).unwrap_or(u64::MAX)
}
