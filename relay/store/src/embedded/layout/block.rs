//! What is known of a block beside its text: the meta of a record of kind `Block`. It says all that a stream's head
//! says after it, so that a head is nothing but its newest block.
//!
//! stream (8), first sequence (8), next sequence (8), first and last time (8, 8), size of the uncompressed text (4),
//! the stream's text up to here (8), flags (1), then the source's checkpoint up to the end. The body is the encoded
//! `v1::Block` with the text at its end.

use bytes::Bytes;
use millstream_proto::v1;
use prost::Message as _;

use super::{LayoutError, take, take_i64, take_u32, take_u64};

const WHAT: &str = "what is known of a block";

pub(crate) const FLAG_COMPRESSED: u8 = 1;
/// Made by the settler.
pub(crate) const FLAG_SETTLED: u8 = 1 << 1;
/// These lines are lost; there is no body.
pub(crate) const FLAG_LOST: u8 = 1 << 2;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockFacts {
    pub(crate) stream_id: u64,
    pub(crate) first_sequence: u64,
    /// Sequence after the last line.
    pub(crate) next_sequence: u64,
    pub(crate) first_time_unix_us: i64,
    pub(crate) last_time_unix_us: i64,
    /// Size of the uncompressed text.
    pub(crate) text_bytes: u32,
    /// Text of all lines ever appended to the stream up to this block's end; 0 when that is not known.
    pub(crate) stream_text_bytes: u64,
    pub(crate) flags: u8,
    /// With which the source goes on behind this block; empty when that is not known.
    pub(crate) checkpoint: Bytes,
}

impl BlockFacts {
    pub(crate) fn to_meta(&self) -> Vec<u8> {
        let mut meta = Vec::with_capacity(53 + self.checkpoint.len());
        meta.extend(self.stream_id.to_le_bytes());
        meta.extend(self.first_sequence.to_le_bytes());
        meta.extend(self.next_sequence.to_le_bytes());
        meta.extend(self.first_time_unix_us.to_le_bytes());
        meta.extend(self.last_time_unix_us.to_le_bytes());
        meta.extend(self.text_bytes.to_le_bytes());
        meta.extend(self.stream_text_bytes.to_le_bytes());
        meta.push(self.flags);
        meta.extend(&self.checkpoint);
        meta
    }

    /// The checkpoint is copied, so that it does not hold a whole file in memory.
    pub(crate) fn from_meta(mut meta: &[u8]) -> Result<Self, LayoutError> {
        let rest = &mut meta;
        let mut facts = Self {
            stream_id: take_u64(rest, WHAT)?,
            first_sequence: take_u64(rest, WHAT)?,
            next_sequence: take_u64(rest, WHAT)?,
            first_time_unix_us: take_i64(rest, WHAT)?,
            last_time_unix_us: take_i64(rest, WHAT)?,
            text_bytes: take_u32(rest, WHAT)?,
            stream_text_bytes: take_u64(rest, WHAT)?,
            flags: take::<1>(rest, WHAT)?[0],
            checkpoint: Bytes::new(),
        };
        if facts.next_sequence <= facts.first_sequence {
            return Err(LayoutError::Content {
                what: WHAT,
                cause: format!("{} lines from {}", facts.next_sequence, facts.first_sequence),
            });
        }
        facts.checkpoint = Bytes::copy_from_slice(meta);
        Ok(facts)
    }
}

/// What the checksum of a block's body is tied to, so that no other block is taken for it.
pub(crate) fn seed(stream_id: u64, first_sequence: u64) -> u64 {
    stream_id.rotate_left(32) ^ first_sequence
}

/// The body in two pieces, so that the text is not copied: header and columns, then the text. Together they are the
/// block's protobuf encoding, with the text as the last field.
pub(crate) fn encode(block: &v1::Block) -> (Vec<u8>, Bytes) {
    use prost::encoding::{WireType, encode_key, encode_varint};
    const TEXT_FIELD: u32 = 5;
    let small = v1::Block {
        text: Bytes::new(),
        ..block.clone()
    };
    let mut head = Vec::with_capacity(small.encoded_len() + 8);
    small.encode_raw(&mut head);
    if !block.text.is_empty() {
        encode_key(TEXT_FIELD, WireType::LengthDelimited, &mut head);
        encode_varint(block.text.len() as u64, &mut head);
    }
    (head, block.text.clone())
}

/// The block shares `body`; nothing is copied.
pub(crate) fn decode(body: Bytes) -> Result<v1::Block, LayoutError> {
    v1::Block::decode(body).map_err(|error| LayoutError::Content {
        what: "block",
        cause: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn facts_survive_the_round_trip_and_a_short_meta_is_refused(
            numbers in any::<(u64, u64, i64, i64, u32, u64, u8)>(),
            lines in 1_u64..1000,
            checkpoint in prop::collection::vec(any::<u8>(), 0..50),
            short in 0_usize..53,
        ) {
            let first_sequence = numbers.1 / 2;
            let facts = BlockFacts {
                stream_id: numbers.0,
                first_sequence,
                next_sequence: first_sequence + lines,
                first_time_unix_us: numbers.2,
                last_time_unix_us: numbers.3,
                text_bytes: numbers.4,
                stream_text_bytes: numbers.5,
                flags: numbers.6,
                checkpoint: checkpoint.into(),
            };
            let meta = facts.to_meta();
            prop_assert_eq!(BlockFacts::from_meta(&meta), Ok(facts));
            prop_assert!(BlockFacts::from_meta(&meta[..short]).is_err());
        }

        #[test]
        fn a_block_survives_the_round_trip(
            first_sequence: u64,
            text in prop::collection::vec(any::<u8>(), 0..200),
            first_time_unix_us: i64,
            channels in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let block = v1::Block {
                first_sequence,
                line_count: 3,
                text: text.into(),
                first_time_unix_us,
                channels: channels.into(),
                ..Default::default()
            };
            let (head, text) = encode(&block);
            let body = [&head[..], &text[..]].concat();
            prop_assert_eq!(body.len(), block.encoded_len());
            prop_assert_eq!(decode(body.into()), Ok(block));
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = BlockFacts::from_meta(&bytes);
            let _ = decode(bytes.into());
        }
    }
}
