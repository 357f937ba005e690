//! The binary as a person starts it: `exec`, `pipe`, `run`, and what it says when something is wrong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::os::unix::process::ExitStatusExt;
use std::process::{Output, Stdio};

use millstream_proto::v1;
use rustix::process::{Pid, Signal};
use support::agent::binary;
use support::{FakeRelay, StoredStream};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Child;

struct Stage {
    relay: FakeRelay,
    listening: support::Listening,
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

    async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = binary(&self.listening.url(), self.directory.path());
        tokio::time::timeout(support::PATIENCE, command.args(arguments).output())
            .await
            .unwrap()
            .unwrap()
    }

    fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = binary(&self.listening.url(), self.directory.path());
        command.args(arguments).stdin(Stdio::piped()).spawn().unwrap()
    }

    fn only_stream(&self) -> StoredStream {
        let mut streams = self.relay.streams();
        assert_eq!(streams.len(), 1);
        streams.remove(0)
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn send(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

#[tokio::test]
async fn exec_shows_and_sends_the_output_and_exits_with_the_commands_status() {
    let stage = Stage::new().await;
    let script = "echo out; sleep 0.1; echo err >&2; sleep 0.1; printf half; exit 3";
    let output = stage
        .run(&["exec", "--label", "branch=main", "--", "sh", "-c", script])
        .await;
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert_eq!(output.stdout, b"out\nhalf");
    assert_eq!(output.stderr, b"err\n");
    let stream = stage.only_stream();
    let lines: Vec<_> = stream
        .lines
        .iter()
        .filter(|line| line.channel != v1::Channel::Notice)
        .map(|line| (line.channel, line.partial, line.text.as_slice()))
        .collect();
    let kinds: Vec<String> = stream
        .notices()
        .iter()
        .filter_map(|notice| Some(notice.split_once(':')?.0.to_owned()))
        .collect();
    assert_eq!(kinds, ["run-started", "run-ended"]);
    assert_eq!(
        stream.lines.last().unwrap().channel,
        v1::Channel::Notice,
        "it comes after the output"
    );
    let expected: [(v1::Channel, bool, &[u8]); 3] = [
        (v1::Channel::Stdout, false, b"out"),
        (v1::Channel::Stderr, false, b"err"),
        (v1::Channel::Stdout, true, b"half"),
    ];
    assert_eq!(lines, expected);
    let run = stream.open.run.unwrap();
    assert_eq!((run.run_id, run.argv[0].as_str()), (stream.open.instance, "sh"));
    assert_eq!(stream.open.source, "sh");
    let end = stream.end.unwrap();
    assert_eq!(
        (end.reason(), end.exit_code, end.signal),
        (v1::EndReason::Exited, Some(3), None)
    );
    let hello = stage.relay.hellos().remove(0);
    assert_eq!(hello.labels["branch"], "main");
    assert!(hello.agent_id.contains("-exec-"), "{}", hello.agent_id);
}

#[tokio::test]
async fn a_command_that_a_signal_ends_gives_128_and_its_number() {
    let stage = Stage::new().await;
    let output = stage.run(&["exec", "--", "sh", "-c", "kill -9 $$"]).await;
    assert_eq!(output.status.code(), Some(137));
    let end = stage.only_stream().end.unwrap();
    assert_eq!((end.exit_code, end.signal), (None, Some(9)));
}

#[tokio::test]
async fn a_command_that_does_not_exist_gives_127_and_a_run_that_says_so() {
    let stage = Stage::new().await;
    let output = stage.run(&["exec", "--", "no-such-command-anywhere"]).await;
    assert_eq!(output.status.code(), Some(127));
    assert!(
        stderr(&output).contains("no-such-command-anywhere: command not found"),
        "{}",
        stderr(&output)
    );
    let end = stage.only_stream().end.unwrap();
    assert_eq!(end.reason(), v1::EndReason::StartFailed);
    assert!(end.message.contains("command not found"), "{}", end.message);
}

#[tokio::test]
async fn signals_go_to_the_command_which_decides_how_to_end() {
    let stage = Stage::new().await;
    let script = "trap 'echo stopping; exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = stage.spawn(&["exec", "--", "sh", "-c", script]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("ready"));
    send(&child, Signal::TERM);
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("stopping"));
    assert_eq!(child.wait().await.unwrap().code(), Some(7));
    // The shell may remark on standard error that its `sleep` was terminated with the group.
    let mut stream = stage.only_stream();
    stream.lines.retain(|line| line.channel == v1::Channel::Stdout);
    assert_eq!(stream.raw(), b"ready\nstopping\n");
}

#[tokio::test]
async fn a_pty_makes_the_command_believe_in_a_terminal() {
    let stage = Stage::new().await;
    let output = stage
        .run(&["exec", "--pty", "--", "sh", "-c", "test -t 1 && echo terminal"])
        .await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(output.stdout, b"terminal\r\n");
    assert_eq!(stage.only_stream().raw(), b"terminal\r\n");
}

#[tokio::test]
async fn a_terminal_is_passed_on_with_its_keys_its_size_and_its_changes() {
    let stage = Stage::new().await;
    let (mut terminal, other_side) = pty_process::open().unwrap();
    terminal.resize(pty_process::Size::new(33, 101)).unwrap();
    let script = "stty size; trap 'stty size; exit 4' WINCH; read line; echo \"got $line\"; \
                  while :; do sleep 0.05; done";
    let mut child = pty_process::Command::new(env!("CARGO_BIN_EXE_millstream-agent"))
        .env("MILLSTREAM_RELAY", stage.listening.url())
        .env("MILLSTREAM_DATA_DIR", stage.directory.path())
        .args(["exec", "--pty", "--name", "ci", "--", "sh", "-c", script])
        .kill_on_drop(true)
        .spawn(other_side)
        .unwrap();
    let mut screen = Vec::new();
    for (wanted, then) in [
        ("33 101", Some(&b"typed\r"[..])),
        ("got typed", None),
        ("40 90", None),
    ] {
        let shown = async {
            while !String::from_utf8_lossy(&screen).contains(wanted) {
                let mut piece = [0; 256];
                let read = tokio::io::AsyncReadExt::read(&mut terminal, &mut piece)
                    .await
                    .unwrap();
                screen.extend_from_slice(&piece[..read]);
            }
        };
        let shown = tokio::time::timeout(support::PATIENCE, shown).await;
        assert!(
            shown.is_ok(),
            "{wanted:?} is not shown: {}",
            screen.escape_ascii()
        );
        if let Some(keys) = then {
            terminal.write_all(keys).await.unwrap();
        } else if wanted == "got typed" {
            terminal.resize(pty_process::Size::new(40, 90)).unwrap();
        }
    }
    let status = tokio::time::timeout(support::PATIENCE, child.wait()).await;
    assert_eq!(status.unwrap().unwrap().code(), Some(4));
    assert_eq!(stage.only_stream().end.unwrap().exit_code, Some(4));
}

#[tokio::test]
async fn standard_input_reaches_the_command_with_and_without_a_pty() {
    let stage = Stage::new().await;
    for arguments in [
        &["exec", "--", "cat"][..],
        &["exec", "--pty", "--", "head", "-n", "1"],
    ] {
        let mut child = stage.spawn(arguments);
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"typed\n").await.unwrap();
        drop(stdin);
        let output = tokio::time::timeout(support::PATIENCE, child.wait_with_output())
            .await
            .unwrap()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("typed"),
            "{arguments:?}"
        );
    }
}

#[tokio::test]
async fn a_command_runs_also_when_no_relay_is_there_and_the_wrapper_says_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = binary("http://127.0.0.1:1", directory.path());
    let output = command
        .args(["exec", "--drain-timeout", "100ms", "--", "seq", "3"])
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, b"1\n2\n3\n");
    assert!(
        stderr(&output).contains("3 lines were not delivered to http://127.0.0.1:1"),
        "{}",
        stderr(&output)
    );
}

#[tokio::test]
async fn pipe_sends_each_line_at_once_and_ends_with_its_input() {
    let stage = Stage::new().await;
    let mut child = stage.spawn(&["pipe", "--name", "ci"]);
    let mut stdin = child.stdin.take().unwrap();
    let raw = |expected: &'static [u8]| {
        move |relay: &FakeRelay| {
            relay
                .streams()
                .into_iter()
                .find(|stream| stream.raw() == expected)
        }
    };
    stdin.write_all(b"one\n").await.unwrap();
    stage.relay.until("the first line", raw(b"one\n")).await;
    stdin.write_all(b"two\xff\0\r\n\nrest").await.unwrap();
    drop(stdin);
    assert!(child.wait().await.unwrap().success());
    let stream = stage.only_stream();
    assert_eq!(stream.raw(), b"one\ntwo\xff\0\r\n\nrest");
    assert_eq!(stream.open.source, "ci");
    assert_eq!(stream.end.unwrap().reason(), v1::EndReason::EndOfInput);
}

#[tokio::test]
async fn run_says_where_it_is_connected_and_stops_on_a_signal() {
    let stage = Stage::new().await;
    let path = stage.directory.path().join("a.log");
    std::fs::write(&path, "one\n").unwrap();
    let mut child = stage.spawn(&["--file", path.to_str().unwrap()]);
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let connected = format!("millstream-agent connected to {} as ", stage.listening.url());
    loop {
        let line = log
            .next_line()
            .await
            .unwrap()
            .expect("the agent says that it is connected");
        if line.contains(&connected) {
            break;
        }
    }
    stage.relay.until_raw(path.to_str().unwrap(), b"one\n").await;
    // The same data directory again.
    let second = stage.run(&["--file", path.to_str().unwrap()]).await;
    assert_eq!(second.status.code(), Some(1));
    assert!(
        stderr(&second).contains("another agent uses the data directory"),
        "{}",
        stderr(&second)
    );
    // A wrapped command beside it fences nobody off.
    assert!(stage.run(&["exec", "--", "true"]).await.status.success());
    send(&child, Signal::TERM);
    let status = child.wait().await.unwrap();
    assert_eq!((status.code(), status.signal()), (Some(0), None));
    assert_eq!(stage.relay.sessions(), 2);
}

#[tokio::test]
async fn the_second_relay_is_tried_when_the_first_is_not_there() {
    let stage = Stage::new().await;
    let relays = format!("http://127.0.0.1:1,{}", stage.listening.url());
    let output = stage.run(&["exec", "--relay", &relays, "--", "echo", "hi"]).await;
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stage.only_stream().raw(), b"hi\n");
}

#[tokio::test]
async fn bad_settings_exit_with_2_and_say_what_to_do() {
    let stage = Stage::new().await;
    let config = stage.directory.path().join("agent.toml");
    std::fs::write(&config, "relais = \"http://x:1\"\n").unwrap();
    let config = config.to_str().unwrap();
    let cases: [(&[&str], &str); 5] = [
        (&["--config", config], "did you mean `relay`?"),
        (
            &["--config", "/no/such/file"],
            "cannot read the configuration file",
        ),
        (
            &["--relay", "nonsense", "--file", "x"],
            "write it with its scheme",
        ),
        (&["run"], "no sources are configured"),
        (&["--label", "x", "--file", "x"], "KEY=VALUE"),
    ];
    for (arguments, expected) in cases {
        let output = stage.run(arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            stderr(&output).contains(expected),
            "{arguments:?}: {}",
            stderr(&output)
        );
    }
    let listed = stage.run(&["sources"]).await;
    assert!(String::from_utf8_lossy(&listed.stdout).contains("rotate_wait = \"500ms\""));
}

#[tokio::test]
async fn a_tail_source_follows_and_says_that_it_cannot_resume() {
    let stage = Stage::new().await;
    let path = stage.directory.path().join("a.log");
    let name = path.to_str().unwrap();
    std::fs::write(&path, "one\n").unwrap();
    for (text, expected) in [("two\n", "one\ntwo\n"), ("four\n", "one\ntwo\nfour\n")] {
        let mut child = stage.spawn(&["--tail", name]);
        if expected.contains("four") {
            stage
                .relay
                .until("the notice", |relay| {
                    relay.stream(name).filter(|s| !s.notices().is_empty())
                })
                .await;
        } else {
            stage.relay.until_raw(name, b"one\n").await;
        }
        // What is appended before tail has begun is skipped after a restart, so append until it is seen.
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        if !expected.contains("four") {
            stage.relay.until_raw(name, expected.as_bytes()).await;
        }
        send(&child, Signal::TERM);
        assert!(child.wait().await.unwrap().success());
        std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    }
    let notices = stage.relay.stream(name).unwrap().notices();
    assert!(notices[0].starts_with("tail-restarted: "), "{notices:?}");
}
