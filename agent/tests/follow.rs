//! Files into the relay, byte for byte, whatever happens to them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use support::FakeRelay;
use support::agent::{RunningAgent, file_config};

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
async fn a_file_arrives_as_it_is_and_what_is_appended_follows() {
    let (relay, directory) = (FakeRelay::new(), tempfile::tempdir().unwrap());
    let listening = relay.listen().await;
    let path = directory.path().join("a.log");
    let mut expected = b"one\r\n\ntwo \xff\xfe\0 three\n".to_vec();
    fs::write(&path, &expected).unwrap();
    let agent = RunningAgent::start(&listening.url(), "a", &file_config(&path, ""));
    relay.until_raw(&instance(&path), &expected).await;
    append(&path, b"half");
    expected.extend(b"half");
    let stream = relay.until_raw(&instance(&path), &expected).await;
    assert!(stream.lines.last().unwrap().partial);
    append(&path, b"\nlast");
    expected.extend(b"\nlast");
    let stream = relay.until_raw(&instance(&path), &expected).await;
    assert_eq!(stream.notices(), Vec::<String>::new());
    agent.stop().await;
}

#[tokio::test]
async fn megabytes_arrive_in_large_compressed_blocks() {
    let (relay, directory) = (FakeRelay::new(), tempfile::tempdir().unwrap());
    let listening = relay.listen().await;
    let path = directory.path().join("a.log");
    let line = b"   Compiling serde_derive v1.0.229 (/src/serde_derive) with features default, std\n";
    let expected: Vec<u8> = line.iter().copied().cycle().take(line.len() * 400_000).collect();
    fs::write(&path, &expected).unwrap();
    let agent = RunningAgent::start(&listening.url(), "a", &file_config(&path, ""));
    let stream = relay.until_raw(&instance(&path), &expected).await;
    assert!(stream.blocks < 200, "{} blocks", stream.blocks);
    assert!(stream.compressed_blocks > 0);
    agent.stop().await;
}

#[tokio::test]
async fn a_line_of_five_mebibytes_arrives_whole() {
    let (relay, directory) = (FakeRelay::new(), tempfile::tempdir().unwrap());
    let listening = relay.listen().await;
    let path = directory.path().join("a.log");
    let mut expected = vec![b'x'; 5 << 20];
    expected.extend(b"\nafter\n");
    fs::write(&path, &expected).unwrap();
    let agent = RunningAgent::start(&listening.url(), "a", &file_config(&path, ""));
    relay.until_raw(&instance(&path), &expected).await;
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_that_was_killed_goes_on_where_the_store_ends() {
    let (relay, directory) = (FakeRelay::new(), tempfile::tempdir().unwrap());
    let listening = relay.listen().await;
    let path = directory.path().join("a.log");
    let mut expected = Vec::new();
    for round in 0..6 {
        for line in 0..3000 {
            let text = format!("round {round} line {line}\n");
            expected.extend(text.as_bytes());
            append_all(&path, text.as_bytes());
        }
        append_all(&path, b"open ");
        expected.extend(b"open ");
        let agent = RunningAgent::start(&listening.url(), "a", &file_config(&path, ""));
        if round % 2 == 0 {
            relay.until_raw(&instance(&path), &expected).await;
        } else {
            relay
                .until("some lines", |relay| {
                    relay.stream(&instance(&path)).filter(|s| !s.lines.is_empty())
                })
                .await;
        }
        agent.kill().await;
    }
    let agent = RunningAgent::start(&listening.url(), "a", &file_config(&path, ""));
    let stream = relay.until_raw(&instance(&path), &expected).await;
    assert_eq!(stream.notices(), Vec::<String>::new());
    agent.stop().await;
}

fn append_all(path: &Path, bytes: &[u8]) {
    append(path, bytes);
}

#[tokio::test]
async fn a_renamed_file_is_finished_before_the_new_one_is_read() {
    let (relay, directory) = (FakeRelay::new(), tempfile::tempdir().unwrap());
    let listening = relay.listen().await;
    let path = directory.path().join("a.log");
    append(&path, b"old 1\n");
    let agent = RunningAgent::start(&listening.url(), "a", &file_config(&path, ""));
    relay.until_raw(&instance(&path), b"old 1\n").await;
    let mut old = OpenOptions::new().append(true).open(&path).unwrap();
    fs::rename(&path, directory.path().join("a.log.1")).unwrap();
    old.write_all(b"old 2\n").unwrap();
    relay.until_raw(&instance(&path), b"old 1\nold 2\n").await;
    append(&path, b"new 1\n");
    old.write_all(b"old 3\n").unwrap();
    let stream = relay
        .until_raw(&instance(&path), b"old 1\nold 2\nold 3\nnew 1\n")
        .await;
    assert_eq!(stream.notices(), Vec::<String>::new());
    agent.stop().await;
}

#[tokio::test]
async fn a_file_that_rotated_while_the_agent_was_away_is_finished_first() {
    let (relay, directory) = (FakeRelay::new(), tempfile::tempdir().unwrap());
    let listening = relay.listen().await;
    let path = directory.path().join("a.log");
    append(&path, b"old 1\n");
    let agent = RunningAgent::start(&listening.url(), "a", &file_config(&path, ""));
    relay.until_raw(&instance(&path), b"old 1\n").await;
    agent.kill().await;
    append(&path, b"old 2\n");
    fs::rename(&path, directory.path().join("a.log.1")).unwrap();
    append(&path, b"new 1\n");
    let agent = RunningAgent::start(&listening.url(), "a", &file_config(&path, ""));
    let stream = relay.until_raw(&instance(&path), b"old 1\nold 2\nnew 1\n").await;
    assert_eq!(stream.notices(), Vec::<String>::new());
    agent.stop().await;
}

#[tokio::test]
async fn truncation_is_said_in_the_stream_and_the_new_content_is_read() {
    let (relay, directory) = (FakeRelay::new(), tempfile::tempdir().unwrap());
    let listening = relay.listen().await;
    let path = directory.path().join("a.log");
    append(&path, b"before, quite long\n");
    let agent = RunningAgent::start(&listening.url(), "a", &file_config(&path, ""));
    relay.until_raw(&instance(&path), b"before, quite long\n").await;
    fs::write(&path, b"after\n").unwrap();
    let stream = relay
        .until_raw(&instance(&path), b"before, quite long\nafter\n")
        .await;
    assert!(
        stream.notices()[0].starts_with("file-truncated: "),
        "{:?}",
        stream.notices()
    );
    agent.kill().await;
    fs::write(&path, b"x\n").unwrap();
    let agent = RunningAgent::start(&listening.url(), "a", &file_config(&path, ""));
    let stream = relay
        .until_raw(&instance(&path), b"before, quite long\nafter\nx\n")
        .await;
    assert_eq!(stream.notices().len(), 2, "{:?}", stream.notices());
    agent.stop().await;
}

#[tokio::test]
async fn a_deleted_file_is_read_to_its_end_and_a_new_one_continues_the_stream() {
    let (relay, directory) = (FakeRelay::new(), tempfile::tempdir().unwrap());
    let listening = relay.listen().await;
    let path = directory.path().join("a.log");
    append(&path, b"one\n");
    let agent = RunningAgent::start(&listening.url(), "a", &file_config(&path, ""));
    relay.until_raw(&instance(&path), b"one\n").await;
    let mut old = OpenOptions::new().append(true).open(&path).unwrap();
    old.write_all(b"two\n").unwrap();
    fs::remove_file(&path).unwrap();
    old.write_all(b"three\n").unwrap();
    relay.until_raw(&instance(&path), b"one\ntwo\nthree\n").await;
    drop(old);
    append(&path, b"four\n");
    relay
        .until_raw(&instance(&path), b"one\ntwo\nthree\nfour\n")
        .await;
    agent.stop().await;
}

#[tokio::test]
async fn a_relay_that_lost_its_store_gets_the_file_again() {
    let (relay, directory) = (FakeRelay::new(), tempfile::tempdir().unwrap());
    let listening = relay.listen().await;
    let path = directory.path().join("a.log");
    append(&path, b"one\ntwo\n");
    let agent = RunningAgent::start(&listening.url(), "a", &file_config(&path, ""));
    relay.until_raw(&instance(&path), b"one\ntwo\n").await;
    let address = listening.address;
    listening.stop().await;
    relay.wipe();
    let _listening = relay.listen_on(address).await;
    append(&path, b"three\n");
    relay.until_raw(&instance(&path), b"one\ntwo\nthree\n").await;
    agent.stop().await;
}

#[tokio::test]
async fn start_at_the_end_skips_what_was_there_and_says_so_but_reads_new_files_whole() {
    let (relay, directory) = (FakeRelay::new(), tempfile::tempdir().unwrap());
    let listening = relay.listen().await;
    let (old, new) = (directory.path().join("old.log"), directory.path().join("new.log"));
    append(&old, b"history\n");
    let config = file_config(&directory.path().join("*.log"), "start = \"end\"");
    let agent = RunningAgent::start(&listening.url(), "a", &config);
    relay
        .until("the notice", |relay| {
            relay.stream(&instance(&old)).filter(|s| !s.notices().is_empty())
        })
        .await;
    append(&old, b"fresh\n");
    append(&new, b"all of it\n");
    relay.until_raw(&instance(&old), b"fresh\n").await;
    relay.until_raw(&instance(&new), b"all of it\n").await;
    agent.stop().await;
}

#[tokio::test]
async fn polling_finds_what_inotify_would() {
    let (relay, directory) = (FakeRelay::new(), tempfile::tempdir().unwrap());
    let listening = relay.listen().await;
    let path = directory.path().join("a.log");
    let config = file_config(
        &directory.path().join("*.log"),
        "watch = \"poll\"\npoll_interval = \"50ms\"",
    );
    let agent = RunningAgent::start(&listening.url(), "a", &config);
    relay
        .until("a session", |relay| (relay.sessions() > 0).then_some(()))
        .await;
    append(&path, b"one\n");
    relay.until_raw(&instance(&path), b"one\n").await;
    append(&path, b"two\n");
    relay.until_raw(&instance(&path), b"one\ntwo\n").await;
    agent.stop().await;
}
