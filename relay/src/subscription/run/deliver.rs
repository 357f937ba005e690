//! What one turn of one stream delivers: from memory or from the store, whole or filtered.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millstream_proto::block::{BlockError, OpenBlock, next_sequence};
use millstream_proto::v1::{self, tail_response::Message};
use millstream_store::StoreError;

use super::{ReadError, Subscription, in_store};
use crate::filter::LineFilter;
use crate::streams::{RingRead, block_frame, decode_block_frame};

/// What one turn of one stream may take: large enough to be worth the trip to the store, small enough
/// that many streams share a connection fairly.
const TURN_BYTES: usize = 1 << 20;

/// Time that a filter which may be slow gets for one turn.
const SLOW_FILTER_TIME: Duration = Duration::from_millis(40);

impl Subscription {
    /// Puts frames of lines from `position` on (below `end`) into the queue; returns the position after
    /// them.
    pub(super) async fn deliver(&mut self, index: usize, position: u64, end: u64) -> Result<u64, ReadError> {
        let stream = Arc::clone(&self.slots[index].stream);
        let as_they_are = self.plan.filter.is_none() && self.plan.follow;
        match stream.read_ring(position, TURN_BYTES) {
            RingRead::Frames(frames, next) if as_they_are && self.plan.accepts_zstd => {
                self.sources.metrics.ring_frames_total.add(frames.len() as u64);
                self.frames.extend(frames);
                return Ok(next);
            }
            RingRead::Frames(frames, next) => {
                self.sources.metrics.ring_frames_total.add(frames.len() as u64);
                if let Some(filter) = self.plan.slow_filter() {
                    let blocks = frames.iter().map(decode_block_frame).collect();
                    let reached = self.push_slowly(stream.stream_id, filter, blocks, position..end);
                    return Ok(reached.await?.unwrap_or(next.min(end)));
                }
                for frame in frames {
                    let block = decode_block_frame(&frame);
                    self.push_block(stream.stream_id, block, Some(frame), position, end)?;
                }
                return Ok(next.min(end));
            }
            RingRead::Inside(frame, next) => {
                self.sources.metrics.ring_frames_total.add(1);
                if let Some(filter) = self.plan.slow_filter() {
                    let blocks = vec![decode_block_frame(&frame)];
                    let reached = self.push_slowly(stream.stream_id, filter, blocks, position..end);
                    return Ok(reached.await?.unwrap_or(next.min(end)));
                }
                self.push_block(stream.stream_id, decode_block_frame(&frame), None, position, end)?;
                return Ok(next.min(end));
            }
            RingRead::Miss => {}
        }
        let store = Arc::clone(&self.sources.store);
        let stream_id = stream.stream_id;
        let page = in_store(move || store.read_blocks(stream_id, position, TURN_BYTES)).await;
        let blocks = match page {
            Err(StoreError::DamagedLines {
                next_sequence, cause, ..
            }) => {
                let next_sequence = next_sequence.min(end);
                self.push_damage(stream_id, position..next_sequence, &cause);
                return Ok(next_sequence);
            }
            page => page?,
        };
        if blocks.is_empty() {
            let place = format!("stream {stream_id}");
            let cause = format!("line {position} of {end} is missing");
            return Err(StoreError::Damaged { place, cause }.into());
        }
        if let Some(filter) = self.plan.slow_filter() {
            return self
                .deliver_slowly(stream_id, filter, blocks, position..end)
                .await;
        }
        let mut reached = position;
        for block in blocks {
            if block.first_sequence >= end {
                break;
            }
            if block.first_sequence > reached {
                let lost = reached..block.first_sequence;
                self.push_damage(stream_id, lost, "they are missing from the index");
            }
            reached = next_sequence(&block)
                .map_err(|cause| ReadError::Block { stream_id, cause })?
                .min(end);
            self.sources.metrics.store_frames_total.add(1);
            self.push_block(stream_id, block, None, position, end)?;
        }
        Ok(reached)
    }

    /// The same for blocks of the store and a filter that may be slow: up to the first hole between them, which begins the
    /// next turn.
    async fn deliver_slowly(
        &mut self,
        stream_id: u64,
        filter: Arc<LineFilter>,
        mut blocks: Vec<v1::Block>,
        lines: Range<u64>,
    ) -> Result<u64, ReadError> {
        let mut reached = lines.start;
        if blocks[0].first_sequence > reached {
            reached = blocks[0].first_sequence.min(lines.end);
            self.push_damage(stream_id, lines.start..reached, "they are missing from the index");
            return Ok(reached);
        }
        let mut count = 0;
        for block in &blocks {
            if block.first_sequence >= lines.end || block.first_sequence > reached {
                break;
            }
            reached = next_sequence(block)
                .map_err(|cause| ReadError::Block { stream_id, cause })?
                .min(lines.end);
            count += 1;
        }
        blocks.truncate(count);
        self.sources.metrics.store_frames_total.add(count as u64);
        let stopped = self.push_slowly(stream_id, filter, blocks, lines).await?;
        Ok(stopped.unwrap_or(reached))
    }

    /// Queues the wanted lines of blocks; where it stopped, when the filter's time was over before their end.
    async fn push_slowly(
        &mut self,
        stream_id: u64,
        filter: Arc<LineFilter>,
        blocks: Vec<v1::Block>,
        lines: Range<u64>,
    ) -> Result<Option<u64>, ReadError> {
        let filtered = self
            .sources
            .filter_pool
            .run(move || filter_in_time(&filter, &blocks, &lines));
        let (wanted, stopped) = filtered
            .await
            .map_err(|_| ReadError::Stopping)?
            .map_err(|cause| ReadError::Block { stream_id, cause })?;
        self.frames
            .extend(wanted.into_iter().map(|block| block_frame(stream_id, block)));
        Ok(stopped)
    }

    fn push_damage(&mut self, stream_id: u64, lost: Range<u64>, cause: &str) {
        self.push(Message::Gap(v1::Gap {
            stream_id,
            first_sequence: lost.start,
            next_sequence: lost.end,
            message: format!("these lines are damaged in the relay's store: {cause}"),
            reason: v1::GapReason::Damaged.into(),
        }));
    }

    /// Queues the wanted lines of a block: as it is when all are wanted and the reader can read it
    /// (then `frame` spares the encoding), otherwise opened.
    fn push_block(
        &mut self,
        stream_id: u64,
        block: v1::Block,
        frame: Option<Bytes>,
        from: u64,
        to: u64,
    ) -> Result<(), ReadError> {
        let damaged = |cause| ReadError::Block { stream_id, cause };
        let is_readable = self.plan.accepts_zstd || block.codec() == v1::Codec::None;
        let is_whole = block.first_sequence >= from && next_sequence(&block).map_err(damaged)? <= to;
        if is_readable && is_whole && self.plan.filter.is_none() {
            self.frames
                .push_back(frame.unwrap_or_else(|| block_frame(stream_id, block)));
            return Ok(());
        }
        let open = OpenBlock::open(&block).map_err(damaged)?;
        let wanted = match &self.plan.filter {
            None => open.slice(from..to).into_iter().collect(),
            Some(filter) => open.filter(|line| (from..to).contains(&line.sequence) && filter.keeps(line)),
        };
        self.frames
            .extend(wanted.into_iter().map(|block| block_frame(stream_id, block)));
        Ok(())
    }
}

/// The lines that a filter wants of blocks, as far as it comes in [`SLOW_FILTER_TIME`]; with the sequence at which it
/// stopped, when that is not the end. At least one line is looked at.
fn filter_in_time(
    filter: &LineFilter,
    blocks: &[v1::Block],
    lines: &Range<u64>,
) -> Result<(Vec<v1::Block>, Option<u64>), BlockError> {
    let deadline = std::time::Instant::now() + SLOW_FILTER_TIME;
    let mut wanted = Vec::new();
    let mut stopped = None;
    for block in blocks {
        let open = OpenBlock::open(block)?;
        wanted.extend(open.filter(|line| {
            if stopped.is_some() || !lines.contains(&line.sequence) {
                return false;
            }
            if line.sequence > lines.start && std::time::Instant::now() >= deadline {
                stopped = Some(line.sequence);
                return false;
            }
            filter.keeps(line)
        }));
        if stopped.is_some() {
            break;
        }
    }
    Ok((wanted, stopped))
}
