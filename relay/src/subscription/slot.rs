//! One stream of a subscription.

use std::sync::Arc;

use super::start::SlotStart;
use crate::streams::{StreamHandle, Watcher};

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) stream: Arc<StreamHandle>,
    pub(super) watcher: Arc<Watcher>,
    /// Where delivery stands, once it is known.
    pub(super) start: SlotStart,
    /// Lines below it were there when the subscription began: history.
    pub(super) history_end: u64,
    pub(super) is_history_done: bool,
    pub(super) is_announced: bool,
    pub(super) is_finished: bool,
}

impl Slot {
    pub(super) fn new(stream: Arc<StreamHandle>, watcher: Arc<Watcher>, start: SlotStart) -> Self {
        let history_end = stream.bounds().next_sequence;
        Self {
            stream,
            watcher,
            start,
            history_end,
            is_history_done: false,
            is_announced: false,
            is_finished: start == SlotStart::Skip,
        }
    }

    /// Next line to deliver; `None` while it has to be looked up by time.
    pub(super) fn next_sequence(&self) -> Option<u64> {
        match self.start {
            SlotStart::At(next_sequence) => Some(next_sequence),
            SlotStart::Time(_) | SlotStart::Skip => None,
        }
    }
}
