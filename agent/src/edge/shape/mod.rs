//! Lines into records: joined, and thinned out where that is configured.
//!
//! In this order: lines of one record are joined ([`join`]), records below a severity or of a rule
//! are dropped or sampled ([`rules`]). What is dropped is counted, and said in the stream.

mod join;
mod rules;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millstream_proto::v1::Channel;
use tokio::time::Instant;

use super::mask::Item;
use super::pattern::NextLine;
pub use join::{JoinRules, JoinSettings};
pub use rules::{DropRule, DropSettings};

use join::Joiner;
use rules::Counts;

/// How often the stream says what was dropped.
const SAY_DROPPED: Duration = Duration::from_secs(60);

/// What is done to the lines of one source.
#[derive(Debug, Clone, Default)]
pub struct ShapeSettings {
    pub join: Option<Arc<JoinSettings>>,
    pub drop: Option<Arc<DropSettings>>,
}

impl ShapeSettings {
    pub(super) fn is_idle(&self) -> bool {
        self.join.is_none() && self.drop.is_none()
    }
}

/// What leaves: lines of the present piece as they are, by their place in it, or a record with its checkpoint.
#[derive(Debug)]
pub(super) enum Shaped {
    Stretch(Range<usize>),
    Record(Item),
}

/// Gives the checkpoint at a place of the present piece.
pub(super) type Checkpoints<'a> = dyn FnMut(usize) -> Bytes + 'a;

/// Takes what leaves.
pub(super) type Out<'a> = dyn FnMut(Shaped, &mut Checkpoints<'_>) + 'a;

/// Whole lines of a piece.
#[derive(Debug)]
struct Lines<'a> {
    /// The piece.
    text: &'a [u8],
    range: Range<usize>,
    channel: Channel,
    time_unix_us: i64,
}

/// The shaping of one stream.
#[derive(Debug)]
pub(super) struct Shaper {
    settings: ShapeSettings,
    joiner: Option<Joiner>,
    counts: Counts,
    /// The part of a line went out, or was dropped: what its rest does.
    open_lines: [Option<bool>; 3],
    /// After everything that was taken or dropped.
    checkpoint: Bytes,
    said_at: Instant,
}

fn index(channel: Channel) -> usize {
    match channel {
        Channel::Stdout => 0,
        Channel::Stderr => 1,
        Channel::Notice => 2,
    }
}

impl Shaper {
    pub(super) fn new(settings: ShapeSettings) -> Self {
        Self {
            joiner: settings.join.as_ref().map(|join| Joiner::new(Arc::clone(join))),
            counts: Counts::new(settings.drop.as_deref()),
            settings,
            open_lines: [None; 3],
            checkpoint: Bytes::new(),
            said_at: Instant::now(),
        }
    }

    /// Takes the lines of a piece and hands out records. Whole lines are looked at as one text; what is to be done to
    /// few of them costs the others nothing.
    pub(super) fn take(
        &mut self,
        text: &[u8],
        channel: Channel,
        time_unix_us: i64,
        more: &mut Checkpoints<'_>,
        out: &mut Out<'_>,
    ) {
        let whole = memchr::memrchr(b'\n', text).map_or(0, |newline| newline + 1);
        let mut at = 0;
        while at < text.len() {
            if at < whole && channel != Channel::Notice && self.open_lines[index(channel)].is_none() {
                let lines = Lines {
                    text,
                    range: at..whole,
                    channel,
                    time_unix_us,
                };
                self.take_lines(&lines, more, out);
                at = whole;
                continue;
            }
            let rest = &text[at..];
            let length = memchr::memchr(b'\n', rest).map_or(rest.len(), |newline| newline + 1);
            at += length;
            let item = Item {
                channel,
                text: rest[..length].to_vec(),
                time_unix_us,
                checkpoint: more(at),
            };
            self.take_line(item, &mut |record| out(Shaped::Record(record), more));
        }
        self.say_dropped(false, &mut |record| out(Shaped::Record(record), more));
    }

    fn take_lines(&mut self, lines: &Lines<'_>, more: &mut Checkpoints<'_>, out: &mut Out<'_>) {
        let (settings, counts, checkpoint) = (&self.settings, &mut self.counts, &mut self.checkpoint);
        let mut thin = |shaped: Shaped, more: &mut Checkpoints<'_>| match shaped {
            Shaped::Stretch(range) => {
                Self::thin_stretch(settings, counts, checkpoint, lines.text, range, more, out);
            }
            Shaped::Record(record) => {
                Self::thin(settings, counts, checkpoint, record, &mut |record| {
                    out(Shaped::Record(record), more);
                });
            }
        };
        match &mut self.joiner {
            Some(joiner) => joiner.take_lines(lines, more, &mut thin),
            None => thin(Shaped::Stretch(lines.range.clone()), more),
        }
    }

    /// Hands out what is not dropped of lines that are records of their own.
    fn thin_stretch(
        settings: &ShapeSettings,
        counts: &mut Counts,
        checkpoint: &mut Bytes,
        text: &[u8],
        range: Range<usize>,
        more: &mut Checkpoints<'_>,
        out: &mut Out<'_>,
    ) {
        let Some(drop) = &settings.drop else {
            return out(Shaped::Stretch(range), more);
        };
        let lines = &text[range.clone()];
        let mut next = NextLine::new(lines);
        let (mut kept_from, mut at) = (0, 0);
        let mut keep = |kept: Range<usize>| {
            if !kept.is_empty() {
                out(
                    Shaped::Stretch(range.start + kept.start..range.start + kept.end),
                    more,
                );
            }
        };
        while let Some(start) = next.find(at, drop.scans()) {
            let rest = &lines[start..];
            at = start + memchr::memchr(b'\n', rest).map_or(rest.len(), |newline| newline + 1);
            if drop.drops(&lines[start..at], counts) {
                keep(kept_from..start);
                kept_from = at;
            }
        }
        keep(kept_from..lines.len());
        // What is dropped at the end has no checkpoint of its own; the next text's covers it.
        *checkpoint = more(range.end);
    }

    fn take_line(&mut self, item: Item, out: &mut dyn FnMut(Item)) {
        if item.channel == Channel::Notice {
            if let Some(joiner) = &mut self.joiner {
                joiner.flush(&mut |record| {
                    Self::thin(
                        &self.settings,
                        &mut self.counts,
                        &mut self.checkpoint,
                        record,
                        out,
                    );
                });
            }
            self.checkpoint = item.checkpoint.clone();
            return out(item);
        }
        let place = index(item.channel);
        let ends = item.text.last() == Some(&b'\n');
        // The rest of a line whose beginning is gone follows it, wherever that went.
        if let Some(is_kept) = self.open_lines[place] {
            if ends {
                self.open_lines[place] = None;
            }
            self.checkpoint = item.checkpoint.clone();
            if is_kept {
                out(item);
            }
            return;
        }
        let mut kept_open = None;
        let (settings, counts, checkpoint) = (&self.settings, &mut self.counts, &mut self.checkpoint);
        let mut thin = |record: Item| {
            let is_open = record.text.last() != Some(&b'\n');
            let channel = record.channel;
            let is_kept = Self::thin(settings, counts, checkpoint, record, out);
            if is_open {
                kept_open = Some((channel, is_kept));
            }
        };
        match &mut self.joiner {
            Some(joiner) => joiner.take(item, &mut thin),
            None => thin(item),
        }
        if let Some((channel, is_kept)) = kept_open {
            self.open_lines[index(channel)] = Some(is_kept);
        }
    }

    /// Hands a record out unless it is dropped. True: it went out.
    fn thin(
        settings: &ShapeSettings,
        counts: &mut Counts,
        checkpoint: &mut Bytes,
        record: Item,
        out: &mut dyn FnMut(Item),
    ) -> bool {
        *checkpoint = record.checkpoint.clone();
        let dropped = settings
            .drop
            .as_ref()
            .is_some_and(|drop| drop.drops(&record.text, counts));
        if !dropped {
            out(record);
        }
        !dropped
    }

    pub(super) fn due(&self) -> Option<Instant> {
        let joined = self.joiner.as_ref().and_then(Joiner::due);
        let said = (!self.counts.is_empty()).then(|| self.said_at + SAY_DROPPED);
        [joined, said].into_iter().flatten().min()
    }

    pub(super) fn flush(&mut self, now: Instant, last: bool, out: &mut dyn FnMut(Item)) {
        let (settings, counts, checkpoint) = (&self.settings, &mut self.counts, &mut self.checkpoint);
        if let Some(joiner) = &mut self.joiner
            && (last || joiner.due().is_some_and(|due| due <= now))
        {
            joiner.flush(&mut |record| {
                Self::thin(settings, counts, checkpoint, record, out);
            });
        }
        self.say_dropped(last, out);
    }

    /// What is held comes again.
    pub(super) fn forget_held(&mut self) {
        if let Some(joiner) = &mut self.joiner {
            joiner.forget_held();
        }
        self.open_lines = [None; 3];
        self.counts = Counts::new(self.settings.drop.as_deref());
    }

    /// Says, now and then, what was dropped since the last time; never while a record is held, whose lines a
    /// checkpoint must not cover.
    fn say_dropped(&mut self, last: bool, out: &mut dyn FnMut(Item)) {
        let is_holding = self.joiner.as_ref().is_some_and(Joiner::is_holding);
        if self.counts.is_empty() || is_holding || !(last || self.said_at.elapsed() >= SAY_DROPPED) {
            return;
        }
        self.said_at = Instant::now();
        let text = self.counts.take_words(self.settings.drop.as_deref());
        out(Item {
            channel: Channel::Notice,
            text: format!("lines-dropped: {text}\n").into_bytes(),
            time_unix_us: crate::outbox::now_unix_us(),
            checkpoint: self.checkpoint.clone(),
        });
    }
}

#[cfg(test)]
mod tests;
