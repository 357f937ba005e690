//! `millstream-torture`: breaks real agents, relays and networks again and again, and compares every line.
//! `cargo xtask torture` builds what it needs and runs it.

use std::process::ExitCode;

use clap::Parser;
use millstream_tests::torture;

/// Break real agents, relays and networks again and again, and compare every line.
#[derive(Debug, Parser)]
struct Cli {
    /// Faults, one after the other.
    #[arg(long, default_value_t = 1000)]
    cycles: usize,
    /// Decides everything that is random [default: one of the clock's].
    #[arg(long)]
    seed: Option<u64>,
}

/// Shown when a helper of the harness gives up by panicking, too.
struct Place {
    seed: u64,
    dir: std::path::PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "torture: seed {}; everything is left in {}",
                self.seed,
                self.dir.display()
            );
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let seed = cli.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let dir = match tempfile::Builder::new().prefix("millstream-torture-").tempdir() {
        Ok(dir) => dir.keep(),
        Err(error) => {
            eprintln!("torture: no temporary directory: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("torture: {} cycles, seed {seed}", cli.cycles);
    let place = Place { seed, dir };
    let progress = |tally: &torture::Tally| {
        println!(
            "    {:>5} cycles, {:>4} s: {} comparisons, nothing lost, doubled or out of order",
            tally.cycles,
            tally.took.as_secs(),
            tally.comparisons
        );
    };
    match torture::run(&place.dir, cli.cycles, seed, progress).await {
        Ok(tally) => {
            println!("\n{}", tally.table());
            if let Err(error) = std::fs::remove_dir_all(&place.dir) {
                eprintln!("torture: {} cannot be removed: {error}", place.dir.display());
            }
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!(
                "torture: seed {seed}, {problem}\ntorture: everything is left in {}; run it again with --cycles {} \
                 --seed {seed}",
                place.dir.display(),
                cli.cycles
            );
            ExitCode::FAILURE
        }
    }
}
