//! One stream's part of the outbox: its open block, its unacknowledged blocks, and what the relay's answers
//! do to them. Pure state, no I/O; the sums over all slots are kept by the caller.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millstream_proto::block::{BlockBuilder, Line};
use millstream_proto::v1;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{StreamSpec, notice_block};
use crate::edge::{At, Edge, Out, SeveritySettings};

/// How long to wait before a stream that hit a limit of the relay is tried again.
const LIMIT_WAIT: Duration = Duration::from_secs(10);

/// Where the relay says a stream stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    pub next_sequence: u64,
    pub checkpoint: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Sealed, not looked at by the uplink yet.
    Sealed,
    Compressing,
    /// As it will be sent.
    Ready,
    Sent,
}

/// A sealed block.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) seal: u64,
    pub(super) block: v1::Block,
    pub(super) checkpoint: Bytes,
    pub(super) stage: Stage,
}

impl Held {
    pub(super) fn next_sequence(&self) -> u64 {
        self.block.first_sequence + u64::from(self.block.line_count)
    }

    /// What it takes of the relay's window, bytes.
    pub(super) fn window_bytes(&self) -> usize {
        self.block.text_bytes as usize
    }
}

#[derive(Debug)]
pub(super) struct End {
    pub(super) end: v1::StreamEnd,
    pub(super) sent: bool,
    pub(super) acked: bool,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) spec: StreamSpec,
    /// Wakes the writer: room, position, end, death.
    pub(super) changed: Arc<Notify>,
    /// Handle in this session, from OpenStream on.
    pub(super) handle: Option<u32>,
    /// The relay answered the OpenStream of this session.
    pub(super) open: bool,
    /// An answer was ever received.
    pub(super) known: bool,
    /// The latest answer that the source has to act on.
    pub(super) position: Option<Opened>,
    /// The source has to go back to `position` before it may push.
    pub(super) rewound: bool,
    /// Sequence of the first line that is not sealed.
    pub(super) next_sequence: u64,
    /// What is done to text before it comes into the builder.
    edge: Option<Box<Edge>>,
    pub(super) builder: BlockBuilder,
    /// Checkpoint after the builder's last line.
    pub(super) builder_checkpoint: Bytes,
    pub(super) held: VecDeque<Held>,
    /// Memory of `held` and the builder, bytes.
    pub(super) held_bytes: usize,
    /// Window taken by sent blocks, bytes.
    pub(super) in_flight_bytes: usize,
    pub(super) end: Option<End>,
    /// The latest checkpoint that the relay holds durably.
    pub(super) durable_checkpoint: Bytes,
    /// The relay holds the stream, with its end.
    pub(super) ended: bool,
    pub(super) writer_gone: bool,
    /// It is in the round robin.
    pub(super) queued: bool,
    pub(super) reopen_at: Option<Instant>,
    reopen_now: bool,
    /// Nothing more can be sent, and why.
    pub(super) dead: Option<String>,
}

impl Slot {
    pub(super) fn new(spec: StreamSpec, edge: Option<Box<Edge>>, changed: Arc<Notify>) -> Self {
        Self {
            spec,
            edge,
            changed,
            handle: None,
            open: false,
            known: false,
            position: None,
            rewound: false,
            next_sequence: 0,
            builder: BlockBuilder::new(),
            builder_checkpoint: Bytes::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            in_flight_bytes: 0,
            end: None,
            durable_checkpoint: Bytes::new(),
            ended: false,
            writer_gone: false,
            queued: false,
            reopen_at: None,
            reopen_now: false,
            dead: None,
        }
    }

    pub(super) fn unacked_lines(&self) -> u64 {
        let sealed: u64 = self
            .held
            .iter()
            .map(|held| u64::from(held.block.line_count))
            .sum();
        sealed + u64::from(self.builder.line_count())
    }

    /// Text goes through an edge.
    pub(super) fn has_edge(&self) -> bool {
        self.edge.is_some()
    }

    /// When [`Slot::flush`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.edge.as_ref().and_then(|edge| edge.due())
    }

    /// Passes a piece through the edge into the builder. It takes the whole piece, so a slot may hold a piece more
    /// than its bound.
    pub(super) fn take(
        &mut self,
        next_seal: &mut u64,
        text: &[u8],
        channel: v1::Channel,
        time_unix_us: i64,
        checkpoint_after: &mut dyn FnMut(usize) -> Bytes,
    ) {
        if let Some(mut edge) = self.edge.take() {
            let severity = edge.severity.clone();
            edge.take(
                text,
                channel,
                time_unix_us,
                checkpoint_after,
                &mut |out, checkpoint_after| {
                    self.append(next_seal, &out, severity.as_deref(), checkpoint_after);
                },
            );
            self.edge = Some(edge);
            self.lift(Instant::now(), false);
        }
    }

    /// The stream's labels wait for its first lines, so it must not be made yet.
    pub(super) fn is_lifting(&self) -> bool {
        self.edge.as_ref().is_some_and(|edge| edge.is_lifting())
    }

    /// Takes up the labels that the first lines gave, when enough was seen of them. Configured labels win.
    fn lift(&mut self, now: Instant, last: bool) {
        let lifted = self.edge.as_mut().and_then(|edge| edge.lifted(now, last));
        if let Some(labels) = lifted {
            for (label, value) in labels {
                self.spec.labels.entry(label).or_insert(value);
            }
            // While the relay is asked, or away, its answer or its return opens the stream.
            self.reopen_now |= self.known && self.handle.is_none();
        }
    }

    /// Lets out what waited long enough in the edge; `last`: all of it.
    pub(super) fn flush(&mut self, next_seal: &mut u64, now: Instant, last: bool) {
        if let Some(mut edge) = self.edge.take() {
            let severity = edge.severity.clone();
            edge.flush(now, last, &mut |out, checkpoint_after| {
                self.append(next_seal, &out, severity.as_deref(), checkpoint_after);
            });
            self.edge = Some(edge);
            self.lift(now, last);
        }
    }

    /// Lays text that left the edge into blocks.
    fn append(
        &mut self,
        next_seal: &mut u64,
        out: &Out<'_>,
        severity: Option<&SeveritySettings>,
        checkpoint_after: &mut dyn FnMut(usize) -> Bytes,
    ) {
        let lines = memchr::memrchr(b'\n', out.text).map_or(0, |newline| newline + 1);
        // What Millstream says itself is no trouble of the source.
        let severity = severity.filter(|_| out.channel != v1::Channel::Notice);
        let mut judged = severity.map(|settings| settings.judge(&out.text[..lines]));
        let mut done = 0;
        while done < out.text.len() {
            let before = self.builder.text_bytes();
            let taken = if done < lines {
                let rest = &out.text[done..lines];
                match &mut judged {
                    Some(judged) => self.builder.push_terminated_with(
                        rest,
                        out.time_unix_us,
                        out.channel,
                        |rest: &[u8]| judged.next_run(rest.len()),
                    ),
                    None => self.builder.push_terminated(rest, out.time_unix_us, out.channel),
                }
            } else {
                let rest = &out.text[done..];
                let line = Line {
                    sequence: 0,
                    time_unix_us: out.time_unix_us,
                    channel: out.channel,
                    partial: true,
                    severity: severity.map_or(v1::Severity::Unspecified, |settings| settings.of(rest)),
                    text: rest,
                };
                if self.builder.push(&line) { rest.len() } else { 0 }
            };
            if taken == 0 {
                debug_assert!(!self.builder.is_empty(), "an empty builder takes any line");
                *next_seal += 1;
                self.seal(*next_seal);
                continue;
            }
            done += taken;
            match &out.at {
                At::Piece(start) => self.builder_checkpoint = checkpoint_after(start + done),
                At::Fixed(checkpoint) if done == out.text.len() => {
                    self.builder_checkpoint = checkpoint.clone();
                }
                At::Fixed(_) | At::Keep => {}
            }
            self.held_bytes += self.builder.text_bytes() - before;
        }
    }

    /// There is something to send now.
    pub(super) fn has_work(&self) -> bool {
        self.open
            && self.dead.is_none()
            && (self.held.iter().any(|held| held.stage != Stage::Sent)
                || !self.builder.is_empty()
                || self.end.as_ref().is_some_and(|end| !end.sent))
    }

    /// Nobody needs the slot any more.
    pub(super) fn finished(&self) -> bool {
        let settled = self.dead.is_some()
            || (self.held.is_empty()
                && self.builder.is_empty()
                && self.end.as_ref().is_none_or(|end| end.acked));
        self.writer_gone && settled
    }

    /// It asked to be opened again in this session; asked once.
    pub(super) fn wants_reopen(&mut self) -> bool {
        std::mem::take(&mut self.reopen_now)
    }

    /// Closes the builder's block.
    pub(super) fn seal(&mut self, seal: u64) {
        let Some(block) = self.builder.finish(self.next_sequence) else {
            return;
        };
        self.next_sequence += u64::from(block.line_count);
        let checkpoint = self.builder_checkpoint.clone();
        self.held.push_back(Held {
            seal,
            block,
            checkpoint,
            stage: Stage::Sealed,
        });
    }

    pub(super) fn compressed(&mut self, seal: u64, block: v1::Block) {
        let Some(held) = self.held.iter_mut().find(|held| held.seal == seal) else {
            return;
        };
        self.held_bytes = self.held_bytes + block.text.len() - held.block.text.len();
        // It may have been renumbered while it was away.
        let first_sequence = held.block.first_sequence;
        held.block = v1::Block {
            first_sequence,
            ..block
        };
        held.stage = Stage::Ready;
        self.changed.notify_one();
    }

    pub(super) fn disconnect(&mut self) {
        self.handle = None;
        self.open = false;
        self.queued = false;
        self.reopen_at = None;
        self.reopen_now = false;
        self.unsend();
    }

    fn unsend(&mut self) {
        for held in &mut self.held {
            if held.stage == Stage::Sent {
                held.stage = Stage::Ready;
            }
        }
        self.in_flight_bytes = 0;
        if let Some(end) = &mut self.end {
            end.sent = false;
        }
    }

    /// The relay does not have the stream, and did not make it. The source begins at its beginning; the stream is
    /// opened when its labels are known.
    pub(super) fn unknown(&mut self) {
        self.handle = None;
        if !self.known {
            self.known = true;
            self.position = Some(Opened {
                next_sequence: 0,
                checkpoint: Bytes::new(),
            });
        }
        self.reopen_now |= !self.is_lifting();
    }

    pub(super) fn opened(&mut self, next_sequence: u64, checkpoint: &Bytes, ended: bool) {
        self.open = true;
        // It has the labels with which it was made.
        if let Some(edge) = &mut self.edge {
            edge.stop_lifting();
        }
        if ended {
            self.ended = true;
            if let Some(end) = &mut self.end {
                // The end was stored, its acknowledgement was lost with the session before.
                end.acked = true;
                self.discard_all();
            } else {
                self.die("the relay holds this stream as ended".to_owned());
            }
            return;
        }
        let answer = Opened {
            next_sequence,
            checkpoint: checkpoint.clone(),
        };
        let first_held = self
            .held
            .front()
            .map_or(self.next_sequence, |held| held.block.first_sequence);
        let nothing_pushed = self.held.is_empty() && self.builder.is_empty();
        if !self.known && nothing_pushed {
            self.next_sequence = next_sequence;
        } else if (first_held..=self.next_sequence).contains(&next_sequence) {
            self.drop_below(next_sequence);
        } else if self.spec.resumable {
            self.discard_all();
            self.next_sequence = next_sequence;
            self.rewound = true;
            // It comes again, behind the lines that are read again.
            self.end = None;
        } else {
            self.renumber(first_held, next_sequence);
        }
        if !self.known || self.rewound {
            self.position = Some(answer);
        }
        self.known = true;
    }

    pub(super) fn acked(&mut self, next_sequence: u64, ended: bool) {
        self.drop_below(next_sequence);
        self.ended |= ended;
        if ended && let Some(end) = &mut self.end {
            end.acked = true;
            if let Some(edge) = &self.edge {
                edge.ended();
            }
        }
    }

    /// Reacts to a refusal; returns what the operator has to know.
    pub(super) fn refused(&mut self, refusal: &v1::Refusal) -> Option<String> {
        let name = format!("{} of source {}", self.spec.instance, self.spec.source);
        let message = &refusal.message;
        match refusal.reason() {
            v1::RefusalReason::Gap => {
                self.reopen();
                Some(format!(
                    "relay saw a gap in {name}; opening the stream again: {message}"
                ))
            }
            v1::RefusalReason::Malformed if self.open => {
                let lost = self.replace_refused(refusal);
                self.reopen();
                Some(format!(
                    "relay refused a block of {name} as malformed, {lost} lines skipped: {message}"
                ))
            }
            // Tokens and limits change; what could not be sent yet is kept.
            v1::RefusalReason::Limit | v1::RefusalReason::NotAllowed if !self.open => {
                self.handle = None;
                self.reopen_at = Some(Instant::now() + LIMIT_WAIT);
                Some(format!("relay did not open {name}, trying again: {message}"))
            }
            _ => {
                self.die(message.clone());
                Some(format!("relay refused {name}: {message}"))
            }
        }
    }

    /// A new writer takes over. One that can read again starts where the relay will say; blocks in flight
    /// may still be stored before it answers.
    pub(super) fn adopt(&mut self, edge: Option<Box<Edge>>) {
        self.edge = edge;
        self.writer_gone = false;
        self.dead = None;
        self.end = None;
        self.ended = false;
        self.known = false;
        self.position = None;
        self.rewound = false;
        self.open = false;
        self.handle = None;
        self.unsend();
        if self.spec.resumable {
            self.discard_all();
        }
    }

    fn reopen(&mut self) {
        self.open = false;
        self.handle = None;
        self.reopen_now = true;
        self.unsend();
    }

    /// Puts a notice in place of the block that the relay cannot take, and keeps its checkpoint, so that the
    /// stream goes on behind it. Returns the number of lines skipped.
    fn replace_refused(&mut self, refusal: &v1::Refusal) -> u32 {
        let at = refusal.next_sequence;
        let found = self
            .held
            .iter_mut()
            .find(|held| held.stage == Stage::Sent && held.next_sequence() > at);
        let Some(held) = found else {
            return 0;
        };
        let lost = held.block.line_count;
        let text = format!("block-refused: {lost} lines were not stored: {}", refusal.message);
        self.held_bytes -= held.block.text.len();
        held.block = notice_block(&text, held.block.first_sequence);
        self.held_bytes += held.block.text.len();
        let first = held.block.first_sequence;
        let at = self
            .held
            .iter()
            .position(|held| held.block.first_sequence == first)
            .unwrap_or(0);
        self.number_from(at, first);
        lost
    }

    fn die(&mut self, reason: String) {
        self.dead = Some(reason);
        self.discard_all();
    }

    fn discard_all(&mut self) {
        if let Some(edge) = &mut self.edge {
            edge.forget_held();
        }
        self.held.clear();
        self.builder = BlockBuilder::new();
        self.held_bytes = 0;
        self.in_flight_bytes = 0;
    }

    fn drop_below(&mut self, next_sequence: u64) {
        while let Some(front) = self.held.front()
            && front.next_sequence() <= next_sequence
        {
            self.held_bytes -= front.block.text.len();
            if front.stage == Stage::Sent {
                self.in_flight_bytes -= front.window_bytes();
            }
            if let Some(stored) = self.held.pop_front()
                && !stored.checkpoint.is_empty()
            {
                self.durable_checkpoint = stored.checkpoint;
            }
        }
    }

    /// The relay's store is not the one that acknowledged earlier lines, and they cannot be read again: says
    /// so in the stream and goes on behind what the relay has.
    fn renumber(&mut self, first_held: u64, next_sequence: u64) {
        let text = if next_sequence < first_held {
            format!(
                "lines-missing: the relay's store ends at s{next_sequence}; lines up to s{first_held} were \
                 acknowledged before and are gone from it"
            )
        } else {
            format!(
                "lines-renumbered: the relay's store holds lines up to s{next_sequence} that this agent did not \
                 send; it stood at s{first_held}"
            )
        };
        let block = notice_block(&text, next_sequence);
        self.held_bytes += block.text.len();
        // Seal number 0 is never given out, so no compression result can be taken for it.
        self.held.push_front(Held {
            seal: 0,
            block,
            checkpoint: Bytes::new(),
            stage: Stage::Ready,
        });
        self.number_from(0, next_sequence);
    }

    fn number_from(&mut self, index: usize, first_sequence: u64) {
        let mut next = first_sequence;
        for held in self.held.iter_mut().skip(index) {
            held.block.first_sequence = next;
            next = held.next_sequence();
        }
        self.next_sequence = next;
    }
}
