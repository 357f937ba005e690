//! What a subscription has made and its reader has not taken: bounded, whatever readers do.
//!
//! A frame counts from when it is made until the transport has sent it and drops it, so that what waits inside the
//! HTTP/2 library counts too. A subscription whose reader is behind makes nothing more. When all readers together let
//! much wait, one whose reader has taken everything makes a small turn, and every other one nothing: readers that read
//! go on, readers that do not hold one small turn each.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::metrics::Metrics;

/// Bytes that may wait for one reader when its next turn is made.
const OWN_BYTES: u64 = 512 << 10;

/// Bytes that wait for all readers above which turns are small, and made only for those who have taken everything.
const TIGHT_BYTES: u64 = 32 << 20;

/// What one turn of one stream may take: large enough to be worth the trip to the store, small enough
/// that many streams share a connection fairly.
const TURN_BYTES: usize = 1 << 20;
const SMALL_TURN_BYTES: usize = 64 << 10;

/// What a frame costs beyond its bytes until it is sent, in this crate and in the HTTP/2 library: without it a reader
/// that does not read would hold many times as much as counts, in frames of one short line each.
const FRAME_COST: u64 = 512;

/// Frames of one turn that are shorter than that are joined, up to so many bytes together: copying them costs less than
/// each of them would.
const SHORT_FRAME_BYTES: usize = 4 << 10;
const JOINED_BYTES: usize = 64 << 10;

/// Frames in the order in which they are delivered.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: VecDeque<Bytes>,
    account: Arc<Account>,
}

#[derive(Debug)]
struct Account {
    /// Of this subscription; those of all are in the metrics.
    bytes: AtomicU64,
    taken: Notify,
    metrics: Arc<Metrics>,
}

/// Leave to make frames; it counts as its frames would until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    /// What they may have together.
    pub(super) bytes: usize,
    account: Arc<Account>,
}

/// A frame that is counted for as long as somebody has it.
struct Counted {
    frame: Bytes,
    account: Arc<Account>,
}

impl Outbox {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            queue: VecDeque::new(),
            account: Arc::new(Account {
                bytes: AtomicU64::new(0),
                taken: Notify::new(),
                metrics,
            }),
        }
    }

    /// The frames of one turn.
    pub(super) fn extend(&mut self, frames: Vec<Bytes>) {
        let mut short = Vec::new();
        let mut bytes = 0;
        for frame in frames {
            let is_short = frame.len() < SHORT_FRAME_BYTES;
            if !is_short || bytes + frame.len() > JOINED_BYTES {
                self.join(&mut short);
                bytes = 0;
            }
            if is_short {
                bytes += frame.len();
                short.push(frame);
            } else {
                self.push(frame);
            }
        }
        self.join(&mut short);
    }

    fn join(&mut self, short: &mut Vec<Bytes>) {
        match &**short {
            [] => {}
            // Shared with the other readers, as it is.
            [one] => self.push(one.clone()),
            many => self.push(many.concat().into()),
        }
        short.clear();
    }

    pub(super) fn push(&mut self, frame: Bytes) {
        let bytes = cost(&frame);
        self.account.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.account.metrics.subscription_frames_bytes.add(bytes);
        self.queue.push_back(Bytes::from_owner(Counted {
            frame,
            account: Arc::clone(&self.account),
        }));
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        self.queue.pop_front()
    }

    /// The next turn; `None`: the reader has to take something first.
    pub(super) fn next_turn(&self) -> Option<Turn> {
        let waiting = self.account.bytes.load(Ordering::Acquire);
        let bytes = if self.account.metrics.subscription_frames_bytes.get() > TIGHT_BYTES {
            (waiting == 0).then_some(SMALL_TURN_BYTES)?
        } else {
            (waiting <= OWN_BYTES).then_some(TURN_BYTES)?
        };
        // Counted at once: many that ask at the same time must not all get a large one.
        self.account.metrics.subscription_frames_bytes.add(bytes as u64);
        Some(Turn {
            bytes,
            account: Arc::clone(&self.account),
        })
    }

    /// Returns when the reader has taken something since the last call. Cancel safe.
    pub(super) async fn taken(&self) {
        self.account.taken.notified().await;
    }
}

fn cost(frame: &Bytes) -> u64 {
    frame.len() as u64 + FRAME_COST
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.account
            .metrics
            .subscription_frames_bytes
            .subtract(self.bytes as u64);
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.frame
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let bytes = cost(&self.frame);
        self.account.metrics.subscription_frames_bytes.subtract(bytes);
        self.account.bytes.fetch_sub(bytes, Ordering::Release);
        self.account.taken.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: usize) -> Bytes {
        Bytes::from(vec![b'x'; bytes])
    }

    fn turn(outbox: &Outbox) -> Option<usize> {
        outbox.next_turn().map(|turn| turn.bytes)
    }

    #[test]
    fn short_frames_of_a_turn_are_joined_and_nothing_is_lost_or_moved() {
        let metrics = Arc::<Metrics>::default();
        let lengths = [
            vec![],
            vec![10],
            vec![10; 3],
            vec![10, 8000, 10],
            vec![8000, 10, 10, 8000],
            vec![3000; 100],
            vec![8000; 3],
        ];
        for (lengths, chunks) in lengths.into_iter().zip([0, 1, 1, 3, 3, 5, 3]) {
            let frames: Vec<Bytes> = lengths
                .iter()
                .zip(0_u8..)
                .map(|(length, number)| vec![number; *length].into())
                .collect();
            let mut outbox = Outbox::new(Arc::clone(&metrics));
            outbox.extend(frames.clone());
            let found: Vec<Bytes> = std::iter::from_fn(|| outbox.pop()).collect();
            assert_eq!(found.len(), chunks, "{lengths:?}");
            assert_eq!(found.concat(), frames.concat(), "{lengths:?}");
        }
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_gets_nothing_more_and_one_that_takes_goes_on() {
        let metrics = Arc::<Metrics>::default();
        let mut outbox = Outbox::new(Arc::clone(&metrics));
        assert_eq!(turn(&outbox), Some(TURN_BYTES));
        outbox.push(frame(TURN_BYTES));
        let sent = outbox.pop().unwrap();
        assert_eq!(turn(&outbox), None, "what the transport holds counts");
        // A part of it, as a transport sends it.
        let part = sent.slice(..16);
        drop(sent);
        assert_eq!(turn(&outbox), None);
        drop(part);
        outbox.taken().await;
        assert_eq!(turn(&outbox), Some(TURN_BYTES));
        assert_eq!(metrics.subscription_frames_bytes.get(), 0);
    }

    #[test]
    fn when_much_waits_in_all_only_who_took_everything_gets_a_small_turn() {
        let metrics = Arc::<Metrics>::default();
        let stuck: Vec<Outbox> = (0..33)
            .map(|_| {
                let mut outbox = Outbox::new(Arc::clone(&metrics));
                outbox.push(frame(1 << 20));
                outbox
            })
            .collect();
        let mut reader = Outbox::new(Arc::clone(&metrics));
        assert_eq!(turn(&reader), Some(SMALL_TURN_BYTES));
        reader.push(frame(1));
        assert_eq!(turn(&reader), None);
        let taken = reader.pop();
        drop(taken);
        assert_eq!(turn(&reader), Some(SMALL_TURN_BYTES));
        // Leave that is not used up yet counts as well.
        let other = Outbox::new(Arc::clone(&metrics));
        drop(stuck);
        let leaves: Vec<_> = (0..34).map(|_| other.next_turn().unwrap()).collect();
        let small = |turn: &&Turn| turn.bytes == SMALL_TURN_BYTES;
        assert_eq!(leaves.iter().filter(small).count(), 1);
        drop(leaves);
        // A subscription that ends gives back what waited in it.
        assert_eq!(metrics.subscription_frames_bytes.get(), 0);
        assert_eq!(turn(&reader), Some(TURN_BYTES));
    }
}
