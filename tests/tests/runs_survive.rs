//! Runs of an agent's `exec` sources outlive the agent: it is killed, stopped and started again, and the
//! stream goes on at the next line, up to the exit status.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::path::Path;

use millstream_proto::v1::{EndReason, Stream, StreamState};
use millstream_tests::agent::Agent;
use millstream_tests::corpus::assert_same;
use millstream_tests::relay::Relay;
use millstream_tests::wait::until;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// An agent whose one source runs `sh -c SCRIPT`, in `dir`.
fn agent(dir: &Path, url: &str, script: &str, settings: &str) -> Agent {
    let config = dir.join("agent.toml");
    let text = format!(
        "[sources.build]\nplugin = \"exec\"\ncommand = [\"sh\", \"-c\", {script:?}]\ncwd = {dir:?}\n{settings}\n"
    );
    std::fs::write(&config, text).unwrap();
    Agent::stopped(dir, url, "build-1", &["--config", config.to_str().unwrap()])
}

fn runs_dir(dir: &Path) -> std::path::PathBuf {
    dir.join("agent-build-1/runs")
}

/// The one run's directory.
fn run_dir(dir: &Path) -> Option<std::path::PathBuf> {
    let mut entries = std::fs::read_dir(runs_dir(dir)).ok()?;
    entries.next().map(|entry| entry.unwrap().path())
}

fn is_ended(stream: &Stream) -> bool {
    stream.state() == StreamState::Ended
}

/// A number that the script has written into a file.
async fn pid_in(path: &Path) -> Pid {
    let read = || {
        std::fs::read_to_string(path)
            .ok()?
            .strip_suffix('\n')?
            .parse()
            .ok()
    };
    until(&format!("a process id in {}", path.display()), || {
        read().is_some()
    })
    .await;
    Pid::from_raw(read().unwrap()).unwrap()
}

async fn is_gone(pid: Pid) {
    until(&format!("the end of process {pid:?}"), || {
        // A zombie is dead too; nobody may be there to reap it.
        test_kill_process(pid).is_err()
            || std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
                .map_or(true, |stat| stat.contains(") Z "))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_killed_again_and_again_loses_nothing_of_a_build() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    // Some megabytes on both channels; each part waits for the test, so that the kills fall into the writing.
    let script = "for part in 1 2 3 4; do \
                    seq -f \"out $part %.0f\" 60000; seq -f \"err $part %.0f\" 20000 >&2; \
                    while ! test -e go$part; do sleep 0.02; done; \
                  done; printf half; exit 7";
    let mut agent = agent(dir.path(), relay.url(), script, "");
    agent.start_again().await;
    for part in 1..=4_u64 {
        // Killed with a part of it stored, killed again while it catches up, and the script goes on meanwhile.
        relay
            .stream("", |stream| stream.text_bytes > part * 600_000)
            .await;
        agent.kill();
        std::fs::write(dir.path().join(format!("go{part}")), "").unwrap();
        agent.start_unconnected();
        agent.kill();
        agent.start_again().await;
    }
    let stream = relay.stream("source=build", is_ended).await;
    let end = stream.end.as_ref().unwrap();
    assert_eq!((end.reason(), end.exit_code), (EndReason::Exited, Some(7)));
    let stored = relay.raw(stream.stream_id).await;
    // The channels' order to each other is that of reading; each one's own has to be exact.
    let of = |name: &str| -> Vec<u8> {
        let lines = stored.split_inclusive(|byte| *byte == b'\n');
        lines
            .filter(|line| line.starts_with(name.as_bytes()))
            .flatten()
            .copied()
            .collect()
    };
    let expected = |name: &str, lines: u32| -> Vec<u8> {
        (1..=4)
            .flat_map(|part| (1..=lines).map(move |line| (part, line)))
            .flat_map(|(part, line)| format!("{name} {part} {line}\n").into_bytes())
            .collect()
    };
    assert_same("standard output", &of("out"), &expected("out", 60_000));
    assert_same("standard error", &of("err"), &expected("err", 20_000));
    let whole = expected("out", 60_000).len() + expected("err", 20_000).len() + "half".len();
    assert_eq!(stored.len(), whole);
    until("the run's directory is removed", || run_dir(dir.path()).is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_agent_leaves_its_run_alive_and_the_next_one_goes_on_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let script = "echo $$ > pid; echo before; while ! test -e go; do sleep 0.02; done; echo after; exit 3";
    let mut agent = agent(dir.path(), relay.url(), script, "");
    agent.start_again().await;
    relay.stream("", |stream| stream.text_bytes >= 7).await;
    let pid = pid_in(&dir.path().join("pid")).await;
    assert_eq!(agent.stop().await.code(), 0);
    test_kill_process(pid).expect("the build still runs");
    std::fs::write(dir.path().join("go"), "").unwrap();
    is_gone(pid).await;
    let run = run_dir(dir.path()).unwrap();
    until("the exit status is on disk", || run.join("end.json").exists()).await;
    agent.start_again().await;
    let stream = relay.stream("", is_ended).await;
    assert_same("the run", &relay.raw(stream.stream_id).await, b"before\nafter\n");
    assert_eq!(stream.end.unwrap().exit_code, Some(3));
    until("the run's directory is removed", || run_dir(dir.path()).is_none()).await;
    // That run counts as this start's: `relay.stream` above would have found a second one, and so would this.
    assert_eq!(relay.streams("").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_stopped_with_its_agent_on_demand_with_all_that_left_its_group() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    // It dies of the interrupt; its grandchild is in a session of its own, re-parented, and ignores all it can.
    let script = "(setsid sh -c 'trap \"\" INT TERM; echo $$ > far; while :; do sleep 1; done' >/dev/null 2>&1 &) ; \
                  echo started; sleep 1000";
    let mut agent = agent(dir.path(), relay.url(), script, "stop_with_agent = true");
    agent.start_again().await;
    relay.stream("", |stream| stream.text_bytes > 0).await;
    let far = pid_in(&dir.path().join("far")).await;
    agent.stop().await;
    is_gone(far).await;
    let stream = relay.stream("", is_ended).await;
    let end = stream.end.unwrap();
    assert_eq!((end.reason(), end.signal), (EndReason::Exited, Some(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_supervisor_ends_its_run_as_lost_and_leaves_no_command_behind() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let script = "echo $$ > pid; echo before; exec sleep 1000";
    let mut agent = agent(dir.path(), relay.url(), script, "");
    agent.start_again().await;
    relay.stream("", |stream| stream.text_bytes > 0).await;
    let command = pid_in(&dir.path().join("pid")).await;
    let supervisor = pid_in(&run_dir(dir.path()).unwrap().join("lock")).await;
    kill_process(supervisor, Signal::KILL).unwrap();
    let stream = relay.stream("", is_ended).await;
    let end = stream.end.as_ref().unwrap();
    assert_eq!(end.reason(), EndReason::Lost);
    assert!(end.message.contains("was killed"), "{}", end.message);
    assert_same("what it wrote", &relay.raw(stream.stream_id).await, b"before\n");
    is_gone(command).await;
}
