//! Layout of what is stored: a file for every key family, each with the key's and the value's encoding
//! and its test. Integers are big-endian, so that keys sort by number. Nothing here touches the engine.
//!
//! | family | key | value |
//! |---|---|---|
//! | [`stream`] | stream id | what rarely changes: labels, run, end |
//! | [`head`] | stream id | what every block changes: next sequence, checkpoint, totals |
//! | [`block_index`] | stream id, first sequence | range, times, sizes, checksum; small blocks whole |
//! | [`block_body`] | stream id, first sequence | a large block |
//! | [`frontier`] | stream id | below which sequence blocks are settled |
//! | [`agent`] | agent id | the agent |

pub(crate) mod agent;
pub(crate) mod block_body;
pub(crate) mod block_index;
pub(crate) mod frontier;
pub(crate) mod head;
pub(crate) mod stream;

/// A stored key or value does not have its family's layout.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LayoutError {
    #[error("{what} has {actual} bytes instead of {expected}")]
    Size {
        what: &'static str,
        expected: usize,
        actual: usize,
    },
    #[error("{what} cannot be read: {cause}")]
    Content { what: &'static str, cause: String },
}

/// The key of all families that are by stream.
pub(crate) fn ser_stream_key(stream_id: u64) -> [u8; 8] {
    stream_id.to_be_bytes()
}

pub(crate) fn deser_stream_key(key: &[u8]) -> Result<u64, LayoutError> {
    let bytes: [u8; 8] = key.try_into().map_err(|_| LayoutError::Size {
        what: "stream key",
        expected: 8,
        actual: key.len(),
    })?;
    Ok(u64::from_be_bytes(bytes))
}

/// Takes a fixed number of bytes from the front.
fn take<const N: usize>(rest: &mut &[u8], what: &'static str) -> Result<[u8; N], LayoutError> {
    let (taken, after) = rest.split_first_chunk::<N>().ok_or(LayoutError::Size {
        what,
        expected: N,
        actual: rest.len(),
    })?;
    *rest = after;
    Ok(*taken)
}
