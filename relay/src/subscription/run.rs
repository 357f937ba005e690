//! The subscription at work: which stream is next, what it has, and when history ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millstream_proto::block::{BlockError, OpenBlock, next_sequence};
use millstream_proto::v1::{self, tail_response::Message};
use millstream_store::{LogStore, StoreError};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::slot::Slot;
use super::start::SlotStart;
use super::{Cursor, Plan};
use crate::clock::now_unix_us;
use crate::filter::LineFilter;
use crate::metrics::Metrics;
use crate::search::SearchPool;
use crate::streams::{
    Interest, Ready, Registry, RingRead, StreamHandle, Watcher, block_frame, decode_block_frame,
    message_frame,
};

/// What one turn of one stream may take: large enough to be worth the trip to the store, small enough
/// that many streams share a connection fairly.
const TURN_BYTES: usize = 1 << 20;

/// Time that a filter which may be slow gets for one turn.
const SLOW_FILTER_TIME: Duration = Duration::from_millis(40);

/// Why a subscription had to end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a stored block of stream {stream_id} cannot be read: {cause}")]
    Block { stream_id: u64, cause: BlockError },
    #[error("the relay is stopping; reconnect")]
    Stopping,
}

/// What a subscription works with.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    pub(crate) store: Arc<dyn LogStore>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: Arc<Metrics>,
    /// Where filters are asked that may be slow.
    pub(crate) filter_pool: Arc<SearchPool>,
    pub(crate) stop: CancellationToken,
    pub(crate) heartbeat: Duration,
}

/// One call of `Tail`.
#[derive(Debug)]
pub(crate) struct Subscription {
    sources: Sources,
    plan: Plan,
    ready: Arc<Ready>,
    interest: Arc<Interest>,
    slots: Vec<Slot>,
    /// Slots whose history is not delivered yet.
    history_left: usize,
    has_caught_up: bool,
    watermark: u64,
    /// Frames of the current turn: at most one turn's worth.
    frames: VecDeque<Bytes>,
    next_heartbeat: Instant,
    is_done: bool,
}

impl Subscription {
    pub(crate) fn new(sources: Sources, plan: Plan) -> Self {
        sources.metrics.subscriptions.add(1);
        let ready = Arc::new(Ready::default());
        let (streams, interest, watermark) = sources
            .registry
            .subscribe(plan.selector.clone(), Arc::clone(&ready));
        let next_heartbeat = Instant::now() + sources.heartbeat;
        let mut subscription = Self {
            sources,
            plan,
            ready,
            interest,
            slots: Vec::new(),
            history_left: 0,
            has_caught_up: false,
            watermark,
            frames: VecDeque::new(),
            next_heartbeat,
            is_done: false,
        };
        for stream in streams {
            let start = subscription.plan.start_of(&stream);
            subscription.add(stream, start);
        }
        subscription.plan.forget_starts();
        // A cursor from the very first: a reader that is cut off during its history can go on from exactly here,
        // and gets streams that appear meanwhile from their first line. Where a stream begins by time is not
        // known yet.
        if subscription.plan.follow && !subscription.plan.starts_by_time() {
            subscription.beat();
        }
        subscription
    }

    /// The next frame; `None` when the subscription is complete. Cancel safe: what was not returned is
    /// returned by the next call.
    pub(crate) async fn next_frame(&mut self) -> Option<Result<Bytes, ReadError>> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Some(Ok(frame));
            }
            if self.is_done {
                return None;
            }
            if self.sources.stop.is_cancelled() {
                self.is_done = true;
                return Some(Err(ReadError::Stopping));
            }
            if Instant::now() >= self.next_heartbeat {
                self.beat();
                continue;
            }
            self.add_appeared();
            // Before live turns, so that a busy stream cannot put it off.
            if !self.has_caught_up && self.history_left == 0 {
                self.has_caught_up = true;
                self.push(Message::CaughtUp(v1::CaughtUp {
                    cursor: self.cursor(),
                }));
                self.is_done = !self.plan.follow;
                continue;
            }
            if let Some(slot) = self.ready.pop() {
                if let Err(error) = self.turn(slot).await {
                    self.is_done = true;
                    return Some(Err(error));
                }
                continue;
            }
            tokio::select! {
                // In one order, so that a simulation can be repeated.
                biased;
                () = self.ready.changed() => {}
                () = sleep_until(self.next_heartbeat) => {}
                () = self.sources.stop.cancelled() => {}
            }
        }
    }

    fn add_appeared(&mut self) {
        let (appeared, watermark) = self.sources.registry.take_appeared(&self.interest);
        self.watermark = watermark;
        if !self.plan.follow {
            return;
        }
        for stream in appeared {
            let first_sequence = stream.bounds().first_sequence;
            self.add(stream, SlotStart::At(first_sequence));
        }
    }

    fn add(&mut self, stream: Arc<StreamHandle>, start: SlotStart) {
        if !self.plan.wants(&stream) || start == SlotStart::Skip {
            return;
        }
        let watcher = Watcher::new(Arc::clone(&self.ready), self.slots.len());
        // Watched first and looked at afterwards, so that nothing falls between.
        if self.plan.follow {
            stream.watch(&watcher);
        }
        watcher.mark();
        let mut slot = Slot::new(stream, watcher, start);
        if self.has_caught_up {
            slot.is_history_done = true;
        } else {
            self.history_left += 1;
        }
        self.slots.push(slot);
    }

    /// Delivers one turn of one stream.
    async fn turn(&mut self, index: usize) -> Result<(), ReadError> {
        let slot = &mut self.slots[index];
        slot.watcher.unmark();
        if slot.is_finished {
            return Ok(());
        }
        let mut position = match slot.start {
            SlotStart::At(position) => position,
            SlotStart::Time(unix_us) => {
                let store = Arc::clone(&self.sources.store);
                let stream_id = slot.stream.stream_id;
                in_store(move || store.seek_time(stream_id, unix_us)).await?
            }
            SlotStart::Skip => return Ok(()),
        };
        let bounds = slot.stream.bounds();
        if !slot.is_announced && self.plan.follow | (position < bounds.next_sequence) | bounds.is_ended {
            slot.is_announced = true;
            self.frames
                .push_back(message_frame(Message::Stream(slot.stream.to_proto())));
        }
        if position < bounds.first_sequence {
            self.frames.push_back(message_frame(Message::Gap(v1::Gap {
                stream_id: slot.stream.stream_id,
                first_sequence: position,
                next_sequence: bounds.first_sequence,
                message: "retention has removed these lines".to_owned(),
                reason: v1::GapReason::Retention.into(),
            })));
            position = bounds.first_sequence;
        }
        slot.start = SlotStart::At(position);
        // Without following, the answer is what there was at the begin and no more.
        let end = if self.plan.follow {
            bounds.next_sequence
        } else {
            slot.history_end
        };
        if position < end {
            position = self.deliver(index, position, end).await?;
        }
        let slot = &mut self.slots[index];
        slot.start = SlotStart::At(position);
        if !slot.is_history_done && position >= slot.history_end {
            slot.is_history_done = true;
            self.history_left -= 1;
        }
        if position < end {
            slot.watcher.mark();
        } else if bounds.is_ended && position >= bounds.next_sequence {
            slot.is_finished = true;
            self.frames
                .push_back(message_frame(Message::StreamEnded(v1::StreamEnded {
                    stream_id: slot.stream.stream_id,
                    next_sequence: position,
                    end: slot.stream.end(),
                })));
        }
        Ok(())
    }

    /// Puts frames of lines from `position` on (below `end`) into the queue; returns the position after
    /// them.
    async fn deliver(&mut self, index: usize, position: u64, end: u64) -> Result<u64, ReadError> {
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
        lines: std::ops::Range<u64>,
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
        lines: std::ops::Range<u64>,
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

    fn push_damage(&mut self, stream_id: u64, lost: std::ops::Range<u64>, cause: &str) {
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

    pub(super) fn beat(&mut self) {
        self.next_heartbeat = Instant::now() + self.sources.heartbeat;
        let heads = self
            .slots
            .iter()
            .filter(|slot| !slot.is_finished)
            .filter_map(|slot| {
                let next_sequence = slot.stream.bounds().next_sequence;
                let is_behind = slot
                    .next_sequence()
                    .is_none_or(|position| position < next_sequence);
                is_behind.then_some(v1::Position {
                    stream_id: slot.stream.stream_id,
                    next_sequence,
                })
            })
            .collect();
        self.push(Message::Heartbeat(v1::Heartbeat {
            cursor: self.cursor(),
            server_unix_us: now_unix_us(),
            heads,
        }));
    }

    /// Stands after everything that was put into `frames`, which is delivered before the cursor is.
    fn cursor(&self) -> Bytes {
        let positions = self
            .slots
            .iter()
            .filter(|slot| !slot.is_finished)
            .map(|slot| {
                // A stream that is still to be looked up by time begins again from its first line rather
                // than being skipped; only a heartbeat within the first turns can see one.
                (slot.stream.stream_id, slot.next_sequence().unwrap_or(0))
            })
            .collect();
        Cursor {
            watermark: self.watermark,
            positions,
        }
        .encode(self.plan.scope)
    }

    fn push(&mut self, message: Message) {
        self.frames.push_back(message_frame(message));
    }
}

/// The lines that a filter wants of blocks, as far as it comes in [`SLOW_FILTER_TIME`]; with the sequence at which it
/// stopped, when that is not the end. At least one line is looked at.
fn filter_in_time(
    filter: &LineFilter,
    blocks: &[v1::Block],
    lines: &std::ops::Range<u64>,
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

impl Drop for Subscription {
    fn drop(&mut self) {
        self.sources.metrics.subscriptions.subtract(1);
    }
}

/// Runs a blocking read where it may block: on a pool of threads. A runtime of one thread is a test's or a
/// simulation's, where everything has to happen in an order that can be repeated: there it blocks right here.
pub(crate) async fn in_store<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return read();
    }
    match tokio::task::spawn_blocking(read).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::Engine {
            what: "a read was interrupted".to_owned(),
            cause: error.to_string(),
        }),
    }
}
