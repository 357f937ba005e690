//! A block's lines.

use std::ops::Range;

use bytes::Bytes;

use super::column::{Column, unzigzag};
use super::{BlockBuilder, BlockError, compress, validate};
use crate::limits::MAX_COLUMN_BYTES;
use crate::v1;

/// A slice may need a few bytes more than the block it was cut from, because a run is split; slices of
/// slices are read too.
pub(super) const SLICE_SLACK_BYTES: usize = 1024;

/// One line of a block. The text borrows from the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    pub sequence: u64,
    pub time_unix_us: i64,
    pub channel: v1::Channel,
    /// No newline was read after the text; the next line of the channel continues it.
    pub partial: bool,
    /// As the agent determined it; mostly `Unspecified`: nobody said.
    pub severity: v1::Severity,
    /// Without terminator; any bytes but `\n`.
    pub text: &'a [u8],
}

/// A block that was checked and whose text is unpacked.
#[derive(Clone, Debug)]
pub struct OpenBlock {
    /// Header and columns; the text is empty here, see `text`.
    header: v1::Block,
    text: Bytes,
    next_sequence: u64,
}

impl OpenBlock {
    /// Checks the block and unpacks its text, at most 1 MiB. Uncompressed text is shared, not copied.
    ///
    /// # Errors
    /// The first thing that is wrong with the block.
    pub fn open(block: &v1::Block) -> Result<Self, BlockError> {
        validate::check_header(block)?;
        validate::check_columns(block, MAX_COLUMN_BYTES + SLICE_SLACK_BYTES)?;
        let text = match block.codec() {
            v1::Codec::None if block.codec == i32::from(v1::Codec::None) => block.text.clone(),
            v1::Codec::Zstd => compress::decompress(&block.text, block.text_bytes as usize)?,
            _ => return Err(BlockError::UnknownCodec(block.codec)),
        };
        validate::check_text(block, &text)?;
        let next_sequence = validate::next_sequence(block)?;
        let header = v1::Block {
            text: Bytes::new(),
            ..block.clone()
        };
        Ok(Self {
            header,
            text,
            next_sequence,
        })
    }

    #[must_use]
    pub fn line_count(&self) -> u32 {
        self.header.line_count
    }

    #[must_use]
    pub fn first_sequence(&self) -> u64 {
        self.header.first_sequence
    }

    /// Sequence after the last line.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    #[must_use]
    pub fn first_time_unix_us(&self) -> i64 {
        self.lines()
            .next()
            .map_or(self.header.first_time_unix_us, |line| line.time_unix_us)
    }

    #[must_use]
    pub fn last_time_unix_us(&self) -> i64 {
        last_time_unix_us(&self.header)
    }

    /// All lines, each with its terminator.
    #[must_use]
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// The block as it is, unpacked.
    #[must_use]
    pub fn to_block(&self) -> v1::Block {
        v1::Block {
            codec: v1::Codec::None.into(),
            text: self.text.clone(),
            ..self.header.clone()
        }
    }

    #[must_use]
    pub fn lines(&self) -> Lines<'_> {
        Lines::new(&self.header, &self.text)
    }

    /// The lines within the range as an uncompressed block, or `None` when there are none. The whole
    /// block is returned without a copy.
    #[must_use]
    pub fn slice(&self, sequences: Range<u64>) -> Option<v1::Block> {
        if sequences.start <= self.first_sequence() && sequences.end >= self.next_sequence {
            return Some(self.to_block());
        }
        let mut builder = BlockBuilder::new();
        for line in self.lines().filter(|line| sequences.contains(&line.sequence)) {
            builder.push_of_slice(&line);
        }
        builder.finish(0)
    }

    /// The lines that `keep` wants as uncompressed blocks that state each line's own sequence: mostly one,
    /// none when it wants none, and several when so many single lines are left out that their columns
    /// outgrow one block.
    #[must_use]
    pub fn filter(&self, mut keep: impl FnMut(&Line<'_>) -> bool) -> Vec<v1::Block> {
        let mut blocks = Vec::new();
        let mut builder = BlockBuilder::new();
        for line in self.lines().filter(|line| keep(line)) {
            if !builder.push_sparse(&line) {
                blocks.extend(builder.finish(0));
                let fits = builder.push_sparse(&line);
                debug_assert!(fits, "a line of a block fits into an empty block");
            }
        }
        blocks.extend(builder.finish(0));
        blocks
    }
}

/// Capture time of a checked block's last line, from its column alone; microseconds since the Unix epoch.
#[must_use]
pub fn last_time_unix_us(block: &v1::Block) -> i64 {
    let mut time = block.first_time_unix_us;
    let mut column = Column::new("times", &block.times);
    while let Ok(Some((delta, lines))) = column.next_run() {
        time = time.wrapping_add(unzigzag(delta).wrapping_mul(lines.cast_signed()));
    }
    time
}

/// Iterator over the lines of an [`OpenBlock`].
#[derive(Clone, Debug)]
pub struct Lines<'a> {
    rest: &'a [u8],
    sequence: u64,
    time_unix_us: i64,
    times: Column<'a>,
    channels: Column<'a>,
    flags: Column<'a>,
    severities: Column<'a>,
    sequences: Option<Column<'a>>,
    is_first: bool,
}

impl<'a> Lines<'a> {
    /// Columns and text were checked.
    pub(super) fn new(header: &'a v1::Block, text: &'a [u8]) -> Self {
        Self {
            rest: text,
            sequence: header.first_sequence,
            time_unix_us: header.first_time_unix_us,
            times: Column::new("times", &header.times),
            channels: Column::new("channels", &header.channels),
            flags: Column::new("flags", &header.flags),
            severities: Column::new("severities", &header.severities),
            sequences: (!header.sequences.is_empty()).then(|| Column::new("sequences", &header.sequences)),
            is_first: true,
        }
    }

    /// Text of the lines that are still to come, each with its terminator.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let end = memchr::memchr(b'\n', self.rest)?;
        let text = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        match &mut self.sequences {
            Some(column) => self.sequence += column.next_value(),
            None if self.is_first => {}
            None => self.sequence += 1,
        }
        self.is_first = false;
        self.time_unix_us = self.time_unix_us.wrapping_add(unzigzag(self.times.next_value()));
        let channel = match self.channels.next_value() {
            1 => v1::Channel::Stderr,
            2 => v1::Channel::Notice,
            _ => v1::Channel::Stdout,
        };
        let partial = self.flags.next_value() & 1 == 1;
        let severity = match self.severities.next_value() {
            1 => v1::Severity::None,
            2 => v1::Severity::Warning,
            3 => v1::Severity::Error,
            _ => v1::Severity::Unspecified,
        };
        Some(Line {
            sequence: self.sequence,
            time_unix_us: self.time_unix_us,
            channel,
            partial,
            severity,
            text,
        })
    }
}
