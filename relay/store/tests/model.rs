//! The stores against a model: random operations, and after each the store must hold what a plain list
//! of lines holds.

#![allow(
    clippy::unwrap_used,
    reason = "clippy exempts functions marked as tests, not their helpers"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use millstream_proto::block::{BlockBuilder, Compressor, Line, OpenBlock};
use millstream_proto::v1;
use millstream_store::memory::MemoryStore;
use millstream_store::{AppendOp, Clock, EmbeddedOptions, EmbeddedStore, LogStore, StreamRecord, WriteOp};
use proptest::prelude::*;

const STREAMS: u64 = 3;

#[derive(Clone, Debug, PartialEq)]
struct ModelLine {
    text: Vec<u8>,
    time_unix_us: i64,
    channel: v1::Channel,
    is_partial: bool,
    severity: v1::Severity,
}

#[derive(Clone, Debug)]
enum Step {
    /// Blocks of one commit: stream, lines, whether the text is compressed.
    Commit(Vec<(u64, Vec<ModelLine>, bool)>),
    Maintain,
    /// Lets every stream become idle, then maintains.
    Idle,
    Reopen,
    Read {
        stream_id: u64,
        from_permille: u64,
        max_bytes: usize,
    },
    Seek {
        stream_id: u64,
        unix_us: i64,
    },
}

fn any_line() -> impl Strategy<Value = ModelLine> {
    let text = prop_oneof![
        8 => prop::collection::vec(prop_oneof![0_u8..10, 11_u8..=255], 0..60),
        1 => (1_usize..40_000, 0_u8..10).prop_map(|(bytes, byte)| vec![byte; bytes]),
    ];
    (text, 0_i64..4, 0..3_i32, any::<bool>(), 0..4_i32).prop_map(
        |(text, later, channel, is_partial, severity)| ModelLine {
            text,
            time_unix_us: later,
            channel: v1::Channel::try_from(channel).unwrap(),
            is_partial,
            severity: v1::Severity::try_from(severity).unwrap(),
        },
    )
}

fn any_step() -> impl Strategy<Value = Step> {
    let block = (
        1..=STREAMS,
        prop::collection::vec(any_line(), 1..12),
        any::<bool>(),
    );
    prop_oneof![
        6 => prop::collection::vec(block, 1..8).prop_map(Step::Commit),
        2 => Just(Step::Maintain),
        2 => Just(Step::Idle),
        1 => Just(Step::Reopen),
        4 => (1..=STREAMS, 0_u64..1100, 0_usize..5000).prop_map(|(stream_id, from_permille, max_bytes)| {
            Step::Read { stream_id, from_permille, max_bytes }
        }),
        2 => (1..=STREAMS, -2_i64..200).prop_map(|(stream_id, unix_us)| Step::Seek { stream_id, unix_us }),
    ]
}

#[derive(Default)]
struct Model {
    streams: BTreeMap<u64, Vec<ModelLine>>,
}

impl Model {
    fn lines(&mut self, stream_id: u64) -> &mut Vec<ModelLine> {
        self.streams.entry(stream_id).or_default()
    }

    /// Adds the lines, with times that ascend, and returns the append for the store.
    fn append(&mut self, stream_id: u64, mut lines: Vec<ModelLine>, is_compressed: bool) -> AppendOp {
        let stored = self.lines(stream_id);
        let first_sequence = stored.len() as u64;
        let mut time_unix_us = stored.last().map_or(0, |line| line.time_unix_us);
        let mut builder = BlockBuilder::new();
        for line in &mut lines {
            time_unix_us += line.time_unix_us;
            line.time_unix_us = time_unix_us;
            assert!(builder.push(&Line {
                sequence: 0,
                time_unix_us,
                channel: line.channel,
                partial: line.is_partial,
                severity: line.severity,
                text: &line.text,
            }));
        }
        stored.extend(lines);
        let block = builder.finish(first_sequence).unwrap();
        AppendOp {
            stream_id,
            block: if is_compressed {
                Compressor::new(1).compress(block)
            } else {
                block
            },
            checkpoint: Bytes::from(format!("{}", stored.len())),
            last_line_unix_us: time_unix_us,
        }
    }
}

fn put(stream_id: u64) -> WriteOp {
    WriteOp::PutStream(StreamRecord {
        stream_id,
        agent_id: "a".to_owned(),
        source: "s".to_owned(),
        instance: stream_id.to_string(),
        labels: BTreeMap::new(),
        created_unix_us: 1,
        first_sequence: 0,
        next_sequence: 0,
        text_bytes: 0,
        last_line_unix_us: 0,
        checkpoint: Bytes::new(),
        run: None,
        end: None,
    })
}

/// Lines of a page, with a check that the blocks follow each other.
fn page(store: &dyn LogStore, stream_id: u64, from: u64, max_bytes: usize) -> (u64, Vec<ModelLine>) {
    let mut lines = Vec::new();
    let mut first = None;
    let mut next = 0;
    for block in store.read_blocks(stream_id, from, max_bytes).unwrap() {
        let open = OpenBlock::open(&block).unwrap();
        if first.is_none() {
            first = Some(open.first_sequence());
        } else {
            assert_eq!(open.first_sequence(), next);
        }
        next = open.next_sequence();
        lines.extend(open.lines().map(|line| ModelLine {
            text: line.text.to_vec(),
            time_unix_us: line.time_unix_us,
            channel: line.channel,
            is_partial: line.partial,
            severity: line.severity,
        }));
    }
    (first.unwrap_or(from), lines)
}

fn check_all(store: &dyn LogStore, model: &mut Model) {
    for record in store.load_streams().unwrap() {
        let lines = model.lines(record.stream_id);
        assert_eq!(record.next_sequence, lines.len() as u64);
        let text_bytes: usize = lines.iter().map(|line| line.text.len() + 1).sum();
        assert_eq!(record.text_bytes, text_bytes as u64);
        if let Some(last) = lines.last() {
            assert_eq!(record.last_line_unix_us, last.time_unix_us);
            assert_eq!(record.checkpoint, lines.len().to_string());
        }
        let (first, stored) = page(store, record.stream_id, 0, usize::MAX);
        assert_eq!(first, 0);
        assert!(stored == *lines, "stream {} differs", record.stream_id);
    }
}

fn check<S: LogStore>(mut store: S, reopen: impl Fn(S) -> S, let_idle: impl Fn(), steps: Vec<Step>) {
    let mut model = Model::default();
    store.commit((1..=STREAMS).map(put).collect()).unwrap();
    let settle = |store: &S| while store.maintain().unwrap() {};
    for step in steps {
        match step {
            Step::Commit(blocks) => {
                let ops = blocks
                    .into_iter()
                    .map(|(stream_id, lines, is_compressed)| {
                        WriteOp::Append(model.append(stream_id, lines, is_compressed))
                    })
                    .collect();
                store.commit(ops).unwrap();
            }
            Step::Maintain => settle(&store),
            Step::Idle => {
                let_idle();
                settle(&store);
                check_all(&store, &mut model);
            }
            Step::Reopen => {
                store = reopen(store);
                check_all(&store, &mut model);
            }
            Step::Read {
                stream_id,
                from_permille,
                max_bytes,
            } => {
                let lines = model.lines(stream_id);
                let from = lines.len() as u64 * from_permille / 1000;
                let (first, stored) = page(&store, stream_id, from, max_bytes);
                assert!(first <= from);
                assert_eq!(stored.is_empty(), from >= lines.len() as u64);
                let start = usize::try_from(first).unwrap();
                assert!(stored.is_empty() || first + stored.len() as u64 > from);
                assert!(stored.is_empty() || stored == lines[start..start + stored.len()]);
            }
            Step::Seek { stream_id, unix_us } => {
                let expected = model
                    .lines(stream_id)
                    .partition_point(|line| line.time_unix_us < unix_us);
                assert_eq!(store.seek_time(stream_id, unix_us).unwrap(), expected as u64);
            }
        }
    }
    check_all(&store, &mut model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_embedded_store_holds_what_the_model_holds(
        steps in prop::collection::vec(any_step(), 1..40),
        settle_text_bytes in prop_oneof![Just(1_u64), Just(2_000), Just(1 << 20)],
    ) {
        let dir = tempfile::tempdir().unwrap();
        let seconds = Arc::new(AtomicU64::new(0));
        let open = || {
            let seconds = Arc::clone(&seconds);
            let options = EmbeddedOptions {
                settle_text_bytes,
                clock: Clock::new(move || Duration::from_secs(seconds.load(Ordering::Relaxed))),
                ..EmbeddedOptions::default()
            };
            EmbeddedStore::open(dir.path(), options).unwrap()
        };
        let reopen = |store| {
            drop(store);
            open()
        };
        check(open(), reopen, || { seconds.fetch_add(60, Ordering::Relaxed); }, steps);
    }

    #[test]
    fn the_memory_store_holds_what_the_model_holds(steps in prop::collection::vec(any_step(), 1..40)) {
        check(MemoryStore::new(), |store| store, || {}, steps);
    }
}
