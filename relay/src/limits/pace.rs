//! How fast somebody may go: a bucket that fills at a rate and may be overdrawn once.
//!
//! What has come is taken; the debt says how long to wait before the next. So nothing is refused or lost, and a single
//! large block passes whatever the rate.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A rate and what is left of it.
#[derive(Debug)]
pub(crate) struct Bucket {
    per_second: f64,
    most: f64,
    left: f64,
    at: Instant,
}

impl Bucket {
    /// Full; it holds `burst` at most.
    pub(crate) fn new(per_second: f64, burst: f64, now: Instant) -> Self {
        Self {
            per_second,
            most: burst,
            left: burst,
            at: now,
        }
    }

    /// Takes an amount; how long until the bucket is out of debt, when it is in debt now.
    pub(crate) fn take(&mut self, amount: f64, now: Instant) -> Option<Duration> {
        self.fill(now);
        self.left -= amount;
        self.debt()
    }

    /// How long it stays in debt, if it is.
    pub(crate) fn in_debt(&mut self, now: Instant) -> Option<Duration> {
        self.fill(now);
        self.debt()
    }

    /// Nothing is missing: a new one would be the same.
    pub(crate) fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.left >= self.most
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * self.per_second).min(self.most);
        self.at = now;
    }

    fn debt(&self) -> Option<Duration> {
        (self.left < 0.0)
            .then(|| Duration::try_from_secs_f64(-self.left / self.per_second).unwrap_or(Duration::MAX))
    }
}

/// What one agent sends: text and lines.
#[derive(Debug)]
pub(crate) struct Pace {
    buckets: Mutex<(Option<Bucket>, Option<Bucket>)>,
}

/// The paces of agents, kept over their reconnections for as long as they are in debt.
#[derive(Debug)]
pub(crate) struct Paces {
    bytes_per_second: u64,
    lines_per_second: u64,
    by_agent: Mutex<HashMap<String, Arc<Pace>>>,
}

/// Which limit makes an agent wait, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    pub(crate) key: &'static str,
    pub(crate) value: u64,
    pub(crate) time: Duration,
}

impl Paces {
    /// 0: no limit.
    pub(crate) fn new(bytes_per_second: u64, lines_per_second: u64) -> Self {
        Self {
            bytes_per_second,
            lines_per_second,
            by_agent: Mutex::default(),
        }
    }

    /// The pace of an agent; `None`: there is no limit.
    pub(crate) fn of(&self, agent_id: &str, now: Instant) -> Option<Arc<Pace>> {
        if self.bytes_per_second == 0 && self.lines_per_second == 0 {
            return None;
        }
        let mut paces = self.by_agent.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that are nobody's and in no debt are as good as new.
        paces.retain(|_, pace| Arc::strong_count(pace) > 1 || !pace.is_full(now));
        let bucket = |per_second: u64| {
            // Two seconds of it may come at once.
            (per_second > 0).then(|| Bucket::new(per_second as f64, per_second as f64 * 2.0, now))
        };
        let pace = paces.entry(agent_id.to_owned()).or_insert_with(|| {
            Arc::new(Pace {
                buckets: Mutex::new((bucket(self.bytes_per_second), bucket(self.lines_per_second))),
            })
        });
        Some(Arc::clone(pace))
    }

    /// Takes a block; how long the agent has to wait before the next.
    pub(crate) fn take(&self, pace: &Pace, bytes: u64, lines: u64, now: Instant) -> Option<Wait> {
        let mut buckets = pace.lock();
        let (byte_bucket, line_bucket) = &mut *buckets;
        let take = |bucket: &mut Option<Bucket>, amount: u64, key, value| {
            let time = bucket.as_mut()?.take(amount as f64, now)?;
            Some(Wait { key, value, time })
        };
        let for_bytes = take(
            byte_bucket,
            bytes,
            "max_agent_bytes_per_second",
            self.bytes_per_second,
        );
        let for_lines = take(
            line_bucket,
            lines,
            "max_agent_lines_per_second",
            self.lines_per_second,
        );
        [for_bytes, for_lines]
            .into_iter()
            .flatten()
            .max_by_key(|wait| wait.time)
    }
}

impl Pace {
    fn is_full(&self, now: Instant) -> bool {
        let mut buckets = self.lock();
        let (bytes, lines) = &mut *buckets;
        [bytes, lines]
            .into_iter()
            .flatten()
            .all(|bucket| bucket.is_full(now))
    }

    fn lock(&self) -> MutexGuard<'_, (Option<Bucket>, Option<Bucket>)> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_passes_and_a_debt_is_waited_for() {
        let start = Instant::now();
        let paces = Paces::new(1000, 0);
        let pace = paces.of("a", start).unwrap();
        assert_eq!(paces.take(&pace, 2000, 1_000_000, start), None);
        let wait = paces.take(&pace, 500, 1, start).unwrap();
        assert_eq!((wait.key, wait.value), ("max_agent_bytes_per_second", 1000));
        assert_eq!(wait.time, Duration::from_millis(500));
        assert_eq!(paces.take(&pace, 500, 1, start + SECOND), None);
    }

    #[test]
    fn who_comes_back_in_debt_is_still_in_debt_and_who_is_not_is_forgotten() {
        let start = Instant::now();
        let paces = Paces::new(0, 10);
        let pace = paces.of("a", start).unwrap();
        assert!(paces.take(&pace, 0, 100, start).is_some());
        drop(pace);
        let pace = paces.of("a", start + SECOND).unwrap();
        assert!(paces.take(&pace, 0, 1, start + SECOND).is_some());
        drop(pace);
        drop(paces.of("b", start + 60 * SECOND));
        assert_eq!(
            paces.by_agent.lock().unwrap().len(),
            1,
            "only the one that was just asked for"
        );
        assert!(Paces::new(0, 0).of("a", start).is_none());
    }

    proptest! {
        #[test]
        fn in_the_long_run_nobody_is_faster_than_the_rate(amounts in proptest::collection::vec(1_u32..5000, 1..60)) {
            let start = Instant::now();
            let mut now = start;
            let mut bucket = Bucket::new(1000.0, 2000.0, start);
            let mut sent = 0.0;
            for amount in amounts {
                if let Some(wait) = bucket.in_debt(now) {
                    now += wait;
                }
                sent += f64::from(amount);
                bucket.take(amount.into(), now);
                let passed = (now - start).as_secs_f64();
                // The burst, and one amount that overdraws it.
                prop_assert!(sent <= passed * 1000.0 + 2000.0 + 5001.0);
            }
        }
    }
}
