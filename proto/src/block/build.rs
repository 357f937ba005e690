//! Lines into a block.

use bytes::Bytes;

use super::Line;
use super::column::{ColumnWriter, zigzag};
use crate::limits::{MAX_BLOCK_TEXT_BYTES, MAX_COLUMN_BYTES};
use crate::v1;

/// Lays lines out in columns until the block is full or somebody takes it.
///
/// ```
/// use millstream_proto::{block::BlockBuilder, v1::Channel};
///
/// let mut builder = BlockBuilder::new();
/// assert!(builder.push_line(b"cargo build", 1_700_000_000_000_000, Channel::Stdout, false));
/// let block = builder.finish(42).expect("it has a line");
/// assert_eq!((block.first_sequence, block.line_count, &block.text[..]), (42, 1, &b"cargo build\n"[..]));
/// ```
#[derive(Debug)]
pub struct BlockBuilder {
    text: Vec<u8>,
    line_count: u32,
    first_time_unix_us: i64,
    last_time_unix_us: i64,
    times: ColumnWriter,
    channels: ColumnWriter,
    flags: ColumnWriter,
    severities: ColumnWriter,
    sequences: ColumnWriter,
    /// First and last sequence, when lines were pushed with sequences of their own.
    sparse: Option<(u64, u64)>,
}

impl Default for BlockBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BlockBuilder {
    #[must_use]
    pub fn new() -> Self {
        Self {
            text: Vec::new(),
            line_count: 0,
            first_time_unix_us: 0,
            last_time_unix_us: 0,
            times: ColumnWriter::new(),
            channels: ColumnWriter::new(),
            flags: ColumnWriter::new(),
            severities: ColumnWriter::new(),
            sequences: ColumnWriter::new(),
            sparse: None,
        }
    }

    /// Appends one line. `text` has no `\n`. False: it does not fit any more and nothing was appended;
    /// finish the block first. A line of more than [`crate::limits::MAX_LINE_BYTES`] never fits: split it
    /// and flag the pieces but the last partial.
    pub fn push_line(&mut self, text: &[u8], time_unix_us: i64, channel: v1::Channel, partial: bool) -> bool {
        debug_assert!(memchr::memchr(b'\n', text).is_none(), "a line holds no newline");
        self.push(&Line {
            sequence: 0,
            time_unix_us,
            channel,
            partial,
            severity: v1::Severity::Unspecified,
            text,
        })
    }

    /// Appends one line with all that is known of it but its sequence. False as in [`BlockBuilder::push_line`].
    pub fn push(&mut self, line: &Line<'_>) -> bool {
        if self.text.len() + line.text.len() + 1 > MAX_BLOCK_TEXT_BYTES || self.columns_are_full() {
            return false;
        }
        self.append(line);
        true
    }

    /// Appends as many whole `\n`-terminated lines from the front of `chunk` as fit, all with the same
    /// time and channel. Returns the bytes taken: 0 when the first line does not fit or `chunk` holds no
    /// newline.
    pub fn push_terminated(&mut self, chunk: &[u8], time_unix_us: i64, channel: v1::Channel) -> usize {
        if self.columns_are_full() {
            return 0;
        }
        let taken = self.lines_with_room(chunk);
        if taken == 0 {
            return 0;
        }
        let lines = count_newlines(&chunk[..taken]);
        self.text.extend_from_slice(&chunk[..taken]);
        self.describe(lines, time_unix_us, channel, false, v1::Severity::Unspecified);
        taken
    }

    /// [`BlockBuilder::push_terminated`] with severities: `next_run` is asked, again and again, for the severity of
    /// the first line of a text and for the bytes of the lines from there on that have the same, at least one whole
    /// line.
    pub fn push_terminated_with(
        &mut self,
        chunk: &[u8],
        time_unix_us: i64,
        channel: v1::Channel,
        mut next_run: impl FnMut(&[u8]) -> (v1::Severity, usize),
    ) -> usize {
        let room = self.lines_with_room(chunk);
        let mut taken = 0;
        while taken < room && !self.columns_are_full() {
            let (severity, bytes) = next_run(&chunk[taken..room]);
            let run = &chunk[taken..taken + bytes];
            debug_assert!(run.last() == Some(&b'\n'), "a run is whole lines");
            self.text.extend_from_slice(run);
            self.describe(count_newlines(run), time_unix_us, channel, false, severity);
            taken += bytes;
        }
        taken
    }

    /// Bytes of the whole lines at the front of `chunk` that fit.
    fn lines_with_room(&self, chunk: &[u8]) -> usize {
        let room = (MAX_BLOCK_TEXT_BYTES - self.text.len()).min(chunk.len());
        memchr::memrchr(b'\n', &chunk[..room]).map_or(0, |newline| newline + 1)
    }

    /// Appends a line under a sequence of its own, which must ascend; for blocks of chosen lines. False as in
    /// [`BlockBuilder::push_line`]. [`BlockBuilder::finish`] then ignores the sequence that it is given.
    pub fn push_sparse(&mut self, line: &Line<'_>) -> bool {
        let fits = self.push(line);
        if fits {
            self.note_sequence(line.sequence);
        }
        fits
    }

    /// Appends a line of a block whose neighbours are appended too, so that columns grow by the split of
    /// a run at most.
    pub(super) fn push_of_slice(&mut self, line: &Line<'_>) {
        self.append(line);
        self.note_sequence(line.sequence);
    }

    fn append(&mut self, line: &Line<'_>) {
        self.text.extend_from_slice(line.text);
        self.text.push(b'\n');
        self.describe(1, line.time_unix_us, line.channel, line.partial, line.severity);
    }

    fn note_sequence(&mut self, sequence: u64) {
        match &mut self.sparse {
            None => {
                self.sequences.push(0, 1);
                self.sparse = Some((sequence, sequence));
            }
            Some((_, last)) => {
                self.sequences.push(sequence - *last, 1);
                *last = sequence;
            }
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.line_count == 0
    }

    #[must_use]
    pub fn line_count(&self) -> u32 {
        self.line_count
    }

    /// Size of the text so far, terminators included.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }

    /// Takes the lines as an uncompressed block and leaves the builder empty. `None` without a line.
    pub fn finish(&mut self, first_sequence: u64) -> Option<v1::Block> {
        if self.is_empty() {
            return None;
        }
        let text_bytes =
            u32::try_from(self.text.len()).expect("push_line and push_terminated keep the text below 1 MiB");
        let sequences = self.sequences.finish();
        let (first_sequence, sequences) = match self.sparse.take() {
            Some((first, last)) if last - first >= u64::from(self.line_count) => (first, sequences),
            Some((first, _)) => (first, Bytes::new()),
            None => (first_sequence, Bytes::new()),
        };
        // The next block of a busy stream is likely as large; a quiet one gives its memory back.
        let text = std::mem::replace(
            &mut self.text,
            if text_bytes < 4096 {
                Vec::new()
            } else {
                Vec::with_capacity(text_bytes as usize)
            },
        );
        let block = v1::Block {
            first_sequence,
            line_count: self.line_count,
            text_bytes,
            codec: v1::Codec::None.into(),
            text: text.into(),
            first_time_unix_us: self.first_time_unix_us,
            times: self.times.finish(),
            channels: self.channels.finish(),
            flags: self.flags.finish(),
            severities: self.severities.finish(),
            sequences,
        };
        self.line_count = 0;
        Some(block)
    }

    fn describe(
        &mut self,
        lines: u32,
        time_unix_us: i64,
        channel: v1::Channel,
        partial: bool,
        severity: v1::Severity,
    ) {
        if self.line_count == 0 {
            self.first_time_unix_us = time_unix_us;
            self.last_time_unix_us = time_unix_us;
        }
        self.times
            .push(zigzag(time_unix_us.wrapping_sub(self.last_time_unix_us)), 1);
        self.times.push(0, u64::from(lines - 1));
        self.last_time_unix_us = time_unix_us;
        self.channels
            .push(i32::from(channel).cast_unsigned().into(), lines.into());
        let flag = if partial {
            v1::LineFlag::Partial
        } else {
            v1::LineFlag::None
        };
        self.flags
            .push(i32::from(flag).cast_unsigned().into(), lines.into());
        self.severities
            .push(i32::from(severity).cast_unsigned().into(), lines.into());
        self.line_count += lines;
    }

    /// With a run for every line a block of empty lines would outgrow its text in columns.
    fn columns_are_full(&self) -> bool {
        let limit = MAX_COLUMN_BYTES - 64;
        [
            &self.times,
            &self.channels,
            &self.flags,
            &self.severities,
            &self.sequences,
        ]
        .iter()
        .any(|column| column.encoded_bytes() > limit)
    }
}

/// Number of `\n` bytes.
pub(super) fn count_newlines(text: &[u8]) -> u32 {
    let count = memchr::memchr_iter(b'\n', text).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}
