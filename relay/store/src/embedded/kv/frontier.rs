//! Stream id → settle frontier: every block below this sequence is as large as it will get. Written by
//! the settler alone, so that it never meets the writer.

use super::{LayoutError, take};

pub(crate) fn ser_value(settled_below: u64) -> [u8; 8] {
    settled_below.to_be_bytes()
}

pub(crate) fn deser_value(mut value: &[u8]) -> Result<u64, LayoutError> {
    let settled_below = u64::from_be_bytes(take(&mut value, "frontier")?);
    if !value.is_empty() {
        return Err(LayoutError::Size {
            what: "frontier",
            expected: 8,
            actual: 8 + value.len(),
        });
    }
    Ok(settled_below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_frontier_survives_the_round_trip_and_no_other_size_is_read(
            settled_below: u64,
            other in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            prop_assert_eq!(deser_value(&ser_value(settled_below)), Ok(settled_below));
            prop_assert_eq!(deser_value(&other).is_ok(), other.len() == 8);
        }
    }
}
