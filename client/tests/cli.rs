//! The binary as a person or a script starts it, against the fake relay.

mod fake;

use std::process::{Output, Stdio};
use std::time::Duration;

use fake::{FakeLine, FakeRelay, Faults};
use millstream_client::v1;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(30);

fn millstream(relay: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
    command.args(args).env_clear().env("MILLSTREAM_RELAY", relay);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn run(relay: &FakeRelay, args: &[&str]) -> Output {
    let output = millstream(&relay.url(), args).output();
    timeout(LIMIT, output)
        .await
        .expect("the command ends")
        .expect("the command starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn numbered(count: u64) -> Vec<FakeLine> {
    (0..count)
        .map(|number| format!("line {number}").as_str().into())
        .collect()
}

async fn relay_with_two_streams() -> FakeRelay {
    let relay = FakeRelay::start().await;
    relay.add_stream(1, "build-1", "cargo");
    relay.add_stream(2, "build-2", "npm");
    relay.push(1, numbered(30));
    relay.push(2, numbered(3));
    relay
}

#[tokio::test]
async fn tail_prints_the_last_ten_lines_of_each_stream_with_prefixes_when_there_are_several() {
    let relay = relay_with_two_streams().await;
    let output = run(&relay, &["tail"]).await;
    assert!(output.status.success(), "{output:?}");
    let printed = text(&output.stdout);
    let first: Vec<_> = printed
        .lines()
        .filter(|line| line.starts_with("build-1/cargo | line "))
        .collect();
    assert_eq!(first.len(), 10, "{printed}");
    assert_eq!(first[0], "build-1/cargo | line 20");
    assert!(printed.contains("build-2/npm   | line 0\n"), "{printed}");
}

#[tokio::test]
async fn tail_of_one_stream_has_no_prefix_and_honours_lines_since_until_and_sequence() {
    let relay = relay_with_two_streams().await;
    for (args, expected) in [
        (&["tail", "host=build-1", "-n", "2"][..], "line 28\nline 29\n"),
        (&["tail", "host=build-2", "-n", "all"], "line 0\nline 1\nline 2\n"),
        (&["tail", "--stream", "1", "--from-sequence", "29"], "line 29\n"),
        (
            &["tail", "host=build-1", "--since", "2025-11-24T16:00:28Z"],
            "line 28\nline 29\n",
        ),
        (
            &["tail", "host=build-1", "--until", "2025-11-24T16:00:01Z"],
            "line 0\nline 1\n",
        ),
        (&["tail", "host=build-1", "--grep", "ne 7"], "line 7\n"),
        (
            &["tail", "host=build-1", "--grep", "line 1", "-v", "-n", "3"],
            "line 27\nline 28\nline 29\n",
        ),
        (
            &["tail", "host=build-1", "-n", "1", "-t"],
            "2025-11-24T16:00:29.000000Z line 29\n",
        ),
    ] {
        let output = run(&relay, args).await;
        assert_eq!(
            text(&output.stdout),
            expected,
            "{args:?} {}",
            text(&output.stderr)
        );
    }
}

#[tokio::test]
async fn tail_follows_across_cuts_without_losing_or_repeating_a_line() {
    let relay = FakeRelay::start().await;
    relay.add_stream(1, "build-1", "cargo");
    relay.push(1, numbered(2));
    let mut child = millstream(&relay.url(), &["tail", "-f", "-n", "all"])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut expected = 0;
    let mut next = async || timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().unwrap();
    assert_eq!(next().await, "line 0");
    relay.set_faults(Faults {
        cut_within_bytes: Some(3000),
        repeat_lines: 2,
        ..Faults::default()
    });
    relay.push(1, numbered(400).drain(2..));
    expected += 1;
    while expected < 400 {
        assert_eq!(next().await, format!("line {expected}"));
        expected += 1;
    }
    child.kill().await.unwrap();
}

#[tokio::test]
async fn text_is_harmless_and_raw_is_exact() {
    let relay = FakeRelay::start().await;
    relay.add_stream(1, "build-1\x1b[2J", "cargo");
    let hostile = b"\x1b]52;c;cm0=\x07\x1b[31mred\xff\r";
    let notice = FakeLine {
        channel: v1::Channel::Notice,
        ..FakeLine::from("dropped: \x1b[2J")
    };
    let last = FakeLine {
        partial: true,
        ..FakeLine::from("no newline")
    };
    relay.push(1, [FakeLine::from(&hostile[..]), notice, last]);
    let shown = run(&relay, &["cat", "1", "-o", "text"]).await;
    assert_eq!(
        text(&shown.stdout),
        "^[]52;c;cm0=^Gred\\xff\n[millstream] dropped: ^[[2J\nno newline\n"
    );
    let coloured = run(&relay, &["tail", "--color", "always", "--prefix", "always"]).await;
    let printed = text(&coloured.stdout);
    assert!(
        printed.contains("build-1^[[2J/cargo |\x1b[0m ^[]52;c;cm0=^G\x1b[31mred\\xff\x1b[0m\n"),
        "{printed}"
    );
    let raw = run(&relay, &["cat", "1"]).await;
    assert_eq!(raw.stdout, [&hostile[..], b"\nno newline"].concat());
    let listed = run(&relay, &["ls", "streams"]).await;
    assert!(!text(&listed.stdout).contains('\x1b'), "{}", text(&listed.stdout));
}

#[tokio::test]
async fn json_is_one_object_a_line() {
    let relay = FakeRelay::start().await;
    relay.add_stream(1, "build-1", "cargo");
    relay.push(
        1,
        [
            FakeLine::from("a \"quoted\" line"),
            FakeLine {
                partial: true,
                ..b"\xff"[..].into()
            },
        ],
    );
    let output = run(&relay, &["tail", "-o", "json"]).await;
    assert_eq!(
        text(&output.stdout),
        concat!(
            r#"{"stream":1,"sequence":0,"time":"2025-11-24T16:00:00.000000Z","channel":"stdout","#,
            r#""text":"a \"quoted\" line","partial":false,"#,
            r#""labels":{"agent":"a1","host":"build-1","source":"cargo"}}"#,
            "\n",
            r#"{"stream":1,"sequence":1,"time":"2025-11-24T16:00:01.000000Z","channel":"stdout","#,
            r#""text":"�","text_base64":"/w==","partial":true,"#,
            r#""labels":{"agent":"a1","host":"build-1","source":"cargo"}}"#,
            "\n",
        )
    );
}

#[tokio::test]
async fn cat_prints_a_range_and_refuses_an_unknown_stream() {
    let relay = relay_with_two_streams().await;
    let range = run(
        &relay,
        &["cat", "1", "--from-sequence", "8", "--to-sequence", "10"],
    )
    .await;
    assert_eq!(text(&range.stdout), "line 8\nline 9\n");
    let all: String = (0..30).map(|number| format!("line {number}\n")).collect();
    assert_eq!(text(&run(&relay, &["cat", "1"]).await.stdout), all);
    for args in [&["cat", "77"][..], &["tail", "--stream", "77"]] {
        let unknown = run(&relay, args).await;
        assert_eq!(unknown.status.code(), Some(1));
        assert_eq!(
            text(&unknown.stderr),
            "millstream: there is no stream 77; `millstream ls streams` lists what there is\n"
        );
    }
}

#[tokio::test]
async fn a_stream_without_lines_is_not_called_unknown() {
    let relay = FakeRelay::start().await;
    relay.add_stream(1, "build-1", "cargo");
    let empty = run(&relay, &["tail", "--stream", "1"]).await;
    assert!(empty.status.success() && empty.stderr.is_empty(), "{empty:?}");
    let none = run(&relay, &["tail", "host=nowhere"]).await;
    assert!(none.status.success());
    assert_eq!(
        text(&none.stderr),
        "millstream: there is no stream that `host=nowhere` selects; `millstream ls streams` lists all\n"
    );
}

#[tokio::test]
async fn ls_shows_tables_and_json() {
    let relay = relay_with_two_streams().await;
    relay.end_stream(2, 101);
    let streams = text(&run(&relay, &["ls", "streams"]).await.stdout);
    let lines: Vec<_> = streams.lines().collect();
    assert!(
        lines[0].starts_with("ID  STATE  HOST     SOURCE  LINES  SIZE"),
        "{streams}"
    );
    assert!(
        lines[1].starts_with("2   ended  build-2  npm     3      21 B"),
        "{streams}"
    );
    assert!(
        lines[2].starts_with("1   live   build-1  cargo   30     "),
        "{streams}"
    );
    let json = text(&run(&relay, &["ls", "streams", "-o", "json"]).await.stdout);
    assert_eq!(json.lines().count(), 2);
    assert!(
        json.contains(r#""end":{"reason":"exited","end":null,"exit_code":101,"#),
        "{json}"
    );
    let agents = text(&run(&relay, &["ls", "agents"]).await.stdout);
    assert!(agents.contains("a1     connected  build-1"), "{agents}");
}

#[tokio::test]
async fn mistakes_are_answered_with_the_cure_and_status_2() {
    let relay = relay_with_two_streams().await;
    let bad = run(&relay, &["tail", "host"]).await;
    assert_eq!(bad.status.code(), Some(2));
    assert!(
        text(&bad.stderr).ends_with("at position 4\n  host\n      ^\n"),
        "{}",
        text(&bad.stderr)
    );
    for (args, cure) in [
        (
            &["tail", "--since", "soon"][..],
            "how long ago (30s, 5m, 1h30m, 2d)",
        ),
        (&["tail", "-n", "-3"], "unexpected argument"),
        (&["tail", "--from-sequence", "3"], "--stream <ID>"),
        (
            &["cat", "1", "--from-sequence", "3", "--to-sequence", "3"],
            "above --from-sequence",
        ),
        (
            &["--relay", "localhost:7171", "ls", "streams"],
            "http://localhost:7171",
        ),
        (&["start", "cargo"], "AGENT/SOURCE"),
    ] {
        let output = run(&relay, args).await;
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            text(&output.stderr).contains(cure),
            "{args:?} {}",
            text(&output.stderr)
        );
    }
}

#[tokio::test]
async fn what_the_relay_cannot_do_yet_is_said_plainly_with_status_1() {
    let relay = relay_with_two_streams().await;
    for (args, what) in [
        (&["search", "error"][..], "searching"),
        (&["start", "a1/cargo"], "starting"),
        (&["stop", "run-1"], "stopping"),
        (&["restart", "a1/cargo"], "restarting"),
        (
            &["set-command", "a1/cargo", "--", "make", "-k"],
            "changing commands",
        ),
    ] {
        let output = run(&relay, args).await;
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let expected = format!(
            "millstream: the relay at {} does not offer {what} yet (UNIMPLEMENTED)\n",
            relay.url()
        );
        assert_eq!(text(&output.stderr), expected);
    }
}

#[tokio::test]
async fn a_relay_that_is_not_there_is_named_with_the_question_whether_it_runs() {
    let relay = FakeRelay::start().await;
    let url = relay.url();
    relay.stop().await;
    let output = timeout(LIMIT, millstream(&url, &["tail"]).output())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(
        message.contains(&url) && message.contains("is millstream-relay running"),
        "{message}"
    );
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_the_command_quietly() {
    let relay = FakeRelay::start().await;
    relay.add_stream(1, "build-1", "cargo");
    relay.push(1, numbered(20_000));
    let mut child = millstream(&relay.url(), &["tail", "-f", "-n", "all"])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(
        timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().unwrap(),
        "line 0"
    );
    drop(lines);
    let pusher = relay.clone();
    let output = timeout(LIMIT, async {
        let ended = child.wait_with_output();
        tokio::pin!(ended);
        loop {
            // A quiet follower notices only when it writes again.
            pusher.push(1, ["more"]);
            tokio::select! {
                output = &mut ended => return output.unwrap(),
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
    });
    let output = output.await.expect("the command ends");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stderr), "");
}

#[tokio::test]
async fn the_token_is_sent_and_never_shown_in_help() {
    let relay = relay_with_two_streams().await;
    let mut command = millstream(&relay.url(), &["ls", "streams"]);
    let output = timeout(LIMIT, command.env("MILLSTREAM_TOKEN", "ms_secret").output())
        .await
        .unwrap()
        .unwrap();
    assert!(output.status.success());
    assert!(relay.tokens().contains("Bearer ms_secret"));
    let help = millstream(&relay.url(), &["--help"])
        .env("MILLSTREAM_TOKEN", "ms_secret")
        .output();
    let help = timeout(LIMIT, help).await.unwrap().unwrap();
    assert!(!text(&help.stdout).contains("ms_secret"));
}
