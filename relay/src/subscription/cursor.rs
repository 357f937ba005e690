//! The opaque token that says where a subscriber stands in every stream of its subscription.
//!
//! Layout, all numbers as protobuf varints after the fixed part: version (1 byte), checksum of all that
//! follows (8 bytes, XXH3, little-endian), hash of the store id (8 bytes), hash of the selection (8
//! bytes), watermark, then pairs of (stream id minus the one before, next sequence). A stream up to the
//! watermark that is not listed was finished; one above it had not appeared.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::encoding::{decode_varint, encode_varint};
use xxhash_rust::xxh3::xxh3_64;

const VERSION: u8 = 1;

/// Where a subscriber stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Highest stream id that existed.
    pub watermark: u64,
    /// Next sequence of each stream that is not finished.
    pub positions: BTreeMap<u64, u64>,
}

/// What a cursor belongs to: a store and what was selected in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorScope {
    store: u64,
    selection: u64,
}

/// Why a token is not taken for a cursor; the message says where to start instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    #[error("the cursor is damaged or no cursor; start without one, or from one of CaughtUp or Heartbeat")]
    Malformed,
    #[error(
        "the cursor has format {0}, this relay writes {VERSION}; it is from another release: start from a time \
         or a sequence instead"
    )]
    Version(u8),
    #[error(
        "the cursor is of another store; this relay's store does not hold what it points at: start from a time \
         or the beginning instead"
    )]
    OtherStore,
    #[error(
        "the cursor is of another selector or list of streams, or of somebody who may see others; use it with the \
         ones that it came from"
    )]
    OtherSelection,
}

impl CursorScope {
    /// `allowed` is the caller's own scope: with another one, streams that were hidden would be skipped in
    /// silence.
    #[must_use]
    pub fn new(store_id: &str, selector: &str, allowed: &str, stream_ids: &[u64]) -> Self {
        let mut selection = BytesMut::new();
        selection.put_slice(selector.as_bytes());
        if !allowed.is_empty() {
            selection.put_u8(b'\n');
            selection.put_slice(allowed.as_bytes());
        }
        for id in stream_ids {
            selection.put_u8(0);
            selection.put_u64(*id);
        }
        Self {
            store: xxh3_64(store_id.as_bytes()),
            selection: xxh3_64(&selection),
        }
    }
}

impl Cursor {
    /// The token.
    #[must_use]
    pub fn encode(&self, scope: CursorScope) -> Bytes {
        let mut body = BytesMut::with_capacity(32 + self.positions.len() * 6);
        body.put_u64_le(scope.store);
        body.put_u64_le(scope.selection);
        encode_varint(self.watermark, &mut body);
        let mut previous = 0;
        for (stream_id, next_sequence) in &self.positions {
            encode_varint(stream_id - previous, &mut body);
            encode_varint(*next_sequence, &mut body);
            previous = *stream_id;
        }
        let mut token = BytesMut::with_capacity(9 + body.len());
        token.put_u8(VERSION);
        token.put_u64_le(xxh3_64(&body));
        token.put_slice(&body);
        token.freeze()
    }

    /// Reads a token, which comes from a stranger.
    ///
    /// # Errors
    /// It is no cursor, or one of another store or selection.
    pub fn decode(token: &[u8], scope: CursorScope) -> Result<Self, CursorError> {
        let mut rest = token;
        let version = rest.try_get_u8().map_err(|_| CursorError::Malformed)?;
        if version != VERSION {
            return Err(CursorError::Version(version));
        }
        let checksum = rest.try_get_u64_le().map_err(|_| CursorError::Malformed)?;
        if checksum != xxh3_64(rest) {
            return Err(CursorError::Malformed);
        }
        let store = rest.try_get_u64_le().map_err(|_| CursorError::Malformed)?;
        let selection = rest.try_get_u64_le().map_err(|_| CursorError::Malformed)?;
        let mut varint = || decode_varint(&mut rest).map_err(|_| CursorError::Malformed);
        let watermark = varint()?;
        if store != scope.store {
            return Err(CursorError::OtherStore);
        }
        if selection != scope.selection {
            return Err(CursorError::OtherSelection);
        }
        let mut positions = BTreeMap::new();
        let mut stream_id = 0_u64;
        while rest.has_remaining() {
            let mut varint = || decode_varint(&mut rest).map_err(|_| CursorError::Malformed);
            let step = varint()?;
            stream_id = stream_id.checked_add(step).ok_or(CursorError::Malformed)?;
            if step == 0 || stream_id > watermark {
                return Err(CursorError::Malformed);
            }
            positions.insert(stream_id, varint()?);
        }
        Ok(Self { watermark, positions })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scope() -> CursorScope {
        CursorScope::new("store", "host=a", "", &[1, 2])
    }

    fn any_cursor() -> impl Strategy<Value = Cursor> {
        let positions = proptest::collection::btree_map(1_u64.., any::<u64>(), 0..50);
        (positions, any::<u64>()).prop_map(|(positions, watermark)| Cursor {
            // No stream is above it.
            watermark: watermark.max(positions.keys().last().copied().unwrap_or(0)),
            positions,
        })
    }

    proptest! {
        #[test]
        fn a_cursor_comes_back_as_it_was(cursor in any_cursor()) {
            prop_assert_eq!(Cursor::decode(&cursor.encode(scope()), scope()), Ok(cursor));
        }

        #[test]
        fn garbage_is_refused_without_panic(token in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(Cursor::decode(&token, scope()).is_err());
        }

        #[test]
        fn a_changed_cursor_is_refused(
            cursor in any_cursor(), at in any::<prop::sample::Index>(), change in 1_u8..,
        ) {
            let mut token = cursor.encode(scope()).to_vec();
            let at = at.index(token.len());
            token[at] ^= change;
            prop_assert!(Cursor::decode(&token, scope()).is_err());
        }
    }

    #[test]
    fn a_cursor_of_another_store_or_selection_says_so() {
        let token = Cursor::default().encode(scope());
        let other_store = CursorScope::new("other", "host=a", "", &[1, 2]);
        assert_eq!(Cursor::decode(&token, other_store), Err(CursorError::OtherStore));
        for other_selection in [
            CursorScope::new("store", "host=a", "", &[1]),
            CursorScope::new("store", "host=a", "team=web", &[1, 2]),
        ] {
            assert_eq!(
                Cursor::decode(&token, other_selection),
                Err(CursorError::OtherSelection)
            );
        }
    }
}
