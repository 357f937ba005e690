//! `kill -9` of a process that commits and settles: what `commit` returned for is there afterwards, dense
//! and in order.
//!
//! The test starts itself again as the process to kill, told by an environment variable.

#![allow(
    clippy::unwrap_used,
    reason = "clippy exempts functions marked as tests, not their helpers"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millstream_proto::block::{BlockBuilder, OpenBlock};
use millstream_proto::v1;
use millstream_store::{AppendOp, EmbeddedOptions, EmbeddedStore, LogStore, StreamRecord, WriteOp};

const DIR_VARIABLE: &str = "MILLSTREAM_STORE_CRASH_DIR";
const STREAMS: u64 = 3;

fn open(dir: &Path) -> EmbeddedStore {
    let options = EmbeddedOptions {
        settle_text_bytes: 4096,
        settle_idle: Duration::ZERO,
        // Small, so that segments are sealed and emptied in the short life of the child.
        segment_bytes: 1 << 20,
        ..EmbeddedOptions::default()
    };
    EmbeddedStore::open(dir, options).unwrap()
}

fn text_of(stream_id: u64, sequence: u64) -> String {
    format!(
        "{stream_id}/{sequence}/{}",
        "x".repeat((sequence % 97) as usize * 20)
    )
}

fn append(stream_id: u64, first_sequence: u64) -> WriteOp {
    let mut builder = BlockBuilder::new();
    for sequence in first_sequence..first_sequence + first_sequence % 11 + 1 {
        let time_unix_us = i64::try_from(sequence).unwrap();
        let text = text_of(stream_id, sequence);
        assert!(builder.push_line(text.as_bytes(), time_unix_us, v1::Channel::Stdout, false));
    }
    let block = builder.finish(first_sequence).unwrap();
    let next_sequence = first_sequence + u64::from(block.line_count);
    WriteOp::Append(AppendOp {
        stream_id,
        block,
        checkpoint: next_sequence.to_be_bytes().to_vec().into(),
        last_line_unix_us: i64::try_from(next_sequence - 1).unwrap(),
    })
}

/// Commits to all streams in a loop, settles beside it, and tells each commit that returned.
fn commit_until_killed(dir: &Path) {
    let store = open(dir);
    if store.load_streams().unwrap().is_empty() {
        let streams = (1..=STREAMS).map(|stream_id| {
            WriteOp::PutStream(StreamRecord {
                stream_id,
                agent_id: "a".to_owned(),
                source: "s".to_owned(),
                instance: stream_id.to_string(),
                labels: std::collections::BTreeMap::new(),
                created_unix_us: 1,
                first_sequence: 0,
                next_sequence: 0,
                text_bytes: 0,
                last_line_unix_us: 0,
                checkpoint: bytes::Bytes::new(),
                run: None,
                end: None,
            })
        });
        store.commit(streams.collect()).unwrap();
    }
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                store.maintain().unwrap();
            }
        });
        let mut head = store.load_streams().unwrap()[0].next_sequence;
        let mut out = std::io::stdout().lock();
        loop {
            let ops: Vec<WriteOp> = (1..=STREAMS).map(|stream_id| append(stream_id, head)).collect();
            store.commit(ops).unwrap();
            head += head % 11 + 1;
            // The test reads this; when it is gone nobody would kill this process.
            if writeln!(out, "committed {head}")
                .and_then(|()| out.flush())
                .is_err()
            {
                break;
            }
        }
        is_done.store(true, Ordering::Relaxed);
    });
}

fn check(dir: &Path, committed: u64) {
    let store = open(dir);
    let records = store.load_streams().unwrap();
    let head = records[0].next_sequence;
    assert!(
        head >= committed,
        "{head} lines of {committed} that were committed"
    );
    for record in records {
        // One commit wrote to all streams, so they stand at the same line.
        assert_eq!(record.next_sequence, head);
        assert_eq!(record.checkpoint[..], head.to_be_bytes());
        let mut next = 0;
        while next < head {
            for block in store.read_blocks(record.stream_id, next, 1 << 20).unwrap() {
                let open = OpenBlock::open(&block).unwrap();
                assert_eq!(open.first_sequence(), next);
                for line in open.lines() {
                    assert_eq!(line.text, text_of(record.stream_id, line.sequence).as_bytes());
                }
                next = open.next_sequence();
            }
        }
        assert_eq!(next, head);
    }
}

#[test]
fn what_was_committed_survives_kill_9() {
    if let Some(dir) = std::env::var_os(DIR_VARIABLE) {
        return commit_until_killed(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut committed = 0;
    for commits in [1, 40, 700, 200, 1500] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "what_was_committed_survives_kill_9", "--nocapture"])
            .env(DIR_VARIABLE, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let told = lines
            .map(Result::unwrap)
            .filter_map(|line| line.split_once("committed ")?.1.parse::<u64>().ok());
        for head in told.take(commits) {
            committed = head;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(committed > 0, "the child committed nothing");
        check(dir.path(), committed);
    }
}
