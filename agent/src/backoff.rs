//! Waits between attempts: exponential, capped, jittered.

use std::time::Duration;

/// Doubles from `first` to `limit`; each wait is drawn from the upper half of its step, so that a thousand
/// agents that lost the same relay do not come back in the same instant.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
    step: Duration,
}

impl Backoff {
    #[must_use]
    pub fn new(first: Duration, limit: Duration) -> Self {
        Self {
            first,
            limit,
            step: first,
        }
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let step = self.step;
        self.step = (step * 2).min(self.limit);
        step.mul_f64(0.5 + fastrand::f64() * 0.5)
    }

    /// It worked: start over.
    pub fn reset(&mut self) {
        self.step = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_limit_and_start_over_after_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        let waits: Vec<_> = (0..12).map(|_| backoff.next_wait()).collect();
        assert!(waits[0] <= Duration::from_millis(100) && waits[0] >= Duration::from_millis(50));
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(10)));
        assert!(waits[11] >= Duration::from_secs(5));
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_millis(100));
    }
}
