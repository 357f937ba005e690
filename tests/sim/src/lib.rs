//! A deterministic simulation: the real agent (outbox and uplink), the real relay (ingest, writer, subscriptions,
//! services) and the real client on a virtual network, a virtual clock and one thread. One seed decides
//! everything: what builds write, which network, disk and processes fail, when and for how long.
//!
//! [`run`] runs a seed and says which promises were broken. Inside, [`world`] is the run; [`log`] what is written;
//! [`source`], [`process`] and [`reader`] put the product on top of [`net`] and [`disk`]; [`faults`] is what can go
//! wrong; [`tamper`] and [`mutant`] are ways to be wrong on purpose. Sources are modelled: what they do with files
//! is `agent/tests/model.rs`'s to show.
//!
//! Not turmoil, because it gives each host a runtime of its own and moves them all on by fixed ticks; here the
//! clock jumps to the next event, which is what makes thousands of seeds a matter of minutes.

mod dice;
mod disk;
mod faults;
mod log;
mod mutant;
mod net;
mod process;
mod reader;
mod source;
mod sweep;
mod tamper;
mod trace;
mod world;

use std::cell::Cell;
use std::sync::Once;
use std::time::Duration;

pub use mutant::Mutant;
pub use sweep::{Tally, sweep};

use dice::Dice;
use trace::Trace;
use world::World;

/// How to run a seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Be wrong in this way.
    pub mutant: Option<Mutant>,
    /// Print every event.
    pub is_printed: bool,
}

/// What a run showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub seed: u64,
    /// Promises that were broken, in words; none in a good run.
    pub breaches: Vec<String>,
    /// Of every event in order: the same for every run of a seed.
    pub hash: u64,
    pub events: u64,
    /// Virtual time.
    pub took: Duration,
}

/// Runs a seed on this thread.
///
/// # Panics
/// When the clock cannot be made.
#[must_use]
pub fn run(seed: u64, options: Options) -> Outcome {
    note_panics();
    // Jitter of the product's waits.
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing from the system");
    let panics = PANICS.get();
    runtime.block_on(async {
        let dice = Dice::new(seed);
        let trace = Trace::new(options.is_printed);
        World::draw(&dice, &trace, options.mutant).run(&dice).await;
        if PANICS.get() > panics {
            trace.breach(format_args!("a task panicked; its message is above"));
        }
        let (hash, events) = trace.digest();
        Outcome {
            seed,
            breaches: trace.breaches(),
            hash,
            events,
            took: trace.elapsed(),
        }
    })
}

thread_local! {
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

/// The runtime catches panics of tasks that nobody waits for; here they count.
fn note_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.set(PANICS.get() + 1);
            before(panic);
        }));
    });
}
