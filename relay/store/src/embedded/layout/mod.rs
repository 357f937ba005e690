//! Layout of what stands in files, each with its encoding and its test. Integers are little-endian. Nothing here
//! touches a file.
//!
//! | module | what |
//! |---|---|
//! | [`frame`] | a record: kind, batch, checksums bound to its place; finding records between damage |
//! | [`block`] | what is known of a block, beside its text |
//! | [`stream`] | what a stream is: identity, labels, run and end |
//! | [`footer`] | a sealed segment's table of contents |
//! | [`notes`] | what only the catalog holds: segments, and bounds of sequences |

pub(crate) mod block;
pub(crate) mod footer;
pub(crate) mod frame;
pub(crate) mod notes;
pub(crate) mod stream;

/// Stored bytes do not have the layout that they should have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LayoutError {
    #[error("{what} ends too early")]
    Short { what: &'static str },
    #[error("{what} cannot be read: {cause}")]
    Content { what: &'static str, cause: String },
}

/// Takes a fixed number of bytes from the front.
fn take<const N: usize>(rest: &mut &[u8], what: &'static str) -> Result<[u8; N], LayoutError> {
    let (taken, after) = rest.split_first_chunk::<N>().ok_or(LayoutError::Short { what })?;
    *rest = after;
    Ok(*taken)
}

fn take_u64(rest: &mut &[u8], what: &'static str) -> Result<u64, LayoutError> {
    take(rest, what).map(u64::from_le_bytes)
}

fn take_i64(rest: &mut &[u8], what: &'static str) -> Result<i64, LayoutError> {
    take(rest, what).map(i64::from_le_bytes)
}

fn take_u32(rest: &mut &[u8], what: &'static str) -> Result<u32, LayoutError> {
    take(rest, what).map(u32::from_le_bytes)
}

fn take_slice<'a>(rest: &mut &'a [u8], count: usize, what: &'static str) -> Result<&'a [u8], LayoutError> {
    let (taken, after) = rest.split_at_checked(count).ok_or(LayoutError::Short { what })?;
    *rest = after;
    Ok(taken)
}
