//! One stream in memory: its record, its newest blocks, its watchers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use millstream_proto::v1;
use millstream_store::StreamRecord;
use tokio::time::Instant;

use super::ring::Ring;
use super::{RingBudget, RingRead, Watcher};

/// Shared by the writer, which changes it, and readers.
#[derive(Debug)]
pub(crate) struct StreamHandle {
    pub(crate) stream_id: u64,
    /// Never change after the stream was made.
    pub(crate) labels: std::collections::BTreeMap<String, String>,
    budget: Arc<RingBudget>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    record: StreamRecord,
    /// Sessions that have the stream open: 0, 1, or 2 for an instant when an agent reconnects.
    open_sessions: usize,
    ring: Ring,
    last_publish: Option<Instant>,
    watchers: Vec<Weak<Watcher>>,
}

/// Where a stream begins and ends now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) first_sequence: u64,
    pub(crate) next_sequence: u64,
    pub(crate) is_ended: bool,
}

/// A block that was committed and may be shown.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) first_sequence: u64,
    pub(crate) next_sequence: u64,
    pub(crate) text_bytes: u64,
    pub(crate) last_line_unix_us: i64,
    pub(crate) checkpoint: Bytes,
    pub(crate) frame: Bytes,
}

impl StreamHandle {
    pub(crate) fn new(record: StreamRecord, budget: Arc<RingBudget>) -> Arc<Self> {
        Arc::new(Self {
            stream_id: record.stream_id,
            labels: record.labels.clone(),
            budget,
            state: Mutex::new(State {
                record,
                open_sessions: 0,
                ring: Ring::default(),
                last_publish: None,
                watchers: Vec::new(),
            }),
        })
    }

    pub(crate) fn bounds(&self) -> Bounds {
        let state = self.lock();
        Bounds {
            first_sequence: state.record.first_sequence,
            next_sequence: state.record.next_sequence,
            is_ended: state.record.end.is_some(),
        }
    }

    pub(crate) fn record(&self) -> StreamRecord {
        self.lock().record.clone()
    }

    pub(crate) fn end(&self) -> Option<v1::StreamEnd> {
        self.lock().record.end.clone()
    }

    /// As the API shows it.
    pub(crate) fn to_proto(&self) -> v1::Stream {
        let state = self.lock();
        let record = &state.record;
        let stream_state = match (&record.end, state.open_sessions) {
            (Some(_), _) => v1::StreamState::Ended,
            (None, 0) => v1::StreamState::Away,
            (None, _) => v1::StreamState::Live,
        };
        v1::Stream {
            stream_id: record.stream_id,
            agent_id: record.agent_id.clone(),
            instance: record.instance.clone(),
            labels: record.labels.clone(),
            state: stream_state.into(),
            first_sequence: record.first_sequence,
            next_sequence: record.next_sequence,
            text_bytes: record.text_bytes,
            created_unix_us: record.created_unix_us,
            last_line_unix_us: record.last_line_unix_us,
            run: record.run.clone(),
            end: record.end.clone(),
        }
    }

    /// Frames from the position on, when they are in memory.
    pub(crate) fn read_ring(&self, from: u64, max_bytes: usize) -> RingRead {
        self.lock().ring.read(from, max_bytes)
    }

    pub(crate) fn watch(&self, watcher: &Arc<Watcher>) {
        let mut state = self.lock();
        if state.watchers.len() == state.watchers.capacity() {
            state.watchers.retain(|watcher| watcher.strong_count() > 0);
        }
        state.watchers.push(Arc::downgrade(watcher));
    }

    /// Shows committed blocks to readers. Called by the writer only.
    pub(crate) fn publish(&self, blocks: Vec<Published>) {
        let mut state = self.lock();
        for block in blocks {
            let record = &mut state.record;
            record.next_sequence = block.next_sequence;
            record.text_bytes += block.text_bytes;
            record.last_line_unix_us = block.last_line_unix_us;
            if !block.checkpoint.is_empty() {
                record.checkpoint = block.checkpoint;
            }
            state.ring.push(
                block.first_sequence,
                block.next_sequence,
                block.frame,
                &self.budget,
            );
        }
        state.last_publish = Some(Instant::now());
        mark(&mut state);
    }

    /// Replaces record facts (labels never change). Called by the writer only.
    pub(crate) fn set_end(&self, end: v1::StreamEnd) {
        let mut state = self.lock();
        state.record.end = Some(end);
        mark(&mut state);
    }

    pub(crate) fn opened(&self) {
        let mut state = self.lock();
        state.open_sessions += 1;
        mark(&mut state);
    }

    pub(crate) fn closed(&self) {
        let mut state = self.lock();
        state.open_sessions = state.open_sessions.saturating_sub(1);
        mark(&mut state);
    }

    /// Gives memory back when nothing was published for a while.
    pub(crate) fn free_if_idle(&self, idle: std::time::Duration) {
        let mut state = self.lock();
        if state.last_publish.is_some_and(|at| at.elapsed() >= idle) {
            state.last_publish = None;
            state.ring.clear(&self.budget);
            state.watchers.retain(|watcher| watcher.strong_count() > 0);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of another thread while it held the lock cannot leave half a change: every change above
        // is complete before anything that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn mark(state: &mut State) {
    let mut any_gone = false;
    for watcher in &state.watchers {
        match watcher.upgrade() {
            Some(watcher) => watcher.mark(),
            None => any_gone = true,
        }
    }
    if any_gone {
        state.watchers.retain(|watcher| watcher.strong_count() > 0);
    }
}
