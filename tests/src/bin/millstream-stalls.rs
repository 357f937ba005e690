//! Says when the machine itself stood still: a thread on each processor pauses for a moment again and again, and a line on
//! standard output tells when it came back late ("from until", microseconds since the Unix epoch). Run with a real-time
//! policy (`chrt --fifo 1`, see sched(7)) nothing that an ordinary process computes can delay it: only the kernel (which may not
//! be interrupted here and there, in its own threads and on behalf of a process) and the machine's host do. Ends with standard input.

use std::io::Read as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

const PAUSE: Duration = Duration::from_micros(250);

/// So much later than asked for counts.
const LATE: Duration = Duration::from_micros(250);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("millstream-stalls: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> std::io::Result<()> {
    let allowed = sched_getaffinity(None)?;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watchers: Vec<_> = (0..CpuSet::MAX_CPU)
            .filter(|processor| allowed.is_set(*processor))
            .map(|processor| {
                scope.spawn({
                    let is_over = &is_over;
                    move || watch(processor, is_over)
                })
            })
            .collect();
        let ended = std::io::stdin().read_to_end(&mut Vec::new());
        is_over.store(true, Ordering::Relaxed);
        for watcher in watchers {
            watcher
                .join()
                .unwrap_or_else(|_| Err(std::io::Error::other("a watcher panicked")))?;
        }
        ended.map(drop)
    })
}

#[allow(
    clippy::disallowed_methods,
    reason = "how late it comes back is what is measured"
)]
fn watch(processor: usize, is_over: &AtomicBool) -> std::io::Result<()> {
    let mut only = CpuSet::new();
    only.set(processor);
    sched_setaffinity(None, &only)?;
    while !is_over.load(Ordering::Relaxed) {
        let asleep = SystemTime::now();
        std::thread::sleep(PAUSE);
        let awake = SystemTime::now();
        if awake
            .duration_since(asleep)
            .is_ok_and(|slept| slept > PAUSE + LATE)
        {
            println!("{} {}", unix_us(asleep), unix_us(awake));
        }
    }
    Ok(())
}

fn unix_us(time: SystemTime) -> u128 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_micros()
}
