//! `millstream-agent exec`: one build, on the terminal and in the store.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use millstream_proto::v1::{EndReason, StreamState};
use millstream_tests::agent::Agent;
use millstream_tests::corpus::{assert_same, log};
use millstream_tests::process::{Finished, Process};
use millstream_tests::relay::Relay;

/// Wraps `sh -c SCRIPT` as a build named `build`.
async fn exec(dir: &std::path::Path, url: &str, flags: &[&str], script: &str) -> Finished {
    let mut command = Agent::command(url, "build-1", &dir.join("agent"));
    command
        .args(["exec", "--name", "build"])
        .args(flags)
        .args(["--", "sh", "-c", script]);
    Process::run("exec", &dir.join("logs"), &mut command).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrapped_build_exits_with_its_own_status_and_is_visible_as_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let finished = exec(
        dir.path(),
        relay.url(),
        &["--label", "branch=main"],
        "echo out; echo err >&2; exit 42",
    )
    .await;
    assert_eq!(finished.code(), 42, "{}", finished.stderr);
    assert_eq!(finished.text(), "out\n", "standard output is the build's own");
    assert!(finished.stderr.contains("err\n"), "{}", finished.stderr);

    let stream = relay
        .stream("source=build,branch=main", |stream| {
            stream.state() == StreamState::Ended
        })
        .await;
    let end = stream.end.as_ref().unwrap();
    assert_eq!(
        (end.reason(), end.exit_code, end.signal),
        (EndReason::Exited, Some(42), None)
    );
    let run = stream.run.as_ref().unwrap();
    assert_eq!(run.argv[..2], ["sh", "-c"]);
    assert_eq!(stream.labels["run"], run.run_id);
    assert_eq!(stream.labels["host"], "build-1");
    let mut stored: Vec<String> = String::from_utf8(relay.raw(stream.stream_id).await)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    stored.sort();
    assert_eq!(stored, ["err", "out"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_build_is_exact_on_the_terminal_and_in_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let build = log("cpython-build-1.log");
    std::fs::write(dir.path().join("recorded"), &build).unwrap();
    let script = format!("cat {}", dir.path().join("recorded").display());
    let finished = exec(dir.path(), relay.url(), &[], &script).await;
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    assert_same("on the terminal", &finished.stdout, &build);
    let stream = relay
        .stream("source=build", |stream| stream.state() == StreamState::Ended)
        .await;
    assert_same("in the store", &relay.raw(stream.stream_id).await, &build);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_on_a_pseudo_terminal_keeps_its_colours() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let script = r"test -t 1 && printf '\033[1;32mgreen\033[0m 10%%\r20%%\n'";
    let finished = exec(dir.path(), relay.url(), &["--pty"], script).await;
    assert_eq!(
        finished.code(),
        0,
        "standard output is a terminal for the build: {}",
        finished.stderr
    );
    let stream = relay
        .stream("source=build", |stream| stream.state() == StreamState::Ended)
        .await;
    let stored = relay.raw(stream.stream_id).await;
    assert_eq!(
        stored.escape_ascii().to_string(),
        r"\x1b[1;32mgreen\x1b[0m 10%\r20%\r\n"
    );
    assert_same("on the terminal", &finished.stdout, &stored);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_is_killed_reports_its_signal() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let finished = exec(dir.path(), relay.url(), &[], "echo before; kill -KILL $$").await;
    assert_eq!(
        finished.code(),
        128 + 9,
        "as a shell would report it: {}",
        finished.stderr
    );
    let stream = relay
        .stream("source=build", |stream| stream.state() == StreamState::Ended)
        .await;
    let end = stream.end.unwrap();
    assert_eq!((end.reason(), end.signal), (EndReason::Exited, Some(9)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_runs_to_its_end_although_no_relay_answers() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let url = relay.url().to_owned();
    drop(relay);
    let finished = exec(
        dir.path(),
        &url,
        &["--drain-timeout", "500ms"],
        "echo built; exit 3",
    )
    .await;
    assert_eq!(
        finished.code(),
        3,
        "the build's status counts: {}",
        finished.stderr
    );
    assert_eq!(finished.text(), "built\n");
    assert!(
        finished.stderr.contains("not delivered"),
        "it says what the relay lacks: {}",
        finished.stderr
    );
    assert!(finished.stderr.contains(&url), "{}", finished.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_does_not_exist_is_said_and_fails_as_in_a_shell() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let mut command = Agent::command(relay.url(), "build-1", &dir.path().join("agent"));
    command.args(["exec", "--name", "build", "--", "no-such-command-here"]);
    let finished = Process::run("exec", &dir.path().join("logs"), &mut command).await;
    assert_eq!(finished.code(), 127, "{}", finished.stderr);
    assert!(
        finished.stderr.contains("no-such-command-here"),
        "{}",
        finished.stderr
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_short_builds_of_one_address_are_not_taken_for_a_flood() {
    let dir = tempfile::tempdir().unwrap();
    // One connection that is taken for a flood would be enough to be turned away.
    let flags = [
        "--max-calls-per-connection=8",
        "--max-given-up-calls-per-second=1",
    ];
    let relay = Relay::start_with(dir.path(), &dir.path().join("relay"), &flags).await;
    for number in 0..5 {
        let script = format!("seq {number}000000 {number}005000");
        let finished = exec(dir.path(), relay.url(), &[], &script).await;
        assert_eq!(finished.code(), 0, "{}", finished.stderr);
    }
    let streams = relay.streams("source=build").await;
    assert_eq!(streams.len(), 5);
    for stream in streams {
        assert_eq!(stream.state(), StreamState::Ended, "nothing waits in a spool");
        assert!(stream.next_sequence > 5000, "{stream:?}");
    }
    let metrics = String::from_utf8(relay.get("/metrics").await.1).unwrap();
    let refused = metrics
        .lines()
        .find_map(|line| line.strip_prefix("millstream_limits_reached_total "));
    assert_eq!(refused, Some("0"), "{metrics}");
}
