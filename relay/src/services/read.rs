//! `Read`: a page of one stream.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_proto::block::{BlockError, OpenBlock, next_sequence};
use millstream_proto::v1::{self, read_request};
use millstream_store::StoreError;
use tonic::Status;

use super::status::ToStatus;
use crate::auth::Access;
use crate::core::CoreParts;
use crate::filter::LineFilter;
use crate::reads::in_store;
use crate::search::TurnKind;

/// A page that has so much is done. One block may have 1 MiB of text and, in the worst case, as much again
/// or more in columns.
const PAGE_BYTES: usize = 2 << 20;

/// A block that would make the page larger waits for the next one: a message may have 4 MiB, the stream's
/// record with its labels included.
const MAX_PAGE_BYTES: usize = 3_400 << 10;

/// Stored blocks that are fetched at once.
const FETCH_BYTES: usize = 512 << 10;

/// Time that a filter which may be slow gets for one page; the caller goes on at `next_sequence`.
const SLOW_FILTER_TIME: Duration = Duration::from_millis(100);

/// Text that a filter may look through for one page, so that a call always ends soon; the caller goes on
/// at `next_sequence`.
const SCAN_BYTES: usize = 64 << 20;

pub(super) async fn read(
    parts: &CoreParts,
    access: &Access,
    request: v1::ReadRequest,
) -> Result<v1::ReadResponse, Status> {
    let stream_id = request.stream_id;
    let stream = parts.visible(access, stream_id)?;
    let filter = match request.filter.clone() {
        None => None,
        Some(filter) => {
            // Compiling an expression of a stranger's takes some milliseconds, which no other call should wait for.
            let compile = move || LineFilter::compile(&filter);
            let compiled = parts.search_pool.run(TurnKind::Filter, compile).await;
            compiled
                .map_err(|error| error.to_status())?
                .map_err(|error| error.to_status())?
        }
    };
    let store = Arc::clone(&parts.store);
    let bounds = stream.bounds();
    let end = if request.to_sequence == 0 {
        bounds.next_sequence
    } else {
        request.to_sequence.min(bounds.next_sequence)
    };
    let accepts_zstd = request.codecs.contains(&i32::from(v1::Codec::Zstd));
    let from = request.from;
    let max_lines = if request.max_lines == 0 {
        u64::from(u32::MAX)
    } else {
        request.max_lines.into()
    };
    let is_slow = filter.as_ref().is_some_and(LineFilter::may_be_slow);
    let read_page = move || {
        let wanted_from = match from {
            None => 0,
            Some(read_request::From::FromSequence(sequence)) => sequence,
            Some(read_request::From::FromUnixUs(unix_us)) => store.seek_time(stream_id, unix_us)?,
        };
        let start = wanted_from.max(bounds.first_sequence);
        let mut page = Page {
            blocks: Vec::new(),
            bytes: 0,
            lines_left: max_lines,
            position: start,
            end,
            filter,
            accepts_zstd,
            is_full: false,
            deadline: is_slow.then(|| Instant::now() + SLOW_FILTER_TIME),
        };
        let mut scanned_bytes = 0;
        let mut damage = None;
        while page.wants_more() && scanned_bytes < SCAN_BYTES {
            let blocks = match store.read_blocks(stream_id, page.position, FETCH_BYTES) {
                // A page tells of one gap, which stands before its lines.
                Err(StoreError::DamagedLines { .. }) if page.position > start || damage.is_some() => break,
                Err(StoreError::DamagedLines {
                    next_sequence, cause, ..
                }) => {
                    damage = Some(v1::Gap {
                        stream_id,
                        first_sequence: page.position,
                        next_sequence: next_sequence.min(end),
                        message: format!("these lines are damaged in the relay's store: {cause}"),
                        reason: v1::GapReason::Damaged.into(),
                    });
                    page.position = next_sequence.min(end);
                    continue;
                }
                blocks => blocks?,
            };
            if blocks.is_empty() {
                break;
            }
            for block in blocks {
                if !page.wants_more() {
                    break;
                }
                scanned_bytes += block.text_bytes as usize;
                page.take(&block).map_err(|cause| StoreError::Damaged {
                    place: format!("stream {stream_id}, line {}", block.first_sequence),
                    cause: cause.to_string(),
                })?;
            }
        }
        let gap = (wanted_from < bounds.first_sequence).then(|| v1::Gap {
            stream_id,
            first_sequence: wanted_from,
            next_sequence: bounds.first_sequence.min(end),
            message: "retention has removed these lines".to_owned(),
            reason: v1::GapReason::Retention.into(),
        });
        let gap = gap.or(damage);
        Ok((page.blocks, page.position.max(wanted_from.min(end)), gap))
    };
    let page = if is_slow {
        let filtered = parts.search_pool.run(TurnKind::Filter, read_page).await;
        filtered.map_err(|error| error.to_status())?
    } else {
        in_store(read_page).await
    };
    let (blocks, next_sequence, gap) = page.map_err(|error| error.to_status())?;
    Ok(v1::ReadResponse {
        blocks,
        next_sequence,
        stream: Some(stream.to_proto()),
        gap,
    })
}

struct Page {
    blocks: Vec<v1::Block>,
    bytes: usize,
    lines_left: u64,
    position: u64,
    end: u64,
    filter: Option<LineFilter>,
    accepts_zstd: bool,
    /// A block was left for the next page, because the message would have become too large.
    is_full: bool,
    /// When a filter that may be slow has had its time; the caller goes on at `position`.
    deadline: Option<Instant>,
}

impl Page {
    fn wants_more(&self) -> bool {
        self.position < self.end
            && self.lines_left > 0
            && self.bytes < PAGE_BYTES
            && !self.is_full
            && !self.is_late()
    }

    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Adds what is wanted of a stored block and moves on behind it.
    fn take(&mut self, block: &v1::Block) -> Result<(), BlockError> {
        let block_end = next_sequence(block)?;
        let from = self.position.max(block.first_sequence);
        let mut to = block_end.min(self.end);
        let wanted = match &self.filter {
            None => {
                to = to.min(from.saturating_add(self.lines_left));
                let is_whole = from == block.first_sequence && to == block_end;
                let is_readable = self.accepts_zstd || block.codec() == v1::Codec::None;
                if is_whole && is_readable {
                    vec![block.clone()]
                } else {
                    OpenBlock::open(block)?.slice(from..to).into_iter().collect()
                }
            }
            Some(filter) => {
                let range = from..to;
                let mut lines_left = self.lines_left;
                let is_late = || self.is_late();
                OpenBlock::open(block)?.filter(|line| {
                    if !range.contains(&line.sequence) || line.sequence >= to {
                        return false;
                    }
                    // At least one line was looked at, so a caller that goes on comes to the end.
                    if line.sequence > from && is_late() {
                        to = line.sequence;
                        return false;
                    }
                    if !filter.keeps(line) {
                        return false;
                    }
                    if lines_left == 0 {
                        to = line.sequence;
                        return false;
                    }
                    lines_left -= 1;
                    true
                })
            }
        };
        for block in wanted {
            let bytes = prost::Message::encoded_len(&block) + 8;
            if !self.blocks.is_empty() && self.bytes + bytes > MAX_PAGE_BYTES {
                self.is_full = true;
                self.position = block.first_sequence;
                return Ok(());
            }
            self.lines_left -= u64::from(block.line_count).min(self.lines_left);
            self.bytes += bytes;
            self.blocks.push(block);
        }
        self.position = to;
        Ok(())
    }
}
