//! Stream id → head: the part of a stream's record that changes with every block, apart from the labels
//! so that a block does not rewrite those.

use bytes::Bytes;

use super::{LayoutError, take};

const FIXED_BYTES: usize = 32;

/// Where a stream stands; the fields are those of [`crate::StreamRecord`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) first_sequence: u64,
    pub(crate) next_sequence: u64,
    pub(crate) text_bytes: u64,
    pub(crate) last_line_unix_us: i64,
    pub(crate) checkpoint: Bytes,
}

/// Fixed part, then the checkpoint up to the value's end.
pub(crate) fn ser_value(head: &Head) -> Vec<u8> {
    let mut value = Vec::with_capacity(FIXED_BYTES + head.checkpoint.len());
    value.extend_from_slice(&head.first_sequence.to_be_bytes());
    value.extend_from_slice(&head.next_sequence.to_be_bytes());
    value.extend_from_slice(&head.text_bytes.to_be_bytes());
    value.extend_from_slice(&head.last_line_unix_us.to_be_bytes());
    value.extend_from_slice(&head.checkpoint);
    value
}

/// The checkpoint is copied, so that a head does not hold a larger buffer of the engine in memory.
pub(crate) fn deser_value(mut value: &[u8]) -> Result<Head, LayoutError> {
    const WHAT: &str = "stream head";
    Ok(Head {
        first_sequence: u64::from_be_bytes(take(&mut value, WHAT)?),
        next_sequence: u64::from_be_bytes(take(&mut value, WHAT)?),
        text_bytes: u64::from_be_bytes(take(&mut value, WHAT)?),
        last_line_unix_us: i64::from_be_bytes(take(&mut value, WHAT)?),
        checkpoint: Bytes::copy_from_slice(value),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_head_survives_the_round_trip_and_a_short_one_is_refused(
            first_sequence: u64,
            next_sequence: u64,
            text_bytes: u64,
            last_line_unix_us: i64,
            checkpoint in prop::collection::vec(any::<u8>(), 0..100),
            short in 0..FIXED_BYTES,
        ) {
            let head = Head {
                first_sequence,
                next_sequence,
                text_bytes,
                last_line_unix_us,
                checkpoint: checkpoint.into(),
            };
            let value = ser_value(&head);
            prop_assert_eq!(deser_value(&value), Ok(head));
            prop_assert!(deser_value(&value[..short]).is_err());
        }
    }
}
