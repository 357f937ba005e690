//! What was read but is not durable at the relay yet: one slot a stream, between sources and uplink.
//!
//! A source owns a [`StreamWriter`] and pushes text into its slot's block builder; the uplink seals builders
//! only when it has room to send, so a lone line leaves at once and blocks grow by themselves under load.
//! Blocks stay here until they are acknowledged. The relay's word decides at every (re)connect: what it has
//! is dropped here, the rest is sent again, and if it has less than what is still held, a stream that can be
//! read again is rewound while one that cannot goes on with a notice of what is missing.
//!
//! All slots share one mutex. It is held for memory work only, never across an await, and both sides run on
//! the same thread; it exists so that the state has one place and tests may use several threads.

mod queue;
mod slot;
mod writer;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use millstream_proto::v1;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::edge::{Edge, EdgeSettings};

pub use queue::{Action, CompressJob, Limits};
pub use slot::Opened;
pub use writer::{StreamWriter, WriteError};

use slot::Slot;

/// Held text of one stream that can be read again; the file simply waits. Several relay round trips of a
/// busy stream.
pub const RESUMABLE_HOLD_BYTES: usize = 8 << 20;

/// Held text of one process stream while the relay is away; then the child's pipe blocks.
pub const PROCESS_HOLD_BYTES: usize = 16 << 20;

/// Held text over all streams. Beyond it a stream may hold only [`SMALL_HOLD_BYTES`], so that a thousand
/// busy files do not take a thousand times [`RESUMABLE_HOLD_BYTES`].
const TOTAL_HOLD_BYTES: usize = 64 << 20;
const SMALL_HOLD_BYTES: usize = 64 << 10;

/// Which stream, and how it behaves.
#[derive(Debug, Clone)]
pub struct StreamSpec {
    pub source: String,
    pub instance: String,
    pub labels: BTreeMap<String, String>,
    pub run: Option<v1::Run>,
    pub path: Option<String>,
    /// Its source can go back to a checkpoint.
    pub resumable: bool,
    /// Another process may go on with it, which does not know what this one masks.
    pub outlives: bool,
    /// Text to hold before the writer has to wait, bytes.
    pub hold_bytes: usize,
}

/// Handle on all slots; cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
    /// What is done to the text of streams that are opened with this handle.
    edge: EdgeSettings,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Wakes the uplink: a stream wants to be opened, or there is something to send.
    work: Notify,
    /// Wakes who waits for acknowledgements.
    settled: Notify,
}

#[derive(Debug, Default)]
struct State {
    slots: BTreeMap<u64, Slot>,
    next_slot: u64,
    /// Slots that want an OpenStream in this session, each once.
    to_open: VecDeque<u64>,
    /// Slots that have something to send, each once; served round robin.
    ready: VecDeque<u64>,
    /// Handles of this session. A stream that is opened again gets a new one, so that late answers to the
    /// old one cannot be mistaken.
    handles: HashMap<u32, u64>,
    next_handle: u32,
    connected: bool,
    /// Uncompressed text sent and not acknowledged, bytes.
    in_flight_bytes: usize,
    /// Text held by all slots, bytes.
    held_bytes: usize,
    next_seal: u64,
    /// Earliest [`Slot::reopen_at`].
    next_reopen: Option<Instant>,
    /// Not later than the earliest [`Slot::due`].
    next_flush: Option<Instant>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Outbox {
    #[must_use]
    pub fn new() -> Self {
        let shared = Shared {
            state: Mutex::default(),
            work: Notify::new(),
            settled: Notify::new(),
        };
        Self {
            shared: Arc::new(shared),
            edge: EdgeSettings::default(),
        }
    }

    /// The same outbox, for streams whose text is processed so.
    #[must_use]
    pub fn with_edge(&self, edge: EdgeSettings) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            edge,
        }
    }

    /// A stream; it is opened at the relay as soon as there is a session. A stream whose writer is gone but
    /// whose lines are not all acknowledged yet is taken over, so that one stream never has two slots.
    #[must_use]
    pub fn open(&self, mut spec: StreamSpec) -> StreamWriter {
        self.edge.mask_facts(&mut spec);
        let edge = self.edge.open(&spec.source, &spec.instance, spec.outlives);
        let mut state = self.lock();
        let same = |slot: &Slot| slot.spec.source == spec.source && slot.spec.instance == spec.instance;
        let left_behind = state.slots.iter().find(|(_, slot)| same(slot)).map(|(id, _)| *id);
        let (id, changed) = if let Some(id) = left_behind {
            (id, state.adopt(id, edge))
        } else {
            let changed = Arc::new(Notify::new());
            let id = state.next_slot;
            state.next_slot += 1;
            state
                .slots
                .insert(id, Slot::new(spec, edge, Arc::clone(&changed)));
            (id, changed)
        };
        state.to_open.push_back(id);
        drop(state);
        self.shared.work.notify_one();
        StreamWriter::new(self.clone(), id, changed)
    }

    /// Waits until there may be something for the uplink to do.
    pub async fn work(&self) {
        self.shared.work.notified().await;
    }

    /// Lines that are not durable at the relay; 0 when every stream, and the end of those that ended, is
    /// acknowledged.
    #[must_use]
    pub fn unsettled(&self) -> Unsettled {
        let state = self.lock();
        let mut unsettled = Unsettled::default();
        for slot in state.slots.values().filter(|slot| slot.dead.is_none()) {
            unsettled.lines += slot.unacked_lines();
            unsettled.ends += u64::from(slot.end.as_ref().is_some_and(|end| !end.acked));
        }
        unsettled
    }

    /// The latest checkpoint that the relay has acknowledged for a stream; empty when there is none.
    #[must_use]
    pub fn durable_checkpoint(&self, source: &str, instance: &str) -> Bytes {
        let state = self.lock();
        let mut slots = state.slots.values();
        slots
            .find(|slot| slot.spec.source == source && slot.spec.instance == instance)
            .map(|slot| slot.durable_checkpoint.clone())
            .unwrap_or_default()
    }

    /// Waits until every line of a stream that is here is acknowledged.
    pub async fn acknowledged(&self, source: &str, instance: &str) {
        loop {
            let settled = self.shared.settled.notified();
            let waits = {
                let state = self.lock();
                let mut slots = state.slots.values();
                slots.any(|slot| {
                    slot.spec.source == source && slot.spec.instance == instance && slot.unacked_lines() > 0
                })
            };
            if !waits {
                return;
            }
            settled.await;
        }
    }

    /// Waits until nothing is unsettled.
    pub async fn settled(&self) {
        loop {
            let settled = self.shared.settled.notified();
            if self.unsettled() == Unsettled::default() {
                return;
            }
            settled.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .expect("no code panics while it holds the outbox")
    }
}

/// What the relay has not confirmed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Unsettled {
    pub lines: u64,
    /// Streams whose end is not acknowledged.
    pub ends: u64,
}

/// The uplink's side.
impl Outbox {
    /// A session begins: every stream has to be opened again.
    pub fn session_began(&self) {
        let mut state = self.lock();
        state.connected = true;
        state.handles.clear();
        state.next_handle = 0;
        state.to_open.clear();
        let State { slots, to_open, .. } = &mut *state;
        to_open.extend(
            slots
                .iter()
                .filter(|(_, slot)| slot.dead.is_none())
                .map(|(id, _)| *id),
        );
    }

    /// The session is over: what was sent and not acknowledged will be sent again.
    pub fn session_ended(&self) {
        let mut state = self.lock();
        state.connected = false;
        state.ready.clear();
        state.in_flight_bytes = 0;
        state.next_reopen = None;
        for slot in state.slots.values_mut() {
            slot.disconnect();
        }
    }

    /// The relay said where a stream stands.
    pub fn opened(&self, answer: &v1::StreamOpened) {
        self.with_slot(answer.handle, |slot| match answer.stream_id {
            0 => slot.unknown(),
            _ => slot.opened(answer.next_sequence, &answer.checkpoint, answer.ended),
        });
    }

    /// The relay has stored lines for good.
    pub fn acked(&self, ack: &v1::Ack) {
        for stream in &ack.streams {
            self.with_slot(stream.handle, |slot| {
                slot.acked(stream.next_sequence, stream.ended);
            });
        }
        self.shared.settled.notify_waiters();
    }

    /// The relay did not take something. Returns what to tell the operator.
    pub fn refused(&self, refusal: &v1::Refusal) -> Option<String> {
        let mut told = None;
        self.with_slot(refusal.handle, |slot| told = slot.refused(refusal));
        self.shared.settled.notify_waiters();
        told
    }

    /// A block comes back from compression.
    pub fn compressed(&self, job: CompressJob) {
        let mut state = self.lock();
        let Some(slot) = state.slots.get_mut(&job.slot) else {
            return;
        };
        let before = slot.held_bytes;
        slot.compressed(job.seal, job.block);
        let after = slot.held_bytes;
        state.held_bytes = state.held_bytes + after - before;
        state.make_ready(job.slot);
    }

    /// The next thing to do for the uplink, streams in turn.
    pub fn next_action(&self, limits: &Limits) -> Action {
        queue::next_action(&mut self.lock(), limits)
    }

    /// Earliest time at which a stream that was refused for a limit is tried again.
    #[must_use]
    pub fn next_reopen(&self) -> Option<Instant> {
        self.lock().next_reopen
    }

    /// Queues streams whose time to be opened again has come.
    pub fn reopen_due(&self, now: Instant) {
        let mut state = self.lock();
        if state.next_reopen.is_none_or(|at| at > now) {
            return;
        }
        let State {
            slots,
            to_open,
            next_reopen,
            ..
        } = &mut *state;
        for (id, slot) in slots.iter_mut() {
            if slot.reopen_at.is_some_and(|at| at <= now) {
                slot.reopen_at = None;
                to_open.push_back(*id);
            }
        }
        *next_reopen = slots.values().filter_map(|slot| slot.reopen_at).min();
    }

    /// Earliest time at which text that waits in an edge has waited long enough.
    #[must_use]
    pub fn next_flush(&self) -> Option<Instant> {
        self.lock().next_flush
    }

    /// Lets out text whose time has come.
    pub fn flush_due(&self, now: Instant) {
        let mut state = self.lock();
        if state.next_flush.is_none_or(|at| at > now) {
            return;
        }
        let State {
            slots,
            next_seal,
            held_bytes,
            ..
        } = &mut *state;
        let mut flushed = Vec::new();
        for (id, slot) in slots
            .iter_mut()
            .filter(|(_, slot)| slot.due().is_some_and(|due| due <= now))
        {
            let before = slot.held_bytes;
            slot.flush(next_seal, now, false);
            *held_bytes = *held_bytes + slot.held_bytes - before;
            flushed.push(*id);
        }
        state.next_flush = state.slots.values().filter_map(Slot::due).min();
        for id in flushed {
            state.make_ready(id);
        }
    }

    /// Applies an answer to the slot behind a handle and keeps the sums right.
    fn with_slot(&self, handle: u32, change: impl FnOnce(&mut Slot)) {
        let mut state = self.lock();
        let Some(id) = state.handles.get(&handle).copied() else {
            return;
        };
        let Some(slot) = state.slots.get_mut(&id) else {
            return;
        };
        if slot.handle != Some(handle) {
            return;
        }
        let (held, in_flight) = (slot.held_bytes, slot.in_flight_bytes);
        change(slot);
        slot.changed.notify_one();
        let (held_now, in_flight_now) = (slot.held_bytes, slot.in_flight_bytes);
        let reopen = slot.wants_reopen();
        let reopen_at = slot.reopen_at;
        let finished = slot.finished();
        state.held_bytes = state.held_bytes + held_now - held;
        state.in_flight_bytes = state.in_flight_bytes + in_flight_now - in_flight;
        state.next_reopen = [state.next_reopen, reopen_at].into_iter().flatten().min();
        if finished {
            state.remove(id);
        } else if reopen {
            state.to_open.push_back(id);
        } else {
            state.make_ready(id);
        }
    }
}

impl State {
    fn make_ready(&mut self, id: u64) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        if slot.wants_reopen() {
            self.to_open.push_back(id);
        }
        if !slot.queued && slot.has_work() {
            slot.queued = true;
            self.ready.push_back(id);
        }
    }

    fn adopt(&mut self, id: u64, edge: Option<Box<Edge>>) -> Arc<Notify> {
        let slot = self.slots.get_mut(&id).expect("the caller found it");
        let (held, in_flight) = (slot.held_bytes, slot.in_flight_bytes);
        slot.adopt(edge);
        let changed = Arc::clone(&slot.changed);
        let (held_now, in_flight_now) = (slot.held_bytes, slot.in_flight_bytes);
        self.held_bytes = self.held_bytes + held_now - held;
        self.in_flight_bytes = self.in_flight_bytes + in_flight_now - in_flight;
        changed
    }

    fn remove(&mut self, id: u64) {
        if let Some(slot) = self.slots.remove(&id) {
            self.held_bytes -= slot.held_bytes;
            self.in_flight_bytes -= slot.in_flight_bytes;
            if let Some(handle) = slot.handle {
                self.handles.remove(&handle);
            }
        }
        self.ready.retain(|other| *other != id);
        self.to_open.retain(|other| *other != id);
    }

    /// A stream may hold this much now.
    fn has_room(&self, slot: &Slot) -> bool {
        let limit = if self.held_bytes < TOTAL_HOLD_BYTES || !slot.spec.resumable {
            slot.spec.hold_bytes
        } else {
            SMALL_HOLD_BYTES
        };
        slot.held_bytes < limit
    }
}

/// Microseconds since the Unix epoch.
#[must_use]
pub fn now_unix_us() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_micros()).ok())
        .unwrap_or(0)
}

/// A block of one line in Millstream's own words.
fn notice_block(text: &str, first_sequence: u64) -> v1::Block {
    let mut builder = millstream_proto::block::BlockBuilder::new();
    let line = notice_line(text);
    builder.push_line(&line, now_unix_us(), v1::Channel::Notice, false);
    builder
        .finish(first_sequence)
        .expect("an empty builder takes a line below its limit")
}

/// One line, whatever a path or a message from elsewhere holds.
fn notice_line(text: &str) -> Bytes {
    const MAX_NOTICE_BYTES: usize = 4096;
    let mut line: Vec<u8> = text
        .bytes()
        .map(|byte| if byte == b'\n' { b' ' } else { byte })
        .collect();
    line.truncate(MAX_NOTICE_BYTES);
    line.into()
}
