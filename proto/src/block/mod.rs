//! The block codec: lines into columns and back.
//!
//! [`BlockBuilder`] lays lines out in columns, [`Compressor`] packs the text, [`validate`] checks what a
//! stranger sent without unpacking it, [`OpenBlock`] reads lines, slices and filters, and [`Unpacker`] goes
//! through many blocks. The layout is specified in `proto/millstream/v1/block.proto`. Malformed input is an
//! error, never a panic, and costs no more memory than [`crate::limits`] allow. Nothing here knows of streams,
//! files or sockets.

mod build;
mod column;
mod compress;
mod error;
mod open;
mod unpack;
mod validate;

pub use build::BlockBuilder;
pub use compress::Compressor;
pub use error::BlockError;
pub use open::{Line, Lines, OpenBlock, last_time_unix_us};
pub use unpack::{Unpacked, Unpacker};
pub use validate::{next_sequence, validate};

#[cfg(test)]
mod tests;
