//! `millstream-torture`: breaks real agents, relays and networks again and again, and compares every line.
//! `cargo xtask torture` builds what it needs and runs it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use millstream_tests::torture;

/// Break real agents, relays and networks again and again, and compare every line.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Faults, one after the other.
    #[arg(long, default_value_t = 1000)]
    cycles: usize,
    /// Decides everything that is random [default: one of the clock's].
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Writes the lines of a run; started by the agents under test.
    #[command(hide = true)]
    WriteLines { socket: PathBuf, source: usize },
}

/// Shown when a helper of the harness gives up by panicking, too.
struct Place {
    seed: u64,
    dir: PathBuf,
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

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Command::WriteLines { socket, source }) = &cli.command {
        return match torture::run::write_lines(socket, *source) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(torture(&cli)),
        Err(error) => {
            eprintln!("torture: cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn torture(cli: &Cli) -> ExitCode {
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
