//! Callers that misbehave, for `tests/misbehave.rs`: each attack goes on until standard input ends, then one JSON object
//! on standard output says how much it did.
//!
//! The frames are written by hand: no HTTP library would send them.

mod attacks;
mod frames;

use std::io::Read as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinSet;

/// Callers that misbehave, until standard input ends.
#[derive(Debug, Parser)]
struct Cli {
    attack: Attack,
    /// Host and port of the relay.
    #[arg(long)]
    relay: String,
    /// Connections at a time; threads, where it is none.
    #[arg(long)]
    connections: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Attack {
    /// Connections that send nothing, opened again when the relay closes them.
    Silent,
    /// Requests and messages, one byte at a time.
    Dribble,
    /// Calls that are begun and reset, as fast as the connection takes it.
    Reset,
    /// Subscriptions to everything that is stored, of which nothing is read.
    Stuck,
    /// Regular expressions whose automata explode, in searches, pages and subscriptions.
    Regex,
    /// Nothing that concerns the relay: so many threads that compute, to compare with.
    Compute,
    /// Blocks that unpack to more than they say, messages that say more than they may, endless headers.
    Bombs,
}

/// What was done.
#[derive(Debug, Default)]
struct Tally {
    /// Connections that were opened.
    opened: AtomicU64,
    /// Connections that the relay closed.
    closed: AtomicU64,
    /// Things done on them: bytes, calls, messages, by attack.
    done: AtomicU64,
    /// Answers that named a limit.
    refused: AtomicU64,
}

impl Tally {
    fn count(place: &AtomicU64) {
        place.fetch_add(1, Ordering::Relaxed);
    }

    fn print(&self) {
        let of = |place: &AtomicU64| place.load(Ordering::Relaxed);
        println!(
            "{}",
            serde_json::json!({
                "opened": of(&self.opened), "closed": of(&self.closed),
                "done": of(&self.done), "refused": of(&self.refused),
            })
        );
    }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("millstream-hostile: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).context("raising the limit of file descriptors")?;
    if matches!(cli.attack, Attack::Compute) {
        return compute(cli.connections);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(attack(cli))
}

async fn attack(cli: Cli) -> anyhow::Result<()> {
    let tally = Arc::<Tally>::default();
    let target = tokio::net::lookup_host(&cli.relay)
        .await?
        .next()
        .context("the relay has no address")?;
    let mut attackers = JoinSet::new();
    for number in 0..cli.connections {
        let tally = Arc::clone(&tally);
        match cli.attack {
            Attack::Silent => attackers.spawn(attacks::silent(target, number, tally)),
            Attack::Dribble => attackers.spawn(attacks::dribble(target, number, tally)),
            Attack::Reset => attackers.spawn(attacks::reset(target, number, tally)),
            Attack::Stuck => attackers.spawn(attacks::stuck(target, number, tally)),
            Attack::Regex => attackers.spawn(attacks::regex(target, number, tally)),
            // It has no connections.
            Attack::Compute => continue,
            Attack::Bombs => attackers.spawn(attacks::bombs(target, number, tally)),
        };
    }
    let mut nothing = Vec::new();
    tokio::io::stdin().read_to_end(&mut nothing).await?;
    attackers.abort_all();
    tally.print();
    Ok(())
}

/// Keeps so many processors busy until standard input ends.
fn compute(threads: u32) -> anyhow::Result<()> {
    let is_over = AtomicBool::new(false);
    let tally = Tally::default();
    let ended = std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    Tally::count(&tally.done);
                }
            });
        }
        let ended = std::io::stdin().read_to_end(&mut Vec::new());
        is_over.store(true, Ordering::Relaxed);
        ended
    });
    ended?;
    tally.print();
    Ok(())
}
