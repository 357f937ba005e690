//! One look at a text: which bytes are secret, and where its end may be the beginning of a secret.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use super::commands;
use super::secrets::Secrets;
use super::strip::Clean;

/// What stands for a secret.
const MASK: &[u8] = b"***";

/// The last word of an open line is held for patterns, up to so much.
const MAX_WORD_BYTES: usize = 4096;

/// A stretch of a secret, without the line ends and escape sequences in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) range: Range<usize>,
    /// The mask stands here.
    is_first: bool,
}

/// What was found, in places of the text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// In order, not overlapping.
    pub(super) cuts: Vec<Cut>,
    /// Where each secret begins and ends, with what is hidden in it.
    spans: Vec<Range<usize>>,
    /// From here on it may be the beginning of something; the text's length when nothing is.
    pub(super) live_from: usize,
    /// It is so much of a secret that it must not be shown.
    strong: bool,
    /// It is the last word of an open line, and a pattern may match it when it is whole; or a command.
    waits: bool,
    /// It is a command whose value is not complete.
    pub(super) holds_command: bool,
}

/// Looks through text.
#[derive(Debug)]
pub(super) struct Scanner {
    pub(super) secrets: Arc<Secrets>,
    obeys_commands: bool,
}

/// The two views of a text, in memory that all streams of a thread share: a chunk's worth for each idle stream
/// would be many times what the agent may take.
#[derive(Debug, Default)]
struct Views {
    /// Without line ends.
    joined: Clean,
    lines: Clean,
}

thread_local! {
    static VIEWS: RefCell<Views> = RefCell::default();
}

impl Scanner {
    pub(super) fn new(secrets: Arc<Secrets>, obeys_commands: bool) -> Self {
        Self {
            secrets,
            obeys_commands,
        }
    }

    /// Whether the text needs a closer look, for what it asks to mask and for secrets.
    pub(super) fn suspects(&self, text: &[u8]) -> bool {
        self.secrets.sieve.finds_any(text)
    }

    /// The values that complete lines of the text ask to mask.
    pub(super) fn commands(&self, text: &[u8], at_line_start: bool, last: bool) -> Vec<Vec<u8>> {
        if !self.obeys_commands {
            return Vec::new();
        }
        let start = if at_line_start {
            0
        } else {
            memchr::memchr(b'\n', text).map_or(text.len(), |newline| newline + 1)
        };
        let end = if last {
            text.len()
        } else {
            memchr::memrchr(b'\n', text).map_or(0, |newline| newline + 1)
        };
        let Some(lines) = text.get(start..end) else {
            return Vec::new();
        };
        VIEWS.with_borrow_mut(|views| commands::values(shown(&mut views.lines, lines).0))
    }

    /// The first `context` bytes went out before. `suspected`: as [`Scanner::suspects`] says, or true.
    pub(super) fn scan(
        &self,
        text: &[u8],
        suspected: bool,
        context: usize,
        at_line_start: bool,
        last: bool,
    ) -> Scan {
        VIEWS.with_borrow_mut(|views| self.scan_with(views, text, suspected, context, at_line_start, last))
    }

    fn scan_with(
        &self,
        views: &mut Views,
        text: &[u8],
        suspected: bool,
        context: usize,
        at_line_start: bool,
        last: bool,
    ) -> Scan {
        let mut scan = Scan {
            live_from: text.len(),
            ..Scan::default()
        };
        let patterns = self.secrets.patterns_for(suspected);
        if !patterns.is_empty() {
            let (shown, clean) = shown(&mut views.lines, text);
            let patterns = if self.secrets.patterns_may_match(shown) {
                patterns
            } else {
                &[]
            };
            for pattern in patterns {
                for found in pattern.find_iter(shown).filter(|found| !found.is_empty()) {
                    match clean {
                        Some(clean) => scan.cut(clean, found.range(), context),
                        None if found.end() > context => {
                            scan.spans.push(found.range());
                            scan.cuts.push(Cut {
                                range: found.start().max(context)..found.end(),
                                is_first: true,
                            });
                        }
                        None => {}
                    }
                }
            }
        }
        if self.secrets.has_forms() {
            let start = if suspected {
                views.joined.fill(text, true);
                for found in self.secrets.find(&views.joined.text) {
                    scan.cut(&views.joined, found, context);
                }
                0
            } else {
                views.joined.fill_end(text, self.secrets.longest_beginning())
            };
            if let Some((place, strong)) = self.secrets.live_tail(&views.joined.text) {
                scan.live_from = start + views.joined.original(place);
                scan.strong = strong;
            }
        }
        if text.last() != Some(&b'\n') {
            self.look_at_open_line(views, text, at_line_start, &mut scan);
        }
        tidy(&mut scan.cuts);
        if last {
            scan.cut_strong_tail(text, context);
            scan.live_from = text.len();
            scan.waits = false;
            scan.holds_command = false;
        }
        scan
    }

    fn look_at_open_line(&self, views: &mut Views, text: &[u8], at_line_start: bool, scan: &mut Scan) {
        let start = memchr::memrchr(b'\n', text).map_or(0, |newline| newline + 1);
        let line = &text[start..];
        let is_whole = start > 0 || at_line_start;
        if self.obeys_commands && is_whole {
            let (shown, _) = shown(&mut views.lines, line);
            if commands::may_become_one(shown) {
                scan.live_from = scan.live_from.min(start);
                scan.waits = true;
                scan.holds_command = commands::is_one(shown);
            }
        }
        if !self.secrets.patterns.is_empty() {
            let from = line.len().saturating_sub(MAX_WORD_BYTES);
            let word = line[from..].iter().rposition(u8::is_ascii_whitespace);
            let word_start = start + word.map_or(from, |space| from + space + 1);
            scan.live_from = scan.live_from.min(word_start);
            scan.waits |= word_start < text.len();
        }
    }
}

/// The text without escape sequences, and the way back; without one where there are none.
fn shown<'a>(lines: &'a mut Clean, text: &'a [u8]) -> (&'a [u8], Option<&'a Clean>) {
    if memchr::memchr(0x1b, text).is_none() {
        return (text, None);
    }
    lines.fill(text, false);
    (&lines.text, Some(lines))
}

/// A secret's stretches in the original.
fn stretches(cuts: &mut Vec<Cut>, clean: &Clean, found: Range<usize>, context: usize) {
    let mut is_first = true;
    let mut at = found.start;
    while at < found.end {
        let start = clean.original(at);
        // As far as the original goes on without anything hidden in between.
        let mut length = 1;
        while at + length < found.end && clean.original(at + length) == start + length {
            length += 1;
        }
        at += length;
        let end = start + length;
        if end > context {
            cuts.push(Cut {
                range: start.max(context)..end,
                is_first,
            });
            is_first = false;
        }
    }
}

/// In order, and joined where they overlap.
fn tidy(cuts: &mut Vec<Cut>) {
    if cuts.len() < 2 {
        return;
    }
    cuts.sort_by_key(|cut| (cut.range.start, !cut.is_first));
    let mut tidied: Vec<Cut> = Vec::with_capacity(cuts.len());
    for cut in cuts.drain(..) {
        match tidied.last_mut() {
            Some(last) if cut.range.start < last.range.end => {
                last.range.end = last.range.end.max(cut.range.end);
            }
            _ => tidied.push(cut),
        }
    }
    *cuts = tidied;
}

impl Scan {
    fn cut(&mut self, clean: &Clean, found: Range<usize>, context: usize) {
        self.spans
            .push(clean.original(found.start)..clean.original(found.end - 1) + 1);
        stretches(&mut self.cuts, clean, found, context);
    }

    /// Where what has to wait begins: a whole line, or the end of an open one. No secret lies across it.
    pub(super) fn hold_from(&self, text: &[u8]) -> usize {
        if !(self.strong || self.waits) {
            return text.len();
        }
        let line_start = |at: usize| memchr::memrchr(b'\n', &text[..at]).map_or(0, |newline| newline + 1);
        let line_ends = memchr::memchr(b'\n', &text[self.live_from..]).is_some();
        let mut hold_from = if line_ends {
            line_start(self.live_from)
        } else {
            self.live_from
        };
        let across = |at: usize| {
            self.spans
                .iter()
                .find(move |span| span.start < at && at < span.end)
        };
        while let Some(span) = across(hold_from) {
            hold_from = line_start(span.start);
        }
        hold_from
    }

    /// Masks the end of the text, when it is a good part of a secret.
    pub(super) fn cut_strong_tail(&mut self, text: &[u8], context: usize) {
        if !self.strong || self.live_from == text.len() {
            return;
        }
        let mut clean = Clean::default();
        clean.fill(&text[self.live_from..], true);
        let mut tail = Vec::new();
        stretches(
            &mut tail,
            &clean,
            0..clean.text.len(),
            context.saturating_sub(self.live_from),
        );
        for cut in &mut tail {
            cut.range = cut.range.start + self.live_from..cut.range.end + self.live_from;
        }
        self.cuts.extend(tail);
        tidy(&mut self.cuts);
        self.strong = false;
    }

    /// What may be shown of a part of the text.
    pub(super) fn masked(&self, text: &[u8], part: Range<usize>) -> Vec<u8> {
        let mut shown = Vec::with_capacity(part.len());
        let mut at = part.start;
        for cut in &self.cuts {
            if cut.range.end <= at || cut.range.start >= part.end {
                continue;
            }
            let start = cut.range.start.max(part.start);
            let end = cut.range.end.min(part.end);
            shown.extend_from_slice(&text[at..start]);
            if cut.is_first && cut.range.start == start {
                // Never longer than what it stands for: a line at its limit stays within it.
                shown.extend_from_slice(&MASK[..MASK.len().min(end - start)]);
            }
            at = end;
        }
        shown.extend_from_slice(&text[at..part.end]);
        shown
    }
}
