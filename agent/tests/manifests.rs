//! The bundled manifests: against recorded output, against scripts that behave as the real tools document, and
//! against the tools themselves where the machine has them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use millstream_proto::v1::Channel;
use support::StoredStream;
use support::stage::{Stage, have, texts};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// What the forty entries of `journald.export` are as lines.
fn journal_lines() -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    for number in 1..=40 {
        let who = format!(
            "{}[{}]: ",
            if number % 2 == 1 { "nginx" } else { "cron" },
            100 + number % 3
        );
        let mut push = |text: &[u8]| lines.push([who.as_bytes(), text].concat());
        match number {
            7 => {
                push(b"two");
                lines.push(b"lines".to_vec());
            }
            9 => push(b"not utf-8: \xff\xfe"),
            11 => push(b"\x1b[31mred\x1b[0m"),
            13 => push(&[b'x'; 6000]),
            _ => push(format!("message {number}").as_bytes()),
        }
    }
    lines
}

fn bytes(stream: &StoredStream) -> Vec<Vec<u8>> {
    stream.lines.iter().map(|line| line.text.clone()).collect()
}

#[tokio::test]
async fn the_journal_as_it_was_recorded_is_stored_exactly_once() {
    let mut stage = Stage::new().await;
    stage.executable(
        "bin/journalctl",
        &format!(
            r#"#!/bin/sh
cursor=
while [ $# -gt 0 ]; do
    case "$1" in --after-cursor) cursor=$2; shift;; esac
    shift
done
if [ -n "$cursor" ]; then awk -v c="$cursor" 'found {{ print }} index($0, c) {{ found = 1 }}' {0:?}; else cat {0:?}; fi | head -n 17
sleep 1000
"#,
            data("journald.json")
        ),
    );
    stage.config("[sources.journal]\nplugin = 'journald'\nhistory = 'all'\n");
    // 17 entries and one of two lines, then the next 17, then the rest.
    for lines in [18, 35, 41] {
        stage.start();
        stage
            .stream_until("journal", |stream| stream.lines.len() >= lines)
            .await;
        stage.kill().await;
    }
    let stream = stage.relay.stream("journal").unwrap();
    assert_eq!(bytes(&stream), journal_lines());
}

#[tokio::test]
async fn the_machine_s_own_journalctl_is_followed_exactly_once() {
    let remote = "/lib/systemd/systemd-journal-remote";
    if !have("journalctl") || !have(remote) {
        return;
    }
    let mut stage = Stage::new().await;
    let export = std::fs::read(data("journald.export")).unwrap();
    // Entries end with an empty line.
    let ends: Vec<usize> = memchr::memmem::find_iter(&export, b"\n\n")
        .map(|at| at + 2)
        .collect();
    let journal = stage.path("system.journal");
    append(remote, &journal, &export[..ends[19]]);
    stage.config(&format!(
        "[sources.journal]\nplugin = 'journald'\nhistory = 'all'\nfile = {journal:?}\n"
    ));
    stage.start();
    stage
        .stream_until("journal", |stream| stream.lines.len() >= 21)
        .await;
    stage.kill().await;
    append(remote, &journal, &export[ends[19]..]);
    stage.start();
    let stream = stage
        .stream_until("journal", |stream| stream.lines.len() >= 41)
        .await;
    assert_eq!(bytes(&stream), journal_lines());
    stage.stop().await;
}

/// Appends entries in the export format to a journal.
fn append(remote: &str, journal: &Path, entries: &[u8]) {
    let part = journal.with_extension("export");
    std::fs::write(&part, entries).unwrap();
    let status = std::process::Command::new(remote)
        .arg(format!("--output={}", journal.display()))
        .arg(&part)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

/// A container tool that has printed `have` of these lines so far, and prints those not before `--since`.
fn container_tool(since: &str, second_precision: bool) -> String {
    let compare = if second_precision {
        "substr($1, 1, 19) >= substr(s, 1, 19)"
    } else {
        "$1 >= s"
    };
    format!(
        r#"#!/bin/sh
dir=$(dirname "$0")
since=
while [ $# -gt 0 ]; do
    case "$1" in {since}) since=$2; shift;; esac
    shift
done
show() {{ head -n "$(cat "$dir/have")" "$dir/$1" | awk -v s="$since" '{compare} {{ print; fflush() }}'; }}
show stdout
show stderr >&2
sleep 1000
"#
    )
}

/// Forty lines, several of them at the same moment, one of them empty.
fn container_output(channel: &str) -> String {
    (0..40)
        .map(|number| {
            let text = if number == 5 {
                String::new()
            } else {
                format!("{channel} {number}")
            };
            format!(
                "2026-11-25T09:00:{:02}.{:09}Z {text}\n",
                number / 12,
                number / 3 * 1001
            )
        })
        .collect()
}

fn container_lines(channel: &str) -> Vec<String> {
    let number = |number: i32| {
        if number == 5 {
            String::new()
        } else {
            format!("{channel} {number}")
        }
    };
    (0..40).map(number).collect()
}

async fn containers(
    tool: &str,
    since: &str,
    settings: &str,
    instance: &str,
    second_precision: bool,
    has_stderr: bool,
) {
    let mut stage = Stage::new().await;
    stage.executable(&format!("bin/{tool}"), &container_tool(since, second_precision));
    std::fs::write(stage.path("bin/stdout"), container_output("out")).unwrap();
    std::fs::write(
        stage.path("bin/stderr"),
        if has_stderr {
            container_output("err")
        } else {
            String::new()
        },
    )
    .unwrap();
    stage.config(&format!("[sources.app]\nplugin = '{tool}'\n{settings}\n"));
    let channels = 1 + usize::from(has_stderr);
    for have in [10, 11, 30, 40] {
        std::fs::write(stage.path("bin/have"), have.to_string()).unwrap();
        stage.start();
        stage
            .stream_until(instance, |stream| stream.lines.len() >= have * channels)
            .await;
        stage.kill().await;
    }
    let stream = stage.relay.stream(instance).unwrap();
    for (channel, name) in [(Channel::Stdout, "out"), (Channel::Stderr, "err")] {
        let lines = stream.lines.iter().filter(|line| line.channel == channel);
        let found: Vec<String> = lines
            .map(|line| String::from_utf8(line.text.clone()).unwrap())
            .collect();
        let expected = if channel == Channel::Stdout || has_stderr {
            container_lines(name)
        } else {
            Vec::new()
        };
        assert_eq!(found, expected, "{tool}");
    }
}

#[tokio::test]
async fn a_container_of_docker_is_stored_exactly_once_with_both_channels() {
    containers("docker", "--since", "container = 'web-1'", "web-1", false, true).await;
}

#[tokio::test]
async fn a_container_of_podman_is_stored_exactly_once_with_both_channels() {
    containers("podman", "--since", "container = 'web-1'", "web-1", false, true).await;
}

#[tokio::test]
async fn a_pod_is_stored_exactly_once_although_kubectl_counts_whole_seconds() {
    containers("kubectl", "--since-time", "pod = 'api-7f'", "api-7f", true, false).await;
}

#[tokio::test]
async fn the_kernel_s_own_messages_are_stored_exactly_once() {
    let mut stage = Stage::new().await;
    let marker = |number: usize| format!("millstream test {}: {number}", stage.path("").display());
    let markers: Vec<String> = (0..3).map(marker).collect();
    let write = |text: &str| std::fs::write("/dev/kmsg", format!("<6>{text}\n"));
    if write(&markers[0]).is_err() {
        eprintln!("not run: this user may not write to the kernel's messages");
        return;
    }
    stage.config("[sources.kernel]\nplugin = 'dmesg'\n");
    for (number, marker) in markers.iter().enumerate() {
        stage.start();
        stage.log_says(&["plugin dmesg started"], number + 1).await;
        if number > 0 {
            write(marker).unwrap();
        }
        stage
            .stream_until("kernel", |stream| texts(stream).contains(marker))
            .await;
        stage.kill().await;
    }
    let found = texts(&stage.relay.stream("kernel").unwrap());
    for marker in &markers {
        assert_eq!(found.iter().filter(|line| *line == marker).count(), 1, "{marker}");
    }
    // What the buffer held before was not stored again with each start.
    let first = &found[..found.iter().position(|line| *line == markers[0]).unwrap()];
    let again = found[first.len()..]
        .windows(first.len().max(1))
        .filter(|lines| *lines == first)
        .count();
    assert_eq!(again, 0);
}

#[tokio::test]
async fn a_connection_of_ssh_that_breaks_is_said_in_the_stream() {
    let mut stage = Stage::new().await;
    stage.executable(
        "bin/ssh",
        r#"#!/bin/sh
for last; do :; done
echo "first of $last"
printf 'no newline yet'
while [ ! -e "$(dirname "$0")/seen" ]; do sleep 0.05; done
echo
echo 'Connection reset' >&2
exit 255
"#,
    );
    stage.config("[sources.remote]\nplugin = 'ssh-tail'\nhost = 'web-1'\npath = '/var/log/app.log'\n");
    stage.start();
    let path = "/var/log/app.log";
    let stream = stage.stream_until(path, |stream| stream.lines.len() >= 2).await;
    assert_eq!(texts(&stream), ["first of /var/log/app.log", "no newline yet"]);
    assert!(stream.lines[1].partial, "an open line is not held back");
    std::fs::write(stage.path("bin/seen"), "").unwrap();
    let stream = stage
        .stream_until(path, |stream| !stream.notices().is_empty())
        .await;
    let notice = &stream.notices()[0];
    assert!(
        notice.contains("ended (exit status: 255): Connection reset"),
        "{notice}"
    );
    stage.stop().await;
}
