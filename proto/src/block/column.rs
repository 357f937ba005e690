//! Columns: pairs of varints, a value and the number of consecutive lines that it holds for.
//!
//! Varints and zigzag are those of the protocol buffers encoding
//! (<https://protobuf.dev/programming-guides/encoding/>).

use super::BlockError;

/// Appends runs of values. Equal neighbours are merged.
#[derive(Debug, Default)]
pub(super) struct ColumnWriter {
    bytes: Vec<u8>,
    value: u64,
    /// Lines of the run that is not written yet; 0 before the first line.
    run: u64,
    only_default: bool,
}

impl ColumnWriter {
    pub(super) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            value: 0,
            run: 0,
            only_default: true,
        }
    }

    pub(super) fn push(&mut self, value: u64, lines: u64) {
        if lines == 0 {
            return;
        }
        if self.run > 0 && self.value == value {
            self.run += lines;
            return;
        }
        self.write_run();
        self.value = value;
        self.run = lines;
        self.only_default &= value == 0;
    }

    /// Encoded size so far, the open run counted at its largest (two varints of 64 bits).
    pub(super) fn encoded_bytes(&self) -> usize {
        self.bytes.len() + 20
    }

    /// Takes the column and leaves the writer empty. Empty when every line has the default, 0.
    pub(super) fn finish(&mut self) -> bytes::Bytes {
        self.write_run();
        let only_default = std::mem::replace(&mut self.only_default, true);
        self.run = 0;
        self.value = 0;
        let bytes = std::mem::take(&mut self.bytes);
        if only_default {
            bytes::Bytes::new()
        } else {
            bytes.into()
        }
    }

    fn write_run(&mut self) {
        if self.run > 0 {
            write_varint(&mut self.bytes, self.value);
            write_varint(&mut self.bytes, self.run);
        }
    }
}

/// Reads a column value by value. A damaged column ends early and [`Column::check`] says why; readers
/// check before they iterate.
#[derive(Clone, Debug)]
pub(super) struct Column<'a> {
    name: &'static str,
    bytes: &'a [u8],
    offset: usize,
    value: u64,
    left: u64,
}

impl<'a> Column<'a> {
    pub(super) fn new(name: &'static str, bytes: &'a [u8]) -> Self {
        Self {
            name,
            bytes,
            offset: 0,
            value: 0,
            left: 0,
        }
    }

    /// Next run as (value, lines), or `None` at the end.
    pub(super) fn next_run(&mut self) -> Result<Option<(u64, u64)>, BlockError> {
        if self.offset == self.bytes.len() {
            return Ok(None);
        }
        let value = self.varint()?;
        let lines = self.varint()?;
        if lines == 0 {
            return Err(self.damaged("a run of no lines"));
        }
        Ok(Some((value, lines)))
    }

    /// Value of the next line; the default, 0, behind the end.
    pub(super) fn next_value(&mut self) -> u64 {
        if self.left == 0 {
            let Ok(Some((value, lines))) = self.next_run() else {
                return 0;
            };
            self.value = value;
            self.left = lines;
        }
        self.left -= 1;
        self.value
    }

    /// Checks that the column is empty or describes exactly `line_count` lines, and hands each run to
    /// `check_run`.
    pub(super) fn check(
        mut self,
        line_count: u32,
        max_bytes: usize,
        mut check_run: impl FnMut(u64, u64) -> Result<(), &'static str>,
    ) -> Result<(), BlockError> {
        if self.bytes.len() > max_bytes {
            return Err(BlockError::ColumnTooLarge {
                column: self.name,
                bytes: self.bytes.len(),
            });
        }
        if self.bytes.is_empty() {
            return Ok(());
        }
        let mut described = 0_u64;
        while let Some((value, lines)) = self.next_run()? {
            described = described.saturating_add(lines);
            if described > u64::from(line_count) {
                break;
            }
            check_run(value, lines).map_err(|cause| self.damaged(cause))?;
        }
        if described != u64::from(line_count) {
            return Err(BlockError::ColumnLength {
                column: self.name,
                described,
                line_count,
            });
        }
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, BlockError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let Some(&byte) = self.bytes.get(self.offset) else {
                return Err(self.damaged("a number is cut off"));
            };
            self.offset += 1;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.damaged("a number has more than 64 bits"))
    }

    fn damaged(&self, cause: &'static str) -> BlockError {
        BlockError::BadColumn {
            column: self.name,
            offset: self.offset,
            cause,
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "seven bits at a time are what a varint is made of"
)]
fn write_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}
