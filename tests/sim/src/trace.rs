//! What happened in a run, in order: its hash tells whether two runs of a seed were the same, and its text what
//! went wrong.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

/// Shared by everything in a run. Also holds what was found to be wrong.
#[derive(Clone)]
pub(crate) struct Trace {
    began: Instant,
    state: Arc<Mutex<State>>,
}

struct State {
    hash: Xxh3,
    events: u64,
    is_printed: bool,
    breaches: Vec<String>,
}

impl fmt::Debug for Trace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Trace")
    }
}

impl Trace {
    /// Begins now. `is_printed`: every event goes to standard error, too.
    pub(crate) fn new(is_printed: bool) -> Self {
        Self {
            began: Instant::now(),
            state: Arc::new(Mutex::new(State {
                hash: Xxh3::new(),
                events: 0,
                is_printed,
                breaches: Vec::new(),
            })),
        }
    }

    /// Virtual time since the begin.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Virtual wall clock, microseconds since the Unix epoch.
    pub(crate) fn unix_us(&self) -> i64 {
        1_700_000_000_000_000 + i64::try_from(self.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    pub(crate) fn event(&self, what: fmt::Arguments<'_>) {
        let at = self.elapsed().as_millis();
        let text = format!("{at:>7} {what}");
        let mut state = self.lock();
        state.events += 1;
        state.hash.update(text.as_bytes());
        if state.is_printed {
            eprintln!("{text}");
        }
    }

    /// Something that happens too often to be written out: `numbers` go into the hash only.
    pub(crate) fn count(&self, kind: u8, numbers: [u64; 3]) {
        let at = u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut state = self.lock();
        state.events += 1;
        state.hash.update(&[kind]);
        for number in numbers.into_iter().chain([at]) {
            state.hash.update(&number.to_le_bytes());
        }
    }

    /// A promise was broken.
    pub(crate) fn breach(&self, what: fmt::Arguments<'_>) {
        self.event(format_args!("BREACH {what}"));
        self.lock().breaches.push(what.to_string());
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.lock().breaches.is_empty()
    }

    pub(crate) fn breaches(&self) -> Vec<String> {
        self.lock().breaches.clone()
    }

    /// Hash and number of the events so far.
    pub(crate) fn digest(&self) -> (u64, u64) {
        let state = self.lock();
        (state.hash.digest(), state.events)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
