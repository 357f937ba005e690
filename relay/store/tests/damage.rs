//! Bit flips, zeroed pages and cut-off ends in the files that hold blocks: every line that is read is right,
//! every line that cannot be read is reported with its place, and writing goes on.

#![allow(
    clippy::unwrap_used,
    reason = "clippy exempts functions marked as tests, not their helpers"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use millstream_proto::block::{BlockBuilder, OpenBlock};
use millstream_proto::v1;
use millstream_store::{
    AppendOp, EmbeddedOptions, EmbeddedStore, LogStore, StoreError, StreamRecord, WriteOp,
};

const STREAMS: u64 = 4;
const BLOCKS: u64 = 60;
const LINES_PER_BLOCK: u64 = 40;

fn options() -> EmbeddedOptions {
    EmbeddedOptions {
        memtable_bytes: 1 << 20,
        settle_text_bytes: 64 << 10,
        settle_idle: Duration::ZERO,
        min_free_bytes: 0,
        ..EmbeddedOptions::default()
    }
}

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    /// Seeds that are close to each other make numbers that are not.
    fn seeded(seed: u64) -> Self {
        let mut random = Self(seed);
        for _ in 0..4 {
            random.below(1);
        }
        random
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }
}

/// Hardly compressible, so that the files are large enough to be hit in many places.
fn text_of(stream_id: u64, sequence: u64) -> String {
    let mut random = Random(stream_id << 32 | sequence);
    let words: Vec<String> = (0..12)
        .map(|_| format!("{:08x}", random.below(1 << 31)))
        .collect();
    format!("{stream_id}/{sequence} {}", words.join(" "))
}

fn append(stream_id: u64, first_sequence: u64, lines: u64) -> WriteOp {
    let mut builder = BlockBuilder::new();
    for sequence in first_sequence..first_sequence + lines {
        let text = text_of(stream_id, sequence);
        assert!(builder.push_line(text.as_bytes(), 1, v1::Channel::Stdout, false));
    }
    WriteOp::Append(AppendOp {
        stream_id,
        block: builder.finish(first_sequence).unwrap(),
        checkpoint: bytes::Bytes::new(),
        last_line_unix_us: 1,
    })
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
        checkpoint: bytes::Bytes::new(),
        run: None,
        end: None,
    })
}

/// A store with tables and files of large values, part of it settled.
fn make(dir: &Path, is_written_out: bool) {
    let store = EmbeddedStore::open(dir, options()).unwrap();
    store.commit((1..=STREAMS).map(put).collect()).unwrap();
    for block in 0..BLOCKS {
        for stream_id in 1..=STREAMS {
            // Small blocks stand in the index, middle ones in tables, large ones in files of their own.
            let lines = LINES_PER_BLOCK * [1, 2, 10][usize::try_from(stream_id % 3).unwrap()];
            store
                .commit(vec![append(stream_id, block * lines, lines)])
                .unwrap();
        }
        if block % 16 == 0 {
            while store.maintain().unwrap() {}
        }
    }
    if is_written_out {
        store.write_out().unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Damages a place below `limit`; says how.
fn damage(path: &Path, limit: u64, seed: u64) -> String {
    if !seed.is_multiple_of(3) {
        return damage_inside(path, limit, seed);
    }
    let place = Random::seeded(seed).below(limit);
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(place)
        .unwrap();
    format!("cut off at {place}")
}

/// As [`damage`], with the size of the file left as it is.
fn damage_inside(path: &Path, limit: u64, seed: u64) -> String {
    let mut random = Random::seeded(seed);
    let mut bytes = fs::read(path).unwrap();
    let place = usize::try_from(random.below(limit)).unwrap();
    let what = if random.below(2) == 0 {
        bytes[place] ^= 1 << random.below(8);
        "bit flipped"
    } else {
        let end = (place + 4096).min(bytes.len());
        bytes[place..end].fill(0);
        "page zeroed"
    };
    fs::write(path, bytes).unwrap();
    format!("{what} at {place}")
}

/// Reads everything; returns the number of lines that are reported as damaged.
fn check(store: &EmbeddedStore, what: &str) -> u64 {
    let mut damaged = 0;
    for record in store.load_streams().unwrap() {
        let stream_id = record.stream_id;
        let mut next = 0;
        while next < record.next_sequence {
            match store.read_blocks(stream_id, next, 100_000) {
                Ok(blocks) => {
                    assert!(!blocks.is_empty(), "{what}: nothing at line {next}");
                    for block in blocks {
                        let open = OpenBlock::open(&block).unwrap();
                        assert!(open.first_sequence() <= next, "{what}: a hole at {next}");
                        for line in open.lines() {
                            let text = text_of(stream_id, line.sequence);
                            assert_eq!(line.text, text.as_bytes(), "{what}: line {next}");
                        }
                        next = open.next_sequence();
                    }
                }
                Err(StoreError::DamagedLines {
                    stream_id: of,
                    first_sequence,
                    next_sequence,
                    ..
                }) => {
                    assert_eq!((of, first_sequence), (stream_id, next), "{what}");
                    assert!(
                        next_sequence > next && next_sequence <= record.next_sequence,
                        "{what}: {next_sequence}"
                    );
                    damaged += next_sequence - next;
                    next = next_sequence;
                }
                Err(error) => panic!("{what}: {error}"),
            }
        }
    }
    damaged
}

/// Lines of all streams.
fn heads(store: &EmbeddedStore) -> u64 {
    let streams = store.load_streams().unwrap();
    streams.iter().map(|stream| stream.next_sequence).sum()
}

fn goes_on(store: &EmbeddedStore, what: &str) {
    store
        .commit(vec![put(100), append(100, 0, 10)])
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    store.sync().unwrap();
    assert_eq!(
        store.read_blocks(100, 0, 1 << 20).unwrap()[0].line_count,
        10,
        "{what}"
    );
}

#[test]
fn a_journal_that_is_damaged_anywhere_loses_only_what_stood_there() {
    let root = tempfile::tempdir().unwrap();
    let origin = root.path().join("origin");
    make(&origin, false);
    let total = heads(&EmbeddedStore::open(&origin, options()).unwrap());
    let journal = Path::new("engine/0.jnl");
    // The end of the written part: what follows is reserved room.
    let bytes = fs::read(origin.join(journal)).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
    let (mut cut, mut reported) = (0, 0);
    for seed in 0..60 {
        let dir = root.path().join("copy");
        let _ = fs::remove_dir_all(&dir);
        copy(&origin, &dir);
        let what = format!("seed {seed}: {}", damage(&dir.join(journal), written, seed));
        let store = EmbeddedStore::open(&dir, options()).unwrap_or_else(|error| panic!("{what}: {error}"));
        let lost = check(&store, &what);
        let is_cut = what.contains("cut off");
        // A journal that only ends too early looks like an unfinished write; what tables know of is missed.
        if lost > 0 && !is_cut {
            assert!(store.damage()[0].contains("0.jnl is damaged from byte"), "{what}");
            assert!(dir.join("damaged/0.jnl.0").exists(), "{what}");
            reported += 1;
        }
        let missing = total - heads(&store);
        if is_cut {
            cut += u64::from(missing > 0);
        } else {
            // One place of at most a page: a write or two, and one such write may be a settled block of up to
            // 1 MiB, whose body is in a table already while its index is not.
            assert!(
                lost + missing <= 2 * 7000,
                "{what}: {lost} lines damaged, {missing} missing: {:?}",
                store.damage()
            );
        }
        goes_on(&store, &what);
        drop(store);
        // The next start finds nothing to mend.
        let store = EmbeddedStore::open(&dir, options()).unwrap();
        assert_eq!(check(&store, &what), lost, "{what}");
    }
    assert!(
        cut > 5 && reported > 5,
        "{cut} cut, {reported} reported: the test damaged nothing"
    );
}

#[test]
fn damaged_values_are_reported_line_by_line_and_everything_else_is_read() {
    let root = tempfile::tempdir().unwrap();
    let origin = root.path().join("origin");
    make(&origin, true);
    let total = heads(&EmbeddedStore::open(&origin, options()).unwrap());
    let mut paths = Vec::new();
    files(&origin, &mut paths);
    // Files of large values: nothing but the text of blocks and a table at their end.
    paths.retain(|path| path.parent().unwrap().ends_with("blobs"));
    assert!(!paths.is_empty());
    let mut reported = 0;
    for (seed, path) in (0..40).zip(paths.iter().cycle()) {
        let dir = root.path().join("copy");
        let _ = fs::remove_dir_all(&dir);
        copy(&origin, &dir);
        let target = dir.join(path.strip_prefix(&origin).unwrap());
        let size = fs::metadata(&target).unwrap().len();
        let what = format!("seed {seed}: {}", damage_inside(&target, size - 8192, seed));
        let store = EmbeddedStore::open(&dir, options()).unwrap_or_else(|error| panic!("{what}: {error}"));
        let lost = check(&store, &what);
        assert_eq!(heads(&store), total, "{what}");
        assert!(lost < total / 2, "{what}: {lost} of {total} lines");
        assert_eq!(lost > 0, !store.damage().is_empty(), "{what}");
        reported += u64::from(lost > 0);
        goes_on(&store, &what);
    }
    assert!(reported > 5, "the test damaged nothing that is read");
}
