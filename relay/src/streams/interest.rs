//! How a subscription learns that something happened, without a queue of what happened.
//!
//! A subscription holds one [`Ready`] set of slot numbers, one slot a stream. A change of a stream marks
//! its slot in every subscription that watches it; a slot is in the set at most once, so the set is
//! bounded by the number of streams, however fast they write and however slowly the reader reads.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::StreamHandle;
use crate::selector::Selector;

/// The slots of a subscription in which something may be new.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    slots: Mutex<VecDeque<usize>>,
    notify: Notify,
}

impl Ready {
    pub(crate) fn pop(&self) -> Option<usize> {
        self.slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits until something was marked since the last wait.
    pub(crate) async fn changed(&self) {
        self.notify.notified().await;
    }

    pub(crate) fn wake(&self) {
        self.notify.notify_one();
    }

    fn push(&self, slot: usize) {
        self.slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(slot);
        self.notify.notify_one();
    }
}

/// One subscription's eye on one stream.
#[derive(Debug)]
pub(crate) struct Watcher {
    ready: Arc<Ready>,
    slot: usize,
    is_marked: AtomicBool,
}

impl Watcher {
    pub(crate) fn new(ready: Arc<Ready>, slot: usize) -> Arc<Self> {
        Arc::new(Self {
            ready,
            slot,
            is_marked: AtomicBool::new(false),
        })
    }

    /// Something may be new in the stream.
    pub(crate) fn mark(&self) {
        if !self.is_marked.swap(true, Ordering::AcqRel) {
            self.ready.push(self.slot);
        }
    }

    /// To be called before the stream is looked at, so that a change after the look marks again.
    pub(crate) fn unmark(&self) {
        self.is_marked.store(false, Ordering::Release);
    }
}

/// A subscription's wish to be told of streams that appear later.
#[derive(Debug)]
pub(crate) struct Interest {
    pub(crate) selector: Selector,
    /// Streams that appeared and were not taken yet; bounded by the number of streams.
    pub(super) appeared: Mutex<Vec<Arc<StreamHandle>>>,
    pub(crate) ready: Arc<Ready>,
}

impl Interest {
    pub(crate) fn take_appeared(&self) -> Vec<Arc<StreamHandle>> {
        std::mem::take(&mut self.appeared.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
