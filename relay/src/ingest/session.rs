//! The relay's end of one agent session, as the writer sees it: where acknowledgements go.
//!
//! Nothing queues up here: acknowledgements are cumulative, so a newer one replaces an older one of the
//! same stream. An agent that does not read costs at most one entry a stream.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use millstream_proto::v1::{self, push_response};
use tokio::sync::Notify;

/// Shared by the session's task and the writer.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) agent_id: String,
    epoch: AtomicU64,
    is_fenced: AtomicBool,
    outbox: Mutex<Outbox>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Outbox {
    acks: BTreeMap<u32, v1::StreamAck>,
    refusals: BTreeMap<u32, v1::Refusal>,
    throttle: Option<v1::Throttle>,
}

impl Session {
    pub(crate) fn new(agent_id: String) -> Self {
        Self {
            agent_id,
            epoch: AtomicU64::new(0),
            is_fenced: AtomicBool::new(false),
            outbox: Mutex::default(),
            notify: Notify::new(),
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(crate) fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Release);
    }

    /// A later session of the agent took over: nothing of this one is accepted any more.
    pub(crate) fn fence(&self) {
        self.is_fenced.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    pub(crate) fn is_fenced(&self) -> bool {
        self.is_fenced.load(Ordering::Acquire)
    }

    pub(crate) fn ack(&self, handle: u32, next_sequence: u64, ended: bool) {
        let mut outbox = self.lock();
        let ack = outbox.acks.entry(handle).or_insert(v1::StreamAck {
            handle,
            next_sequence,
            ended,
        });
        ack.next_sequence = ack.next_sequence.max(next_sequence);
        ack.ended |= ended;
        drop(outbox);
        self.notify.notify_one();
    }

    pub(crate) fn refuse(&self, refusal: v1::Refusal) {
        self.lock().refusals.insert(refusal.handle, refusal);
        self.notify.notify_one();
    }

    pub(crate) fn throttle(&self, throttle: v1::Throttle) {
        self.lock().throttle = Some(throttle);
        self.notify.notify_one();
    }

    /// What waits to be sent. Acknowledgements come before refusals: they are about earlier blocks.
    pub(crate) fn take(&self) -> Vec<push_response::Message> {
        let outbox = std::mem::take(&mut *self.lock());
        let mut messages = Vec::new();
        if !outbox.acks.is_empty() {
            let streams = outbox.acks.into_values().collect();
            messages.push(push_response::Message::Ack(v1::Ack { streams }));
        }
        messages.extend(outbox.refusals.into_values().map(push_response::Message::Refusal));
        messages.extend(outbox.throttle.map(push_response::Message::Throttle));
        messages
    }

    /// Waits until there is something to take, or the session was fenced.
    pub(crate) async fn changed(&self) {
        self.notify.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
