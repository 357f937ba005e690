//! The disk spool of a run: while the relay is away it takes the output up to its bound, and then blocks the
//! command rather than lose a line.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use millstream_proto::v1::StreamState;
use millstream_tests::agent::Agent;
use millstream_tests::corpus::assert_same;
use millstream_tests::relay::Relay;
use millstream_tests::wait::until;

/// Runs `seq 1 LINES` while no relay is there, does `meanwhile` and lets the relay come back.
async fn without_relay(lines: usize, settings: &str, done: bool) {
    let dir = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(dir.path()).await;
    let config = dir.path().join("agent.toml");
    let text = format!(
        "[sources.build]\nplugin = \"exec\"\ncommand = [\"sh\", \"-c\", \"seq {lines}; touch done\"]\n\
         cwd = {:?}\n{settings}\n",
        dir.path()
    );
    std::fs::write(&config, text).unwrap();
    relay.stop().await;
    let args = ["--config", config.to_str().unwrap()];
    let mut agent = Agent::stopped(dir.path(), relay.url(), "build-1", &args);
    agent.start_unconnected();
    let runs = dir.path().join("agent-build-1/runs");
    let spooled = || -> u64 {
        let files = std::fs::read_dir(&runs)
            .into_iter()
            .flatten()
            .filter_map(|run| std::fs::read_dir(run.ok()?.path()).ok())
            .flatten();
        files
            .filter_map(|file| file.ok()?.metadata().ok())
            .map(|facts| facts.len())
            .sum()
    };
    let is_done = || dir.path().join("done").exists();
    if done {
        until("the build is done without any relay", is_done).await;
    } else {
        until("the spool is full", || spooled() > (1 << 20) - (70 << 10)).await;
        assert!(!is_done(), "the build waits for room");
        assert!(spooled() < (1 << 20) + (16 << 10), "{} bytes", spooled());
    }
    relay.start_again().await;
    let stream = relay
        .stream("", |stream| stream.state() == StreamState::Ended)
        .await;
    let expected: Vec<u8> = (1..=lines)
        .flat_map(|line| format!("{line}\n").into_bytes())
        .collect();
    assert_same("the run", &relay.raw(stream.stream_id).await, &expected);
    assert!(is_done());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_writes_more_than_memory_holds_while_the_relay_is_away() {
    // 89 MB; all of an agent's memory for text is bounded at 64 MiB.
    without_relay(10_000_000, "", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_blocks_the_build_and_nothing_is_lost() {
    without_relay(2_000_000, "spool_max_bytes = 1048576", false).await;
}
