//! Checks of a block that came from elsewhere.

use super::build::count_newlines;
use super::column::Column;
use super::{BlockError, compress};
use crate::limits::{MAX_BLOCK_TEXT_BYTES, MAX_COLUMN_BYTES};
use crate::v1;

/// Checks header, limits and columns. Uncompressed text is searched for line ends; compressed text is
/// not unpacked, but the size that its frame states is compared with the header.
///
/// # Errors
/// The first thing that is wrong.
pub fn validate(block: &v1::Block) -> Result<(), BlockError> {
    check_header(block)?;
    match block.codec() {
        v1::Codec::None if block.codec == i32::from(v1::Codec::None) => check_text(block, &block.text)?,
        v1::Codec::Zstd => {
            let actual = compress::declared_bytes(&block.text)?;
            if actual != u64::from(block.text_bytes) {
                return Err(BlockError::TextSize {
                    declared: block.text_bytes.into(),
                    actual,
                });
            }
        }
        _ => return Err(BlockError::UnknownCodec(block.codec)),
    }
    check_columns(block, MAX_COLUMN_BYTES)
}

/// Sequence after the block's last line.
///
/// # Errors
/// The column of sequences is damaged or the numbers overflow.
pub fn next_sequence(block: &v1::Block) -> Result<u64, BlockError> {
    if block.sequences.is_empty() {
        return block
            .first_sequence
            .checked_add(block.line_count.into())
            .ok_or(BlockError::BadSequences);
    }
    let mut last = block.first_sequence;
    let mut column = Column::new("sequences", &block.sequences);
    while let Some((step, lines)) = column.next_run()? {
        let distance = step.checked_mul(lines).ok_or(BlockError::BadSequences)?;
        last = last.checked_add(distance).ok_or(BlockError::BadSequences)?;
    }
    last.checked_add(1).ok_or(BlockError::BadSequences)
}

pub(super) fn check_header(block: &v1::Block) -> Result<(), BlockError> {
    if block.line_count == 0 {
        return Err(BlockError::Empty);
    }
    if block.text_bytes as usize > MAX_BLOCK_TEXT_BYTES {
        return Err(BlockError::TextTooLarge {
            text_bytes: block.text_bytes.into(),
        });
    }
    if block.line_count > block.text_bytes {
        return Err(BlockError::LineCount {
            declared: block.line_count.into(),
            actual: block.text_bytes.into(),
        });
    }
    Ok(())
}

/// Checks unpacked text against the header.
pub(super) fn check_text(block: &v1::Block, text: &[u8]) -> Result<(), BlockError> {
    if text.len() != block.text_bytes as usize {
        return Err(BlockError::TextSize {
            declared: block.text_bytes.into(),
            actual: text.len() as u64,
        });
    }
    if text.last() != Some(&b'\n') {
        return Err(BlockError::Unterminated);
    }
    let lines = count_newlines(text);
    if lines != block.line_count {
        return Err(BlockError::LineCount {
            declared: block.line_count.into(),
            actual: lines.into(),
        });
    }
    Ok(())
}

pub(super) fn check_columns(block: &v1::Block, max_column_bytes: usize) -> Result<(), BlockError> {
    let lines = block.line_count;
    Column::new("times", &block.times).check(lines, max_column_bytes, |_, _| Ok(()))?;
    Column::new("channels", &block.channels).check(lines, max_column_bytes, |channel, _| {
        if channel > 2 {
            Err("a channel that is not stdout, stderr or notice")
        } else {
            Ok(())
        }
    })?;
    Column::new("flags", &block.flags).check(lines, max_column_bytes, |flags, _| {
        if flags > 1 {
            Err("a flag that is not known")
        } else {
            Ok(())
        }
    })?;
    // Numbers that are not known say nothing, so that a later protocol may have more of them.
    Column::new("severities", &block.severities).check(lines, max_column_bytes, |_, _| Ok(()))?;
    let mut is_first_run = true;
    Column::new("sequences", &block.sequences).check(lines, max_column_bytes, |step, run| {
        let is_valid = if std::mem::take(&mut is_first_run) {
            step == 0 && run == 1
        } else {
            step > 0
        };
        if is_valid {
            Ok(())
        } else {
            Err("the sequences do not ascend")
        }
    })?;
    next_sequence(block).map(|_| ())
}
