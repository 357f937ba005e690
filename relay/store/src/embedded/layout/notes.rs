//! What only the catalog holds, and the header that every file begins with.

use super::{LayoutError, take, take_u32, take_u64};

/// What is known of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentNote {
    pub(crate) number: u32,
    /// It holds nothing any more that is not elsewhere; its file may be gone.
    pub(crate) is_removed: bool,
    /// So many bytes of it were written for certain.
    pub(crate) known_bytes: u64,
}

impl SegmentNote {
    pub(crate) fn to_meta(self) -> Vec<u8> {
        let mut meta = self.number.to_le_bytes().to_vec();
        meta.push(u8::from(self.is_removed));
        meta.extend(self.known_bytes.to_le_bytes());
        meta
    }

    pub(crate) fn from_meta(mut meta: &[u8]) -> Result<Self, LayoutError> {
        const WHAT: &str = "note of a segment";
        let rest = &mut meta;
        Ok(Self {
            number: take_u32(rest, WHAT)?,
            is_removed: take::<1>(rest, WHAT)? != [0],
            known_bytes: take_u64(rest, WHAT)?,
        })
    }
}

/// No line of the stream from `bound` on was ever given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BoundNote {
    pub(crate) stream_id: u64,
    pub(crate) bound: u64,
}

impl BoundNote {
    pub(crate) fn to_meta(self) -> Vec<u8> {
        [self.stream_id.to_le_bytes(), self.bound.to_le_bytes()].concat()
    }

    pub(crate) fn from_meta(mut meta: &[u8]) -> Result<Self, LayoutError> {
        const WHAT: &str = "bound of a stream";
        let rest = &mut meta;
        Ok(Self {
            stream_id: take_u64(rest, WHAT)?,
            bound: take_u64(rest, WHAT)?,
        })
    }
}

/// First record of each file: format version, then the store's id.
pub(crate) fn header_meta(version: u32, store_id: &str) -> Vec<u8> {
    let mut meta = version.to_le_bytes().to_vec();
    meta.extend(store_id.as_bytes());
    meta
}

pub(crate) fn store_id_of(mut meta: &[u8]) -> Result<String, LayoutError> {
    const WHAT: &str = "header of a file";
    take_u32(&mut meta, WHAT)?;
    let store_id = std::str::from_utf8(meta).map_err(|error| LayoutError::Content {
        what: WHAT,
        cause: error.to_string(),
    })?;
    Ok(store_id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn notes_survive_the_round_trip(
            number: u32,
            is_removed: bool,
            known_bytes: u64,
            stream_id: u64,
            bound: u64,
            store_id in "[0-9a-f]{32}",
            other in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let note = SegmentNote { number, is_removed, known_bytes };
            prop_assert_eq!(SegmentNote::from_meta(&note.to_meta()), Ok(note));
            let note = BoundNote { stream_id, bound };
            prop_assert_eq!(BoundNote::from_meta(&note.to_meta()), Ok(note));
            prop_assert_eq!(store_id_of(&header_meta(2, &store_id)), Ok(store_id));
            let _ = (SegmentNote::from_meta(&other), BoundNote::from_meta(&other), store_id_of(&other));
        }
    }
}
