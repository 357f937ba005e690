//! Many readers at once: filters, speeds, and one that stops reading for a while.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::time::Duration;

use millstream_proto::v1::{Filter, TailRequest};
use millstream_tests::agent::Agent;
use millstream_tests::corpus::{assert_same, variant};
use millstream_tests::files;
use millstream_tests::reader::{Reader, follow};
use millstream_tests::relay::Relay;
use millstream_tests::wait::eventually;
use tokio::sync::watch;
use tokio::task::JoinSet;

const SUBSCRIBERS: usize = 20;
const LINES: usize = 30_000;
/// About this much is written at a time.
const PIECE_BYTES: usize = 16_000;
/// The subscriber that stops.
const SLEEPER: usize = 7;

/// What a line must contain for a subscriber to get it.
fn wanted(subscriber: usize) -> Option<&'static str> {
    [
        None,
        Some("gcc"),
        Some("checking"),
        Some("-fPIC"),
        Some("install"),
    ][subscriber % 5]
}

fn request(subscriber: usize) -> TailRequest {
    let filter = wanted(subscriber).map(|text| match subscriber % 2 {
        0 => Filter {
            substring: text.into(),
            ..Default::default()
        },
        _ => Filter {
            regex: format!("(?:{})", text.replace('-', r"\-")),
            ..Default::default()
        },
    });
    TailRequest {
        filter,
        ..follow("host=build-1")
    }
}

fn expected(subscriber: usize, content: &[u8]) -> Vec<u8> {
    let lines = content.split_inclusive(|byte| *byte == b'\n');
    match wanted(subscriber) {
        None => content.to_vec(),
        Some(text) => lines
            .filter(|line| memchr::memmem::find(line, text.as_bytes()).is_some())
            .flatten()
            .copied()
            .collect(),
    }
}

/// The end of the line in which byte `at` stands.
fn line_end(content: &[u8], at: usize) -> usize {
    memchr::memchr(b'\n', &content[at..]).map_or(content.len(), |distance| at + distance + 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_subscribers_of_different_filters_and_speeds_all_get_everything_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let path = dir.path().join("build.log");
    let content = variant(3, LINES);
    // A filter sees pieces of a line when a line comes in pieces; here lines are written whole.
    let half = line_end(&content, content.len() / 2);
    std::fs::write(&path, &content[..half]).unwrap();
    let mut agent = Agent::start(
        dir.path(),
        relay.url(),
        "build-1",
        &["--file", path.to_str().unwrap()],
    )
    .await;

    let (others_done, all_others) = watch::channel(0_usize);
    let mut subscribers = JoinSet::new();
    for subscriber in 0..SUBSCRIBERS {
        let mut reader = Reader::start(relay.log_service(), request(subscriber))
            .await
            .unwrap();
        let want = expected(subscriber, &content);
        let others_done = others_done.clone();
        let mut all_others = all_others.clone();
        subscribers.spawn(async move {
            if subscriber == SLEEPER {
                // It reads one message, then nothing until everybody else has everything.
                reader.step().await.unwrap();
                all_others
                    .wait_for(|done| *done == SUBSCRIBERS - 1)
                    .await
                    .unwrap();
            }
            while reader.text_bytes() < want.len() {
                assert!(
                    reader.step().await.unwrap(),
                    "subscriber {subscriber}: the subscription ended"
                );
                // From as fast as it can to some hundred messages a second.
                tokio::time::sleep(Duration::from_millis(subscriber as u64 % 4)).await;
            }
            let text = &reader.copies.values().next().unwrap().text;
            assert_same(&format!("subscriber {subscriber}"), text, &want);
            others_done.send_modify(|done| *done += 1);
        });
    }
    let mut written = half;
    while written < content.len() {
        let end = line_end(&content, content.len().min(written + PIECE_BYTES));
        files::append(&path, &content[written..end]);
        written = end;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    eventually("everything is stored", async || {
        (relay.streams("").await.first()?.text_bytes >= content.len() as u64).then_some(())
    })
    .await;
    while let Some(subscriber) = subscribers.join_next().await {
        subscriber.unwrap();
    }
    agent.stop().await;
}
