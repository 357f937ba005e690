//! The bytes of a stream as they were produced.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use millstream_proto::block::OpenBlock;
use millstream_proto::v1::Channel;
use millstream_store::{LogStore, StoreError};

use crate::reads::in_store;

const PAGE_BYTES: usize = 256 << 10;

/// Chunks of the range, a block each.
pub(crate) fn raw(
    store: Arc<dyn LogStore>,
    stream_id: u64,
    sequences: Range<u64>,
) -> impl Stream<Item = Result<Bytes, StoreError>> + Send {
    let state = Some((store, sequences, Vec::new().into_iter()));
    futures_util::stream::unfold(state, move |state| async move {
        let (store, mut left, mut page) = state?;
        loop {
            // Whatever else the page holds is none of the range's, and does not have to join on to it.
            if left.is_empty() {
                return None;
            }
            if let Some(open) = page.next() {
                let open: OpenBlock = open;
                if open.first_sequence() > left.start {
                    let error = StoreError::DamagedLines {
                        stream_id,
                        first_sequence: left.start,
                        next_sequence: open.first_sequence(),
                        cause: "they are missing from the index".to_owned(),
                    };
                    return Some((Err(error), None));
                }
                let wanted = left.start..left.end.min(open.next_sequence());
                left.start = wanted.end.max(left.start);
                let bytes = produced(&open, &wanted);
                if !bytes.is_empty() {
                    return Some((Ok(bytes), Some((store, left, page))));
                }
                continue;
            }
            let reader = Arc::clone(&store);
            let from = left.start;
            let read = in_store(move || {
                let blocks = reader.read_blocks(stream_id, from, PAGE_BYTES)?;
                blocks
                    .iter()
                    .map(OpenBlock::open)
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|error| StoreError::Damaged {
                        place: format!("stream {stream_id}, line {from} on"),
                        cause: error.to_string(),
                    })
            });
            match read.await {
                Ok(blocks) if blocks.is_empty() => return None,
                Ok(blocks) => page = blocks.into_iter(),
                Err(error) => return Some((Err(error), None)),
            }
        }
    })
}

fn produced(open: &OpenBlock, wanted: &Range<u64>) -> Bytes {
    let is_whole = wanted.start <= open.first_sequence() && wanted.end >= open.next_sequence();
    if is_whole
        && open
            .lines()
            .all(|line| !line.partial && line.channel != Channel::Notice)
    {
        return open.text().clone();
    }
    let mut bytes = Vec::new();
    for line in open.lines() {
        if line.channel != Channel::Notice && wanted.contains(&line.sequence) {
            bytes.extend_from_slice(line.text);
            if !line.partial {
                bytes.push(b'\n');
            }
        }
    }
    bytes.into()
}
