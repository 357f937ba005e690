//! Bytes that break naive pipelines come out exactly as they went in.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::io::Write as _;
use std::process::Stdio;

use millstream_tests::agent::Agent;
use millstream_tests::cli;
use millstream_tests::corpus::{assert_same, log};
use millstream_tests::process::Process;
use millstream_tests::reader::{Reader, follow};
use millstream_tests::relay::Relay;

/// A name and content of each kind.
fn cases() -> Vec<(&'static str, Vec<u8>)> {
    let long = |fill: u8| std::iter::repeat_n(fill, 5 << 20).collect::<Vec<u8>>();
    let mut long_lines = long(b'a');
    long_lines.push(b'\n');
    long_lines.extend(long(0xC3));
    long_lines.extend_from_slice(b"\nafter the long lines\n");
    vec![
        ("invalid-utf8", b"ok\n\xff\xfe\x80broken\xc3\n\xf0\x9f\n".to_vec()),
        ("empty-lines", b"\n\n\none\n\n\ntwo\n\n".to_vec()),
        ("crlf", b"one\r\ntwo\r\n\r\nthree\rstill three\r\n".to_vec()),
        ("nul", b"a\0b\n\0\n\0\0\0\nend\n".to_vec()),
        (
            "no-final-newline",
            b"first\nsecond\nthe last line has no end".to_vec(),
        ),
        ("only-a-fragment", b"x".to_vec()),
        ("long-lines", long_lines),
        ("terminal", log("cargo-build-failed.ansi.log")),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_any_bytes_arrives_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("logs");
    let relay = Relay::start(dir.path()).await;
    let mut args = Vec::new();
    for (name, content) in cases() {
        let path = dir.path().join(format!("{name}.log"));
        std::fs::write(&path, content).unwrap();
        args.extend(["--file".to_owned(), path.to_str().unwrap().to_owned()]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut agent = Agent::start(dir.path(), relay.url(), "host-1", &args).await;
    for (name, content) in cases() {
        let mut reader = Reader::start(relay.log_service(), follow(&format!("path=*/{name}.log")))
            .await
            .unwrap();
        reader.until(|reader| reader.text_bytes() >= content.len()).await;
        let (id, copy) = reader.copies.iter().next().unwrap();
        assert_same(&format!("tail of {name}"), &copy.text, &content);
        assert_same(
            &format!("raw download of {name}"),
            &relay.raw(*id).await,
            &content,
        );
        assert_same(
            &format!("cat of {name}"),
            &cli::cat(&logs, relay.url(), *id).await,
            &content,
        );
    }
    // A last line that had no end is completed later, and not doubled.
    millstream_tests::files::append(&dir.path().join("no-final-newline.log"), b", until now\n");
    let mut reader = Reader::start(relay.log_service(), follow("path=*/no-final-newline.log"))
        .await
        .unwrap();
    let whole = b"first\nsecond\nthe last line has no end, until now\n";
    reader.until(|reader| reader.text_bytes() >= whole.len()).await;
    assert_same(
        "the completed line",
        &reader.copies.values().next().unwrap().text,
        whole,
    );
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standard_input_of_any_bytes_arrives_exactly_and_ends_the_stream() {
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("logs");
    let relay = Relay::start(dir.path()).await;
    for (name, content) in cases() {
        let mut command = Agent::command(relay.url(), "host-1", &dir.path().join(name));
        let mut pipe = Process::start(
            "pipe",
            &logs,
            command.args(["pipe", "--name", name]).stdin(Stdio::piped()),
        );
        let mut stdin = pipe.take_stdin().unwrap();
        let input = content.clone();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let finished = pipe.finish().await;
        assert_eq!(finished.code(), 0, "{}", finished.stderr);
        writer.join().unwrap().unwrap();
        let mut reader = Reader::start(relay.log_service(), follow(&format!("source={name}")))
            .await
            .unwrap();
        reader
            .until(|reader| reader.copies.values().any(|copy| copy.ended.is_some()))
            .await;
        let (id, copy) = reader.copies.iter().next().unwrap();
        assert_same(&format!("tail of {name}"), &copy.text, &content);
        assert_same(
            &format!("raw download of {name}"),
            &relay.raw(*id).await,
            &content,
        );
    }
}
