//! Real agents, a real relay, real files and real runs, broken again and again by a seed's choice, and compared byte
//! for byte: what is stored with what was written, and what each live subscriber saw.
//!
//! [`source`] writes and rotates files, [`run`] writes as the command of an `exec` source, [`watcher`] subscribes, [`verdict`] compares, [`fault`] chooses and does what
//! goes wrong, [`world`] holds all of it for some cycles on fresh directories. Everything random comes from the seed;
//! what the operating system makes of it does not, so a seed is where to look and no replay.

pub mod fault;
pub mod run;
pub mod source;
pub mod verdict;
pub mod watcher;
pub mod world;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use fault::Fault;
use verdict::Verdict;
use world::World;

/// Cycles on one set of directories.
const CYCLES_PER_WORLD: usize = 50;
/// Cycles between two comparisons.
const CYCLES_PER_CHECK: usize = 10;

/// What was done and what came of it.
#[derive(Debug, Default)]
pub struct Tally {
    pub cycles: usize,
    pub faults: BTreeMap<Fault, u64>,
    pub rotations: u64,
    pub runs: u64,
    /// Runs whose supervisor was killed.
    pub lost_runs: u64,
    pub lines: u64,
    pub bytes: u64,
    pub comparisons: u64,
    pub verdict: Verdict,
    pub took: Duration,
}

impl Tally {
    /// As Markdown.
    pub fn table(&self) -> String {
        let mut rows = vec![("cycles".to_owned(), self.cycles as u64)];
        rows.extend(
            self.faults
                .iter()
                .map(|(fault, times)| (format!("fault: {fault}"), *times)),
        );
        rows.extend([
            ("rotations of files".to_owned(), self.rotations),
            ("runs of commands".to_owned(), self.runs),
            (
                "of them lost with their supervisor, complete up to what it had spooled".to_owned(),
                self.lost_runs,
            ),
            ("lines written".to_owned(), self.lines),
            ("bytes written".to_owned(), self.bytes),
            (
                "comparisons of a stream or of what a subscriber saw of it".to_owned(),
                self.comparisons,
            ),
            ("lines lost".to_owned(), self.verdict.lost),
            ("lines doubled".to_owned(), self.verdict.doubled),
            ("lines out of order".to_owned(), self.verdict.reordered),
            ("lines with other bytes".to_owned(), self.verdict.garbled),
            ("seconds".to_owned(), self.took.as_secs()),
        ]);
        let mut table = "| what | count |\n|---|---:|\n".to_owned();
        for (what, count) in rows {
            table.push_str(&format!("| {what} | {count} |\n"));
        }
        table
    }
}

/// Runs so many cycles. `progress` is told after each comparison.
///
/// # Errors
/// The first difference, with the cycle it was found in.
pub async fn run(
    dir: &Path,
    cycles: usize,
    seed: u64,
    mut progress: impl FnMut(&Tally),
) -> Result<Tally, String> {
    let begin = Instant::now();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut tally = Tally::default();
    while tally.cycles < cycles {
        let world_dir = dir.join(format!("from-{}", tally.cycles));
        std::fs::create_dir_all(&world_dir).map_err(|error| error.to_string())?;
        let mut world = World::start(&world_dir, random.fork()).await;
        let in_this = CYCLES_PER_WORLD.min(cycles - tally.cycles);
        for cycle in 1..=in_this {
            let fault = world.cycle(&mut random).await?;
            *tally.faults.entry(fault).or_default() += 1;
            tally.cycles += 1;
            if cycle % CYCLES_PER_CHECK == 0 || cycle == in_this {
                let found = world.compare(&mut tally).await;
                found.map_err(|problem| format!("cycle {}: {problem}", tally.cycles))?;
                tally.took = begin.elapsed();
                progress(&tally);
            }
        }
        let finished = world.finish(&mut tally).await;
        finished.map_err(|problem| format!("at the end of cycle {}: {problem}", tally.cycles))?;
        // What was right needs no room any longer.
        std::fs::remove_dir_all(&world_dir).map_err(|error| error.to_string())?;
    }
    Ok(tally)
}
