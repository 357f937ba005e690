//! (Stream id, first sequence) → an encoded `v1::Block` that is too large to stand in the index. The key
//! is that of [`super::block_index`]; the checksum is there too.

use bytes::Bytes;
use millstream_proto::v1;
use prost::Message as _;

use super::LayoutError;

pub(crate) fn ser_value(block: &v1::Block) -> Bytes {
    block.encode_to_vec().into()
}

/// The block shares `value`; nothing is copied.
pub(crate) fn deser_value(value: Bytes) -> Result<v1::Block, LayoutError> {
    v1::Block::decode(value).map_err(|error| LayoutError::Content {
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
        fn a_block_survives_the_round_trip(
            first_sequence: u64,
            text in prop::collection::vec(any::<u8>(), 0..200),
            first_time_unix_us: i64,
        ) {
            let block = v1::Block {
                first_sequence,
                line_count: 3,
                text: text.into(),
                first_time_unix_us,
                ..Default::default()
            };
            prop_assert_eq!(deser_value(ser_value(&block)), Ok(block));
        }
    }
}
