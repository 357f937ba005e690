//! Many seeds on many threads; each run has a thread to itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::{Options, Outcome, run};

/// Processor time for each thread in which a run ends; most take a tenth of a second. A run that takes longer turns in
/// circles without virtual time going on. Not real time: a machine may have much else to do.
const LIMIT: Duration = Duration::from_secs(60);

/// What a number of runs came to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub seeds: u64,
    pub failed: u64,
    pub events: u64,
    /// Virtual time of all runs.
    pub took: Duration,
    /// Of the hashes of all runs: the same whenever the same seeds were run.
    pub hash: u64,
}

/// Runs `count` seeds from `first` on and shows each outcome as it comes. Begins no further one after `look` has
/// returned false. Ends the process with words when a run does not end.
pub fn sweep(
    first: u64,
    count: u64,
    threads: usize,
    options: Options,
    look: impl Fn(&Outcome) -> bool + Sync,
) -> Tally {
    let next = AtomicU64::new(0);
    let is_enough = AtomicBool::new(false);
    let tally = Mutex::new(Tally::default());
    let running = Mutex::new(BTreeMap::<u64, Duration>::new());
    let (all_done, is_done) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let running = &running;
        let limit = LIMIT * u32::try_from(threads).unwrap_or(u32::MAX);
        scope.spawn(move || watch(running, limit, &is_done));
        for _ in 0..threads {
            let all_done = all_done.clone();
            let (next, is_enough, tally, running, look) = (&next, &is_enough, &tally, running, &look);
            scope.spawn(move || {
                // Its end tells the watcher, also by a panic.
                let _all_done = all_done;
                while !is_enough.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let seed = first.wrapping_add(number);
                    let running = || running.lock().unwrap_or_else(PoisonError::into_inner);
                    running().insert(seed, processor_time());
                    let outcome = run(seed, options);
                    running().remove(&seed);
                    if !look(&outcome) {
                        is_enough.store(true, Ordering::Relaxed);
                    }
                    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                    tally.seeds += 1;
                    tally.failed += u64::from(!outcome.breaches.is_empty());
                    tally.events += outcome.events;
                    tally.took += outcome.took;
                    // In whatever order they come.
                    tally.hash = tally.hash.wrapping_add(outcome.hash);
                }
            });
        }
        drop(all_done);
    });
    tally.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Looks after runs until all of them are over.
fn watch(running: &Mutex<BTreeMap<u64, Duration>>, limit: Duration, is_done: &mpsc::Receiver<()>) {
    while is_done.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
        let running = running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((seed, _)) = running
            .iter()
            .find(|(_, began)| processor_time().saturating_sub(**began) > limit)
        {
            eprintln!(
                "seed {seed}: does not end; run it with `cargo xtask sim --seeds 1 --seed {seed} --trace`"
            );
            std::process::exit(1);
        }
    }
}

/// Of this process.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
