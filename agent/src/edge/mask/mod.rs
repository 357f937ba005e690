//! Secrets out of what leaves the host.
//!
//! A secret is found in the text as a person would see it: escape sequences and line ends between its characters do
//! not hide it, nor does it matter how the text was cut into reads. When the end of what was read is a good part of a
//! secret, the last line (or the end of an open one) is held until more is read, and after a short wait goes out
//! without that part. A few characters with which a secret may begin go out at once. In both cases the rest of the
//! secret is masked when it comes.
//!
//! The number of lines never changes, so sequences and permalinks are those of the text as produced.

mod commands;
mod pairs;
mod scan;
mod secrets;
mod settings;
mod sieve;
mod strip;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use millstream_proto::v1::Channel;
use tokio::time::Instant;

use super::{At, Out, Sink};
use crate::lines::OPEN_LINE_WAIT;
use scan::{Scan, Scanner};
use secrets::Refused;

pub use settings::{MaskRules, MaskSettings};

/// Text that is held. Beyond it the hold is over at once.
const MAX_HELD_BYTES: usize = 2 << 20;

/// Values that one stream may add.
const MAX_OWN_VALUES: usize = 1000;

/// A line, or the part of one, with what belongs to it.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) channel: Channel,
    /// With its `\n`, if it ends.
    pub(super) text: Vec<u8>,
    pub(super) time_unix_us: i64,
    /// After this item and everything before it.
    pub(super) checkpoint: Bytes,
}

/// An item that waits.
#[derive(Debug)]
struct Held {
    item: Item,
    /// Its text is what may be shown; it waits for those in front of it only.
    is_decided: bool,
}

impl Held {
    fn is_open_in(&self, channel: Channel) -> bool {
        !self.is_decided && self.item.channel == channel
    }
}

/// What is known of one channel.
#[derive(Debug, Default)]
struct ChannelState {
    /// The last text that was decided on had no newline.
    inside_line: bool,
    /// Text that was decided on although it may be the beginning of a secret or a command.
    context: Vec<u8>,
    context_at_line_start: bool,
}

/// The masks of one stream, and the text that waits for what follows it.
#[derive(Debug)]
pub(super) struct Masker {
    settings: Arc<MaskSettings>,
    scanner: Scanner,
    own: BTreeSet<Vec<u8>>,
    /// Name of the file of `own`.
    key: String,
    queue: VecDeque<Held>,
    held_bytes: usize,
    held_since: Option<Instant>,
    /// Only more input can end the hold: a command whose value must not be shown.
    holds_command: bool,
    channels: [ChannelState; 3],
}

fn index(channel: Channel) -> usize {
    match channel {
        Channel::Stdout => 0,
        Channel::Stderr => 1,
        Channel::Notice => 2,
    }
}

impl Masker {
    /// `key` tells the streams of this agent apart. `outlives`: all values are kept for whoever goes on with it.
    pub(super) fn new(settings: Arc<MaskSettings>, key: String, outlives: bool) -> Self {
        let mut own = settings.load(&key);
        if outlives && !settings.values.is_subset(&own) {
            own.extend(settings.values.iter().cloned());
            settings.keep(&key, &own);
        }
        let mut masker = Self {
            scanner: Scanner::new(Arc::clone(&settings.secrets), settings.obeys_commands),
            settings,
            own,
            key,
            queue: VecDeque::new(),
            held_bytes: 0,
            held_since: None,
            holds_command: false,
            channels: Default::default(),
        };
        if !masker.own.is_empty() {
            masker.rebuild();
        }
        masker
    }

    /// Masks a piece and hands out what can go.
    pub(super) fn take(
        &mut self,
        text: &[u8],
        channel: Channel,
        time_unix_us: i64,
        checkpoint_after: &mut dyn FnMut(usize) -> Bytes,
        sink: &mut Sink<'_>,
    ) {
        let mut at = 0;
        while at < text.len() {
            if self.queue.is_empty() && self.channels[index(channel)].context.is_empty() {
                self.take_at_once(text, at, channel, time_unix_us, checkpoint_after, sink);
                return;
            }
            let rest = &text[at..];
            let length = memchr::memchr(b'\n', rest).map_or(rest.len(), |newline| newline + 1);
            at += length;
            let item = Item {
                channel,
                text: rest[..length].to_vec(),
                time_unix_us,
                checkpoint: checkpoint_after(at),
            };
            self.take_item(item, sink, checkpoint_after);
        }
    }

    /// Masks one line of another origin than a piece's.
    pub(super) fn take_item(
        &mut self,
        item: Item,
        sink: &mut Sink<'_>,
        checkpoint_after: &mut dyn FnMut(usize) -> Bytes,
    ) {
        let channel = item.channel;
        self.hold(item);
        self.resolve(channel, false, sink, checkpoint_after);
        if self.held_bytes > MAX_HELD_BYTES {
            self.release(true, sink, checkpoint_after);
        }
    }

    /// When the hold is over.
    pub(super) fn due(&self) -> Option<Instant> {
        self.held_since
            .filter(|_| !self.holds_command)
            .map(|since| since + OPEN_LINE_WAIT)
    }

    /// Ends the hold. `last`: no text follows.
    pub(super) fn flush(&mut self, last: bool, sink: &mut Sink<'_>) {
        self.release(last, sink, &mut |_| Bytes::new());
    }

    /// What is held will be read again.
    pub(super) fn forget_held(&mut self) {
        self.queue.clear();
        self.held_bytes = 0;
        self.held_since = None;
        self.holds_command = false;
        self.channels = Default::default();
    }

    /// The stream is over, and with it what it asked to mask.
    pub(super) fn ended(&self) {
        if !self.own.is_empty() {
            self.settings.forget(&self.key);
        }
    }

    /// A piece while nothing is held: mostly it goes out as it is, without a copy.
    fn take_at_once(
        &mut self,
        whole: &[u8],
        from: usize,
        channel: Channel,
        time_unix_us: i64,
        checkpoint_after: &mut dyn FnMut(usize) -> Bytes,
        sink: &mut Sink<'_>,
    ) {
        let text = &whole[from..];
        let at_line_start = !self.channels[index(channel)].inside_line;
        let scan = self.scan(text, 0, at_line_start, false, sink, checkpoint_after);
        let hold_from = scan.hold_from(text);
        let mut start = 0;
        let mut cuts = scan
            .cuts
            .iter()
            .filter(|cut| cut.range.start < hold_from)
            .peekable();
        while let Some(cut) = cuts.next() {
            if cut.range.start < start {
                continue;
            }
            let line_start =
                memchr::memrchr(b'\n', &text[..cut.range.start]).map_or(0, |newline| newline + 1);
            let line_start = line_start.max(start);
            let line_end = memchr::memchr(b'\n', &text[cut.range.start..hold_from])
                .map_or(hold_from, |newline| cut.range.start + newline + 1);
            self.out_piece(
                &text[start..line_start],
                channel,
                time_unix_us,
                from + start,
                sink,
                checkpoint_after,
            );
            let masked = scan.masked(text, line_start..line_end);
            let out = Out {
                text: &masked,
                channel,
                time_unix_us,
                at: At::Fixed(checkpoint_after(from + line_end)),
            };
            self.out(out, sink, checkpoint_after);
            start = line_end;
            while cuts.peek().is_some_and(|next| next.range.start < start) {
                cuts.next();
            }
        }
        self.out_piece(
            &text[start..hold_from],
            channel,
            time_unix_us,
            from + start,
            sink,
            checkpoint_after,
        );
        let mut at = hold_from;
        while at < text.len() {
            let length = memchr::memchr(b'\n', &text[at..]).map_or(text.len() - at, |newline| newline + 1);
            self.hold(Item {
                channel,
                text: text[at..at + length].to_vec(),
                time_unix_us,
                checkpoint: checkpoint_after(from + at + length),
            });
            at += length;
        }
        self.holds_command = scan.holds_command;
        if let Some(before) = hold_from.checked_sub(1) {
            self.channels[index(channel)].inside_line = text[before] != b'\n';
        }
        if self.queue.is_empty() {
            self.remember(channel, text, &scan, at_line_start);
        }
    }

    /// What was decided on may be the beginning of something; then its rest is masked when it comes.
    fn remember(&mut self, channel: Channel, text: &[u8], scan: &Scan, at_line_start: bool) {
        let state = &mut self.channels[index(channel)];
        state.context_at_line_start = match scan.live_from.checked_sub(1) {
            None => at_line_start,
            Some(before) => text[before] == b'\n',
        };
        state.context.clear();
        state.context.extend_from_slice(&text[scan.live_from..]);
    }

    fn hold(&mut self, item: Item) {
        self.held_bytes += item.text.len();
        self.held_since.get_or_insert_with(Instant::now);
        self.queue.push_back(Held {
            item,
            is_decided: false,
        });
    }

    /// Looks at what is held of a channel, decides on what can go, and hands out from the front what is decided on.
    fn resolve(
        &mut self,
        channel: Channel,
        last: bool,
        sink: &mut Sink<'_>,
        checkpoint_after: &mut dyn FnMut(usize) -> Bytes,
    ) {
        let (text, context) = self.held_of(channel);
        let at_line_start = self.at_line_start(channel);
        let scan = self.scan(&text, context, at_line_start, last, sink, checkpoint_after);
        self.holds_command = scan.holds_command;
        let hold_from = scan.hold_from(&text);
        if self.decide(channel, &text, context, &scan, hold_from) == 0 {
            return;
        }
        if hold_from == text.len() {
            self.remember(channel, &text, &scan, at_line_start);
        } else {
            self.channels[index(channel)].context.clear();
        }
        // Order is kept over the channels: what is decided on waits for what came before it.
        while self.queue.front().is_some_and(|front| front.is_decided) {
            self.out_front(sink, checkpoint_after);
        }
        if self.held_since.is_some() {
            self.held_since = Some(Instant::now());
        }
    }

    /// The wait is over: everything that is held goes out, but for the good part of a secret.
    fn release(&mut self, last: bool, sink: &mut Sink<'_>, checkpoint_after: &mut dyn FnMut(usize) -> Bytes) {
        for channel in [Channel::Stdout, Channel::Stderr, Channel::Notice] {
            if !self.queue.iter().any(|held| held.is_open_in(channel)) {
                continue;
            }
            let (text, context) = self.held_of(channel);
            let at_line_start = self.at_line_start(channel);
            let mut scan = self.scan(&text, context, at_line_start, last, sink, checkpoint_after);
            if scan.holds_command && !last {
                self.holds_command = true;
                return;
            }
            scan.cut_strong_tail(&text, context);
            self.decide(channel, &text, context, &scan, text.len());
            self.remember(channel, &text, &scan, at_line_start);
        }
        self.out_queue(sink, checkpoint_after);
    }

    /// What went out of a channel that still matters, then what is held of it; and the length of the first.
    fn held_of(&self, channel: Channel) -> (Vec<u8>, usize) {
        let mut text = self.channels[index(channel)].context.clone();
        let context = text.len();
        for held in self.queue.iter().filter(|held| held.is_open_in(channel)) {
            text.extend_from_slice(&held.item.text);
        }
        (text, context)
    }

    fn at_line_start(&self, channel: Channel) -> bool {
        let state = &self.channels[index(channel)];
        if state.context.is_empty() {
            !state.inside_line
        } else {
            state.context_at_line_start
        }
    }

    /// Masks the items of a channel that end before `hold_from`; returns their number.
    fn decide(
        &mut self,
        channel: Channel,
        text: &[u8],
        context: usize,
        scan: &Scan,
        hold_from: usize,
    ) -> usize {
        let mut at = context;
        let mut decided = 0;
        let held = self.queue.iter_mut().filter(|held| held.is_open_in(channel));
        for held in held {
            let end = at + held.item.text.len();
            if end > hold_from {
                break;
            }
            self.channels[index(channel)].inside_line = held.item.text.last() != Some(&b'\n');
            if !scan.cuts.is_empty() {
                let masked = scan.masked(text, at..end);
                self.held_bytes = self.held_bytes + masked.len() - held.item.text.len();
                held.item.text = masked;
            }
            held.is_decided = true;
            decided += 1;
            at = end;
        }
        decided
    }

    fn out_queue(&mut self, sink: &mut Sink<'_>, checkpoint_after: &mut dyn FnMut(usize) -> Bytes) {
        while !self.queue.is_empty() {
            self.out_front(sink, checkpoint_after);
        }
    }

    fn out_front(&mut self, sink: &mut Sink<'_>, checkpoint_after: &mut dyn FnMut(usize) -> Bytes) {
        let Some(Held { item, .. }) = self.queue.pop_front() else {
            return;
        };
        self.held_bytes -= item.text.len();
        if self.queue.is_empty() {
            self.held_since = None;
            self.holds_command = false;
        }
        let out = Out {
            text: &item.text,
            channel: item.channel,
            time_unix_us: item.time_unix_us,
            at: At::Fixed(item.checkpoint.clone()),
        };
        self.out(out, sink, checkpoint_after);
    }

    fn out_piece(
        &mut self,
        text: &[u8],
        channel: Channel,
        time_unix_us: i64,
        offset: usize,
        sink: &mut Sink<'_>,
        checkpoint_after: &mut dyn FnMut(usize) -> Bytes,
    ) {
        let at = At::Piece(offset);
        self.out(
            Out {
                text,
                channel,
                time_unix_us,
                at,
            },
            sink,
            checkpoint_after,
        );
    }

    fn out(&self, out: Out<'_>, sink: &mut Sink<'_>, checkpoint_after: &mut dyn FnMut(usize) -> Bytes) {
        if !out.text.is_empty() {
            sink(out, checkpoint_after);
        }
    }

    /// Scans, and takes up what the text asks to mask before it looks for secrets.
    fn scan(
        &mut self,
        text: &[u8],
        context: usize,
        at_line_start: bool,
        last: bool,
        sink: &mut Sink<'_>,
        checkpoint_after: &mut dyn FnMut(usize) -> Bytes,
    ) -> Scan {
        let suspected = self.scanner.suspects(text);
        let values = if suspected {
            self.scanner.commands(text, at_line_start, last)
        } else {
            Vec::new()
        };
        for value in values {
            if let Some(problem) = self.add(&value) {
                let line = format!("mask-refused: {problem}\n");
                let out = Out {
                    text: line.as_bytes(),
                    channel: Channel::Notice,
                    time_unix_us: crate::outbox::now_unix_us(),
                    at: At::Keep,
                };
                sink(out, checkpoint_after);
            }
        }
        self.scanner.scan(text, suspected, context, at_line_start, last)
    }

    /// From now on this value is masked in this stream. `Some`: why not.
    fn add(&mut self, value: &[u8]) -> Option<String> {
        let values = match secrets::values(value) {
            Ok(values) => values,
            Err(Refused::TooShort) => {
                return Some(format!(
                    "the output asked to mask a value of fewer than {} bytes; it is not masked",
                    secrets::MIN_SECRET_BYTES
                ));
            }
            Err(Refused::TooLong) => {
                return Some(format!(
                    "the output asked to mask a value of more than {} bytes; it is not masked",
                    secrets::MAX_SECRET_BYTES
                ));
            }
        };
        let before = self.own.len();
        for value in values {
            if self.own.len() < MAX_OWN_VALUES && !self.settings.values.contains(&value) {
                self.own.insert(value);
            }
        }
        if self.own.len() > before {
            self.rebuild();
            self.settings.keep(&self.key, &self.own);
        }
        (self.own.len() >= MAX_OWN_VALUES).then(|| {
            format!("the output asked to mask more than {MAX_OWN_VALUES} values; not all are masked")
        })
    }

    fn rebuild(&mut self) {
        let all = self.settings.values.union(&self.own).cloned().collect();
        let patterns = self.settings.secrets.patterns.clone();
        self.scanner.secrets = Arc::new(secrets::Secrets::new(&all, patterns));
    }
}

#[cfg(test)]
mod tests;
