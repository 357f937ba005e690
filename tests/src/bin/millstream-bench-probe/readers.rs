//! Readers at the end of each pipeline.

use std::fs::File;
use std::io::{Read, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use millstream_client::{Client, Event, Start, TailOptions};
use serde_json::Value;

use crate::Goal;
use crate::tally::Tally;

const READ_BYTES: usize = 256 << 10;
/// Between two looks at a file that has not grown: what it adds to the latencies measured through a file.
const FILE_TICK: Duration = Duration::from_micros(200);

/// Follows every stream of a relay (there is one). The client library fails on a missing line; the sequences are
/// checked again here.
pub(crate) fn subscribe(relay: &str, goal: Goal) -> Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client = Client::connect(relay).await?;
        let options = TailOptions {
            start: Start::Beginning,
            follow: true,
            ..TailOptions::default()
        };
        let mut subscription = client.tail(options).await?;
        ready("")?;
        let mut tally = Tally::new(goal);
        let mut next_sequence = 0;
        while !tally.is_complete() {
            match subscription
                .next()
                .await?
                .context("the subscription ended early")?
            {
                Event::Lines(lines) => {
                    let block = lines.block();
                    if block.first_sequence() != next_sequence {
                        bail!(
                            "line {next_sequence} was expected and {} came",
                            block.first_sequence()
                        );
                    }
                    next_sequence = block.next_sequence();
                    tally.add(block.text());
                }
                Event::Gap { gap, .. } => bail!("lines are missing: {gap:?}"),
                _ => {}
            }
        }
        // A subscriber may see a line before it is durable; the run is over when all are.
        loop {
            let streams = client.list_streams("").all().await?;
            if streams.iter().map(|stream| stream.next_sequence).sum::<u64>() >= goal.lines {
                return Ok(tally.report());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
}

pub(crate) fn tcp(goal: Goal) -> Result<Value> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    ready(&format!(" {}", listener.local_addr()?.port()))?;
    let (connection, _) = listener.accept()?;
    until_complete(connection, goal, || bail!("the connection was closed early"))
}

pub(crate) fn file(path: &Path, goal: Goal) -> Result<Value> {
    let file = File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    ready("")?;
    // A channel that nobody sends to: its timed receive is a wait.
    let (_sender, never) = mpsc::channel::<()>();
    until_complete(file, goal, || {
        never.recv_timeout(FILE_TICK).ok();
        Ok(())
    })
}

/// Reads until the goal is reached; `at_end` decides what the end of input means.
fn until_complete(mut input: impl Read, goal: Goal, at_end: impl Fn() -> Result<()>) -> Result<Value> {
    let mut tally = Tally::new(goal);
    let mut buffer = vec![0; READ_BYTES];
    while !tally.is_complete() {
        match input.read(&mut buffer)? {
            0 => at_end()?,
            read => tally.add(&buffer[..read]),
        }
    }
    Ok(tally.report())
}

/// Tells that the measured part may begin.
fn ready(more: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "ready{more}")?;
    Ok(stdout.flush()?)
}
