//! `millstream-sim`: runs seeds of the simulation on all cores and says which broke a promise. `cargo xtask sim`
//! builds and runs it.

use std::num::NonZero;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use millstream_sim::{Options, Outcome, sweep};

/// Run agent, relay and client on a virtual network and clock, with everything decided by a seed.
#[derive(Debug, Parser)]
struct Cli {
    /// How many seeds, one after the other.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed [default: one of the clock's; it is printed].
    #[arg(long)]
    seed: Option<u64>,
    /// Print every event, and what the product logs; for one seed.
    #[arg(long)]
    trace: bool,
    /// Threads that run seeds [default: the number of cores].
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let first = cli.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    if cli.trace {
        tracing_subscriber::fmt()
            .without_time()
            .with_writer(std::io::stderr)
            .init();
    }
    let options = Options {
        mutant: None,
        is_printed: cli.trace,
    };
    println!("simulation: {} seeds from {first}", cli.seeds);
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let began = Instant::now();
    let done = AtomicU64::new(0);
    let tally = sweep(
        first,
        cli.seeds,
        cli.threads.unwrap_or(cores),
        options,
        |outcome| {
            if !outcome.breaches.is_empty() {
                tell(outcome);
            }
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if done.is_multiple_of(1000) {
                println!("    {done} seeds, {} s", began.elapsed().as_secs());
            }
            true
        },
    );
    let took = began.elapsed().as_secs_f64();
    println!(
        "simulation: {} seeds from {first}, {} failed; {took:.0} s, {:.0} seeds a minute, {:.0} h of virtual time, \
         {:.1} million events with hash {:016x}",
        tally.seeds,
        tally.failed,
        tally.seeds as f64 / took * 60.0,
        tally.took.as_secs_f64() / 3600.0,
        tally.events as f64 / 1e6,
        tally.hash,
    );
    if tally.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn tell(outcome: &Outcome) {
    eprintln!(
        "seed {}: run it again with `cargo xtask sim --seeds 1 --seed {} --trace`",
        outcome.seed, outcome.seed
    );
    for breach in outcome.breaches.iter().take(10) {
        eprintln!("    {breach}");
    }
}
