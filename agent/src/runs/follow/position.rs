//! What stands in the checkpoint of a stream that comes from a spool: which spool, and for each channel, up to
//! where its text is in the stream, and how much that is.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::spool::reader::Place;
use crate::spool::{CHANNELS, Count};

/// Where one channel stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Position {
    pub(super) place: Place,
    /// Bytes of the record at `place`.
    pub(super) bytes: u32,
    /// All text of the channel before it.
    pub(super) total: Count,
}

impl Position {
    /// At the beginning of a record.
    pub(super) fn at(place: Place, total: Count) -> Self {
        Self {
            place,
            bytes: 0,
            total,
        }
    }
}

pub(super) type Positions = [Position; CHANNELS.len()];

const VERSION: u8 = 2;
const POSITION_BYTES: usize = 36;

/// Tells spools apart by their directory's name.
pub(super) fn spool_number(run_id: &str) -> u64 {
    xxh3_64(run_id.as_bytes())
}

pub(super) fn encode(spool: u64, positions: &Positions) -> Bytes {
    let mut bytes = vec![VERSION];
    bytes.extend(spool.to_le_bytes());
    for position in positions {
        bytes.extend(position.place.segment.to_le_bytes());
        bytes.extend(position.place.offset.to_le_bytes());
        bytes.extend(position.bytes.to_le_bytes());
        bytes.extend(position.total.bytes.to_le_bytes());
        bytes.extend(position.total.lines.to_le_bytes());
    }
    bytes.into()
}

/// Spool and positions; `None` for bytes that this agent did not write.
pub(super) fn decode(bytes: &[u8]) -> Option<(u64, Positions)> {
    let (version, bytes) = bytes.split_first()?;
    let (spool, bytes) = bytes.split_at_checked(8)?;
    if *version != VERSION || bytes.len() != CHANNELS.len() * POSITION_BYTES {
        return None;
    }
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_le_bytes);
    let mut positions = Positions::default();
    for (position, bytes) in positions.iter_mut().zip(bytes.chunks_exact(POSITION_BYTES)) {
        position.place.segment = number(&bytes[..8])?;
        position.place.offset = number(&bytes[8..16])?;
        position.bytes = u32::from_le_bytes(bytes[16..20].try_into().ok()?);
        position.total.bytes = number(&bytes[20..28])?;
        position.total.lines = number(&bytes[28..])?;
    }
    Some((number(spool)?, positions))
}

/// Nothing before it is needed any more.
pub(super) fn earliest(positions: &Positions) -> Place {
    positions
        .iter()
        .map(|position| position.place)
        .min()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_checkpoint_reads_back_as_it_was_written(spool: u64, numbers: [(u64, u64, u32, u64, u64); 3]) {
            let positions = numbers.map(|(segment, offset, bytes, total, lines)| Position {
                place: Place { segment, offset },
                bytes,
                total: Count { bytes: total, lines },
            });
            prop_assert_eq!(decode(&encode(spool, &positions)), Some((spool, positions)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
