//! What every [`LogStore`] must do, as functions that panic when it does not.
//!
//! [`run`] runs all checks. An implementation calls it from a test with a way to make an empty store and
//! a way to close one and open it again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use millstream_proto::block::{BlockBuilder, Compressor, OpenBlock};
use millstream_proto::v1;

use crate::{AppendOp, LogStore, StreamRecord, WriteOp};

/// Runs every check, each on a store of its own.
///
/// `create` makes an empty store. `reopen` closes a store and opens it again with everything that was
/// committed; a store that keeps nothing returns what it got.
///
/// # Panics
/// When the store breaks the contract.
pub fn run<S: LogStore>(create: impl Fn() -> S, reopen: impl Fn(S) -> S) {
    an_empty_store_has_nothing(&create());
    records_and_agents_come_back_as_they_were_put(create(), &reopen);
    lines_come_back_from_every_sequence(create(), &reopen);
    a_page_stops_before_its_limit_but_is_never_empty(&create());
    seeking_finds_the_first_line_of_a_time(create(), &reopen);
    a_refused_operation_undoes_the_whole_commit(&create());
    one_commit_may_change_a_stream_many_times(create(), &reopen);
    huge_blocks_come_back_as_they_were(create(), &reopen);
    thousands_of_tiny_blocks_stay_in_order(create(), &reopen);
    many_streams_do_not_mix(create(), &reopen);
    reads_beside_commits_and_maintenance_see_every_line_once(&create());
}

/// A stream that was just made.
#[must_use]
pub fn stream(stream_id: u64) -> StreamRecord {
    StreamRecord {
        stream_id,
        agent_id: "agent-1".to_owned(),
        source: "build".to_owned(),
        instance: format!("/var/log/{stream_id}.log"),
        labels: BTreeMap::from([("host".to_owned(), "build-7".to_owned())]),
        created_unix_us: 1_700_000_000_000_000,
        first_sequence: 0,
        next_sequence: 0,
        text_bytes: 0,
        last_line_unix_us: 0,
        checkpoint: Bytes::new(),
        run: None,
        end: None,
    }
}

/// The test line of a sequence: its text and time can be told from the sequence. Ten lines share a time.
#[must_use]
pub fn text_of(stream_id: u64, sequence: u64) -> Vec<u8> {
    format!("stream {stream_id} line {sequence} \u{1b}[32mok\u{1b}[0m").into_bytes()
}

/// Capture time of [`text_of`], microseconds.
#[must_use]
pub fn time_of(sequence: u64) -> i64 {
    1_700_000_000_000_000 + i64::try_from(sequence / 10).expect("test sequences are small") * 1000
}

/// An append of `lines` test lines from `first_sequence` on.
#[must_use]
pub fn append(stream_id: u64, first_sequence: u64, lines: u64) -> AppendOp {
    let mut builder = BlockBuilder::new();
    for sequence in first_sequence..first_sequence + lines {
        let (channel, is_partial) = kind_of(sequence);
        let fits = builder.push_line(
            &text_of(stream_id, sequence),
            time_of(sequence),
            channel,
            is_partial,
        );
        assert!(fits, "test blocks are small");
    }
    AppendOp {
        stream_id,
        block: builder.finish(first_sequence).expect("it has lines"),
        checkpoint: Bytes::from(format!("after {}", first_sequence + lines)),
        last_line_unix_us: time_of(first_sequence + lines - 1),
    }
}

fn kind_of(sequence: u64) -> (v1::Channel, bool) {
    let channel = if sequence.is_multiple_of(7) {
        v1::Channel::Stderr
    } else {
        v1::Channel::Stdout
    };
    (channel, sequence.is_multiple_of(13))
}

/// Reads from `from` to the head in pages of `max_bytes` and checks every line against [`text_of`].
///
/// # Panics
/// When a line is missing, doubled or changed.
pub fn check_lines(store: &dyn LogStore, stream_id: u64, from: u64, head: u64, max_bytes: usize) {
    let mut next = from;
    while next < head {
        let blocks = store
            .read_blocks(stream_id, next, max_bytes)
            .expect("reading succeeds");
        assert!(
            !blocks.is_empty(),
            "stream {stream_id}: nothing at {next}, head is {head}"
        );
        for block in blocks {
            let open = OpenBlock::open(&block).expect("stored blocks are valid");
            assert!(
                open.first_sequence() <= next && next < open.next_sequence(),
                "stream {stream_id}: wanted {next}, got lines {} to {}",
                open.first_sequence(),
                open.next_sequence(),
            );
            for line in open.lines() {
                let (channel, is_partial) = kind_of(line.sequence);
                assert_eq!(line.text, text_of(stream_id, line.sequence));
                assert_eq!(line.time_unix_us, time_of(line.sequence));
                assert_eq!((line.channel, line.partial), (channel, is_partial));
            }
            next = open.next_sequence();
        }
    }
}

fn commit(store: &dyn LogStore, ops: impl IntoIterator<Item = WriteOp>) {
    store
        .commit(ops.into_iter().collect())
        .expect("the commit is accepted");
}

fn settle(store: &dyn LogStore) {
    while store.maintain().expect("maintenance succeeds") {}
}

fn record(store: &dyn LogStore, stream_id: u64) -> StreamRecord {
    let streams = store.load_streams().expect("streams load");
    streams
        .into_iter()
        .find(|record| record.stream_id == stream_id)
        .expect("the stream is stored")
}

fn an_empty_store_has_nothing(store: &dyn LogStore) {
    assert!(!store.store_id().is_empty());
    assert_eq!(store.load_streams().expect("streams load"), []);
    assert_eq!(store.load_agents().expect("agents load"), []);
    assert_eq!(store.read_blocks(1, 0, 1000).expect("reading succeeds"), []);
    assert_eq!(store.seek_time(1, 0).expect("seeking succeeds"), 0);
    settle(store);
}

fn records_and_agents_come_back_as_they_were_put<S: LogStore>(store: S, reopen: &impl Fn(S) -> S) {
    let agent = v1::Agent {
        agent_id: "agent-1".to_owned(),
        host: "build-7".to_owned(),
        ..Default::default()
    };
    commit(
        &store,
        [
            WriteOp::PutStream(stream(2)),
            WriteOp::PutStream(stream(1)),
            WriteOp::PutAgent(agent.clone()),
            WriteOp::Append(append(1, 0, 5)),
        ],
    );
    // The caller's idea of the head may be old; what it may change is the rest.
    let ended = StreamRecord {
        end: Some(v1::StreamEnd {
            exit_code: Some(101),
            ..Default::default()
        }),
        ..stream(1)
    };
    commit(&store, [WriteOp::PutStream(ended.clone())]);
    store.sync().expect("syncing succeeds");
    let id = store.store_id().to_owned();
    let store = reopen(store);
    assert_eq!(store.store_id(), id);
    let expected = StreamRecord {
        next_sequence: 5,
        text_bytes: append(1, 0, 5).block.text_bytes.into(),
        last_line_unix_us: time_of(4),
        checkpoint: Bytes::from_static(b"after 5"),
        ..ended
    };
    assert_eq!(store.load_streams().expect("streams load"), [expected, stream(2)]);
    assert_eq!(store.load_agents().expect("agents load"), [agent]);
}

fn lines_come_back_from_every_sequence<S: LogStore>(store: S, reopen: &impl Fn(S) -> S) {
    commit(&store, [WriteOp::PutStream(stream(1))]);
    let mut head = 0;
    for lines in [1, 1, 30, 2, 1, 50, 3] {
        commit(&store, [WriteOp::Append(append(1, head, lines))]);
        head += lines;
    }
    let check = |store: &S| {
        for from in 0..head {
            check_lines(store, 1, from, head, 1);
            check_lines(store, 1, from, head, 1 << 20);
        }
        assert_eq!(store.read_blocks(1, head, 1000).expect("reading succeeds"), []);
        assert_eq!(
            store.read_blocks(1, u64::MAX, 1000).expect("reading succeeds"),
            []
        );
    };
    check(&store);
    settle(&store);
    check(&store);
    let store = reopen(store);
    check(&store);
    settle(&store);
    check(&store);
}

fn a_page_stops_before_its_limit_but_is_never_empty(store: &dyn LogStore) {
    use prost::Message as _;
    commit(store, [WriteOp::PutStream(stream(1))]);
    for block in 0..10 {
        commit(store, [WriteOp::Append(append(1, block * 10, 10))]);
    }
    let three_blocks: usize = (5..8)
        .map(|block| append(1, block * 10, 10).block.encoded_len())
        .sum();
    let count = |max_bytes| {
        store
            .read_blocks(1, 50, max_bytes)
            .expect("reading succeeds")
            .len()
    };
    assert_eq!(count(0), 1);
    assert_eq!(count(three_blocks), 3);
    assert_eq!(count(three_blocks - 1), 2);
    assert_eq!(count(usize::MAX), 5);
}

fn seeking_finds_the_first_line_of_a_time<S: LogStore>(store: S, reopen: &impl Fn(S) -> S) {
    commit(
        &store,
        [WriteOp::PutStream(stream(1)), WriteOp::PutStream(stream(2))],
    );
    let mut head = 0;
    for lines in [3, 40, 1, 7, 100, 5, 5, 5] {
        commit(&store, [WriteOp::Append(append(1, head, lines))]);
        head += lines;
    }
    let check = |store: &S| {
        let seek = |unix_us| store.seek_time(1, unix_us).expect("seeking succeeds");
        assert_eq!(seek(i64::MIN), 0);
        assert_eq!(seek(i64::MAX), head);
        for sequence in 0..head {
            assert_eq!(seek(time_of(sequence)), sequence - sequence % 10);
            assert_eq!(
                seek(time_of(sequence) + 1),
                (sequence - sequence % 10 + 10).min(head)
            );
        }
        assert_eq!(store.seek_time(2, 0).expect("seeking succeeds"), 0);
    };
    check(&store);
    settle(&store);
    check(&store);
    check(&reopen(store));
}

fn a_refused_operation_undoes_the_whole_commit(store: &dyn LogStore) {
    commit(
        store,
        [WriteOp::PutStream(stream(1)), WriteOp::Append(append(1, 0, 5))],
    );
    let before = record(store, 1);
    let bad = [append(1, 4, 5), append(1, 6, 5), append(9, 0, 5)];
    for bad in bad {
        let ops = vec![
            WriteOp::PutStream(stream(2)),
            WriteOp::Append(append(2, 0, 5)),
            WriteOp::PutAgent(v1::Agent::default()),
            WriteOp::Append(bad),
        ];
        assert!(store.commit(ops).is_err());
        assert_eq!(record(store, 1), before);
        assert_eq!(store.load_streams().expect("streams load").len(), 1);
        assert_eq!(store.load_agents().expect("agents load"), []);
        assert_eq!(store.read_blocks(2, 0, 1000).expect("reading succeeds"), []);
    }
    commit(store, [WriteOp::Append(append(1, 5, 5))]);
    check_lines(store, 1, 0, 10, 1000);
}

fn one_commit_may_change_a_stream_many_times<S: LogStore>(store: S, reopen: &impl Fn(S) -> S) {
    let ops = [WriteOp::PutStream(stream(1))]
        .into_iter()
        .chain((0..50).map(|index| WriteOp::Append(append(1, index * 2, 2))))
        .chain([WriteOp::PutStream(StreamRecord {
            source: "renamed".to_owned(),
            ..stream(1)
        })])
        .chain((50..60).map(|index| WriteOp::Append(append(1, index * 2, 2))));
    commit(&store, ops);
    let store = reopen(store);
    check_lines(&store, 1, 0, 120, 500);
    let record = record(&store, 1);
    assert_eq!((record.next_sequence, record.source.as_str()), (120, "renamed"));
    assert_eq!(record.checkpoint, "after 120");
}

fn huge_blocks_come_back_as_they_were<S: LogStore>(store: S, reopen: &impl Fn(S) -> S) {
    commit(&store, [WriteOp::PutStream(stream(1))]);
    let mut compressor = Compressor::new(1);
    let mut blocks = Vec::new();
    let mut head = 0;
    for round in 0..6_u8 {
        let mut builder = BlockBuilder::new();
        // Text that hardly compresses, then one line that fills a block.
        let line: Vec<u8> = (0..1024_u32)
            .map(|index| (index.wrapping_mul(2_654_435_761) >> (round + 3)).to_le_bytes()[0] | 0x80)
            .collect();
        while builder.push_line(&line, time_of(head), v1::Channel::Stdout, false) {}
        if round == 5 {
            builder = BlockBuilder::new();
            let line = vec![b'x'; millstream_proto::limits::MAX_LINE_BYTES];
            assert!(builder.push_line(&line, time_of(head), v1::Channel::Stdout, true));
        }
        let mut block = builder.finish(head).expect("it has lines");
        if round % 2 == 1 {
            block = compressor.compress(block);
        }
        head += u64::from(block.line_count);
        let op = AppendOp {
            stream_id: 1,
            block: block.clone(),
            checkpoint: Bytes::new(),
            last_line_unix_us: block.first_time_unix_us,
        };
        commit(&store, [WriteOp::Append(op)]);
        blocks.push(block);
    }
    assert_eq!(
        store.read_blocks(1, 0, usize::MAX).expect("reading succeeds"),
        blocks
    );
    settle(&store);
    let store = reopen(store);
    let stored = store.read_blocks(1, 0, usize::MAX).expect("reading succeeds");
    let text = |blocks: &[v1::Block]| {
        let open = blocks
            .iter()
            .map(|block| OpenBlock::open(block).expect("it is valid"));
        open.map(|open| open.text().clone()).collect::<Vec<_>>().concat()
    };
    assert!(text(&stored) == text(&blocks), "the text is another one");
}

fn thousands_of_tiny_blocks_stay_in_order<S: LogStore>(store: S, reopen: &impl Fn(S) -> S) {
    const BLOCKS: u64 = 9000;
    commit(&store, [WriteOp::PutStream(stream(1))]);
    for group in 0..BLOCKS / 30 {
        commit(
            &store,
            (0..30).map(|index| WriteOp::Append(append(1, group * 30 + index, 1))),
        );
    }
    check_lines(&store, 1, 0, BLOCKS, 64 << 10);
    settle(&store);
    check_lines(&store, 1, 0, BLOCKS, 64 << 10);
    let store = reopen(store);
    settle(&store);
    for from in (0..BLOCKS).step_by(997) {
        check_lines(&store, 1, from, BLOCKS, 1 << 20);
    }
}

fn many_streams_do_not_mix<S: LogStore>(store: S, reopen: &impl Fn(S) -> S) {
    const STREAMS: u64 = 600;
    commit(&store, (1..=STREAMS).map(|id| WriteOp::PutStream(stream(id))));
    for round in 0..4 {
        commit(
            &store,
            (1..=STREAMS).map(|id| WriteOp::Append(append(id, round * (id % 5 + 1), id % 5 + 1))),
        );
    }
    settle(&store);
    let store = reopen(store);
    settle(&store);
    assert_eq!(store.load_streams().expect("streams load").len() as u64, STREAMS);
    for id in 1..=STREAMS {
        let head = 4 * (id % 5 + 1);
        check_lines(&store, id, 0, head, 1 << 20);
        assert_eq!(store.read_blocks(id, head, 1000).expect("reading succeeds"), []);
    }
}

fn reads_beside_commits_and_maintenance_see_every_line_once(store: &dyn LogStore) {
    const BLOCKS: u64 = 3000;
    commit(
        store,
        [WriteOp::PutStream(stream(1)), WriteOp::Append(append(1, 0, 3))],
    );
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                settle(store);
                std::thread::yield_now();
            }
        });
        scope.spawn(|| {
            let mut from = 0;
            while !is_done.load(Ordering::Relaxed) {
                let head = record(store, 1).next_sequence;
                check_lines(store, 1, from % head, head, 10_000);
                from += 7919;
            }
        });
        let _ends_the_others = SetOnDrop(&is_done);
        for block in 1..BLOCKS {
            commit(store, [WriteOp::Append(append(1, block * 3, 3))]);
        }
    });
    check_lines(store, 1, 0, BLOCKS * 3, 1 << 20);
}

/// Sets a flag also when a check panics, so that other threads do not run for ever.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
