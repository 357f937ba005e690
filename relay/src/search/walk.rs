//! The blocks of one stream in either direction.

use std::ops::Range;
use std::sync::Arc;

use millstream_proto::v1;
use millstream_store::{LogStore, StoreError};

use crate::streams::StreamHandle;

/// Encoded blocks that are read at once going forwards.
const PAGE_BYTES: usize = 256 << 10;

/// What a step brought.
#[derive(Debug)]
pub(super) enum Step {
    /// Blocks in order, whole ones: the outermost may reach beyond the range.
    Blocks(Vec<v1::Block>),
    /// These lines cannot be read.
    Lost(Range<u64>, String),
    End,
}

/// Which lines of a stream are still to be looked at.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) stream: Arc<StreamHandle>,
    /// Shrinks from the side on which the walk goes on.
    pub(super) rest: Range<u64>,
    pub(super) newest_first: bool,
}

impl Walk {
    /// The next blocks: forwards a page, backwards one block, whose size bounds what a step holds in memory.
    pub(super) fn step(&mut self, store: &dyn LogStore) -> Result<Step, StoreError> {
        // What retention has removed meanwhile is not there to be searched.
        let first_sequence = self.stream.bounds().first_sequence;
        self.rest.start = self.rest.start.max(first_sequence);
        if self.rest.is_empty() {
            return Ok(Step::End);
        }
        if self.newest_first {
            self.step_back(store)
        } else {
            self.step_on(store)
        }
    }

    fn step_on(&mut self, store: &dyn LogStore) -> Result<Step, StoreError> {
        let from = self.rest.start;
        match store.read_blocks(self.stream.stream_id, from, PAGE_BYTES) {
            Err(StoreError::DamagedLines {
                next_sequence, cause, ..
            }) => Ok(self.lose(from..next_sequence, cause)),
            Err(error) => Err(error),
            Ok(blocks) => match (blocks.first(), blocks.last()) {
                (Some(first), _) if first.first_sequence > from => {
                    let lost = from..first.first_sequence;
                    Ok(self.lose(lost, "they are missing from the index".to_owned()))
                }
                (Some(_), Some(last)) => {
                    self.rest.start = end_of(last).max(from + 1);
                    Ok(Step::Blocks(blocks))
                }
                _ => Ok(self.lose(from..self.rest.end, "they are missing from the index".to_owned())),
            },
        }
    }

    fn step_back(&mut self, store: &dyn LogStore) -> Result<Step, StoreError> {
        let newest = self.rest.end - 1;
        match store.read_blocks(self.stream.stream_id, newest, 1) {
            Ok(mut blocks) if blocks.first().is_some_and(|block| block.first_sequence <= newest) => {
                blocks.truncate(1);
                self.rest.end = blocks[0].first_sequence.max(self.rest.start);
                Ok(Step::Blocks(blocks))
            }
            Ok(_) | Err(StoreError::DamagedLines { .. }) => {
                let readable_end = self.last_readable_end(store)?;
                let cause = "a block or a part of the index does not have its checksum".to_owned();
                Ok(self.lose(readable_end..self.rest.end, cause))
            }
            Err(error) => Err(error),
        }
    }

    /// Takes lost lines off the rest.
    fn lose(&mut self, lost: Range<u64>, cause: String) -> Step {
        let lost = lost.start.max(self.rest.start)..lost.end.min(self.rest.end);
        if self.newest_first {
            self.rest.end = lost.start;
        } else {
            self.rest.start = lost.end;
        }
        Step::Lost(lost, cause)
    }

    /// Sequence after the last line that can be read below the rest's end, whose last line cannot; the rest's
    /// begin when there is none. The store tells where damage ends but not where it begins, so this goes back in
    /// ever larger steps until something can be read, and forwards from there.
    fn last_readable_end(&self, store: &dyn LogStore) -> Result<u64, StoreError> {
        let stream_id = self.stream.stream_id;
        let end = self.rest.end;
        let mut step = 1_u64;
        loop {
            let start = end.saturating_sub(step).max(self.rest.start);
            let mut readable_end = None;
            let mut reached = start;
            while reached < end {
                match store.read_blocks(stream_id, reached, PAGE_BYTES) {
                    Ok(blocks) => {
                        let readable = blocks.iter().take_while(|block| block.first_sequence < end);
                        match readable.last() {
                            Some(last) => {
                                reached = end_of(last).max(reached + 1);
                                readable_end = Some(reached.min(end));
                            }
                            None => break,
                        }
                    }
                    Err(StoreError::DamagedLines { next_sequence, .. }) => {
                        reached = next_sequence.max(reached + 1);
                    }
                    Err(error) => return Err(error),
                }
            }
            match readable_end {
                Some(readable_end) => return Ok(readable_end),
                None if start == self.rest.start => return Ok(start),
                None => step = step.saturating_mul(2),
            }
        }
    }
}

/// Sequence after the last line of a stored block, which is dense.
fn end_of(block: &v1::Block) -> u64 {
    block.first_sequence.saturating_add(block.line_count.into())
}
