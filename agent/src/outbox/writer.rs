//! The source's side of a slot.

use std::sync::Arc;

use bytes::Bytes;
use millstream_proto::v1;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::queue::NO_CHECKPOINT;
use super::slot::{End, Opened};
use super::{Outbox, State, notice_line, now_unix_us};
use crate::lines::Piece;

/// Why a push did not happen.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WriteError {
    /// The relay has less than what this agent saw acknowledged (its store was lost or replaced): read again
    /// from there.
    #[error("the relay's store ends at s{}, before lines that it acknowledged", .0.next_sequence)]
    Rewound(Opened),
    /// The relay takes nothing more for this stream.
    #[error("the relay refuses the stream: {0}")]
    Refused(String),
}

/// Pushes the lines of one stream. Dropped without [`StreamWriter::end`], the stream stays open at the relay
/// and may go on with a later session; what was pushed is still delivered.
#[derive(Debug)]
pub struct StreamWriter {
    outbox: Outbox,
    slot: u64,
    changed: Arc<Notify>,
}

impl StreamWriter {
    pub(super) fn new(outbox: Outbox, slot: u64, changed: Arc<Notify>) -> Self {
        Self {
            outbox,
            slot,
            changed,
        }
    }

    /// Waits until the relay has said where the stream stands.
    ///
    /// # Errors
    /// [`WriteError::Refused`] when the relay does not take the stream.
    pub async fn opened(&self) -> Result<Opened, WriteError> {
        loop {
            {
                let mut state = self.outbox.lock();
                let slot = state
                    .slots
                    .get_mut(&self.slot)
                    .expect("a slot lives as long as its writer");
                if let Some(reason) = &slot.dead {
                    return Err(WriteError::Refused(reason.clone()));
                }
                if let Some(position) = slot.position.take() {
                    slot.rewound = false;
                    return Ok(position);
                }
            }
            self.changed.notified().await;
        }
    }

    /// Appends a piece, waiting while the outbox is full. `checkpoint_after` gives the checkpoint after so
    /// many bytes of the piece; it is asked again when a piece is spread over two blocks.
    ///
    /// # Errors
    /// When the source has to go back, or to stop. Nothing of the piece counts then.
    pub async fn push(
        &self,
        piece: &Piece<'_>,
        channel: v1::Channel,
        checkpoint_after: impl FnMut(usize) -> Bytes,
    ) -> Result<(), WriteError> {
        self.push_at(piece, channel, now_unix_us(), checkpoint_after)
            .await
    }

    /// [`StreamWriter::push`] of text that was captured at another time than now.
    ///
    /// # Errors
    /// As [`StreamWriter::push`].
    pub async fn push_at(
        &self,
        piece: &Piece<'_>,
        channel: v1::Channel,
        time_unix_us: i64,
        mut checkpoint_after: impl FnMut(usize) -> Bytes,
    ) -> Result<(), WriteError> {
        let (text, partial) = match piece {
            Piece::Lines(text) => (*text, false),
            Piece::Partial(text) => (*text, true),
        };
        let mut done = 0;
        loop {
            {
                let mut state = self.outbox.lock();
                self.check(&mut state)?;
                if self.has_room(&state)
                    && self.take_through_edge(&mut state, piece, channel, time_unix_us, &mut checkpoint_after)
                {
                    self.announce(&mut state);
                    return Ok(());
                }
                while done < text.len() && self.has_room(&state) {
                    let rest = &text[done..];
                    let seal = state.next_seal + 1;
                    let slot = state
                        .slots
                        .get_mut(&self.slot)
                        .expect("a slot lives as long as its writer");
                    let before = slot.builder.text_bytes();
                    let taken = if partial {
                        let pushed = slot.builder.push_line(rest, time_unix_us, channel, true);
                        if pushed { rest.len() } else { 0 }
                    } else {
                        slot.builder.push_terminated(rest, time_unix_us, channel)
                    };
                    if taken == 0 {
                        debug_assert!(!slot.builder.is_empty(), "an empty builder takes any piece");
                        slot.seal(seal);
                        state.next_seal = seal;
                        continue;
                    }
                    done += taken;
                    slot.builder_checkpoint = checkpoint_after(done);
                    let grown = slot.builder.text_bytes() - before;
                    slot.held_bytes += grown;
                    state.held_bytes += grown;
                }
                self.announce(&mut state);
                if done == text.len() {
                    return Ok(());
                }
            }
            self.changed.notified().await;
        }
    }

    /// False: there is no edge, and nothing was done.
    fn take_through_edge(
        &self,
        state: &mut State,
        piece: &Piece<'_>,
        channel: v1::Channel,
        time_unix_us: i64,
        checkpoint_after: &mut dyn FnMut(usize) -> Bytes,
    ) -> bool {
        let State {
            slots,
            next_seal,
            next_flush,
            held_bytes,
            ..
        } = state;
        let slot = slots
            .get_mut(&self.slot)
            .expect("a slot lives as long as its writer");
        if !slot.has_edge() {
            return false;
        }
        let before = slot.held_bytes;
        slot.take(next_seal, piece.text(), channel, time_unix_us, checkpoint_after);
        *held_bytes = *held_bytes + slot.held_bytes - before;
        *next_flush = [*next_flush, slot.due()].into_iter().flatten().min();
        true
    }

    /// Lets out what the edge holds: nothing follows that it could belong to.
    fn flush_edge(&self, state: &mut State) {
        let State {
            slots,
            next_seal,
            held_bytes,
            ..
        } = state;
        if let Some(slot) = slots.get_mut(&self.slot) {
            let before = slot.held_bytes;
            slot.flush(next_seal, Instant::now(), true);
            *held_bytes = *held_bytes + slot.held_bytes - before;
        }
    }

    /// Appends a line in Millstream's own words: "kind: sentence".
    ///
    /// # Errors
    /// As [`StreamWriter::push`].
    pub async fn notice(&self, text: &str, checkpoint: Option<Bytes>) -> Result<(), WriteError> {
        let mut line = notice_line(text).to_vec();
        line.push(b'\n');
        let checkpoint = checkpoint.unwrap_or(NO_CHECKPOINT);
        self.push(&Piece::Lines(&line), v1::Channel::Notice, |_| checkpoint.clone())
            .await
    }

    /// The latest checkpoint that the relay has acknowledged to this writer; empty when there is none.
    #[must_use]
    pub fn durable_checkpoint(&self) -> Bytes {
        let state = self.outbox.lock();
        let slot = state.slots.get(&self.slot);
        slot.map(|slot| slot.durable_checkpoint.clone())
            .unwrap_or_default()
    }

    /// Everything that was pushed is acknowledged.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let state = self.outbox.lock();
        state
            .slots
            .get(&self.slot)
            .is_none_or(|slot| slot.unacked_lines() == 0)
    }

    /// The relay holds the stream with its end: nothing is left to do.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        let state = self.outbox.lock();
        state.slots.get(&self.slot).is_some_and(|slot| slot.ended)
    }

    /// Whether the source may go on.
    ///
    /// # Errors
    /// When it has to go back, or to stop.
    pub fn check_now(&self) -> Result<(), WriteError> {
        self.check(&mut self.outbox.lock())
    }

    /// Waits for the relay's next word on this stream: an acknowledgement, a refusal, a new position.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// No line follows, ever.
    pub fn end(&self, mut end: v1::StreamEnd) {
        self.outbox.edge.mask_end(&mut end);
        let mut state = self.outbox.lock();
        self.flush_edge(&mut state);
        let slot = state
            .slots
            .get_mut(&self.slot)
            .expect("a slot lives as long as its writer");
        slot.end = Some(End {
            end,
            sent: false,
            acked: false,
        });
        self.announce(&mut state);
    }

    /// Waits until the source has to act although it has nothing to push: the relay wants it to go back or
    /// refuses the stream.
    pub async fn disturbed(&self) -> WriteError {
        loop {
            if let Err(error) = self.check(&mut self.outbox.lock()) {
                return error;
            }
            self.changed.notified().await;
        }
    }

    fn check(&self, state: &mut State) -> Result<(), WriteError> {
        let slot = state
            .slots
            .get_mut(&self.slot)
            .expect("a slot lives as long as its writer");
        if let Some(reason) = &slot.dead {
            return Err(WriteError::Refused(reason.clone()));
        }
        if slot.rewound
            && let Some(position) = slot.position.take()
        {
            slot.rewound = false;
            return Err(WriteError::Rewound(position));
        }
        Ok(())
    }

    fn has_room(&self, state: &State) -> bool {
        let slot = state
            .slots
            .get(&self.slot)
            .expect("a slot lives as long as its writer");
        state.has_room(slot)
    }

    fn announce(&self, state: &mut State) {
        state.make_ready(self.slot);
        self.outbox.shared.work.notify_one();
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        let mut state = self.outbox.lock();
        // What can be read again is held by nobody now; the rest has to go.
        if state
            .slots
            .get(&self.slot)
            .is_some_and(|slot| !slot.spec.resumable)
        {
            self.flush_edge(&mut state);
            state.make_ready(self.slot);
        }
        if let Some(slot) = state.slots.get_mut(&self.slot) {
            slot.writer_gone = true;
            if slot.finished() {
                state.remove(self.slot);
            }
        }
        drop(state);
        self.outbox.shared.settled.notify_waiters();
    }
}
