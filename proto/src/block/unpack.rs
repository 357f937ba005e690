//! Many blocks one after the other, for those who look through text and seldom need a line.

use super::open::SLICE_SLACK_BYTES;
use super::{BlockError, Lines, compress, validate};
use crate::limits::MAX_COLUMN_BYTES;
use crate::v1;

/// Unpacks one block at a time into memory that it keeps, at most 1 MiB.
///
/// Opening each block with [`super::OpenBlock`] would cost an allocation of that size and a look at every
/// line of text; this costs the decompression alone until somebody asks for lines.
pub struct Unpacker {
    context: zstd::bulk::Decompressor<'static>,
    text: Vec<u8>,
}

impl Default for Unpacker {
    fn default() -> Self {
        Self::new()
    }
}

impl Unpacker {
    #[must_use]
    pub fn new() -> Self {
        let context =
            zstd::bulk::Decompressor::new().expect("zstd refuses a context only when memory is exhausted");
        Self {
            context,
            text: Vec::new(),
        }
    }

    /// The block's text. Header and size are checked; lines and columns only by [`Unpacked::lines`].
    ///
    /// # Errors
    /// The first thing that is wrong with the block.
    pub fn unpack<'a>(&'a mut self, block: &'a v1::Block) -> Result<Unpacked<'a>, BlockError> {
        validate::check_header(block)?;
        let text: &[u8] = match block.codec() {
            v1::Codec::None if block.codec == i32::from(v1::Codec::None) => &block.text,
            v1::Codec::Zstd => {
                let text_bytes = block.text_bytes as usize;
                compress::decompress_into(&mut self.context, &block.text, text_bytes, &mut self.text)?;
                &self.text
            }
            _ => return Err(BlockError::UnknownCodec(block.codec)),
        };
        Ok(Unpacked { block, text })
    }
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Unpacker")
    }
}

/// A block's text, unpacked but not looked at.
#[derive(Clone, Copy, Debug)]
pub struct Unpacked<'a> {
    block: &'a v1::Block,
    text: &'a [u8],
}

impl<'a> Unpacked<'a> {
    /// All lines, each with its terminator, unless the block is damaged.
    #[must_use]
    pub fn text(&self) -> &'a [u8] {
        self.text
    }

    /// Of some lines it is said how bad they are.
    #[must_use]
    pub fn says_severities(&self) -> bool {
        !self.block.severities.is_empty()
    }

    /// All lines, after the checks that [`super::OpenBlock::open`] makes.
    ///
    /// # Errors
    /// The first thing that is wrong with the block.
    pub fn lines(&self) -> Result<Lines<'a>, BlockError> {
        validate::check_columns(self.block, MAX_COLUMN_BYTES + SLICE_SLACK_BYTES)?;
        validate::check_text(self.block, self.text)?;
        Ok(Lines::new(self.block, self.text))
    }
}
