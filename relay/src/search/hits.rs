//! Lines that were found, copied out of their blocks and packed again.

use std::ops::Range;

use millstream_proto::block::{BlockBuilder, Line};
use millstream_proto::v1::{self, Channel};

/// Lines of one stream.
#[derive(Debug, Default)]
pub(super) struct Hits {
    text: Vec<u8>,
    lines: Vec<Hit>,
}

#[derive(Debug)]
struct Hit {
    sequence: u64,
    time_unix_us: i64,
    channel: Channel,
    partial: bool,
    severity: v1::Severity,
    /// Place in `text`.
    text: Range<usize>,
}

impl Hits {
    pub(super) fn push(&mut self, line: &Line<'_>) {
        let start = self.text.len();
        self.text.extend_from_slice(line.text);
        self.lines.push(Hit {
            sequence: line.sequence,
            time_unix_us: line.time_unix_us,
            channel: line.channel,
            partial: line.partial,
            severity: line.severity,
            text: start..self.text.len(),
        });
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(super) fn text_bytes(&self) -> usize {
        self.text.len()
    }

    /// Of the lines from `from` on (an index), keeps the last `count` only.
    pub(super) fn keep_last(&mut self, from: usize, count: usize) {
        let too_many = (self.lines.len() - from).saturating_sub(count);
        self.lines.drain(from..from + too_many);
    }

    /// Forgets the lines below the sequence.
    pub(super) fn forget_below(&mut self, sequence: u64) {
        self.lines.retain(|line| line.sequence >= sequence);
    }

    /// Puts lines that came block by block from the back into order.
    pub(super) fn sort(&mut self) {
        self.lines.sort_unstable_by_key(|line| line.sequence);
    }

    pub(super) fn sequences(&self) -> impl Iterator<Item = u64> {
        self.lines.iter().map(|line| line.sequence)
    }

    /// The lines, which are in order, as blocks in order; empties this.
    pub(super) fn take_blocks(&mut self) -> Vec<v1::Block> {
        let mut blocks = Vec::new();
        let mut builder = BlockBuilder::new();
        for hit in &self.lines {
            let line = Line {
                sequence: hit.sequence,
                time_unix_us: hit.time_unix_us,
                channel: hit.channel,
                partial: hit.partial,
                severity: hit.severity,
                text: &self.text[hit.text.clone()],
            };
            if !builder.push_sparse(&line) {
                blocks.extend(builder.finish(0));
                let fits = builder.push_sparse(&line);
                debug_assert!(fits, "a line of a block fits into an empty block");
            }
        }
        blocks.extend(builder.finish(0));
        // A busy search goes on with the same memory; a large find is not kept.
        self.lines.clear();
        self.text.clear();
        self.text.shrink_to(512 << 10);
        self.lines.shrink_to(8192);
        blocks
    }
}
