//! A sealed segment's table of contents: its records without the text of blocks, so that a start reads this and
//! not the whole file. For each record: kind (1), batch (8), offset (4), bytes of meta (4) and body (4), checksum of
//! the body (8), meta, and the body of everything but blocks.

use super::frame::Kind;
use super::{LayoutError, take, take_slice, take_u32, take_u64};

/// A record of a segment as its table of contents has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listed<'a> {
    pub(crate) kind: Kind,
    pub(crate) batch: u64,
    pub(crate) offset: u32,
    /// Of the record itself; the listed one may have left out a checkpoint.
    pub(crate) meta_bytes: u32,
    pub(crate) body_bytes: u32,
    pub(crate) body_check: u64,
    pub(crate) meta: &'a [u8],
    /// Empty for a block.
    pub(crate) body: &'a [u8],
}

impl Listed<'_> {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.push(self.kind as u8);
        out.extend(self.batch.to_le_bytes());
        out.extend(self.offset.to_le_bytes());
        out.extend(self.meta_bytes.to_le_bytes());
        out.extend(self.body_bytes.to_le_bytes());
        out.extend(self.body_check.to_le_bytes());
        // Bounded by a record's own meta.
        out.extend(u32::try_from(self.meta.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend(self.meta);
        out.extend(self.body);
    }
}

/// All of a table of contents, or what is wrong with it.
pub(crate) fn read(mut bytes: &[u8]) -> Result<Vec<Listed<'_>>, LayoutError> {
    const WHAT: &str = "table of contents";
    let mut listed = Vec::new();
    let rest = &mut bytes;
    while !rest.is_empty() {
        let [kind] = take(rest, WHAT)?;
        let kind = Kind::from_number(kind).ok_or_else(|| LayoutError::Content {
            what: WHAT,
            cause: format!("kind {kind} is unknown"),
        })?;
        let batch = take_u64(rest, WHAT)?;
        let offset = take_u32(rest, WHAT)?;
        let meta_bytes = take_u32(rest, WHAT)?;
        let body_bytes = take_u32(rest, WHAT)?;
        let body_check = take_u64(rest, WHAT)?;
        let listed_bytes = take_u32(rest, WHAT)? as usize;
        let meta = take_slice(rest, listed_bytes, WHAT)?;
        let has_body = kind != Kind::Block;
        let body = take_slice(rest, if has_body { body_bytes as usize } else { 0 }, WHAT)?;
        listed.push(Listed {
            kind,
            batch,
            offset,
            meta_bytes,
            body_bytes,
            body_check,
            meta,
            body,
        });
    }
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_table_survives_the_round_trip(
            entries in prop::collection::vec((any::<(bool, u64, u32, u64)>(), ".{0,9}", ".{0,9}"), 0..9),
        ) {
            let listed: Vec<_> = entries.iter().map(|((is_block, batch, offset, body_check), meta, body)| Listed {
                kind: if *is_block { Kind::Block } else { Kind::Agent },
                batch: *batch,
                offset: *offset,
                meta_bytes: 7,
                body_bytes: u32::try_from(body.len()).unwrap(),
                body_check: *body_check,
                meta: meta.as_bytes(),
                body: if *is_block { b"" } else { body.as_bytes() },
            }).collect();
            let mut bytes = Vec::new();
            listed.iter().for_each(|listed| listed.write(&mut bytes));
            prop_assert_eq!(read(&bytes), Ok(listed));
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(&bytes);
        }
    }
}
