//! The subscription at work: which stream is next and when history ends; what a turn delivers is in `deliver`.

mod deliver;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millstream_proto::block::BlockError;
use millstream_proto::v1::{self, tail_response::Message};
use millstream_store::{LogStore, StoreError};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::outbox::Outbox;
use super::slot::Slot;
use super::start::SlotStart;
use super::{Cursor, Plan};
use crate::clock::now_unix_us;
use crate::metrics::Metrics;
use crate::reads::in_store;
use crate::search::SearchPool;
use crate::streams::{Interest, Ready, Registry, StreamHandle, Watcher, message_frame};

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
    pub(crate) search_pool: Arc<SearchPool>,
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
    frames: Outbox,
    next_heartbeat: Instant,
    /// When the next batch of turns may begin, and how many the present one still has.
    next_batch: Instant,
    batch_left: usize,
    is_done: bool,
}

impl Subscription {
    pub(crate) fn new(sources: Sources, plan: Plan) -> Self {
        sources.metrics.subscriptions.add(1);
        let ready = Arc::new(Ready::default());
        let (streams, interest, watermark) = sources
            .registry
            .subscribe(plan.selector.clone(), Arc::clone(&ready));
        let now = Instant::now();
        let next_heartbeat = now + sources.heartbeat;
        let frames = Outbox::new(Arc::clone(&sources.metrics));
        let mut subscription = Self {
            sources,
            plan,
            ready,
            interest,
            slots: Vec::new(),
            history_left: 0,
            has_caught_up: false,
            watermark,
            frames,
            next_heartbeat,
            next_batch: now,
            batch_left: 0,
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

    /// The next frame, or several short ones together; `None` when the subscription is complete. Cancel safe: what was not returned is
    /// returned by the next call.
    pub(crate) async fn next_frame(&mut self) -> Option<Result<Bytes, ReadError>> {
        loop {
            if let Some(frame) = self.frames.pop() {
                return Some(Ok(frame));
            }
            if self.is_done {
                return None;
            }
            if self.sources.stop.is_cancelled() {
                self.is_done = true;
                return Some(Err(ReadError::Stopping));
            }
            let now = Instant::now();
            if now >= self.next_heartbeat {
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
            let is_due = self.is_due(now);
            let turn = self.frames.next_turn();
            if let Some(turn) = &turn
                && is_due
                && let Some(slot) = self.ready.pop()
            {
                self.batch_left = self.batch_left.saturating_sub(1);
                if let Err(error) = self.turn(slot, turn.bytes).await {
                    self.is_done = true;
                    return Some(Err(error));
                }
                continue;
            }
            let has_room = turn.is_some();
            drop(turn);
            tokio::select! {
                // In one order, so that a simulation can be repeated.
                biased;
                () = sleep_until(self.next_batch), if !is_due => {}
                () = self.ready.changed(), if has_room && is_due => {}
                () = self.frames.taken(), if !has_room => {}
                () = sleep_until(self.next_heartbeat) => {}
                () = self.sources.stop.cancelled() => {}
            }
        }
    }

    /// Whether something may be made now of what is ready. Begins the next batch when its time has come: one turn of each
    /// stream that is ready by then.
    fn is_due(&mut self, now: Instant) -> bool {
        let interval = self.plan.batch_interval;
        // What is history was there before: nothing is gained by waiting.
        if interval.is_zero() || !self.has_caught_up || self.batch_left > 0 {
            return true;
        }
        if now < self.next_batch {
            return false;
        }
        self.batch_left = self.ready.len();
        if self.batch_left > 0 {
            self.next_batch = now + interval;
        }
        true
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
    async fn turn(&mut self, index: usize, turn_bytes: usize) -> Result<(), ReadError> {
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
                .push(message_frame(Message::Stream(slot.stream.to_proto())));
        }
        if position < bounds.first_sequence {
            self.frames.push(message_frame(Message::Gap(v1::Gap {
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
            position = self.deliver(index, position, end, turn_bytes).await?;
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
                .push(message_frame(Message::StreamEnded(v1::StreamEnded {
                    stream_id: slot.stream.stream_id,
                    next_sequence: position,
                    end: slot.stream.end(),
                })));
        }
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
        self.frames.push(message_frame(message));
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.sources.metrics.subscriptions.subtract(1);
    }
}
