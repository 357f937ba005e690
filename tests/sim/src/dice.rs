//! Everything that is random in a run comes from here, and so from the seed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A source of chance that its users share.
#[derive(Clone, Debug)]
pub(crate) struct Dice(Arc<Mutex<fastrand::Rng>>);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))))
    }

    /// Dice of one's own, so that one user's throws do not change another's.
    pub(crate) fn fork(&self) -> Self {
        Self(Arc::new(Mutex::new(self.with(fastrand::Rng::fork))))
    }

    /// A number of the range, its end excluded.
    pub(crate) fn below(&self, range: std::ops::Range<u64>) -> u64 {
        self.with(|rng| rng.u64(range))
    }

    pub(crate) fn size(&self, range: std::ops::Range<usize>) -> usize {
        self.with(|rng| rng.usize(range))
    }

    /// True once in so many throws.
    pub(crate) fn one_in(&self, throws: u64) -> bool {
        self.below(0..throws) == 0
    }

    pub(crate) fn pick<T: Clone>(&self, choices: &[T]) -> T {
        choices[self.size(0..choices.len())].clone()
    }

    /// Milliseconds of the range, small ones much more often than large ones.
    pub(crate) fn wait(&self, range_ms: std::ops::Range<u64>) -> Duration {
        let octaves = (range_ms.end / range_ms.start.max(1)).max(2).ilog2();
        let end = range_ms.end >> self.below(0..u64::from(octaves) + 1);
        Duration::from_millis(self.below(range_ms.start..end.max(range_ms.start + 1)))
    }

    pub(crate) fn bytes(&self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.with(|rng| rng.fill(&mut bytes));
        bytes
    }

    fn with<T>(&self, throw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        throw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
