//! What one turn makes of the blocks that it finds: the wanted lines as frames, in a form that the reader can read, and no
//! more than the turn may take.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use millstream_proto::block::{BlockError, OpenBlock, next_sequence};
use millstream_proto::v1::{self, tail_response::Message};
use prost::Message as _;

use crate::filter::LineFilter;
use crate::streams::{block_frame, message_frame};

/// A block of a stream, and the frame that it came in when it came from memory.
pub(super) type Found = (v1::Block, Option<Bytes>);

/// What is wanted of them.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) stream_id: u64,
    pub(super) lines: Range<u64>,
    pub(super) filter: Option<Arc<LineFilter>>,
    pub(super) accepts_zstd: bool,
    /// A block that alone has more is cut.
    pub(super) max_bytes: usize,
}

/// What was made.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) frames: Vec<Bytes>,
    bytes: usize,
    /// Sequence after the lines that were looked at.
    pub(super) reached: u64,
}

impl Cut {
    /// What a block has at most as it is delivered.
    fn bytes_of(&self, block: &v1::Block) -> usize {
        if self.accepts_zstd && self.filter.is_none() {
            block.encoded_len()
        } else {
            block.text_bytes as usize
        }
    }

    /// Whether a block can go out as it is.
    fn is_ready(&self, block: &v1::Block) -> Result<bool, BlockError> {
        let is_readable = self.accepts_zstd || block.codec() == v1::Codec::None;
        let is_whole = block.first_sequence >= self.lines.start && next_sequence(block)? <= self.lines.end;
        let fits = block.text_bytes as usize <= self.max_bytes || block.encoded_len() <= self.max_bytes;
        Ok(self.filter.is_none() && is_readable && is_whole && fits)
    }

    /// Uncompressed text of those blocks that have to be opened, in bytes: what [`Cut::make`] costs.
    pub(super) fn cost(&self, blocks: &[Found]) -> usize {
        let opened = blocks
            .iter()
            .filter(|(block, _)| !self.is_ready(block).is_ok_and(|is_ready| is_ready));
        opened.map(|(block, _)| block.text_bytes as usize).sum()
    }

    /// Blocks that adjoin, but for those that the store has lost: in their place is a gap. After `deadline` it stops at
    /// the next line; at least one line is looked at.
    pub(super) fn make(&self, blocks: Vec<Found>, deadline: Option<Instant>) -> Result<Made, BlockError> {
        let mut made = Made {
            frames: Vec::with_capacity(blocks.len()),
            bytes: 0,
            reached: self.lines.start,
        };
        for (block, frame) in blocks {
            // What is small in the store may be large for a reader that wants it uncompressed.
            let is_over = made.bytes > 0 && made.bytes + self.bytes_of(&block) > self.max_bytes;
            if block.first_sequence >= self.lines.end || is_over {
                break;
            }
            if block.first_sequence > made.reached {
                let lost = made.reached..block.first_sequence;
                made.push(self.damage(lost, "they are missing from the index"));
            }
            let end = next_sequence(&block)?.min(self.lines.end);
            made.reached = if self.is_ready(&block)? {
                made.push(frame.unwrap_or_else(|| block_frame(self.stream_id, block)));
                end
            } else {
                self.open(&block, &mut made, deadline)?
            };
            if made.reached < end {
                break;
            }
        }
        Ok(made)
    }

    /// A gap where the store has lost lines.
    pub(super) fn damage(&self, lost: Range<u64>, cause: &str) -> Bytes {
        message_frame(Message::Gap(v1::Gap {
            stream_id: self.stream_id,
            first_sequence: lost.start,
            next_sequence: lost.end,
            message: format!("these lines are damaged in the relay's store: {cause}"),
            reason: v1::GapReason::Damaged.into(),
        }))
    }

    /// The wanted lines of a block; returns the sequence after those that were looked at.
    fn open(&self, block: &v1::Block, made: &mut Made, deadline: Option<Instant>) -> Result<u64, BlockError> {
        let open = OpenBlock::open(block)?;
        let mut part = self.lines.start
            ..self
                .lines
                .end
                .min(part_end(&open, self.lines.start, self.max_bytes));
        let wanted = match &self.filter {
            None => open.slice(part.clone()).into_iter().collect(),
            Some(filter) => open.filter(|line| {
                if !part.contains(&line.sequence) {
                    return false;
                }
                let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
                if is_late && line.sequence > self.lines.start {
                    part.end = line.sequence;
                    return false;
                }
                filter.keeps(line)
            }),
        };
        for block in wanted {
            made.push(block_frame(self.stream_id, block));
        }
        Ok(part.end)
    }
}

impl Made {
    fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push(frame);
    }
}

/// Sequence after the lines of a block from `from` on that have at most `max_bytes` of text; at least one is among them.
fn part_end(open: &OpenBlock, from: u64, max_bytes: usize) -> u64 {
    if open.text().len() <= max_bytes {
        return open.next_sequence();
    }
    let mut bytes = 0;
    let mut lines = open.lines().skip_while(|line| line.sequence < from).skip(1);
    let cut = lines.find(|line| {
        bytes += line.text.len();
        bytes > max_bytes
    });
    cut.map_or(open.next_sequence(), |line| line.sequence)
}
