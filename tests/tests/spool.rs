//! The disk spool of a run: while the relay is away it takes the output up to its bound, and then blocks the
//! command rather than lose a line, or drops the oldest and says what is gone.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use millstream_proto::v1::StreamState;
use millstream_tests::agent::Agent;
use millstream_tests::corpus::assert_same;
use millstream_tests::reader::{Reader, follow};
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

/// The numbers of a notice `gap: LINES lines (BYTES bytes) of output were dropped here…`.
fn counts(notice: &str) -> (u64, u64) {
    let rest = notice.strip_prefix("gap: ").unwrap();
    let (lines, rest) = rest.split_once(" lines (").unwrap();
    let (bytes, rest) = rest.split_once(" bytes) ").unwrap();
    assert!(rest.starts_with("of output were dropped here"), "{notice}");
    (lines.parse().unwrap(), bytes.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_drops_the_oldest_by_choice_and_counts_it_where_it_is_missing() {
    const FIRST: usize = 1000;
    const ALL: usize = 1_000_000;
    let dir = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(dir.path()).await;
    let script = format!(
        "seq {FIRST}; while ! test -e go; do sleep 0.02; done; seq {} {ALL}; touch done",
        FIRST + 1
    );
    let text = format!(
        "[sources.build]\nplugin = \"exec\"\ncommand = [\"sh\", \"-c\", {script:?}]\ncwd = {:?}\n\
         spool_max_bytes = 1048576\nspool_when_full = \"drop-oldest\"\n",
        dir.path()
    );
    let config = dir.path().join("agent.toml");
    std::fs::write(&config, text).unwrap();
    let args = ["--config", config.to_str().unwrap()];
    let mut agent = Agent::start(dir.path(), relay.url(), "build-1", &args).await;
    let numbers = |from: usize, to: usize| -> Vec<u8> {
        (from..=to)
            .flat_map(|line| format!("{line}\n").into_bytes())
            .collect()
    };
    let first = numbers(1, FIRST);
    relay
        .stream("", |stream| stream.text_bytes >= first.len() as u64)
        .await;
    // Killed, so that no memory of it holds what was dropped from the disk.
    agent.kill();
    relay.stop().await;
    std::fs::write(dir.path().join("go"), "").unwrap();
    until("the build is done although nothing takes its output", || {
        dir.path().join("done").exists()
    })
    .await;
    relay.start_again().await;
    agent.start_again().await;
    relay
        .stream("", |stream| stream.state() == StreamState::Ended)
        .await;
    let mut request = follow("");
    request.follow = false;
    let mut reader = Reader::start(relay.log_service(), request).await.unwrap();
    reader.to_end().await;
    let (_, copy) = reader.copies.pop_first().unwrap();
    let gaps: Vec<usize> = (0..copy.notices.len())
        .filter(|at| copy.notices[*at].starts_with("gap: "))
        .collect();
    assert_eq!(gaps.len(), 1, "{:?}", copy.notices);
    let (before, after) = copy.text.split_at(copy.notice_places[gaps[0]]);
    assert_same("before the hole", before, &first);
    let next: usize = std::str::from_utf8(after)
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert_same("behind the hole", after, &numbers(next, ALL));
    assert!(
        next > FIRST + 1 && after.len() > 700_000,
        "{next}, {}",
        after.len()
    );
    let gone = numbers(FIRST + 1, next - 1);
    assert_eq!(
        counts(&copy.notices[gaps[0]]),
        ((next - 1 - FIRST) as u64, gone.len() as u64)
    );
    agent.stop().await;
}
