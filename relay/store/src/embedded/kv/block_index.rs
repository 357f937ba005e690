//! (Stream id, first sequence) → what must be known of a block to find it, without its text. A small
//! block stands here whole, which saves a second write for each live line.

use bytes::{BufMut as _, Bytes};
use xxhash_rust::xxh3::Xxh3;

use super::{LayoutError, take};

/// Encoded blocks up to this size stand in the index.
pub(crate) const INLINE_MAX_BYTES: usize = 2 << 10;

const WHAT: &str = "block index entry";
const LAYOUT_VERSION: u8 = 1;
const FIXED_BYTES: usize = 42;

const FLAG_INLINE: u8 = 1;
const FLAG_COMPRESSED: u8 = 1 << 1;
const FLAG_SETTLED: u8 = 1 << 2;

/// Names a block; sorts by stream, then by sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BlockKey {
    pub(crate) stream_id: u64,
    pub(crate) first_sequence: u64,
}

/// A block without its text, unless that is small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockIndex {
    /// Sequence after the last line.
    pub(crate) next_sequence: u64,
    pub(crate) first_time_unix_us: i64,
    pub(crate) last_time_unix_us: i64,
    /// Size of the uncompressed text.
    pub(crate) text_bytes: u32,
    /// Size of the encoded block.
    pub(crate) stored_bytes: u32,
    pub(crate) is_compressed: bool,
    /// Made by the settler.
    pub(crate) is_settled: bool,
    /// Of key, the fields above and the encoded block; see [`BlockIndex::compute_checksum`].
    pub(crate) checksum: u64,
    /// The encoded block, when it is small.
    pub(crate) inline: Option<Bytes>,
}

impl BlockIndex {
    /// xxh3 over everything that must stay as it is, the block's place included.
    pub(crate) fn compute_checksum(&self, key: BlockKey, encoded: &[u8]) -> u64 {
        let mut hasher = Xxh3::new();
        hasher.update(&ser_key(key));
        hasher.update(&self.ser_fields());
        hasher.update(encoded);
        hasher.digest()
    }

    fn ser_fields(&self) -> [u8; FIXED_BYTES - 8] {
        let mut fields = [0; FIXED_BYTES - 8];
        let mut rest = &mut fields[..];
        rest.put_u8(LAYOUT_VERSION);
        rest.put_u8(
            u8::from(self.inline.is_some()) * FLAG_INLINE
                + u8::from(self.is_compressed) * FLAG_COMPRESSED
                + u8::from(self.is_settled) * FLAG_SETTLED,
        );
        rest.put_u64(self.next_sequence);
        rest.put_i64(self.first_time_unix_us);
        rest.put_i64(self.last_time_unix_us);
        rest.put_u32(self.text_bytes);
        rest.put_u32(self.stored_bytes);
        fields
    }
}

pub(crate) fn ser_key(key: BlockKey) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&key.stream_id.to_be_bytes());
    bytes[8..].copy_from_slice(&key.first_sequence.to_be_bytes());
    bytes
}

pub(crate) fn deser_key(mut key: &[u8]) -> Result<BlockKey, LayoutError> {
    if key.len() != 16 {
        return Err(LayoutError::Size {
            what: "block key",
            expected: 16,
            actual: key.len(),
        });
    }
    Ok(BlockKey {
        stream_id: u64::from_be_bytes(take(&mut key, "block key")?),
        first_sequence: u64::from_be_bytes(take(&mut key, "block key")?),
    })
}

pub(crate) fn ser_value(index: &BlockIndex) -> Vec<u8> {
    let inline = index.inline.as_deref().unwrap_or_default();
    let mut value = Vec::with_capacity(FIXED_BYTES + inline.len());
    value.extend_from_slice(&index.ser_fields());
    value.extend_from_slice(&index.checksum.to_be_bytes());
    value.extend_from_slice(inline);
    value
}

/// An inline block shares `value`.
pub(crate) fn deser_value(value: &Bytes) -> Result<BlockIndex, LayoutError> {
    let mut rest = &value[..];
    let [version, flags] = take(&mut rest, WHAT)?;
    if version != LAYOUT_VERSION || flags & !(FLAG_INLINE | FLAG_COMPRESSED | FLAG_SETTLED) != 0 {
        return Err(LayoutError::Content {
            what: WHAT,
            cause: format!("version {version} with flags {flags:#x} is unknown"),
        });
    }
    let mut index = BlockIndex {
        next_sequence: u64::from_be_bytes(take(&mut rest, WHAT)?),
        first_time_unix_us: i64::from_be_bytes(take(&mut rest, WHAT)?),
        last_time_unix_us: i64::from_be_bytes(take(&mut rest, WHAT)?),
        text_bytes: u32::from_be_bytes(take(&mut rest, WHAT)?),
        stored_bytes: u32::from_be_bytes(take(&mut rest, WHAT)?),
        is_compressed: flags & FLAG_COMPRESSED != 0,
        is_settled: flags & FLAG_SETTLED != 0,
        checksum: u64::from_be_bytes(take(&mut rest, WHAT)?),
        inline: None,
    };
    let is_inline = flags & FLAG_INLINE != 0;
    let inline_bytes = if is_inline { index.stored_bytes as usize } else { 0 };
    if rest.len() != inline_bytes {
        return Err(LayoutError::Size {
            what: WHAT,
            expected: FIXED_BYTES + inline_bytes,
            actual: value.len(),
        });
    }
    if is_inline {
        index.inline = Some(value.slice(FIXED_BYTES..));
    }
    Ok(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_index() -> impl Strategy<Value = BlockIndex> {
        (
            any::<(u64, i64, i64, u32, u32, bool, bool, u64)>(),
            prop::option::of(prop::collection::vec(any::<u8>(), 0..100)),
        )
            .prop_map(|(fields, inline)| BlockIndex {
                next_sequence: fields.0,
                first_time_unix_us: fields.1,
                last_time_unix_us: fields.2,
                text_bytes: fields.3,
                stored_bytes: inline
                    .as_ref()
                    .map_or(fields.4, |bytes| u32::try_from(bytes.len()).unwrap()),
                is_compressed: fields.5,
                is_settled: fields.6,
                checksum: fields.7,
                inline: inline.map(Bytes::from),
            })
    }

    proptest! {
        #[test]
        fn an_entry_survives_the_round_trip_and_no_other_size_is_read(index in any_index(), extra in 1_usize..20) {
            let value = ser_value(&index);
            prop_assert_eq!(deser_value(&Bytes::from(value.clone())), Ok(index));
            let mut longer = value.clone();
            longer.resize(value.len() + extra, 0);
            prop_assert!(deser_value(&longer.into()).is_err());
            let shorter = Bytes::from(value).slice(..FIXED_BYTES - extra);
            prop_assert!(deser_value(&shorter).is_err());
        }

        #[test]
        fn keys_survive_the_round_trip_and_sort_by_stream_then_sequence(
            (a, b) in any::<((u64, u64), (u64, u64))>().prop_map(|(a, b)| (
                BlockKey { stream_id: a.0, first_sequence: a.1 },
                BlockKey { stream_id: b.0, first_sequence: b.1 },
            )),
            other in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            prop_assert_eq!(deser_key(&ser_key(a)), Ok(a));
            prop_assert_eq!(ser_key(a).cmp(&ser_key(b)), a.cmp(&b));
            prop_assert_eq!(deser_key(&other).is_ok(), other.len() == 16);
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_panic(value in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = deser_value(&value.into());
        }
    }
}
