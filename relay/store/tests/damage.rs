//! Every file of a data directory, damaged everywhere: bits flipped, pages zeroed, cut off, deleted. The store opens;
//! every line that is read is right; every line that is not is told, with the file; no sequence is given out twice;
//! the source's checkpoint doubles no line; and writing goes on, also after the next start.

#![allow(
    clippy::unwrap_used,
    reason = "clippy exempts functions marked as tests, not their helpers"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use millstream_proto::block::{BlockBuilder, OpenBlock};
use millstream_proto::v1;
use millstream_store::{
    AppendOp, EmbeddedOptions, EmbeddedStore, LogStore, StoreError, StreamRecord, WriteOp,
};

const STREAMS: u64 = 4;
const ROUNDS: u64 = 60;

fn options() -> EmbeddedOptions {
    EmbeddedOptions {
        segment_bytes: 64 << 10,
        settle_text_bytes: 16 << 10,
        settle_idle: Duration::from_secs(3600),
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
    let words: Vec<String> = (0..6).map(|_| format!("{:08x}", random.below(1 << 31))).collect();
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
        checkpoint: Bytes::from((first_sequence + lines).to_string()),
        last_line_unix_us: 1,
    })
}

fn put(stream_id: u64, is_ended: bool) -> WriteOp {
    WriteOp::PutStream(StreamRecord {
        stream_id,
        agent_id: "a".to_owned(),
        source: "s".to_owned(),
        instance: format!("/log/{stream_id}"),
        labels: BTreeMap::from([("host".to_owned(), "build-7".to_owned())]),
        created_unix_us: 1,
        first_sequence: 0,
        next_sequence: 0,
        text_bytes: 0,
        last_line_unix_us: 0,
        checkpoint: Bytes::new(),
        run: None,
        end: is_ended.then(v1::StreamEnd::default),
    })
}

fn lines_of(stream_id: u64) -> u64 {
    [3, 8, 20, 60][usize::try_from(stream_id % 4).unwrap()]
}

/// What is stored: the head of each stream.
type Truth = BTreeMap<u64, u64>;

/// A store with sealed segments and an active one, with blocks that are settled and some that are not. `killed`
/// gets the files as they are before it is closed.
fn make(dir: &Path, killed: &Path) -> (Truth, u64) {
    let store = EmbeddedStore::open(dir, options()).unwrap();
    let agent = v1::Agent {
        agent_id: "a".to_owned(),
        ..v1::Agent::default()
    };
    let mut ops = vec![WriteOp::PutAgent(agent)];
    ops.extend((1..=STREAMS).map(|stream_id| put(stream_id, false)));
    store.commit(ops).unwrap();
    let mut truth = Truth::new();
    for round in 0..ROUNDS {
        for stream_id in 1..=STREAMS {
            let lines = lines_of(stream_id);
            // One stream is quiet at the end, so that its newest lines are in an older segment.
            if stream_id == 1 && round > ROUNDS / 2 {
                continue;
            }
            store
                .commit(vec![append(stream_id, round * lines, lines)])
                .unwrap();
            truth.insert(stream_id, (round + 1) * lines);
        }
        if round % 8 == 0 {
            while store.maintain().unwrap() {}
        }
    }
    store.commit(vec![put(2, true)]).unwrap();
    store.sync().unwrap();
    copy(dir, killed);
    let blocks = truth
        .keys()
        .flat_map(|stream_id| store.read_blocks(*stream_id, 0, usize::MAX).unwrap());
    let largest = blocks.map(|block| block.line_count).max().unwrap();
    (truth, largest.into())
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
    found.sort();
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Flip { place: u64, bit: u32 },
    ZeroPage { place: u64 },
    Cut { bytes: u64 },
    Delete,
}

impl Damage {
    fn apply(self, path: &Path) {
        let mut bytes = fs::read(path).unwrap();
        let at = |place: u64| usize::try_from(place).unwrap();
        match self {
            Self::Flip { place, bit } => bytes[at(place)] ^= 1 << bit,
            Self::ZeroPage { place } => {
                let end = (at(place) + 4096).min(bytes.len());
                bytes[at(place)..end].fill(0);
            }
            Self::Cut { bytes: kept } => bytes.truncate(at(kept)),
            Self::Delete => return fs::remove_file(path).unwrap(),
        }
        fs::write(path, bytes).unwrap();
    }
}

/// Damages for a file of this size: places at its begin and end, and sampled ones between.
fn damages(bytes: u64, seed: u64) -> Vec<Damage> {
    let mut random = Random::seeded(seed);
    let mut all = vec![Damage::Delete, Damage::Cut { bytes: 0 }];
    let edges = [
        0,
        1,
        8,
        39,
        45,
        bytes - 1,
        bytes - 2,
        bytes - 30,
        bytes - 47,
        bytes - 60,
    ];
    let inside: Vec<u64> = (0..14).map(|_| random.below(bytes)).collect();
    for place in edges.into_iter().chain(inside).filter(|place| *place < bytes) {
        let bit = u32::try_from(random.below(8)).unwrap();
        all.push(Damage::Flip { place, bit });
        match random.below(3) {
            0 => all.push(Damage::ZeroPage { place }),
            1 => all.push(Damage::Cut { bytes: place }),
            _ => {}
        }
    }
    all
}

/// More places with `MILLSTREAM_DAMAGE_SEEDS`.
fn seeds() -> u64 {
    std::env::var("MILLSTREAM_DAMAGE_SEEDS").map_or(1, |seeds| seeds.parse().unwrap())
}

/// Lines that are served, by stream.
type Served = BTreeMap<u64, Vec<u64>>;

/// Reads everything: what is served is right, and what is not is told line by line.
fn read_all(store: &EmbeddedStore, truth: &Truth, what: &str) -> Served {
    let mut served = Served::new();
    for record in store.load_streams().unwrap() {
        let stream_id = record.stream_id;
        let Some(head) = truth.get(&stream_id) else {
            continue;
        };
        let lines = served.entry(stream_id).or_default();
        let mut next = 0;
        while next < record.next_sequence {
            match store.read_blocks(stream_id, next, 10_000) {
                Ok(blocks) => {
                    assert!(!blocks.is_empty(), "{what}: nothing at line {next}");
                    for block in blocks {
                        let open = OpenBlock::open(&block).unwrap();
                        assert!(open.first_sequence() <= next, "{what}: a hole at {next}");
                        for line in open.lines().filter(|line| line.sequence >= next) {
                            assert!(line.sequence < *head, "{what}: a line that never was");
                            let text = text_of(stream_id, line.sequence);
                            assert_eq!(line.text, text.as_bytes(), "{what}: line {next}");
                            lines.push(line.sequence);
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
                    next = next_sequence;
                }
                Err(error) => panic!("{what}: {error}"),
            }
        }
    }
    served
}

fn count(served: &Served) -> u64 {
    served.values().map(|lines| lines.len() as u64).sum()
}

struct Case<'a> {
    truth: &'a Truth,
    /// Lines.
    largest_block: u64,
    /// Name of the damaged file.
    file: &'a str,
    damage: Damage,
    /// The store was not closed, this is its newest segment, and the damage looks like what a power failure leaves
    /// of the last write.
    may_look_unfinished: bool,
}

/// Returns how many lines were lost.
fn check(dir: &Path, case: &Case<'_>, what: &str) -> u64 {
    let store = EmbeddedStore::open(dir, options()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let served = read_all(&store, case.truth, what);
    let records = store.load_streams().unwrap();
    assert_eq!(records.len() as u64, STREAMS, "{what}: a stream is gone");
    assert_eq!(store.load_agents().unwrap().len(), 1, "{what}");
    let lost = case.truth.values().sum::<u64>() - count(&served);
    for record in &records {
        let head = case.truth[&record.stream_id];
        assert_eq!(record.instance, format!("/log/{}", record.stream_id), "{what}");
        assert_eq!(record.labels["host"], "build-7", "{what}");
        if !case.may_look_unfinished {
            assert!(
                record.next_sequence >= head,
                "{what}: stream {} goes on at {}, although lines up to {head} were given out",
                record.stream_id,
                record.next_sequence
            );
            assert_eq!(
                record.end.is_some(),
                record.stream_id == 2,
                "{what}: stream {}",
                record.stream_id
            );
        }
        // The source goes on there: not before a line that is stored, or that would come twice.
        let position: u64 = std::str::from_utf8(&record.checkpoint)
            .unwrap()
            .parse()
            .unwrap_or(0);
        let newest = served[&record.stream_id].last().map_or(0, |last| last + 1);
        assert!(
            position >= newest && position <= head,
            "{what}: the source of stream {} goes on at {position}, {newest} is stored",
            record.stream_id
        );
    }
    let said = store.damage().join("\n");
    if lost > 0 && !case.may_look_unfinished {
        assert!(
            said.contains(case.file),
            "{what}: {lost} lines are lost, said is: {said}"
        );
    }
    if !case.file.ends_with(".seg") {
        assert_eq!(lost, 0, "{what}: {said}");
    }
    if matches!(case.damage, Damage::Flip { .. }) {
        // One record: at most the largest block.
        assert!(lost <= case.largest_block, "{what}: {lost} lines: {said}");
    }
    let mut heads = Truth::new();
    for record in records.iter().filter(|record| record.end.is_none()) {
        let at = record.next_sequence;
        store
            .commit(vec![append(record.stream_id, at, 5)])
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        heads.insert(record.stream_id, at + 5);
    }
    store.sync().unwrap();
    loop {
        match store.maintain() {
            Ok(true) | Err(StoreError::Damaged { .. }) => {}
            Ok(false) => break,
            Err(error) => panic!("{what}: {error}"),
        }
    }
    drop(store);
    // The next start finds the same, and what was written since.
    let store = EmbeddedStore::open(dir, options()).unwrap_or_else(|error| panic!("{what}: {error}"));
    for record in store.load_streams().unwrap() {
        if let Some(head) = heads.get(&record.stream_id) {
            assert_eq!(record.next_sequence, *head, "{what}");
            let blocks = store.read_blocks(record.stream_id, head - 5, 10_000).unwrap();
            let open = OpenBlock::open(blocks.last().unwrap()).unwrap();
            let last = open.lines().last().unwrap();
            assert_eq!(
                last.text,
                text_of(record.stream_id, head - 1).as_bytes(),
                "{what}"
            );
        }
    }
    let mut truth = case.truth.clone();
    for (stream_id, head) in heads {
        truth.insert(stream_id, head);
    }
    let again = read_all(&store, &truth, what);
    for (stream_id, lines) in &served {
        let head = case.truth[stream_id];
        let before: Vec<u64> = again[stream_id]
            .iter()
            .copied()
            .filter(|line| *line < head)
            .collect();
        if !case.may_look_unfinished {
            assert_eq!(&before, lines, "{what}: stream {stream_id}");
        }
    }
    lost
}

fn sweep(is_closed: bool) {
    let root = tempfile::tempdir().unwrap();
    let (closed, killed) = (root.path().join("closed"), root.path().join("killed"));
    let (truth, largest_block) = make(&closed, &killed);
    let origin = if is_closed { closed } else { killed };
    let mut paths = Vec::new();
    files(&origin, &mut paths);
    let newest = paths
        .iter()
        .rfind(|path| path.extension().is_some_and(|end| end == "seg"))
        .cloned();
    assert!(paths.len() >= 6, "the store has too few files: {paths:?}");
    let dir = root.path().join("copy");
    let (mut cases, mut with_losses) = (0, 0);
    for (number, path) in paths.iter().enumerate() {
        let name = path.strip_prefix(&origin).unwrap();
        let bytes = fs::metadata(path).unwrap().len();
        for damage in (0..seeds()).flat_map(|seed| damages(bytes.max(60), seed << 32 | number as u64)) {
            let _ = fs::remove_dir_all(&dir);
            copy(&origin, &dir);
            let target = dir.join(name);
            match damage {
                Damage::Flip { place, .. } | Damage::ZeroPage { place } if place >= bytes => continue,
                _ => damage.apply(&target),
            }
            let is_changed = !target.exists() || fs::read(&target).unwrap() != fs::read(path).unwrap();
            if !is_changed {
                continue;
            }
            let what = format!("{}, {damage:?}", name.display());
            let is_power_failure = matches!(damage, Damage::Cut { .. } | Damage::ZeroPage { .. });
            let case = Case {
                truth: &truth,
                largest_block,
                file: path.file_name().unwrap().to_str().unwrap(),
                damage,
                may_look_unfinished: !is_closed && Some(path) == newest.as_ref() && is_power_failure,
            };
            let lost = check(&dir, &case, &what);
            cases += 1;
            with_losses += u32::from(lost > 0);
            let is_lock = name == Path::new("store.lock");
            if lost > 0 && !case.may_look_unfinished && damage != Damage::Delete {
                assert!(
                    fs::read_dir(dir.join("damaged")).is_ok_and(|mut kept| kept.next().is_some()),
                    "{what}: the damaged file is not kept"
                );
            }
            assert!(!is_lock || lost == 0, "{what}");
        }
    }
    assert!(
        cases > 150 && with_losses > 30,
        "{cases} cases, {with_losses} with losses: the test damaged nothing"
    );
    println!("{cases} cases, {with_losses} with losses");
}

#[test]
fn whatever_is_damaged_in_a_closed_store_the_rest_is_served_and_the_loss_is_told() {
    sweep(true);
}

#[test]
fn whatever_is_damaged_in_a_killed_store_the_rest_is_served_and_the_loss_is_told() {
    sweep(false);
}

/// Removes files and opens what is left.
fn without(names: &[&str], what: &str) -> (tempfile::TempDir, EmbeddedStore, Truth) {
    let root = tempfile::tempdir().unwrap();
    let (truth, _) = make(&root.path().join("closed"), &root.path().join("killed"));
    let dir = root.path().join("killed");
    for name in names {
        let path = dir.join(name);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }
    let store = EmbeddedStore::open(&dir, options()).unwrap_or_else(|error| panic!("{what}: {error}"));
    (root, store, truth)
}

#[test]
fn without_any_segment_every_stream_is_known_and_its_lines_are_lost_by_name() {
    let (_root, store, truth) = without(&["log"], "no log");
    let records = store.load_streams().unwrap();
    assert_eq!(records.len() as u64, STREAMS);
    for record in &records {
        assert!(record.next_sequence >= truth[&record.stream_id]);
        assert_eq!(record.instance, format!("/log/{}", record.stream_id));
    }
    assert_eq!(count(&read_all(&store, &truth, "no log")), 0);
    let said = store.damage().join("\n");
    assert!(said.contains(".seg is missing"), "{said}");
    assert!(said.contains("stream 3: lines 0 to "), "{said}");
}

#[test]
fn without_the_catalog_and_the_newest_segment_sequences_are_skipped_rather_than_given_out_twice() {
    let root = tempfile::tempdir().unwrap();
    let (truth, _) = make(&root.path().join("closed"), &root.path().join("killed"));
    let dir = root.path().join("killed");
    let mut paths = Vec::new();
    files(&dir.join("log"), &mut paths);
    // Nobody can know of a newest segment that is gone together with the catalog; of a damaged one everybody does.
    Damage::Flip { place: 3, bit: 1 }.apply(paths.last().unwrap());
    fs::remove_file(dir.join("catalog")).unwrap();
    let store = EmbeddedStore::open(&dir, options()).unwrap();
    for record in store.load_streams().unwrap() {
        assert!(record.next_sequence >= truth[&record.stream_id]);
    }
    let lost = truth.values().sum::<u64>() - count(&read_all(&store, &truth, "two files"));
    assert_eq!(lost, 0, "only a header is damaged: {:?}", store.damage());
}

#[test]
fn a_store_of_which_nothing_is_left_says_so_and_gets_a_new_id() {
    let (root, store, _) = without(&[], "nothing damaged");
    let id = store.store_id().to_owned();
    assert_eq!(store.damage(), Vec::<String>::new());
    drop(store);
    let dir = root.path().join("killed");
    fs::remove_dir_all(dir.join("log")).unwrap();
    fs::remove_file(dir.join("catalog")).unwrap();
    let store = EmbeddedStore::open(&dir, options()).unwrap();
    assert_ne!(store.store_id(), id);
    assert!(
        store
            .damage()
            .join("\n")
            .contains("nothing is left of what the store held"),
        "{:?}",
        store.damage()
    );
    store.commit(vec![put(1, false), append(1, 0, 5)]).unwrap();
    let id = store.store_id().to_owned();
    drop(store);
    let store = EmbeddedStore::open(&dir, options()).unwrap();
    assert_eq!(store.store_id(), id);
    assert_eq!(store.damage(), Vec::<String>::new());
}
