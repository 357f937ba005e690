//! Bytes as a cursor, which comes back from whoever kept it.

use millstream_relay::{Cursor, CursorScope};

/// Format, checksum, and the two hashes that say where a cursor belongs.
const HEAD_BYTES: usize = 1 + 8 + 8 + 8;

/// One byte of choices, then the token, or what stands in one behind its head. What is taken comes back as it was,
/// and lies where the reader can have been.
pub fn cursor(data: &[u8]) {
    let Some((choices, rest)) = data.split_first() else {
        return;
    };
    let scope = CursorScope::new("store", "host=a", "", &[1, 2]);
    let token = if choices & 1 == 0 {
        rest.to_vec()
    } else {
        sealed(rest, scope)
    };
    let cursor = match Cursor::decode(&token, scope) {
        Ok(cursor) => cursor,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert!(
        cursor
            .positions
            .keys()
            .all(|stream_id| (1..=cursor.watermark).contains(stream_id)),
        "no stream is above those that existed"
    );
    // Two bytes a stream at least: what a token makes the relay keep is bounded by its own size.
    assert!(cursor.positions.len() <= token.len() / 2);
    let again = cursor.encode(scope);
    assert_eq!(
        Cursor::decode(&again, scope),
        Ok(cursor),
        "it comes back as it was"
    );
    let elsewhere = CursorScope::new("other store", "host=a", "", &[1, 2]);
    assert!(
        Cursor::decode(&again, elsewhere).is_err(),
        "it is of this store only"
    );
}

/// A token with this behind its head and a checksum that is right, which a fuzzer would hardly find.
fn sealed(tail: &[u8], scope: CursorScope) -> Vec<u8> {
    let mut token = Cursor::default().encode(scope).to_vec();
    token.truncate(HEAD_BYTES);
    token.extend_from_slice(tail);
    let checksum = xxhash_rust::xxh3::xxh3_64(&token[9..]);
    token[1..9].copy_from_slice(&checksum.to_le_bytes());
    token
}
