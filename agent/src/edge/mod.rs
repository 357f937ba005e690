//! Processing at the edge: what happens to a stream's text between its source and its blocks, before anything
//! leaves the host.
//!
//! In this order, each only where it is configured: [`shape`] joins lines into records, drops and samples,
//! [`mask`] takes secrets out, so that nothing goes past it, [`severity`] says of what is left how bad it is, and [`lift`] takes labels for
//! a new stream out of its first lines. An [`Edge`] belongs to one stream's slot in the
//! outbox. It works on pieces as the sources push them; text that nothing has to be done to goes through without a
//! copy.
//!
//! *Exactly once* holds across it: text leaves in the order in which it came, and each part of it with the checkpoint
//! after the last byte that it stands for. What is held here is not covered by any checkpoint that went out, so it is
//! read again after a crash.

mod lift;
mod mask;
mod pattern;
mod severity;
mod shape;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use millstream_proto::v1::{self, Channel};
use tokio::time::Instant;

use crate::outbox::StreamSpec;
pub use lift::{LabelRules, LabelSettings};
pub use mask::{MaskRules, MaskSettings};
pub use severity::{SeverityRules, SeveritySettings};
pub use shape::{DropRule, DropSettings, JoinRules, JoinSettings, ShapeSettings};

use lift::Lifter;
use mask::{Item, Masker};
use shape::{Shaped, Shaper};

/// Where a checkpoint comes from.
#[derive(Debug, Clone)]
pub(crate) enum At {
    /// The text stands as it is at this place of the piece.
    Piece(usize),
    /// After the whole of the text.
    Fixed(Bytes),
    /// As it was: the text stands for nothing that was read.
    Keep,
}

/// Text that leaves: lines with their `\n`; without one at the end, the last is partial.
#[derive(Debug)]
pub(crate) struct Out<'a> {
    pub(crate) text: &'a [u8],
    pub(crate) channel: Channel,
    pub(crate) time_unix_us: i64,
    pub(crate) at: At,
}

/// Takes what leaves, with the means to ask for the checkpoint at a place of the present piece.
pub(crate) type Sink<'a> = dyn FnMut(Out<'_>, &mut dyn FnMut(usize) -> Bytes) + 'a;

/// What is done to the streams of one source.
#[derive(Debug, Clone, Default)]
pub struct EdgeSettings {
    pub mask: Option<Arc<MaskSettings>>,
    pub shape: ShapeSettings,
    pub severity: Option<Arc<SeveritySettings>>,
    pub labels: Option<Arc<LabelSettings>>,
}

impl EdgeSettings {
    /// The edge of one stream; `None` when nothing is to be done. `outlives`: another process may go on with the
    /// stream, which does not know what this one masks.
    pub(crate) fn open(&self, source: &str, instance: &str, outlives: bool) -> Option<Box<Edge>> {
        let masker = self.mask.as_ref().filter(|mask| !mask.is_idle()).map(|mask| {
            // Neither name holds a zero byte.
            let key = format!("{source}\0{instance}");
            Masker::new(Arc::clone(mask), key, outlives)
        });
        let shaper = (!self.shape.is_idle()).then(|| Shaper::new(self.shape.clone()));
        let severity = self.severity.clone();
        let lifter = self.labels.clone().map(Lifter::new);
        (masker.is_some() || shaper.is_some() || severity.is_some() || lifter.is_some()).then(|| {
            Box::new(Edge {
                shaper,
                masker,
                severity,
                lifter,
            })
        })
    }

    /// Takes secrets out of what is told about a stream beside its text.
    pub(crate) fn mask_facts(&self, spec: &mut StreamSpec) {
        let Some(mask) = &self.mask else {
            return;
        };
        if let Some(run) = &mut spec.run {
            let texts = run.argv.iter_mut().chain(run.env.values_mut());
            texts
                .chain([&mut run.cwd, &mut run.reason])
                .for_each(|text| mask.mask(text));
        }
        spec.labels.values_mut().for_each(|text| mask.mask(text));
    }

    /// The same for its end.
    pub(crate) fn mask_end(&self, end: &mut v1::StreamEnd) {
        if let Some(mask) = &self.mask {
            mask.mask(&mut end.message);
        }
    }
}

/// One stream's processing, and the text that waits in it.
#[derive(Debug)]
pub(crate) struct Edge {
    shaper: Option<Shaper>,
    masker: Option<Masker>,
    /// For whoever lays out what leaves.
    pub(crate) severity: Option<Arc<SeveritySettings>>,
    /// Until the stream's labels are decided.
    lifter: Option<Lifter>,
}

impl Edge {
    /// Takes a piece as its source pushed it.
    pub(crate) fn take(
        &mut self,
        text: &[u8],
        channel: Channel,
        time_unix_us: i64,
        checkpoint_after: &mut dyn FnMut(usize) -> Bytes,
        sink: &mut Sink<'_>,
    ) {
        let lifter = &mut self.lifter;
        let sink: &mut Sink<'_> = &mut |out, checkpoint_after| look(lifter, out, checkpoint_after, sink);
        let masker = &mut self.masker;
        match (&mut self.shaper, masker) {
            (Some(shaper), masker) => {
                shaper.take(
                    text,
                    channel,
                    time_unix_us,
                    checkpoint_after,
                    &mut |shaped, more| match shaped {
                        Shaped::Record(item) => pass_on(masker, item, sink),
                        Shaped::Stretch(range) => {
                            let start = range.start;
                            let text = &text[range];
                            let more = &mut |at: usize| more(start + at);
                            pass_stretch(masker, text, channel, time_unix_us, more, sink);
                        }
                    },
                );
            }
            (None, masker) => pass_stretch(masker, text, channel, time_unix_us, checkpoint_after, sink),
        }
    }

    /// When [`Edge::flush`] has something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        let shaped = self.shaper.as_ref().and_then(Shaper::due);
        let masked = self.masker.as_ref().and_then(Masker::due);
        let lifted = self.lifter.as_ref().and_then(Lifter::due);
        [shaped, masked, lifted].into_iter().flatten().min()
    }

    /// Lets out what waited long enough; `last`: everything, because no text follows.
    pub(crate) fn flush(&mut self, now: Instant, last: bool, sink: &mut Sink<'_>) {
        let lifter = &mut self.lifter;
        let sink: &mut Sink<'_> = &mut |out, checkpoint_after| look(lifter, out, checkpoint_after, sink);
        let masker = &mut self.masker;
        if let Some(shaper) = &mut self.shaper {
            shaper.flush(now, last, &mut |item| pass_on(masker, item, sink));
        }
        if let Some(masker) = masker
            && (last || masker.due().is_some_and(|due| due <= now))
        {
            masker.flush(last, sink);
        }
    }

    /// The source goes back: what is held comes again.
    pub(crate) fn forget_held(&mut self) {
        if let Some(shaper) = &mut self.shaper {
            shaper.forget_held();
        }
        if let Some(masker) = &mut self.masker {
            masker.forget_held();
        }
        if let Some(lifter) = &mut self.lifter {
            lifter.begin_anew();
        }
    }

    /// The stream's labels wait for its first lines.
    pub(crate) fn is_lifting(&self) -> bool {
        self.lifter.is_some()
    }

    /// The labels that its first lines give a stream, once, when enough was seen; `last`: when no text follows.
    pub(crate) fn lifted(&mut self, now: Instant, last: bool) -> Option<BTreeMap<String, String>> {
        let is_done =
            |lifter: &mut Lifter| last || lifter.is_done() || lifter.due().is_some_and(|due| due <= now);
        self.lifter.take_if(is_done).map(Lifter::labels)
    }

    /// The stream has its labels.
    pub(crate) fn stop_lifting(&mut self) {
        self.lifter = None;
    }

    /// The stream is over.
    pub(crate) fn ended(&self) {
        if let Some(masker) = &self.masker {
            masker.ended();
        }
    }
}

/// Out, past the eyes of who looks for labels.
fn look(
    lifter: &mut Option<Lifter>,
    out: Out<'_>,
    checkpoint_after: &mut dyn FnMut(usize) -> Bytes,
    sink: &mut Sink<'_>,
) {
    if let Some(lifter) = lifter {
        lifter.look(&out);
    }
    sink(out, checkpoint_after);
}

/// Text of the present piece to the masker, or out.
fn pass_stretch(
    masker: &mut Option<Masker>,
    text: &[u8],
    channel: Channel,
    time_unix_us: i64,
    checkpoint_after: &mut dyn FnMut(usize) -> Bytes,
    sink: &mut Sink<'_>,
) {
    if let Some(masker) = masker {
        return masker.take(text, channel, time_unix_us, checkpoint_after, sink);
    }
    let out = Out {
        text,
        channel,
        time_unix_us,
        at: At::Piece(0),
    };
    sink(out, checkpoint_after);
}

/// From the shaper to the masker, or out.
fn pass_on(masker: &mut Option<Masker>, item: Item, sink: &mut Sink<'_>) {
    // What comes from the shaper has its checkpoint with it.
    let mut none = |_| Bytes::new();
    match masker {
        Some(masker) => masker.take_item(item, sink, &mut none),
        None => {
            let out = Out {
                text: &item.text,
                channel: item.channel,
                time_unix_us: item.time_unix_us,
                at: At::Fixed(item.checkpoint),
            };
            sink(out, &mut none);
        }
    }
}
