//! Relay and agent are stopped and killed while builds write: nothing is lost, doubled or out of order.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::path::Path;
use std::time::Duration;

use millstream_client::{Client, Event, Start, TailOptions};
use millstream_tests::agent::Agent;
use millstream_tests::corpus::{assert_same, variant};
use millstream_tests::files;
use millstream_tests::relay::Relay;
use millstream_tests::wait::{PATIENCE, eventually};
use tokio::task::JoinSet;

const LINES: usize = 40_000;
const ROUNDS: usize = 3;

/// What a subscriber saw of one stream.
struct Followed {
    text: Vec<u8>,
    /// Sequences seen; more than lines where the agent sent an open line before its writer had ended it.
    records: u64,
}

/// Follows the one stream of a test through every restart until it has `total` bytes; checks that the library
/// had to drop nothing and found no hole.
async fn follow_through_restarts(url: String, total: usize) -> Followed {
    let client = Client::connect(url.as_str())
        .await
        .expect("the relay can be reached");
    let options = TailOptions {
        start: Start::Beginning,
        follow: true,
        ..TailOptions::default()
    };
    let mut subscription = client
        .tail(options)
        .await
        .expect("the relay accepts a subscription");
    let mut text = Vec::with_capacity(total);
    let mut next_sequence = 0;
    while text.len() < total {
        let event = tokio::time::timeout(PATIENCE, subscription.next())
            .await
            .expect("something comes");
        match event
            .expect("the subscription resumes by itself")
            .expect("it does not end")
        {
            Event::Lines(lines) => {
                for line in lines.lines() {
                    assert_eq!(line.sequence, next_sequence, "sequences are dense");
                    next_sequence += 1;
                    text.extend_from_slice(line.text);
                    if !line.partial {
                        text.push(b'\n');
                    }
                }
            }
            Event::Gap { gap, .. } => panic!("a gap: {gap:?}"),
            _ => {}
        }
    }
    Followed {
        text,
        records: next_sequence,
    }
}

/// What one round does to the pipeline.
enum Fault {
    RelayStopped,
    RelayKilled,
    AgentKilled,
    BothKilled,
}

async fn survives(faults: &[Fault]) {
    let dir = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(dir.path()).await;
    let path = dir.path().join("build.log");
    let content = variant(11, LINES);
    std::fs::write(&path, b"").unwrap();
    let mut agent = Agent::start(
        dir.path(),
        relay.url(),
        "build-1",
        &["--file", path.to_str().unwrap()],
    )
    .await;
    let mut reader = JoinSet::new();
    reader.spawn(follow_through_restarts(relay.url().to_owned(), content.len()));

    let rounds = ROUNDS * faults.len();
    let writing = write_steadily(&path, &content);
    let breaking = async {
        for (round, fault) in faults.iter().cycle().take(rounds).enumerate() {
            // Spread over the run: each fault comes when its share of the bytes is in the store.
            let share = (content.len() as u64 * (round as u64 + 1)) / (rounds as u64 + 2);
            eventually("the store goes on filling", async || {
                (relay.streams("").await.first()?.text_bytes >= share).then_some(())
            })
            .await;
            match fault {
                Fault::RelayStopped => assert_eq!(relay.stop().await.code(), 0),
                Fault::RelayKilled => relay.kill(),
                Fault::AgentKilled => agent.kill(),
                Fault::BothKilled => {
                    agent.kill();
                    relay.kill();
                }
            }
            if !matches!(fault, Fault::AgentKilled) {
                relay.start_again().await;
            }
            if matches!(fault, Fault::AgentKilled | Fault::BothKilled) {
                agent.start_again().await;
            }
        }
    };
    tokio::join!(writing, breaking);
    let followed = reader.join_next().await.unwrap().unwrap();
    assert_same("what a subscriber saw", &followed.text, &content);
    let stream = relay
        .stream("", |stream| stream.text_bytes >= content.len() as u64)
        .await;
    let stored = relay.raw_of(stream.stream_id, content.len()).await;
    assert_same("what is stored", &stored, &content);
    let stream = relay.stream("", |_| true).await;
    // Not `LINES`: a writer that stalls in the middle of a line has that line sent in two pieces.
    assert_eq!(stream.next_sequence, followed.records, "{stream:?}");
}

/// About four seconds of writing, in pieces that end in the middle of lines.
async fn write_steadily(path: &Path, content: &[u8]) {
    let pieces = 400;
    for piece in content.chunks(content.len() / pieces) {
        files::append(path, piece);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_stopped_under_load_loses_and_doubles_nothing() {
    survives(&[Fault::RelayStopped]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_killed_under_load_loses_and_doubles_nothing() {
    survives(&[Fault::RelayKilled]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_killed_under_load_loses_and_doubles_nothing() {
    survives(&[Fault::AgentKilled]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_and_agent_that_are_killed_together_lose_and_double_nothing() {
    survives(&[Fault::BothKilled]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_rotates_while_its_agent_is_killed_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let path = dir.path().join("build.log");
    let content = variant(5, 8_000);
    std::fs::write(&path, b"").unwrap();
    let mut agent = Agent::start(
        dir.path(),
        relay.url(),
        "build-1",
        &["--file", path.to_str().unwrap()],
    )
    .await;
    let quarters: Vec<&[u8]> = content.chunks(content.len() / 4 + 1).collect();
    for (number, quarter) in quarters.iter().enumerate() {
        let before: u64 = quarters[..number]
            .iter()
            .map(|quarter| quarter.len() as u64)
            .sum();
        let stored = async |bytes: u64| relay.stream("", |stream| stream.text_bytes >= bytes).await;
        let is_killed = number == 1;
        if is_killed {
            // Once it has begun with the new file it is killed with the rest unread or on its way.
            let (begin, rest) = quarter.split_at(quarter.len() / 2);
            files::append_in_pieces(&path, begin).await;
            stored(before + 10_000).await;
            files::append(&path, rest);
            agent.kill();
        } else {
            files::append_in_pieces(&path, quarter).await;
            stored(before + quarter.len() as u64).await;
        }
        if number < 3 {
            std::fs::rename(&path, dir.path().join(format!("build.log.{number}"))).unwrap();
            std::fs::write(&path, b"").unwrap();
        }
        if is_killed {
            agent.start_again().await;
        }
    }
    let stream = relay
        .stream("", |stream| stream.text_bytes >= content.len() as u64)
        .await;
    let stored = relay.raw_of(stream.stream_id, content.len()).await;
    assert_same("a rotated file", &stored, &content);
}
