//! The newest blocks of a stream, kept in memory for live readers.
//!
//! When full, the oldest block goes: a reader that still wants it reads the store. So nothing is lost
//! and a slow reader costs no memory.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// Bytes that all rings together may hold, shared by them.
#[derive(Debug)]
pub(crate) struct RingBudget {
    pub(crate) per_stream_bytes: usize,
    pub(crate) total_bytes: u64,
    held_bytes: AtomicU64,
}

impl RingBudget {
    pub(crate) fn new(per_stream_bytes: usize, total_bytes: u64) -> Self {
        Self {
            per_stream_bytes,
            total_bytes,
            held_bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Entry {
    first_sequence: u64,
    next_sequence: u64,
    frame: Bytes,
}

/// What a ring has for a reader.
#[derive(Debug, PartialEq)]
pub(crate) enum RingRead {
    /// Frames, at least one, that begin exactly at the reader's position, and the sequence after them.
    Frames(Vec<Bytes>, u64),
    /// One frame in whose middle the reader stands, and the sequence after it.
    Inside(Bytes, u64),
    /// The ring begins later: read the store.
    Miss,
}

#[derive(Debug, Default)]
pub(super) struct Ring {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Ring {
    pub(super) fn push(
        &mut self,
        first_sequence: u64,
        next_sequence: u64,
        frame: Bytes,
        budget: &RingBudget,
    ) {
        self.bytes += frame.len();
        budget.held_bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
        self.entries.push_back(Entry {
            first_sequence,
            next_sequence,
            frame,
        });
        // The newest block stays, however large: somebody waits for it right now.
        while self.entries.len() > 1
            && (self.bytes > budget.per_stream_bytes || budget.held_bytes() > budget.total_bytes)
        {
            self.pop(budget);
        }
    }

    pub(super) fn clear(&mut self, budget: &RingBudget) {
        while !self.entries.is_empty() {
            self.pop(budget);
        }
        self.entries.shrink_to_fit();
    }

    fn pop(&mut self, budget: &RingBudget) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry.frame.len();
            budget
                .held_bytes
                .fetch_sub(entry.frame.len() as u64, Ordering::Relaxed);
        }
    }

    pub(super) fn read(&self, from: u64, max_bytes: usize) -> RingRead {
        let start = self.entries.partition_point(|entry| entry.next_sequence <= from);
        let Some(first) = self.entries.get(start) else {
            return RingRead::Miss;
        };
        if first.first_sequence > from {
            return RingRead::Miss;
        }
        if first.first_sequence < from {
            return RingRead::Inside(first.frame.clone(), first.next_sequence);
        }
        let mut frames = Vec::new();
        let mut bytes = 0;
        let mut next = from;
        for entry in self.entries.range(start..) {
            bytes += entry.frame.len();
            if !frames.is_empty() && bytes > max_bytes {
                break;
            }
            frames.push(entry.frame.clone());
            next = entry.next_sequence;
        }
        RingRead::Frames(frames, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(budget: &RingBudget) -> Ring {
        let mut ring = Ring::default();
        for number in 0..10_u64 {
            ring.push(number * 2, number * 2 + 2, Bytes::from(vec![0; 10]), budget);
        }
        ring
    }

    #[test]
    fn a_reader_gets_whole_frames_from_its_position_on() {
        let ring = filled(&RingBudget::new(1000, 1000));
        let RingRead::Frames(frames, next) = ring.read(14, 1000) else {
            panic!("frames expected")
        };
        assert_eq!((frames.len(), next), (3, 20));
        let RingRead::Frames(frames, next) = ring.read(14, 20) else {
            panic!("frames expected")
        };
        assert_eq!((frames.len(), next), (2, 18));
        assert!(matches!(ring.read(15, 1000), RingRead::Inside(_, 16)));
        assert_eq!(ring.read(20, 1000), RingRead::Miss);
    }

    #[test]
    fn the_oldest_blocks_go_when_a_bound_is_reached() {
        let budget = RingBudget::new(35, 1000);
        let mut ring = filled(&budget);
        assert_eq!(budget.held_bytes(), 30);
        assert_eq!(ring.read(0, 1000), RingRead::Miss);
        assert!(matches!(ring.read(14, 1000), RingRead::Frames(..)));
        ring.clear(&budget);
        assert_eq!(budget.held_bytes(), 0);

        let budget = RingBudget::new(1000, 15);
        filled(&budget);
        assert_eq!(budget.held_bytes(), 10, "only the newest block stays");
    }
}
