//! Stamps in lines, and what becomes of the times between writing and reading.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// Digits of a stamp: nanoseconds since the Unix epoch, at the begin of a line, followed by a space.
pub(crate) const STAMP_DIGITS: usize = 19;

/// Part of the samples, from the begin, that is left out: connections and caches warm up.
const WARM_UP_SHARE: usize = 10;

/// Nanoseconds since the Unix epoch.
pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Times from writing to reading, nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<u64>);

impl Latencies {
    /// Takes the stamp of `line` as read at `now_ns`; a line without one counts as nothing.
    pub(crate) fn add(&mut self, line: &[u8], now_ns: u64) {
        let stamp = line
            .get(..STAMP_DIGITS)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(written) = stamp.and_then(|digits| digits.parse::<u64>().ok()) {
            self.0.push(now_ns.saturating_sub(written));
        }
    }

    pub(crate) fn report(mut self) -> Value {
        let warm = self.0.len() / WARM_UP_SHARE;
        let mut samples = self.0.split_off(warm);
        samples.sort_unstable();
        let at = |share_per_mille: usize| samples.get(samples.len() * share_per_mille / 1000).copied();
        json!({
            "samples": samples.len(),
            "p50_ns": at(500),
            "p99_ns": at(990),
            "max_ns": samples.last(),
        })
    }
}
