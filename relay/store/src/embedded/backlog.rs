//! Which streams have small blocks to settle, and when it is time. Holds some 50 bytes for each stream
//! that has such blocks; touches neither engine nor blocks.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// How often the whole backlog is looked through for idle streams.
const IDLE_CHECK_EVERY: Duration = Duration::from_secs(1);

/// Streams with unsettled blocks.
#[derive(Debug)]
pub(crate) struct Backlog {
    settle_text_bytes: u64,
    settle_idle: Duration,
    streams: HashMap<u64, Unsettled>,
    /// Streams whose time has come, each at most once (`is_ready`), so never more than `streams`.
    ready: VecDeque<u64>,
    next_idle_check: Duration,
}

#[derive(Debug)]
struct Unsettled {
    /// Every block below is settled or large.
    from: u64,
    /// Of the small blocks from there on; a guide to when, not to what is settled.
    text_bytes: u64,
    blocks: u64,
    last_append: Duration,
    has_ended: bool,
    is_ready: bool,
}

/// Work on one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) stream_id: u64,
    pub(crate) from: u64,
    /// The stream is idle or ended: settle also what does not fill a block.
    pub(crate) to_the_end: bool,
    /// Nothing will follow in this stream.
    pub(crate) has_ended: bool,
}

/// What is left of a [`Task`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rest {
    /// Every block below is settled or large now.
    pub(crate) from: u64,
    pub(crate) text_bytes: u64,
    pub(crate) blocks: u64,
    /// The task stopped at its limit, not at the head.
    pub(crate) is_unfinished: bool,
}

impl Backlog {
    pub(crate) fn new(settle_text_bytes: u64, settle_idle: Duration) -> Self {
        Self {
            settle_text_bytes,
            settle_idle,
            streams: HashMap::new(),
            ready: VecDeque::new(),
            next_idle_check: Duration::ZERO,
        }
    }

    /// A small block was appended.
    pub(crate) fn appended(&mut self, now: Duration, stream_id: u64, first_sequence: u64, text_bytes: u32) {
        let unsettled = self
            .streams
            .entry(stream_id)
            .or_insert_with(|| Unsettled::new(first_sequence, now));
        unsettled.text_bytes += u64::from(text_bytes);
        unsettled.blocks += 1;
        unsettled.last_append = now;
        if unsettled.text_bytes >= self.settle_text_bytes {
            unsettled.make_ready(stream_id, &mut self.ready);
        }
    }

    /// The stream has ended: nothing follows, so what there is can be settled at once.
    pub(crate) fn ended(&mut self, stream_id: u64) {
        if let Some(unsettled) = self.streams.get_mut(&stream_id) {
            unsettled.has_ended = true;
            unsettled.make_ready(stream_id, &mut self.ready);
        }
    }

    /// A stream that may have unsettled blocks of an earlier process.
    pub(crate) fn found(&mut self, now: Duration, stream_id: u64, from: u64) {
        let unsettled = self
            .streams
            .entry(stream_id)
            .or_insert_with(|| Unsettled::new(from, now));
        unsettled.from = unsettled.from.min(from);
        unsettled.make_ready(stream_id, &mut self.ready);
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The next stream whose time has come. [`Backlog::put_back`] must follow.
    pub(crate) fn take(&mut self, now: Duration) -> Option<Task> {
        if self.ready.is_empty() && now >= self.next_idle_check {
            self.next_idle_check = now + IDLE_CHECK_EVERY;
            for (&stream_id, unsettled) in &mut self.streams {
                // One small block alone would not get better by settling.
                if unsettled.blocks > 1 && now.saturating_sub(unsettled.last_append) >= self.settle_idle {
                    unsettled.make_ready(stream_id, &mut self.ready);
                }
            }
        }
        let stream_id = self.ready.pop_front()?;
        let unsettled = self.streams.get_mut(&stream_id)?;
        unsettled.is_ready = false;
        // Counted anew from here: the settler tells what it leaves, appends from now on come on top. An
        // append that both see is counted twice, which only makes the next task come early.
        unsettled.text_bytes = 0;
        unsettled.blocks = 0;
        let is_idle = now.saturating_sub(unsettled.last_append) >= self.settle_idle;
        Some(Task {
            stream_id,
            from: unsettled.from,
            to_the_end: is_idle || unsettled.has_ended,
            has_ended: unsettled.has_ended,
        })
    }

    /// The task is done as far as `rest` says.
    pub(crate) fn put_back(&mut self, task: Task, rest: Rest) {
        let Some(unsettled) = self.streams.get_mut(&task.stream_id) else {
            return;
        };
        unsettled.from = rest.from;
        unsettled.text_bytes += rest.text_bytes;
        unsettled.blocks += rest.blocks;
        let is_due = unsettled.text_bytes >= self.settle_text_bytes && unsettled.blocks > 1;
        if rest.is_unfinished || (is_due && !task.to_the_end) {
            unsettled.make_ready(task.stream_id, &mut self.ready);
        } else if !unsettled.is_ready && (unsettled.blocks == 0 || task.has_ended) {
            self.streams.remove(&task.stream_id);
        }
    }
}

impl Unsettled {
    fn new(from: u64, now: Duration) -> Self {
        Self {
            from,
            text_bytes: 0,
            blocks: 0,
            last_append: now,
            has_ended: false,
            is_ready: false,
        }
    }

    fn make_ready(&mut self, stream_id: u64, ready: &mut VecDeque<u64>) {
        if !self.is_ready {
            self.is_ready = true;
            ready.push_back(stream_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(30);

    fn backlog() -> Backlog {
        Backlog::new(1000, IDLE)
    }

    #[test]
    fn a_stream_is_due_when_its_small_text_reaches_the_limit() {
        let mut backlog = backlog();
        backlog.appended(Duration::ZERO, 7, 3, 999);
        assert_eq!(backlog.take(Duration::ZERO), None);
        backlog.appended(Duration::ZERO, 7, 4, 1);
        let task = backlog.take(Duration::ZERO).unwrap();
        assert_eq!((task.stream_id, task.from, task.to_the_end), (7, 3, false));
        assert_eq!(backlog.take(Duration::ZERO), None);
    }

    #[test]
    fn an_idle_stream_is_due_once_and_forgotten_when_nothing_is_left() {
        let mut backlog = backlog();
        backlog.appended(Duration::ZERO, 7, 0, 1);
        backlog.appended(Duration::ZERO, 7, 1, 1);
        let task = backlog.take(IDLE).unwrap();
        assert!(task.to_the_end);
        backlog.put_back(
            task,
            Rest {
                from: 2,
                ..Rest::default()
            },
        );
        assert!(backlog.streams.is_empty());
    }

    #[test]
    fn what_is_appended_during_a_task_is_not_forgotten() {
        let mut backlog = backlog();
        backlog.appended(Duration::ZERO, 7, 0, 1000);
        let task = backlog.take(Duration::ZERO).unwrap();
        backlog.appended(Duration::ZERO, 7, 1, 10);
        backlog.put_back(
            task,
            Rest {
                from: 1,
                ..Rest::default()
            },
        );
        backlog.appended(Duration::ZERO, 7, 2, 990);
        assert_eq!(backlog.take(Duration::ZERO).unwrap().from, 1);
    }

    #[test]
    fn an_ended_stream_is_due_at_once() {
        let mut backlog = backlog();
        backlog.appended(Duration::ZERO, 7, 0, 1);
        backlog.ended(7);
        let task = backlog.take(Duration::ZERO).unwrap();
        assert!(task.has_ended && task.to_the_end);
        backlog.put_back(
            task,
            Rest {
                from: 0,
                text_bytes: 1,
                blocks: 1,
                ..Rest::default()
            },
        );
        assert!(backlog.streams.is_empty());
    }
}
