//! Zstandard (RFC 8878) for the text of a block.

use bytes::Bytes;

use super::BlockError;
use crate::v1;

/// A reusable compression context. It holds some hundred KiB to a few MiB depending on the level, so
/// share one per thread and drop it when idle.
pub struct Compressor {
    context: zstd::bulk::Compressor<'static>,
}

impl Compressor {
    /// `level` as in zstd: 1 is fast, 3 the usual, negative ones faster still. Levels outside zstd's
    /// range are clamped by it.
    #[must_use]
    pub fn new(level: i32) -> Self {
        let context =
            zstd::bulk::Compressor::new(level).expect("zstd refuses a context only when memory is exhausted");
        Self { context }
    }

    /// Compresses the text when that makes it smaller. A block that is compressed already is returned as
    /// it is.
    pub fn compress(&mut self, block: v1::Block) -> v1::Block {
        if block.codec != i32::from(v1::Codec::None) {
            return block;
        }
        match self.context.compress(&block.text) {
            Ok(packed) if packed.len() < block.text.len() => v1::Block {
                codec: v1::Codec::Zstd.into(),
                text: packed.into(),
                ..block
            },
            _ => block,
        }
    }
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Compressor")
    }
}

/// Content size that the frame's header states.
pub(super) fn declared_bytes(frame: &[u8]) -> Result<u64, BlockError> {
    match zstd::zstd_safe::get_frame_content_size(frame) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(BlockError::BadFrame("no content size".to_owned())),
        Err(error) => Err(BlockError::BadFrame(error.to_string())),
    }
}

/// Unpacks exactly `text_bytes`; a frame that holds more or less is an error, and no more than that is
/// ever allocated.
pub(super) fn decompress(frame: &[u8], text_bytes: usize) -> Result<Bytes, BlockError> {
    let mut text = Vec::new();
    let mut context =
        zstd::bulk::Decompressor::new().expect("zstd refuses a context only when memory is exhausted");
    decompress_into(&mut context, frame, text_bytes, &mut text)?;
    Ok(text.into())
}

/// The same with a context and memory that are used again.
pub(super) fn decompress_into(
    context: &mut zstd::bulk::Decompressor<'static>,
    frame: &[u8],
    text_bytes: usize,
    text: &mut Vec<u8>,
) -> Result<(), BlockError> {
    text.clear();
    text.reserve_exact(text_bytes);
    let actual = context
        .decompress_to_buffer(frame, text)
        .map_err(|error| BlockError::BadFrame(error.to_string()))?;
    if actual != text_bytes {
        return Err(BlockError::TextSize {
            declared: text_bytes as u64,
            actual: actual as u64,
        });
    }
    Ok(())
}
