//! What goes in comes out: whole builds of several hosts, through every way to read them.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use millstream_tests::agent::Agent;
use millstream_tests::corpus::{assert_same, variant};
use millstream_tests::reader::{Reader, follow};
use millstream_tests::relay::Relay;
use millstream_tests::wait::{eventually, until};
use millstream_tests::{cli, files};
use rustix::process::Signal;
use tokio::task::JoinSet;

const AGENTS: usize = 4;
const SOURCES: usize = 5;
const LINES: usize = 2_000;

/// One source's file and what is written into it.
struct Input {
    host: String,
    path: PathBuf,
    content: Vec<u8>,
}

impl Input {
    /// The parts that are written before the agents start, while they run, and at the end.
    fn thirds(&self) -> [&[u8]; 3] {
        let third = self.content.len() / 3;
        [
            &self.content[..third],
            &self.content[third..2 * third],
            &self.content[2 * third..],
        ]
    }
}

fn by_path(reader: &Reader) -> BTreeMap<String, &[u8]> {
    let key = |labels: &BTreeMap<String, String>| format!("{} {}", labels["host"], labels["path"]);
    reader
        .copies
        .values()
        .map(|copy| (key(&copy.stream.labels), copy.text.as_slice()))
        .collect()
}

fn check(what: &str, reader: &Reader, inputs: &[Input]) {
    let got = by_path(reader);
    assert_eq!(got.len(), inputs.len(), "{what}: one stream for each source");
    for input in inputs {
        let key = format!("{} {}", input.host, input.path.display());
        assert_same(&format!("{what}: {key}"), got[&key], &input.content);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_agents_with_five_sources_each_arrive_byte_for_byte_through_every_reader() {
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("logs");
    let relay = Relay::start(dir.path()).await;
    let mut inputs = Vec::new();
    for agent in 0..AGENTS {
        for source in 0..SOURCES {
            let host = format!("build-{agent}");
            let path = dir.path().join(format!("{host}-{source}.log"));
            inputs.push(Input {
                host,
                path,
                content: variant(agent * SOURCES + source, LINES),
            });
        }
    }
    let total: usize = inputs.iter().map(|input| input.content.len()).sum();
    let total_stored = total as u64;
    let read = |reader: Reader| async move {
        let mut reader = reader;
        reader.until(|reader| reader.text_bytes() >= total).await;
        reader
    };
    let mut readers = JoinSet::new();

    // A program and the CLI follow before there is anything.
    readers.spawn(read(
        Reader::start(relay.log_service(), follow("")).await.unwrap(),
    ));
    let selector = format!("host=build-2,path={}", inputs[2 * SOURCES].path.display());
    let mut cli_before = cli::start(
        &logs,
        relay.url(),
        &["tail", &selector, "-f", "-n", "all", "-o", "raw"],
    );

    for input in &inputs {
        std::fs::write(&input.path, input.thirds()[0]).unwrap();
    }
    let mut agents = Vec::new();
    for own in inputs.chunks(SOURCES) {
        let paths: Vec<&str> = own.iter().map(|input| input.path.to_str().unwrap()).collect();
        let mut args: Vec<&str> = paths[..SOURCES - 1]
            .iter()
            .flat_map(|path| ["--file", path])
            .collect();
        args.extend(["--tail", paths[SOURCES - 1]]);
        agents.push(Agent::start(dir.path(), relay.url(), &own[0].host, &args).await);
    }
    let stored = async || {
        relay
            .streams("")
            .await
            .iter()
            .map(|stream| stream.text_bytes)
            .sum::<u64>()
    };
    eventually("the first third is stored", async || {
        (stored().await >= total_stored / 3 - 20).then_some(())
    })
    .await;

    // More come while the builds write on.
    let writing = async {
        for input in &inputs {
            files::append_in_pieces(&input.path, input.thirds()[1]).await;
        }
    };
    let joining = async {
        eventually("half is stored", async || {
            (stored().await >= total_stored / 2).then_some(())
        })
        .await;
        Reader::start(relay.log_service(), follow("host=build-*"))
            .await
            .unwrap()
    };
    let ((), middle) = tokio::join!(writing, joining);
    readers.spawn(read(middle));
    for input in &inputs {
        files::append_in_pieces(&input.path, input.thirds()[2]).await;
    }
    eventually("everything is stored", async || {
        (stored().await >= total_stored).then_some(())
    })
    .await;

    readers.spawn(read(
        Reader::start(relay.log_service(), follow("")).await.unwrap(),
    ));
    while let Some(reader) = readers.join_next().await {
        check("live tail", &reader.unwrap(), &inputs);
    }
    for stream in relay.streams("").await {
        let path = &stream.labels["path"];
        let input = inputs
            .iter()
            .find(|input| input.path.as_os_str() == path.as_str())
            .unwrap();
        assert_eq!(stream.labels["host"], input.host);
        assert_same(
            &format!("raw download of {path}"),
            &relay.raw(stream.stream_id).await,
            &input.content,
        );
        assert_same(
            &format!("cat of {path}"),
            &cli::cat(&logs, relay.url(), stream.stream_id).await,
            &input.content,
        );
    }
    let followed = &inputs[2 * SOURCES].content;
    until("the CLI has printed everything", || {
        cli_before.stdout_len() >= followed.len() as u64
    })
    .await;
    assert_same("millstream tail -f", &cli_before.stdout(), followed);
    cli_before.signal(Signal::INT);
    cli_before.finish().await;
    for agent in &mut agents {
        assert_eq!(agent.stop().await.code(), 0);
    }
}
