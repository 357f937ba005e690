//! Where what one turn of one stream delivers comes from, and where it is made: what is ready at once, and what costs
//! time beside the threads that deliver live lines.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millstream_proto::block::BlockError;
use millstream_store::StoreError;

use super::{ReadError, Sources, Subscription};
use crate::reads::in_store;
use crate::search::TurnKind;
use crate::streams::{RingRead, decode_block_frame};
use crate::subscription::cut::{Cut, Found, Made};

/// Time that a filter which may be slow gets for one turn.
const SLOW_FILTER_TIME: Duration = Duration::from_millis(40);

/// What a turn may look at and open where live lines are delivered: a fraction of a millisecond's work.
const MAX_INLINE_FRAMES: usize = 32;
const MAX_INLINE_BYTES: usize = 64 << 10;

impl Subscription {
    /// Puts frames of lines from `position` on (below `end`) into the queue, until they have `turn_bytes` as they are
    /// delivered; returns the position after them.
    pub(super) async fn deliver(
        &mut self,
        index: usize,
        position: u64,
        end: u64,
        turn_bytes: usize,
    ) -> Result<u64, ReadError> {
        let stream = Arc::clone(&self.slots[index].stream);
        let frames = match stream.read_ring(position, turn_bytes) {
            RingRead::Frames(frames, next)
                if self.plan.filter.is_none()
                    && self.plan.follow
                    && self.plan.accepts_zstd
                    && frames[0].len() <= turn_bytes =>
            {
                self.sources.metrics.ring_frames_total.add(frames.len() as u64);
                self.frames.extend(frames);
                return Ok(next);
            }
            RingRead::Frames(frames, _) => Some(frames),
            RingRead::Inside(frame, _) => Some(vec![frame]),
            RingRead::Miss => None,
        };
        let stream_id = stream.stream_id;
        let cut = Arc::new(Cut {
            stream_id,
            lines: position..end,
            filter: self.plan.filter.clone(),
            accepts_zstd: self.plan.accepts_zstd,
            max_bytes: turn_bytes,
        });
        let made = match frames {
            Some(frames) => self.cut(Arc::clone(&cut), frames).await,
            None => self.cut_stored(Arc::clone(&cut)).await,
        };
        let made = match made {
            Err(ReadError::Store(StoreError::DamagedLines {
                next_sequence, cause, ..
            })) => {
                let next_sequence = next_sequence.min(end);
                self.frames.push(cut.damage(position..next_sequence, &cause));
                return Ok(next_sequence);
            }
            made => made?,
        };
        self.frames.extend(made.frames);
        Ok(made.reached)
    }

    /// What is in memory.
    async fn cut(&self, cut: Arc<Cut>, frames: Vec<Bytes>) -> Result<Made, ReadError> {
        self.sources.metrics.ring_frames_total.add(frames.len() as u64);
        if self.plan.may_be_slow() {
            return self.cut_slowly(cut, found(frames)).await;
        }
        let damaged = damaged(cut.stream_id);
        if frames.len() > MAX_INLINE_FRAMES {
            let made = in_store(move || Ok(cut.make(found(frames), None)));
            return made.await?.map_err(damaged);
        }
        let blocks = found(frames);
        if cut.cost(&blocks) <= MAX_INLINE_BYTES {
            return cut.make(blocks, None).map_err(damaged);
        }
        in_store(move || Ok(cut.make(blocks, None)))
            .await?
            .map_err(damaged)
    }

    async fn cut_stored(&self, cut: Arc<Cut>) -> Result<Made, ReadError> {
        let damaged = damaged(cut.stream_id);
        let sources = self.sources.clone();
        let reading = Arc::clone(&cut);
        let read = move || read(&sources, &reading);
        if self.plan.may_be_slow() {
            return self.cut_slowly(cut, in_store(read).await?).await;
        }
        in_store(move || Ok(cut.make(read()?, None)))
            .await?
            .map_err(damaged)
    }

    /// With a filter that may be slow.
    async fn cut_slowly(&self, cut: Arc<Cut>, blocks: Vec<Found>) -> Result<Made, ReadError> {
        let damaged = damaged(cut.stream_id);
        let made = self.sources.search_pool.run(TurnKind::Filter, move || {
            cut.make(blocks, Some(Instant::now() + SLOW_FILTER_TIME))
        });
        made.await.map_err(|_| ReadError::Stopping)?.map_err(damaged)
    }
}

/// Blocks of the store from where a turn begins.
fn read(sources: &Sources, cut: &Cut) -> Result<Vec<Found>, StoreError> {
    let lines = &cut.lines;
    let blocks = sources
        .store
        .read_blocks(cut.stream_id, lines.start, cut.max_bytes)?;
    if blocks.is_empty() {
        let place = format!("stream {}", cut.stream_id);
        let cause = format!("line {} of {} is missing", lines.start, lines.end);
        return Err(StoreError::Damaged { place, cause });
    }
    sources.metrics.store_frames_total.add(blocks.len() as u64);
    Ok(blocks.into_iter().map(|block| (block, None)).collect())
}

fn found(frames: Vec<Bytes>) -> Vec<Found> {
    let found = |frame| (decode_block_frame(&frame), Some(frame));
    frames.into_iter().map(found).collect()
}

fn damaged(stream_id: u64) -> impl Fn(BlockError) -> ReadError {
    move |cause| ReadError::Block { stream_id, cause }
}
