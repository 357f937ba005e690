//! Sizes that both sides of the wire keep to. A peer that breaks one is refused with a message that
//! names the limit.

/// Uncompressed text of one block, terminators included.
pub const MAX_BLOCK_TEXT_BYTES: usize = 1 << 20;

/// Text of one line; a longer one is split into pieces flagged as partial. One less than a block so that
/// the terminator fits.
pub const MAX_LINE_BYTES: usize = MAX_BLOCK_TEXT_BYTES - 1;

/// Each of the columns `times`, `channels`, `flags`, `severities` and `sequences`, encoded. A line of its own costs a
/// run of at most 11 bytes; a builder cuts a block before a column gets this large.
pub const MAX_COLUMN_BYTES: usize = 512 << 10;

/// Any gRPC message, in either direction.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// A source's checkpoint.
pub const MAX_CHECKPOINT_BYTES: usize = 64 << 10;

/// Labels of one stream, the built-in ones included.
pub const MAX_LABELS: usize = 64;

/// A label's name.
pub const MAX_LABEL_NAME_BYTES: usize = 63;

/// A label's value.
pub const MAX_LABEL_VALUE_BYTES: usize = 4096;
