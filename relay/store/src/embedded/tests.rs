//! Tests of the embedded store: the contract, and what stands beyond it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::conformance::{self, append, check_lines, stream};

/// A clock that tests set, in seconds.
#[derive(Clone, Default)]
struct Seconds(Arc<AtomicU64>);

impl Seconds {
    fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }

    fn options(&self) -> EmbeddedOptions {
        let seconds = self.clone();
        EmbeddedOptions {
            clock: Clock::new(move || Duration::from_secs(seconds.0.load(Ordering::Relaxed))),
            ..EmbeddedOptions::default()
        }
    }
}

fn open(dir: &Path) -> EmbeddedStore {
    EmbeddedStore::open(dir, EmbeddedOptions::default()).unwrap()
}

fn settle(store: &EmbeddedStore) {
    while store.maintain().unwrap() {}
}

fn block_count(store: &EmbeddedStore, stream_id: u64) -> usize {
    store.read_blocks(stream_id, 0, usize::MAX).unwrap().len()
}

/// Runs the contract's checks on stores in directories of their own.
fn check_contract(options: impl Fn() -> EmbeddedOptions) {
    let root = tempfile::tempdir().unwrap();
    let made = AtomicU64::new(0);
    let path_of = |number: u64| root.path().join(number.to_string());
    conformance::run(
        || {
            let number = made.fetch_add(1, Ordering::Relaxed);
            EmbeddedStore::open(&path_of(number), options()).unwrap()
        },
        |store| {
            drop(store);
            let number = made.load(Ordering::Relaxed) - 1;
            EmbeddedStore::open(&path_of(number), options()).unwrap()
        },
    );
}

#[test]
fn it_keeps_the_contract() {
    check_contract(EmbeddedOptions::default);
}

#[test]
fn it_keeps_the_contract_when_everything_settles_at_once() {
    check_contract(|| EmbeddedOptions {
        settle_text_bytes: 1,
        settle_idle: Duration::ZERO,
        ..EmbeddedOptions::default()
    });
}
