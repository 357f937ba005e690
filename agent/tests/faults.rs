//! The uplink against a relay that misbehaves.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use millstream_proto::v1;
use support::agent::{RunningAgent, file_config};
use support::{FakeRelay, Listening};

const CORPUS: &[u8] = include_bytes!("../src/lines.rs");

struct Stage {
    relay: FakeRelay,
    listening: Listening,
    directory: tempfile::TempDir,
}

impl Stage {
    async fn new() -> Self {
        let relay = FakeRelay::new();
        let listening = relay.listen().await;
        Self {
            relay,
            listening,
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("a.log")
    }

    fn start(&self) -> RunningAgent {
        RunningAgent::start(&self.listening.url(), "a", &file_config(&self.path(), ""))
    }
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap()
        .write_all(bytes)
        .unwrap();
}

fn instance(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn connections_that_break_anywhere_lose_and_double_nothing() {
    let stage = Stage::new().await;
    let agent = stage.start();
    let mut expected = Vec::new();
    for round in 0..40 {
        stage
            .relay
            .set_faults(|faults| faults.drop_after = Some(fastrand::usize(..6)));
        for _ in 0..20 {
            let from = fastrand::usize(..CORPUS.len() / 2);
            let bytes = &CORPUS[from..from + fastrand::usize(1..3000)];
            append(&stage.path(), bytes);
            expected.extend_from_slice(bytes);
            tokio::task::yield_now().await;
        }
        if round % 4 == 0 {
            stage.relay.until_raw(&instance(&stage.path()), &expected).await;
        }
    }
    let stream = stage.relay.until_raw(&instance(&stage.path()), &expected).await;
    assert_eq!(stream.notices(), Vec::<String>::new());
    assert!(stage.relay.sessions() > 5, "{} sessions", stage.relay.sessions());
    agent.stop().await;
}

#[tokio::test]
async fn a_gap_that_the_relay_reports_is_filled() {
    let stage = Stage::new().await;
    let agent = stage.start();
    let mut expected = Vec::new();
    for round in 0..10 {
        stage
            .relay
            .set_faults(|faults| faults.lose_block_once = round % 2 == 1);
        for line in 0..50 {
            let text = format!("round {round} line {line}\n");
            append(&stage.path(), text.as_bytes());
            expected.extend(text.into_bytes());
        }
        let seen = format!("round {round}");
        if round % 2 == 0 {
            stage.relay.until_raw(&instance(&stage.path()), &expected).await;
        } else {
            stage
                .relay
                .until(&seen, |relay| (!relay.faults().lose_block_once).then_some(()))
                .await;
        }
    }
    append(&stage.path(), b"the last line\n");
    expected.extend(b"the last line\n");
    let stream = stage.relay.until_raw(&instance(&stage.path()), &expected).await;
    assert_eq!(stream.notices(), Vec::<String>::new());
    agent.stop().await;
}

#[tokio::test]
async fn a_block_that_the_relay_cannot_take_is_replaced_by_a_notice() {
    let stage = Stage::new().await;
    append(&stage.path(), b"one\n");
    let agent = stage.start();
    stage.relay.until_raw(&instance(&stage.path()), b"one\n").await;
    stage.relay.set_faults(|faults| faults.malformed_once = true);
    append(&stage.path(), b"refused\n");
    let refused = |relay: &FakeRelay| {
        relay
            .stream(&instance(&stage.path()))
            .filter(|s| !s.notices().is_empty())
    };
    let stream = stage.relay.until("the notice", refused).await;
    assert!(
        stream.notices()[0].starts_with("block-refused: 1 lines"),
        "{:?}",
        stream.notices()
    );
    append(&stage.path(), b"three\n");
    stage
        .relay
        .until_raw(&instance(&stage.path()), b"one\nthree\n")
        .await;
    agent.stop().await;
}

#[tokio::test]
async fn a_relay_that_asks_to_wait_gets_everything_later() {
    let stage = Stage::new().await;
    stage.relay.set_faults(|faults| faults.throttle_ms = Some(100));
    append(&stage.path(), b"one\n");
    let agent = stage.start();
    stage.relay.until_raw(&instance(&stage.path()), b"one\n").await;
    agent.stop().await;
}

#[tokio::test]
async fn a_small_window_is_respected_and_large_files_still_arrive() {
    let stage = Stage::new().await;
    stage
        .relay
        .set_faults(|faults| faults.max_unacked_bytes = Some(50_000));
    let mut expected = Vec::new();
    for _ in 0..200 {
        expected.extend_from_slice(CORPUS);
    }
    fs::write(stage.path(), &expected).unwrap();
    let agent = stage.start();
    stage.relay.until_raw(&instance(&stage.path()), &expected).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_busy_stream_does_not_hold_up_the_others() {
    let stage = Stage::new().await;
    let directory = stage.directory.path();
    let mut busy = Vec::new();
    for _ in 0..2000 {
        busy.extend_from_slice(CORPUS);
    }
    fs::write(directory.join("busy.log"), &busy).unwrap();
    let quiet: Vec<_> = (0..10)
        .map(|index| directory.join(format!("quiet-{index}.log")))
        .collect();
    for path in &quiet {
        append(path, b"one line\n");
    }
    let config = file_config(&directory.join("*.log"), "");
    let agent = RunningAgent::start(&stage.listening.url(), "a", &config);
    let busy_path = directory.join("busy.log");
    for path in &quiet {
        stage.relay.until_raw(&instance(path), b"one line\n").await;
    }
    let arrived = stage
        .relay
        .stream(&instance(&busy_path))
        .map_or(0, |stream| stream.raw().len());
    assert!(
        arrived < busy.len(),
        "the quiet files had to wait for all {arrived} bytes of the busy one"
    );
    agent.kill().await;
}

#[tokio::test]
async fn an_ended_stream_whose_acknowledgement_was_lost_is_settled_by_the_next_session() {
    let stage = Stage::new().await;
    stage.relay.set_faults(|faults| faults.silent = true);
    let config = "[sources.run]\nplugin = \"exec\"\ncommand = [\"echo\", \"hi\"]\n";
    let agent = RunningAgent::start(&stage.listening.url(), "a", config);
    let ended = |relay: &FakeRelay| relay.streams().into_iter().find(|stream| stream.end.is_some());
    let stream = stage.relay.until("the end", ended).await;
    assert_eq!(stream.raw(), b"hi\n");
    let address = stage.listening.address;
    stage.listening.stop().await;
    stage.relay.set_faults(|faults| faults.silent = false);
    let _again = stage.relay.listen_on(address).await;
    stage
        .relay
        .until("the second session", |relay| {
            (relay.sessions() == 2).then_some(())
        })
        .await;
    agent.stop().await;
    assert_eq!(stage.relay.streams().len(), 1);
}

#[tokio::test]
async fn the_output_of_a_command_is_sent_again_from_its_spool_when_the_store_was_lost() {
    let stage = Stage::new().await;
    let gate = stage.directory.path().join("gate");
    let script = format!(
        "echo before; while ! test -e {}; do sleep 0.05; done; echo after",
        gate.display()
    );
    let config = format!("[sources.run]\nplugin = \"exec\"\ncommand = [\"sh\", \"-c\", {script:?}]\n");
    let agent = RunningAgent::start(&stage.listening.url(), "a", &config);
    let stream_with = |text: &'static [u8]| {
        move |relay: &FakeRelay| relay.streams().into_iter().find(|stream| stream.raw() == text)
    };
    stage
        .relay
        .until("the first line", stream_with(b"before\n"))
        .await;
    let address = stage.listening.address;
    stage.listening.stop().await;
    stage.relay.wipe();
    let _again = stage.relay.listen_on(address).await;
    fs::write(gate, "").unwrap();
    let stream = stage
        .relay
        .until("both lines", stream_with(b"before\nafter\n"))
        .await;
    let said_of_the_run = |notice: &String| notice.starts_with("run-");
    assert!(
        stream.notices().iter().all(said_of_the_run),
        "{:?}",
        stream.notices()
    );
    agent.stop().await;
}

#[tokio::test]
async fn a_stream_that_the_relay_refuses_does_not_stop_the_agent() {
    let stage = Stage::new().await;
    stage
        .relay
        .set_faults(|faults| faults.refuse_open = Some(v1::RefusalReason::BadLabel));
    append(&stage.path(), b"one\n");
    let agent = stage.start();
    stage
        .relay
        .until("a session", |relay| (relay.sessions() == 1).then_some(()))
        .await;
    agent.stop().await;
    assert!(stage.relay.streams().is_empty());
}
