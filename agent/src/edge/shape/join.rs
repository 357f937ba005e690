//! Lines of one record into one line: stack traces and the like.

use std::sync::Arc;
use std::time::Duration;

use millstream_proto::v1::Channel;
use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;
use tokio::time::Instant;

use super::super::mask::Item;
use super::{Checkpoints, Lines, Out, Shaped};

/// A record stays far below the limit of a line.
const MAX_RECORD_BYTES: usize = 512 << 10;
const PATTERN_BYTES: usize = 1 << 20;

/// `join` of a source.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRules {
    /// A record begins with a line that matches.
    start: Option<String>,
    /// A line that begins with a space or a tab continues the one before.
    #[serde(default)]
    indent: bool,
    /// What stands between the lines of a record.
    separator: Option<String>,
    /// How long a record may wait for its next line.
    timeout: Option<String>,
    /// Lines of a record at most.
    max_lines: Option<usize>,
}

/// The same, checked.
#[derive(Debug)]
pub struct JoinSettings {
    start: Option<Regex>,
    indent: bool,
    separator: Vec<u8>,
    timeout: Duration,
    max_lines: usize,
}

impl JoinSettings {
    /// # Errors
    /// A sentence on what is wrong.
    pub fn new(rules: &JoinRules) -> Result<Self, String> {
        if rules.start.is_none() && !rules.indent {
            return Err(
                "join: say where a record begins: start = \"^\\\\d{4}-\", or indent = true".to_owned(),
            );
        }
        let start = rules.start.as_deref().map(|start| {
            RegexBuilder::new(start)
                .size_limit(PATTERN_BYTES)
                .dfa_size_limit(PATTERN_BYTES)
                .build()
                .map_err(|error| format!("join.start: {error}"))
        });
        let separator = rules.separator.as_deref().unwrap_or(" ⏎ ");
        if separator.contains('\n') || separator.len() > 64 {
            return Err("join.separator: at most 64 bytes, and no newline: a record is one line".to_owned());
        }
        let timeout = crate::config::parse_duration(rules.timeout.as_deref().unwrap_or("500ms"))
            .map_err(|problem| format!("join.timeout: {problem}"))?;
        let max_lines = rules.max_lines.unwrap_or(1000);
        if max_lines < 2 {
            return Err("join.max_lines has to be at least 2".to_owned());
        }
        Ok(Self {
            start: start.transpose()?,
            indent: rules.indent,
            separator: separator.as_bytes().to_vec(),
            timeout,
            max_lines,
        })
    }

    /// The line belongs to the record before it.
    fn continues(&self, line: &[u8]) -> bool {
        let is_indented = self.indent && matches!(line.first(), Some(b' ' | b'\t'));
        is_indented || self.start.as_ref().is_some_and(|start| !start.is_match(line))
    }
}

/// The record that is not complete.
#[derive(Debug)]
struct Open {
    item: Item,
    lines: usize,
    since: Instant,
}

impl Open {
    fn fits(&self, line: &[u8], settings: &JoinSettings) -> bool {
        self.item.text.len() + settings.separator.len() + line.len() < MAX_RECORD_BYTES
            && self.lines < settings.max_lines
    }

    fn add(&mut self, line: &[u8], settings: &JoinSettings) {
        self.item.text.pop();
        self.item.text.extend_from_slice(&settings.separator);
        self.item.text.extend_from_slice(line);
        self.item.text.push(b'\n');
        self.lines += 1;
    }
}

#[derive(Debug)]
pub(super) struct Joiner {
    settings: Arc<JoinSettings>,
    open: Option<Open>,
}

impl Joiner {
    pub(super) fn new(settings: Arc<JoinSettings>) -> Self {
        Self { settings, open: None }
    }

    pub(super) fn is_holding(&self) -> bool {
        self.open.is_some()
    }

    /// Whole lines of a piece: lines that are records of their own go out as they are, stretch by stretch; the last
    /// one waits for what follows it.
    pub(super) fn take_lines(&mut self, lines: &Lines<'_>, more: &mut Checkpoints<'_>, out: &mut Out<'_>) {
        let text = &lines.text[..lines.range.end];
        let line_end =
            |at: usize| memchr::memchr(b'\n', &text[at..]).map_or(text.len(), |newline| at + newline + 1);
        let mut at = lines.range.start;
        while at < text.len() {
            at = self.take_continuing(lines, at, more);
            if at == text.len() {
                return;
            }
            self.flush(&mut |record| out(Shaped::Record(record), more));
            let start = at;
            loop {
                let end = line_end(at);
                let may_go_on = end == text.len() || self.settings.continues(&text[end..line_end(end) - 1]);
                if may_go_on && end - at <= MAX_RECORD_BYTES {
                    if start < at {
                        out(Shaped::Stretch(start..at), more);
                    }
                    let item = Item {
                        channel: lines.channel,
                        text: text[at..end].to_vec(),
                        time_unix_us: lines.time_unix_us,
                        checkpoint: more(end),
                    };
                    self.open(item);
                    at = end;
                    break;
                }
                at = end;
                if at == text.len() {
                    out(Shaped::Stretch(start..at), more);
                    break;
                }
            }
        }
    }

    /// Adds the lines from `at` on that continue the open record to it; returns where they end.
    fn take_continuing(&mut self, lines: &Lines<'_>, from: usize, more: &mut Checkpoints<'_>) -> usize {
        let text = &lines.text[..lines.range.end];
        let Some(open) = self
            .open
            .as_mut()
            .filter(|open| open.item.channel == lines.channel)
        else {
            return from;
        };
        let mut at = from;
        while at < text.len() {
            let end = memchr::memchr(b'\n', &text[at..]).map_or(text.len(), |newline| at + newline);
            let line = &text[at..end];
            if !open.fits(line, &self.settings) || !self.settings.continues(line) {
                break;
            }
            open.add(line, &self.settings);
            at = end + 1;
        }
        if at > from {
            open.item.checkpoint = more(at);
            open.since = Instant::now();
        }
        at
    }

    fn open(&mut self, item: Item) {
        self.open = Some(Open {
            item,
            lines: 1,
            since: Instant::now(),
        });
    }

    /// The next line. A line of another channel ends the record, so that order and checkpoints stay true; so does
    /// a part of a line.
    pub(super) fn take(&mut self, item: Item, out: &mut dyn FnMut(Item)) {
        let Some(line) = item
            .text
            .strip_suffix(b"\n")
            .filter(|_| item.channel != Channel::Notice)
        else {
            self.flush(out);
            return out(item);
        };
        if let Some(open) = &mut self.open {
            let is_same = open.item.channel == item.channel && open.fits(line, &self.settings);
            if is_same && self.settings.continues(line) {
                open.add(line, &self.settings);
                open.item.checkpoint = item.checkpoint;
                open.since = Instant::now();
                return;
            }
        }
        self.flush(out);
        if line.len() >= MAX_RECORD_BYTES {
            return out(item);
        }
        self.open(item);
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.open.as_ref().map(|open| open.since + self.settings.timeout)
    }

    pub(super) fn flush(&mut self, out: &mut dyn FnMut(Item)) {
        if let Some(open) = self.open.take() {
            out(open.item);
        }
    }

    pub(super) fn forget_held(&mut self) {
        self.open = None;
    }
}
