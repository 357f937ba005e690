//! What can be wrong with a block.

use crate::limits::{MAX_BLOCK_TEXT_BYTES, MAX_COLUMN_BYTES};

/// Why a block was refused. The messages name the field and both values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    #[error("block has no lines")]
    Empty,
    #[error("block says that its text has {text_bytes} bytes; the limit is {MAX_BLOCK_TEXT_BYTES}")]
    TextTooLarge { text_bytes: u64 },
    #[error("block says that its text has {declared} bytes, but there are {actual}")]
    TextSize { declared: u64, actual: u64 },
    #[error("block says that it has {declared} lines, but its text has {actual} line ends")]
    LineCount { declared: u64, actual: u64 },
    #[error("the last line of the block's text does not end with a newline")]
    Unterminated,
    #[error("block has codec {0}; known are 1 (none) and 2 (zstd)")]
    UnknownCodec(i32),
    #[error("the block's compressed text is not one zstd frame that states its size: {0}")]
    BadFrame(String),
    #[error("column {column} has {bytes} bytes; the limit is {MAX_COLUMN_BYTES}")]
    ColumnTooLarge { column: &'static str, bytes: usize },
    #[error("column {column} is damaged at byte {offset}: {cause}")]
    BadColumn {
        column: &'static str,
        offset: usize,
        cause: &'static str,
    },
    #[error("column {column} describes {described} lines of {line_count}")]
    ColumnLength {
        column: &'static str,
        described: u64,
        line_count: u32,
    },
    #[error("the block's sequences leave the range of 64 bits or do not ascend")]
    BadSequences,
}
