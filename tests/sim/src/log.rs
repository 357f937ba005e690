//! The truth: what every modelled build writes, line by line, and what has to come out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, futures::OwnedNotified};

use crate::dice::Dice;

/// How a source gets at its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Every line can be read again, whenever.
    File,
    /// Lines can be read again until they were acknowledged; then they are deleted.
    Spool,
    /// Nothing can be read again. Its agent does not crash, and acknowledgements are durable.
    Pipe,
}

/// A source's output. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) source: String,
    pub(crate) kind: Kind,
    /// Its stream gets an end.
    pub(crate) ends: bool,
    state: Arc<Mutex<State>>,
    /// Wakes those who wait in the order in which they began to; a `watch` channel would wake them in an order of
    /// chance.
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    /// Its stream is to be ended.
    is_ended: bool,
    /// Lines below it are deleted.
    trimmed: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// With its newline.
    pub(crate) text: Bytes,
    pub(crate) time_unix_us: i64,
}

impl Log {
    pub(crate) fn new(source: String, kind: Kind, ends: bool) -> Self {
        Self {
            source,
            kind,
            ends,
            state: Arc::default(),
            changed: Arc::default(),
        }
    }

    /// Writes the next lines.
    pub(crate) fn write(&self, count: u64, dice: &Dice, time_unix_us: i64) {
        let mut state = self.lock();
        for _ in 0..count {
            let number = state.lines.len();
            let mut text = format!("{} {number} ", self.source).into_bytes();
            let filler = match dice.below(0..200) {
                0 => dice.size(0..60_000),
                1..=10 => dice.size(0..2_000),
                _ => dice.size(0..60),
            };
            let mut bytes = dice.bytes(filler);
            // Half of the long lines compress well.
            if filler > 1000 && number.is_multiple_of(2) {
                bytes.fill(b'=');
            }
            text.extend(bytes.into_iter().filter(|byte| *byte != b'\n'));
            text.push(b'\n');
            state.lines.push(Line {
                text: text.into(),
                time_unix_us,
            });
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Writes no more.
    pub(crate) fn stop(&self) {
        self.lock().is_ended = self.ends;
        self.changed.notify_waiters();
    }

    /// Completes with the next change; changes from this call on count.
    pub(crate) fn changed(&self) -> OwnedNotified {
        Arc::clone(&self.changed).notified_owned()
    }

    pub(crate) fn len(&self) -> u64 {
        self.lock().lines.len() as u64
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.lock().is_ended
    }

    /// Up to `count` lines from `from` on, as a reader gets them; `None` when the first is deleted.
    pub(crate) fn read(&self, from: u64, count: usize) -> Option<Vec<Line>> {
        let state = self.lock();
        if from < state.trimmed {
            return None;
        }
        let from = usize::try_from(from)
            .expect("logs are small")
            .min(state.lines.len());
        let to = (from + count).min(state.lines.len());
        Some(state.lines[from..to].to_vec())
    }

    /// Whether the line is this one.
    pub(crate) fn is_line(&self, number: u64, text: &[u8]) -> bool {
        let state = self.lock();
        usize::try_from(number)
            .ok()
            .and_then(|number| state.lines.get(number))
            .is_some_and(|line| line.text.strip_suffix(b"\n") == Some(text))
    }

    /// The number of the first line of this time or later.
    pub(crate) fn first_since(&self, unix_us: i64) -> u64 {
        let state = self.lock();
        let early = |line: &Line| line.time_unix_us < unix_us;
        state.lines.partition_point(early) as u64
    }

    /// An agent saw that lines below `next` are acknowledged.
    pub(crate) fn acknowledge(&self, next: u64) {
        let mut state = self.lock();
        if self.kind == Kind::Spool {
            state.trimmed = state.trimmed.max(next);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every log of a run by its source, which no other has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Logs(Arc<Mutex<BTreeMap<String, Log>>>);

impl Logs {
    pub(crate) fn add(&self, log: Log) {
        let mut logs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logs.insert(log.source.clone(), log);
    }

    pub(crate) fn get(&self, source: &str) -> Option<Log> {
        let logs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logs.get(source).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Log> {
        let logs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logs.values().cloned().collect()
    }
}
