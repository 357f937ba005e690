//! The store against a model, with a crash at every boundary between two changes of its files, in the middle of each
//! write, and in the middle of the recovery from a crash. What a crash leaves is made from a recording of the changes:
//!
//! - after a crash of the process all changes up to it are there: the store must hold what the last commit that
//!   returned left, or the one that was under way, whole;
//! - after a power failure what was not synced may be there, or not, or in part, or as zeros: what was synced must be
//!   there, and whatever is served must be right.

#![allow(
    clippy::unwrap_used,
    reason = "clippy exempts functions marked as tests, not their helpers"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use millstream_proto::block::{BlockBuilder, OpenBlock};
use millstream_proto::v1;
use millstream_store::{
    AppendOp, Disk, DiskChange, EmbeddedOptions, EmbeddedStore, LogStore, StoreError, StreamRecord, WriteOp,
};
use proptest::prelude::*;

const STREAMS: u64 = 3;

/// A change of a file, with its path relative to the data directory.
#[derive(Clone, Debug)]
enum Change {
    Create(PathBuf),
    Write(PathBuf, u64, Vec<u8>),
    SetLen(PathBuf, u64),
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Remove(PathBuf),
    Folder,
}

#[derive(Clone, Default)]
struct Journal(Arc<Mutex<Vec<Change>>>);

impl Journal {
    fn disk(&self, root: &Path) -> Disk {
        let (journal, root) = (self.clone(), root.to_owned());
        Disk::watched(move |change| {
            let inside = |path: &Path| path.strip_prefix(&root).unwrap().to_owned();
            let change = match change {
                DiskChange::Create { path } => Change::Create(inside(path)),
                DiskChange::Write { path, offset, bytes } => {
                    Change::Write(inside(path), *offset, bytes.to_vec())
                }
                DiskChange::SetLen { path, bytes } => Change::SetLen(inside(path), *bytes),
                DiskChange::Sync { path } => Change::Sync(inside(path)),
                DiskChange::Rename { from, to } => Change::Rename(inside(from), inside(to)),
                DiskChange::Link { from, to } => Change::Link(inside(from), inside(to)),
                DiskChange::Remove { path } => Change::Remove(inside(path)),
                DiskChange::SyncFolder { .. } | DiskChange::CreateFolder { .. } => Change::Folder,
            };
            journal.0.lock().unwrap().push(change);
            Ok(())
        })
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn changes(&self) -> Vec<Change> {
        self.0.lock().unwrap().clone()
    }
}

/// A file as programs see it, and as it was at its last sync.
#[derive(Clone, Debug, Default)]
struct FileImage {
    seen: Vec<u8>,
    synced: Vec<u8>,
}

/// The files of a data directory.
#[derive(Clone, Debug, Default)]
struct Image(BTreeMap<PathBuf, FileImage>);

impl Image {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Create(path) => {
                self.0.insert(path.clone(), FileImage::default());
            }
            Change::Write(path, offset, bytes) => {
                let seen = &mut self.0.get_mut(path).unwrap().seen;
                let offset = usize::try_from(*offset).unwrap();
                let end = offset + bytes.len();
                seen.resize(seen.len().max(end), 0);
                seen[offset..end].copy_from_slice(bytes);
            }
            Change::SetLen(path, bytes) => {
                let bytes = usize::try_from(*bytes).unwrap();
                self.0.get_mut(path).unwrap().seen.resize(bytes, 0);
            }
            Change::Sync(path) => {
                let file = self.0.get_mut(path).unwrap();
                file.synced.clone_from(&file.seen);
            }
            Change::Rename(from, to) => {
                let file = self.0.remove(from).unwrap();
                self.0.insert(to.clone(), file);
            }
            Change::Link(from, to) => {
                let file = self.0[from].clone();
                self.0.insert(to.clone(), file);
            }
            Change::Remove(path) => {
                self.0.remove(path);
            }
            Change::Folder => {}
        }
    }

    /// With a part of a write.
    fn with_part(&self, change: &Change, written: usize) -> Self {
        let mut image = self.clone();
        if let Change::Write(path, offset, bytes) = change {
            image.apply(&Change::Write(path.clone(), *offset, bytes[..written].to_vec()));
        }
        image
    }

    /// As a power failure leaves it: sector by sector what is seen, what was synced, or zeros where a file grew.
    fn after_power_failure(&self, random: &mut Random) -> Self {
        const SECTOR: usize = 512;
        let mut image = self.clone();
        for file in image.0.values_mut() {
            if file.seen == file.synced {
                continue;
            }
            let (short, long) = (
                file.seen.len().min(file.synced.len()),
                file.seen.len().max(file.synced.len()),
            );
            let len = short + usize::try_from(random.below(1 + (long - short) as u64)).unwrap();
            let mode = random.below(4);
            let mut left = vec![0; if mode == 0 { file.synced.len() } else { len }];
            for (number, sector) in left.chunks_mut(SECTOR).enumerate() {
                let at = number * SECTOR;
                let of = |source: &[u8]| source.get(at..source.len().min(at + SECTOR)).map(<[u8]>::to_vec);
                let (seen, synced) = (
                    of(&file.seen).unwrap_or_default(),
                    of(&file.synced).unwrap_or_default(),
                );
                let source = if mode != 0 && random.below(4) > 0 {
                    seen
                } else {
                    synced
                };
                let count = source.len().min(sector.len());
                sector[..count].copy_from_slice(&source[..count]);
            }
            file.seen = left;
        }
        image
    }

    fn write_to(&self, dir: &Path) {
        let _ = fs::remove_dir_all(dir);
        fs::create_dir_all(dir.join("log")).unwrap();
        for (path, file) in &self.0 {
            let target = dir.join(path);
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::write(target, &file.seen).unwrap();
        }
    }
}

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Blocks of one commit: stream, number of lines, length of each.
    Commit(Vec<(u64, u64, usize)>),
    /// A new label.
    Relabel(u64),
    Agent,
    Sync,
    Maintain,
    Seal,
    Reopen,
}

fn any_step() -> impl Strategy<Value = Step> {
    let block = (
        1..=STREAMS,
        1_u64..12,
        prop_oneof![4 => 0_usize..40, 1 => 300_usize..900],
    );
    prop_oneof![
        6 => prop::collection::vec(block, 1..5).prop_map(Step::Commit),
        1 => (1..=STREAMS).prop_map(Step::Relabel),
        1 => Just(Step::Agent),
        3 => Just(Step::Sync),
        3 => Just(Step::Maintain),
        1 => Just(Step::Seal),
        1 => Just(Step::Reopen),
    ]
}

/// What the store holds.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    /// Lengths of each stream's lines.
    lines: BTreeMap<u64, Vec<usize>>,
    labels: BTreeMap<u64, u64>,
    /// When the agent connected; 0: it never did.
    agent: i64,
}

fn text_of(stream_id: u64, sequence: u64, bytes: usize) -> Vec<u8> {
    let mut text = format!("{stream_id}/{sequence} ").into_bytes();
    text.resize(text.len() + bytes, b'x');
    text
}

fn record(stream_id: u64, label: u64) -> WriteOp {
    WriteOp::PutStream(StreamRecord {
        stream_id,
        agent_id: "a".to_owned(),
        source: "s".to_owned(),
        instance: stream_id.to_string(),
        labels: BTreeMap::from([("label".to_owned(), label.to_string())]),
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

impl Model {
    fn append(&mut self, stream_id: u64, count: u64, bytes: usize) -> WriteOp {
        let lines = self.lines.entry(stream_id).or_default();
        let first_sequence = lines.len() as u64;
        let mut builder = BlockBuilder::new();
        for sequence in first_sequence..first_sequence + count {
            lines.push(bytes);
            let text = text_of(stream_id, sequence, bytes);
            assert!(builder.push_line(&text, 1, v1::Channel::Stdout, false));
        }
        WriteOp::Append(AppendOp {
            stream_id,
            block: builder.finish(first_sequence).unwrap(),
            checkpoint: Bytes::from(lines.len().to_string()),
            last_line_unix_us: 1,
        })
    }

    fn agent(&self) -> WriteOp {
        WriteOp::PutAgent(v1::Agent {
            agent_id: "a".to_owned(),
            connected_unix_us: self.agent,
            ..v1::Agent::default()
        })
    }
}

fn options(disk: Disk) -> EmbeddedOptions {
    EmbeddedOptions {
        segment_bytes: 6_000,
        settle_text_bytes: 1_500,
        settle_idle: Duration::ZERO,
        min_free_bytes: 0,
        disk,
        ..EmbeddedOptions::default()
    }
}

/// Reads a store into a model. Lines that are told to be damaged are counted, not held.
fn read(store: &EmbeddedStore, what: &str) -> (Model, u64) {
    let mut model = Model::default();
    let mut damaged = 0;
    for record in store.load_streams().unwrap() {
        let stream_id = record.stream_id;
        model
            .labels
            .insert(stream_id, record.labels["label"].parse().unwrap());
        let lines = model.lines.entry(stream_id).or_default();
        let mut next = 0;
        while next < record.next_sequence {
            match store.read_blocks(stream_id, next, 5_000) {
                Ok(blocks) => {
                    for block in blocks {
                        let open = OpenBlock::open(&block).unwrap();
                        assert_eq!(open.first_sequence(), next, "{what}");
                        for line in open.lines() {
                            let prefix = text_of(stream_id, line.sequence, 0);
                            let bytes = line.text.len() - prefix.len();
                            assert_eq!(line.text, text_of(stream_id, line.sequence, bytes), "{what}");
                            lines.push(bytes);
                        }
                        next = open.next_sequence();
                    }
                }
                Err(StoreError::DamagedLines { next_sequence, .. }) => {
                    damaged += next_sequence - next;
                    next = next_sequence;
                }
                Err(error) => panic!("{what}: {error}"),
            }
        }
        if damaged == 0 {
            let expected = if next == 0 {
                String::new()
            } else {
                next.to_string()
            };
            assert_eq!(record.checkpoint, expected, "{what}");
        }
    }
    for agent in store.load_agents().unwrap() {
        model.agent = agent.connected_unix_us;
    }
    (model, damaged)
}

/// Whether the store took some part of the way from one state to the other; each stream for itself.
fn is_between(found: &Model, low: &Model, high: &Model) -> bool {
    let empty = Vec::new();
    high.lines.iter().all(|(stream_id, high)| {
        let found = found.lines.get(stream_id).unwrap_or(&empty);
        let low = low.lines.get(stream_id).unwrap_or(&empty);
        high.starts_with(found) && found.len() >= low.len()
    })
}

/// Moments at which a step had returned: length of the journal, what was committed then, and what was synced.
struct Moment {
    journal: usize,
    committed: Model,
    synced: Model,
}

fn run(dir: &Path, journal: &Journal, steps: Vec<Step>) -> Vec<Moment> {
    let open = || EmbeddedStore::open(dir, options(journal.disk(dir))).unwrap();
    let mut model = Model::default();
    let mut synced = model.clone();
    let mut moments = vec![Moment {
        journal: 0,
        committed: model.clone(),
        synced: synced.clone(),
    }];
    let mut store = open();
    let mut done = |model: &Model, synced: &Model| {
        moments.push(Moment {
            journal: journal.len(),
            committed: model.clone(),
            synced: synced.clone(),
        });
    };
    done(&model, &synced);
    for stream_id in 1..=STREAMS {
        model.lines.insert(stream_id, Vec::new());
        model.labels.insert(stream_id, 0);
    }
    store
        .commit((1..=STREAMS).map(|stream_id| record(stream_id, 0)).collect())
        .unwrap();
    done(&model, &synced);
    for step in steps {
        match step {
            Step::Commit(blocks) => {
                let ops = blocks
                    .into_iter()
                    .map(|(stream_id, count, bytes)| model.append(stream_id, count, bytes));
                store.commit(ops.collect()).unwrap();
            }
            Step::Relabel(stream_id) => {
                let label = model.labels.get_mut(&stream_id).unwrap();
                *label += 1;
                store.commit(vec![record(stream_id, *label)]).unwrap();
            }
            Step::Agent => {
                model.agent += 1;
                store.commit(vec![model.agent()]).unwrap();
            }
            Step::Sync => {
                store.sync().unwrap();
                synced.clone_from(&model);
            }
            Step::Maintain => while store.maintain().unwrap() {},
            Step::Seal => store.seal().unwrap(),
            Step::Reopen => {
                drop(store);
                store = open();
                synced.clone_from(&model);
            }
        }
        assert_eq!(read(&store, "without a crash"), (model.clone(), 0));
        done(&model, &synced);
    }
    moments
}

struct Crashes<'a> {
    dir: &'a Path,
    moments: &'a [Moment],
    random: Random,
    checked: u64,
}

impl Crashes<'_> {
    /// What had returned when so many changes were made, and what was under way.
    fn around(&self, changes: usize) -> (&Moment, &Moment) {
        let after = self.moments.partition_point(|moment| moment.journal <= changes);
        let before = &self.moments[after - 1];
        (before, self.moments.get(after).unwrap_or(before))
    }

    fn after_process_crash(&mut self, image: &Image, changes: usize, what: &str) {
        self.checked += 1;
        image.write_to(self.dir);
        let journal = Journal::default();
        let store = EmbeddedStore::open(self.dir, options(journal.disk(self.dir))).unwrap();
        let (before, after) = self.around(changes);
        let (found, damaged) = read(&store, what);
        assert_eq!(damaged, 0, "{what}: {:?}", store.damage());
        assert_eq!(store.damage(), Vec::<String>::new(), "{what}");
        assert!(
            found == before.committed || found == after.committed,
            "{what}: {found:?} is neither {:?} nor {:?}",
            before.committed,
            after.committed
        );
        if self.random.below(8) > 0 {
            return;
        }
        // It goes on, and a crash at any point of the recovery changes nothing.
        let recovery = journal.changes();
        let mut model = found.clone();
        if model.lines.contains_key(&1) {
            store.commit(vec![model.append(1, 2, 10)]).unwrap();
            while store.maintain().unwrap() {}
            assert_eq!(read(&store, what), (model.clone(), 0), "{what}: going on");
        }
        drop(store);
        let store = EmbeddedStore::open(self.dir, options(Disk::default())).unwrap();
        assert_eq!(read(&store, what), (model, 0), "{what}: opened again");
        drop(store);
        let mut image = image.clone();
        for (at, change) in recovery.iter().enumerate() {
            image.apply(change);
            image.write_to(self.dir);
            let store = EmbeddedStore::open(self.dir, options(Disk::default())).unwrap();
            let what = format!("{what}, and in the recovery after change {at}");
            assert_eq!(read(&store, &what), (found.clone(), 0), "{what}");
        }
    }

    fn after_power_failure(&mut self, image: &Image, changes: usize, what: &str) {
        self.checked += 1;
        let mut random = Random(self.random.below(u64::MAX));
        let left = image.after_power_failure(&mut random);
        left.write_to(self.dir);
        let store = EmbeddedStore::open(self.dir, options(Disk::default())).unwrap();
        let (before, after) = self.around(changes);
        let (found, damaged) = read(&store, what);
        // What was not synced may be lost, but nothing of it is taken for damage, and nothing is there in part.
        assert_eq!(damaged, 0, "{what}: {:?}", store.damage());
        assert!(
            is_between(&found, &before.synced, &after.committed),
            "{what}: {found:?} is not between {:?} and {:?}: {:?}",
            before.synced,
            after.committed,
            store.damage()
        );
        for (stream_id, synced) in &before.synced.lines {
            assert!(
                found.lines[stream_id].starts_with(synced),
                "{what}: stream {stream_id}: {} lines of {} that were synced: {:?}",
                found.lines[stream_id].len(),
                synced.len(),
                store.damage()
            );
        }
    }
}

/// More with `MILLSTREAM_CRASH_CASES`.
fn cases() -> u32 {
    std::env::var("MILLSTREAM_CRASH_CASES").map_or(6, |cases| cases.parse().unwrap())
}

/// In memory where there is such a place: every case opens a store a thousand times, and each opening syncs.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_crash_at_any_write_leaves_what_was_committed(
        steps in prop::collection::vec(any_step(), 8..20),
        seed: u64,
    ) {
        let root = scratch();
        let journal = Journal::default();
        let moments = run(&root.path().join("live"), &journal, steps);
        let dir = root.path().join("crashed");
        let mut crashes = Crashes { dir: &dir, moments: &moments, random: Random(seed), checked: 0 };
        let mut image = Image::default();
        let mut random = Random(seed ^ 1);
        for (at, change) in journal.changes().iter().enumerate() {
            if let Change::Write(_, _, bytes) = change {
                for written in [1, usize::try_from(random.below(bytes.len() as u64)).unwrap(), bytes.len() - 1] {
                    let part = image.with_part(change, written.min(bytes.len()));
                    let what = format!("{written} of {} bytes of change {at}", bytes.len());
                    crashes.after_process_crash(&part, at, &what);
                }
            }
            image.apply(change);
            crashes.after_process_crash(&image, at + 1, &format!("after change {at}"));
            crashes.after_power_failure(&image, at + 1, &format!("power failed after change {at}"));
        }
        assert!(crashes.checked > 10);
    }
}
