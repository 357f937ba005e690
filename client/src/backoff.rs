//! How long to wait before the next attempt.

use std::time::Duration;

/// Capped exponential backoff with jitter: each wait is drawn between half of and all of
/// `first * 2^attempt`, so that the readers of a relay that restarts do not come back in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    /// The longest first wait.
    pub first: Duration,
    /// The longest wait of all.
    pub cap: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(200),
            cap: Duration::from_secs(10),
        }
    }
}

impl Backoff {
    /// The wait before attempt number `attempt` (from 0).
    pub fn wait(&self, attempt: u32) -> Duration {
        let full = self.first.saturating_mul(1 << attempt.min(20)).min(self.cap);
        full.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_are_never_shorter_than_half() {
        let backoff = Backoff {
            first: Duration::from_millis(100),
            cap: Duration::from_secs(1),
        };
        for (attempt, full_ms) in [(0, 100), (1, 200), (3, 800), (4, 1000), (4_000_000, 1000)] {
            for _ in 0..50 {
                let wait = backoff.wait(attempt);
                assert!(wait <= Duration::from_millis(full_ms), "{wait:?}");
                assert!(wait >= Duration::from_millis(full_ms / 2), "{wait:?}");
            }
        }
    }
}
