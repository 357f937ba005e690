//! What processes say outlives who sends it: agents with `exec` and `tail` sources and wrapped commands are killed,
//! stopped and started again, and each stream goes on at the next line, up to the exit status.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use millstream_proto::v1::{EndReason, Stream, StreamState};
use millstream_tests::agent::Agent;
use millstream_tests::corpus::assert_same;
use millstream_tests::files;
use millstream_tests::process::Process;
use millstream_tests::reader::{Copy, Reader, follow};
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
    let supervisor = pid_in(&run_dir(dir.path()).unwrap().join("supervisor.pid")).await;
    kill_process(supervisor, Signal::KILL).unwrap();
    let stream = relay.stream("", is_ended).await;
    let end = stream.end.as_ref().unwrap();
    assert_eq!(end.reason(), EndReason::Lost);
    assert!(end.message.contains("was killed"), "{}", end.message);
    assert_same("what it wrote", &relay.raw(stream.stream_id).await, b"before\n");
    is_gone(command).await;
}

/// Starts `millstream-agent FLAGS -- sh -c SCRIPT` in `dir`, with the data directory that [`agent`] uses, too.
fn wrapper(dir: &Path, url: &str, flags: &[&str], script: &str) -> Process {
    let mut command = Agent::command(url, "build-1", &dir.join("agent-build-1"));
    command
        .current_dir(dir)
        .args(["exec", "--name", "build"])
        .args(flags)
        .args(["--", "sh", "-c", script]);
    Process::start("exec", &dir.join("logs"), &mut command)
}

/// An agent with the same data directory that has nothing to send but what was left there.
async fn next_agent(dir: &Path, url: &str) -> Agent {
    let nothing = dir.join("nothing-here.log");
    Agent::start(dir, url, "build-1", &["--file", nothing.to_str().unwrap()]).await
}

async fn is_emptied(wrapped: &Path) {
    until("what was delivered is removed", || {
        std::fs::read_dir(wrapped).unwrap().next().is_none()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_wrapper_neither_kills_nor_blinds_its_build() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let script = "echo $$ > pid; echo before; while ! test -e go; do sleep 0.02; done; \
                  seq 50000; echo err >&2; printf half; exit 5";
    let mut wrapper = wrapper(dir.path(), relay.url(), &["--label", "branch=main"], script);
    relay.stream("branch=main", |stream| stream.text_bytes >= 7).await;
    let pid = pid_in(&dir.path().join("pid")).await;
    wrapper.kill();
    test_kill_process(pid).expect("the build still runs");
    std::fs::write(dir.path().join("go"), "").unwrap();
    is_gone(pid).await;
    let mut agent = next_agent(dir.path(), relay.url()).await;
    let stream = relay
        .stream("source=build,branch=main,host=build-1", is_ended)
        .await;
    let end = stream.end.as_ref().unwrap();
    assert_eq!((end.reason(), end.exit_code), (EndReason::Exited, Some(5)));
    let stored = relay.raw(stream.stream_id).await;
    let numbers: String = (1..=50_000).map(|line| format!("{line}\n")).collect();
    let stdout: Vec<u8> = stored
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| *line != b"err\n")
        .flatten()
        .copied()
        .collect();
    assert_same(
        "standard output",
        &stdout,
        format!("before\n{numbers}half").as_bytes(),
    );
    assert_eq!(stored.len(), stdout.len() + "err\n".len());
    is_emptied(&dir.path().join("agent-build-1/wrapped")).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrapper_whose_time_to_deliver_is_over_leaves_the_rest_to_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(dir.path()).await;
    relay.stop().await;
    let flags = ["--drain-timeout", "100ms"];
    let first = wrapper(dir.path(), relay.url(), &flags, "seq 3; exit 4")
        .finish()
        .await;
    assert_eq!(first.code(), 4, "{}", first.stderr);
    assert_eq!(first.text(), "1\n2\n3\n");
    let wrapped = dir.path().join("agent-build-1/wrapped");
    let left = std::fs::read_dir(&wrapped)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    assert!(
        first.stderr.contains("3 lines were not delivered") && first.stderr.contains(left.to_str().unwrap()),
        "{}",
        first.stderr
    );
    relay.start_again().await;
    let second = wrapper(dir.path(), relay.url(), &[], "echo second")
        .finish()
        .await;
    assert_eq!(second.code(), 0, "{}", second.stderr);
    let streams = relay.streams("source=build").await;
    let mut stored = Vec::new();
    for stream in &streams {
        let code = stream.end.as_ref().and_then(|end| end.exit_code);
        stored.push((code, relay.raw(stream.stream_id).await));
    }
    stored.sort();
    assert_eq!(
        stored,
        [(Some(0), b"second\n".to_vec()), (Some(4), b"1\n2\n3\n".to_vec())]
    );
    is_emptied(&wrapped).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_pipe_is_read_on_and_delivered_by_the_next_agent() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let mut command = Agent::command(relay.url(), "build-1", &dir.path().join("agent-build-1"));
    command.args(["pipe", "--name", "ci"]).stdin(Stdio::piped());
    let mut pipe = Process::start("pipe", &dir.path().join("logs"), &mut command);
    let mut input = pipe.take_stdin().unwrap();
    input.write_all(b"one\ntw").unwrap();
    relay.stream("source=ci", |stream| stream.text_bytes >= 6).await;
    pipe.kill();
    input.write_all(b"o\nthree").unwrap();
    drop(input);
    let mut agent = next_agent(dir.path(), relay.url()).await;
    let stream = relay.stream("source=ci", is_ended).await;
    assert_eq!(stream.end.as_ref().unwrap().reason(), EndReason::EndOfInput);
    assert_same(
        "the input",
        &relay.raw(stream.stream_id).await,
        b"one\ntwo\nthree",
    );
    agent.stop().await;
}

/// What the relay has of the one stream now.
async fn copy_of(relay: &Relay) -> Copy {
    let mut request = follow("");
    request.follow = false;
    let mut reader = Reader::start(relay.log_service(), request).await.unwrap();
    reader.to_end().await;
    reader.copies.pop_first().unwrap().1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_agent_finds_its_tail_running_and_misses_no_line() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let path = dir.path().join("a.log");
    std::fs::write(&path, "before\n").unwrap();
    let args = ["--tail", path.to_str().unwrap()];
    let mut agent = Agent::start(dir.path(), relay.url(), "build-1", &args).await;
    let mut expected = b"before\n".to_vec();
    for round in 0..4 {
        relay
            .stream("source=tail", |stream| stream.text_bytes >= expected.len() as u64)
            .await;
        agent.kill();
        let lines: String = (0..20_000).map(|line| format!("{round} {line}\n")).collect();
        files::append(&path, lines.as_bytes());
        expected.extend(lines.into_bytes());
        agent.start_again().await;
    }
    let stream = relay.stream("source=tail", |_| true).await;
    let stored = relay.raw_of(stream.stream_id, expected.len()).await;
    assert_same("what tail printed", &stored, &expected);
    assert_eq!(copy_of(&relay).await.notices, [""; 0]);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_tail_loses_nothing_that_reached_the_spool_and_says_where_it_was_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(dir.path()).await;
    let path = dir.path().join("a.log");
    std::fs::write(&path, "before\n").unwrap();
    let args = ["--tail", path.to_str().unwrap()];
    let mut agent = Agent::start(dir.path(), relay.url(), "build-1", &args).await;
    relay.stream("source=tail", |stream| stream.text_bytes >= 7).await;
    relay.stop().await;
    // Only the spool has this, and nobody lives who knows of it.
    let lines: String = (0..30_000).map(|line| format!("{line}\n")).collect();
    files::append(&path, lines.as_bytes());
    let run = run_dir(dir.path()).unwrap();
    let spooled = || {
        let files = std::fs::read_dir(&run).unwrap().filter_map(Result::ok);
        let segments = files.filter(|file| file.path().extension().is_some_and(|name| name == "seg"));
        segments
            .map(|file| file.metadata().map_or(0, |facts| facts.len()))
            .sum::<u64>()
    };
    until("the lines are in the spool", || spooled() > lines.len() as u64).await;
    agent.kill();
    let supervisor = pid_in(&run.join("supervisor.pid")).await;
    kill_process(supervisor, Signal::KILL).unwrap();
    is_gone(supervisor).await;
    files::append(&path, b"nobody sees this\n");
    relay.start_again().await;
    agent.start_again().await;
    relay
        .stream("source=tail", |stream| stream.text_bytes > 7 + lines.len() as u64)
        .await;
    // Until the new tail has begun it is not known what it sees.
    let mut number = 0;
    let seen = millstream_tests::wait::eventually("a line after the notice", async || {
        number += 1;
        files::append(&path, format!("after {number}\n").as_bytes());
        let copy = copy_of(&relay).await;
        (copy.notices.len() == 1 && copy.text.len() > copy.notice_places[0]).then_some(copy)
    })
    .await;
    let (before, after) = seen.text.split_at(seen.notice_places[0]);
    assert_same("before the notice", before, format!("before\n{lines}").as_bytes());
    assert!(
        seen.notices[0].starts_with("tail-restarted: "),
        "{:?}",
        seen.notices
    );
    assert!(after.starts_with(b"after "), "{}", after.escape_ascii());
    agent.stop().await;
}

/// The descendants of a build that ignore whatever they can: one in a session of its own, re-parented.
const FAR_GRANDCHILD: &str =
    "(setsid sh -c 'trap \"\" INT TERM; echo $$ > far; while :; do sleep 1; done' >/dev/null 2>&1 &) ;";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrapper_that_is_told_to_stop_takes_the_whole_tree_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let script = format!("{FAR_GRANDCHILD} echo started; exec sleep 1000");
    let mut wrapper = wrapper(dir.path(), relay.url(), &[], &script);
    let far = pid_in(&dir.path().join("far")).await;
    relay.stream("", |stream| stream.text_bytes > 0).await;
    wrapper.signal(Signal::INT);
    let finished = wrapper.finish().await;
    assert_eq!(finished.code(), 130, "{}", finished.stderr);
    is_gone(far).await;
    let stream = relay.stream("", is_ended).await;
    assert_eq!(stream.end.unwrap().signal, Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrapper_that_is_killed_after_it_was_told_to_stop_takes_its_build_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let script = format!(
        "trap 'echo no' INT TERM; {FAR_GRANDCHILD} echo $$ > pid; echo started; while :; do sleep 0.1; done"
    );
    let mut wrapper = wrapper(dir.path(), relay.url(), &[], &script);
    let far = pid_in(&dir.path().join("far")).await;
    let pid = pid_in(&dir.path().join("pid")).await;
    relay
        .stream("source=build", |stream| stream.text_bytes >= 8)
        .await;
    wrapper.signal(Signal::TERM);
    relay
        .stream("source=build", |stream| stream.text_bytes >= 11)
        .await;
    wrapper.kill();
    is_gone(pid).await;
    is_gone(far).await;
    let mut agent = next_agent(dir.path(), relay.url()).await;
    let stream = relay.stream("source=build", is_ended).await;
    assert_eq!(stream.end.unwrap().signal, Some(9));
    agent.stop().await;
}
