//! Tests of the embedded store: the contract, and what stands beyond it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::conformance::{self, append, check_lines, stream};

/// A clock that tests set, in seconds.
#[derive(Clone, Default)]
struct Seconds(Arc<AtomicU64>);

impl Seconds {
    fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }

    fn options(&self) -> EmbeddedOptions {
        let seconds = self.clone();
        EmbeddedOptions {
            clock: Clock::new(move || Duration::from_secs(seconds.0.load(Ordering::Relaxed))),
            ..EmbeddedOptions::default()
        }
    }
}

fn open(dir: &Path) -> EmbeddedStore {
    EmbeddedStore::open(dir, EmbeddedOptions::default()).unwrap()
}

fn settle(store: &EmbeddedStore) {
    while store.maintain().unwrap() {}
}

fn block_count(store: &EmbeddedStore, stream_id: u64) -> usize {
    store.read_blocks(stream_id, 0, usize::MAX).unwrap().len()
}

/// Runs the contract's checks on stores in directories of their own.
fn check_contract(options: impl Fn() -> EmbeddedOptions) {
    let root = tempfile::tempdir().unwrap();
    let made = AtomicU64::new(0);
    let path_of = |number: u64| root.path().join(number.to_string());
    conformance::run(
        || {
            let number = made.fetch_add(1, Ordering::Relaxed);
            EmbeddedStore::open(&path_of(number), options()).unwrap()
        },
        |store| {
            drop(store);
            let number = made.load(Ordering::Relaxed) - 1;
            EmbeddedStore::open(&path_of(number), options()).unwrap()
        },
    );
}

#[test]
fn it_keeps_the_contract() {
    check_contract(EmbeddedOptions::default);
}

#[test]
fn it_keeps_the_contract_when_everything_settles_at_once() {
    check_contract(|| EmbeddedOptions {
        settle_text_bytes: 1,
        settle_idle: Duration::ZERO,
        ..EmbeddedOptions::default()
    });
}

#[test]
fn small_blocks_of_a_busy_stream_settle_into_few_large_compressed_ones() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.commit(vec![WriteOp::PutStream(stream(1))]).unwrap();
    let mut head = 0;
    while head < 60_000 {
        store.commit(vec![WriteOp::Append(append(1, head, 50))]).unwrap();
        head += 50;
    }
    settle(&store);
    check_lines(&store, 1, 0, head, 1 << 20);
    let blocks = store.read_blocks(1, 0, usize::MAX).unwrap();
    assert!(blocks[0].text_bytes > 512 << 10, "{} bytes", blocks[0].text_bytes);
    assert_eq!(blocks[0].codec, i32::from(v1::Codec::Zstd));
    let unsettled: u32 = blocks[2..].iter().map(|block| block.text_bytes).sum();
    assert!(
        unsettled < 1 << 20,
        "{unsettled} bytes in {} blocks",
        blocks.len()
    );
}

#[test]
fn a_stream_at_its_head_is_left_alone_until_it_is_idle() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Seconds::default();
    let store = EmbeddedStore::open(dir.path(), clock.options()).unwrap();
    store.commit(vec![WriteOp::PutStream(stream(1))]).unwrap();
    for head in 0..20 {
        store.commit(vec![WriteOp::Append(append(1, head, 1))]).unwrap();
    }
    clock.advance(29);
    settle(&store);
    assert_eq!(block_count(&store, 1), 20);
    clock.advance(1);
    settle(&store);
    assert_eq!(block_count(&store, 1), 1);
    check_lines(&store, 1, 0, 20, 1000);
}

#[test]
fn an_ended_stream_settles_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ended = StreamRecord {
        end: Some(v1::StreamEnd::default()),
        ..stream(1)
    };
    let appends = (0..20).map(|head| WriteOp::Append(append(1, head, 1)));
    let ops = [WriteOp::PutStream(stream(1))]
        .into_iter()
        .chain(appends)
        .chain([WriteOp::PutStream(ended)]);
    store.commit(ops.collect()).unwrap();
    settle(&store);
    assert_eq!(block_count(&store, 1), 1);
    check_lines(&store, 1, 0, 20, 1000);
}

#[test]
fn a_quiet_stream_does_not_end_up_as_a_row_of_small_settled_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Seconds::default();
    let store = EmbeddedStore::open(dir.path(), clock.options()).unwrap();
    store.commit(vec![WriteOp::PutStream(stream(1))]).unwrap();
    for head in 0..200 {
        store.commit(vec![WriteOp::Append(append(1, head, 1))]).unwrap();
        clock.advance(31);
        settle(&store);
    }
    let blocks = block_count(&store, 1);
    assert!(blocks < 12, "{blocks} blocks");
    check_lines(&store, 1, 0, 200, 1000);
}

#[test]
fn what_an_earlier_process_left_unsettled_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for id in 1..=700 {
        let ops = [WriteOp::PutStream(stream(id))]
            .into_iter()
            .chain((0..3).map(|head| WriteOp::Append(append(id, head, 1))));
        store.commit(ops.collect()).unwrap();
    }
    drop(store);
    let clock = Seconds::default();
    let store = EmbeddedStore::open(dir.path(), clock.options()).unwrap();
    settle(&store);
    assert_eq!(block_count(&store, 700), 3);
    clock.advance(30);
    settle(&store);
    for id in 1..=700 {
        assert_eq!(block_count(&store, id), 1, "stream {id}");
        check_lines(&store, id, 0, 3, 1000);
    }
}

/// The only segment of a store that has one.
fn segment(dir: &Path) -> PathBuf {
    let mut files: Vec<_> = std::fs::read_dir(dir.join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files.len(), 1);
    files.remove(0)
}

#[test]
fn a_damaged_block_is_named_and_does_not_stop_the_others_from_settling() {
    use std::os::unix::fs::FileExt as _;
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(
        dir.path(),
        EmbeddedOptions {
            settle_idle: Duration::ZERO,
            ..EmbeddedOptions::default()
        },
    )
    .unwrap();
    store.commit(vec![WriteOp::PutStream(stream(1))]).unwrap();
    for block in 0..9 {
        store
            .commit(vec![WriteOp::Append(append(1, block * 10, 10))])
            .unwrap();
    }
    let entry = store.volume.index().streams[&1].blocks[4];
    assert_eq!(entry.first_sequence, 40);
    let path = segment(dir.path());
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_at(b"x", entry.body_at() + 20).unwrap();

    let error = store.read_blocks(1, 45, 1000).unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::DamagedLines {
                next_sequence: 50,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("stream 1, lines 45 to 49"), "{error}");
    assert!(error.to_string().contains("00000001.seg, bytes "), "{error}");
    assert!(dir.path().join("damaged/00000001.seg.0").exists());
    assert_eq!(
        store.read_blocks(1, 35, usize::MAX).unwrap().len(),
        1,
        "what is before is read"
    );
    let mut failures = 0;
    loop {
        match store.maintain() {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                assert!(error.to_string().contains("lines 40 to 49"), "{error}");
                failures += 1;
                assert!(failures < 3, "it must not try for ever");
            }
        }
    }
    let after = store.read_blocks(1, 50, usize::MAX).unwrap();
    assert_eq!(after.len(), 1);
    let before = store.read_blocks(1, 0, 1).unwrap();
    assert_eq!(before[0].first_sequence, 0);
}

#[test]
fn a_store_has_the_same_id_for_ever_and_no_other_store_has_it() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let id = open(one.path()).store_id().to_owned();
    assert_eq!(id.len(), 32);
    assert_eq!(open(one.path()).store_id(), id);
    assert_ne!(open(two.path()).store_id(), id);
}

fn refusal(dir: &Path) -> String {
    let error = EmbeddedStore::open(dir, EmbeddedOptions::default()).unwrap_err();
    assert!(matches!(error, StoreError::Directory { .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains(&dir.display().to_string()), "{message}");
    assert!(message.contains("--data-dir"), "{message}");
    message
}

#[test]
fn a_directory_in_use_is_refused_and_the_holder_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let message = refusal(dir.path());
    assert!(message.contains("in use by another relay"), "{message}");
    assert!(
        message.contains(&format!("process {}", std::process::id())),
        "{message}"
    );
    drop(store);
    open(dir.path());
}

#[test]
fn a_file_in_the_place_of_the_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert!(refusal(&file).contains("a file"));
    assert!(refusal(&file.join("data")).contains("a file"));
}

#[test]
fn a_directory_without_the_right_to_write_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    if rustix::process::geteuid().is_root() {
        return; // Root may write everywhere.
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o500)).unwrap();
    assert!(refusal(dir.path()).contains("the right to write"));
    assert!(refusal(&dir.path().join("data")).contains("cannot be created"));
}

#[test]
fn a_store_of_a_newer_relay_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let newer = directory::format_text(3, "00ff");
    std::fs::write(dir.path().join("store.format"), &newer).unwrap();
    let message = refusal(dir.path());
    assert!(message.contains("format version 3"), "{message}");
    let kept = std::fs::read_to_string(dir.path().join("store.format")).unwrap();
    assert_eq!(kept, newer);
}

#[test]
fn a_store_of_the_first_format_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("engine")).unwrap();
    assert!(refusal(dir.path()).contains("format version 1"));
}

#[test]
fn an_interrupted_creation_is_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let interrupted = Disk::watched(|change| match change {
        DiskChange::Rename { to, .. } if to.ends_with("store.format") => Err(DiskFault {
            written_bytes: 0,
            error: std::io::ErrorKind::Other.into(),
        }),
        _ => Ok(()),
    });
    let options = EmbeddedOptions {
        disk: interrupted,
        ..EmbeddedOptions::default()
    };
    EmbeddedStore::open(dir.path(), options).unwrap_err();
    let store = open(dir.path());
    assert_eq!(store.damage(), Vec::<String>::new());
    store
        .commit(vec![
            WriteOp::PutStream(stream(1)),
            WriteOp::Append(append(1, 0, 3)),
        ])
        .unwrap();
    check_lines(&store, 1, 0, 3, 1000);
}

/// Lets a number of bytes of the next write to a segment through, and fails it then.
#[derive(Clone, Default)]
struct Breaking(Arc<Mutex<Option<usize>>>, Arc<Mutex<Vec<String>>>);

impl Breaking {
    fn options(&self) -> EmbeddedOptions {
        let this = self.clone();
        EmbeddedOptions {
            disk: Disk::watched(move |change| this.before(change)),
            ..EmbeddedOptions::default()
        }
    }

    fn before(&self, change: &DiskChange<'_>) -> Result<(), DiskFault> {
        let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        let (path, what) = match change {
            DiskChange::Write { path, .. } => (path, "write"),
            DiskChange::Sync { path } => (path, "sync"),
            _ => return Ok(()),
        };
        if path.extension().is_none_or(|extension| extension != "seg") {
            return Ok(());
        }
        self.1.lock().unwrap().push(format!("{what} {}", name(path)));
        let Some(written_bytes) = self.0.lock().unwrap().take() else {
            return Ok(());
        };
        Err(DiskFault {
            written_bytes,
            error: std::io::ErrorKind::StorageFull.into(),
        })
    }
}

#[test]
fn a_commit_that_failed_anywhere_is_not_there_and_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Breaking::default();
    let mut store = EmbeddedStore::open(dir.path(), disk.options()).unwrap();
    store.commit(vec![WriteOp::PutStream(stream(1))]).unwrap();
    let mut head = 0;
    for written_bytes in (0..900).step_by(37) {
        let ops = vec![
            WriteOp::Append(append(1, head, 10)),
            WriteOp::Append(append(1, head + 10, 5)),
        ];
        *disk.0.lock().unwrap() = Some(written_bytes);
        let error = store.commit(ops.clone()).unwrap_err();
        assert!(matches!(error, StoreError::Full { .. }), "{error}");
        check_lines(&store, 1, 0, head, 0);
        assert_eq!(store.load_streams().unwrap()[0].next_sequence, head);
        if written_bytes % 2 == 0 {
            drop(store);
            store = EmbeddedStore::open(dir.path(), disk.options()).unwrap();
            assert_eq!(store.damage(), Vec::<String>::new());
        }
        store.commit(ops.clone()).unwrap();
        let error = store.commit(ops).unwrap_err();
        assert!(matches!(error, StoreError::Refused { .. }), "{error}");
        head += 15;
        check_lines(&store, 1, 0, head, 0);
    }
}

#[test]
fn after_a_failed_sync_what_it_was_about_is_written_again_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Breaking::default();
    let store = EmbeddedStore::open(dir.path(), disk.options()).unwrap();
    store.commit(vec![WriteOp::PutStream(stream(1))]).unwrap();
    store.commit(vec![WriteOp::Append(append(1, 0, 10))]).unwrap();
    store.sync().unwrap();
    store.commit(vec![WriteOp::Append(append(1, 10, 10))]).unwrap();
    *disk.0.lock().unwrap() = Some(0);
    store.sync().unwrap_err();
    disk.1.lock().unwrap().clear();
    store.sync().unwrap();
    // Header and batch go to a new segment, which is synced; the old one is not trusted with it any more.
    let done = disk.1.lock().unwrap().clone();
    assert_eq!(
        done,
        ["write 00000002.seg", "write 00000002.seg", "sync 00000002.seg"]
    );
    let blocks = store.volume.index().streams[&1].blocks.clone();
    assert_eq!(
        blocks.iter().map(|block| block.segment).collect::<Vec<_>>(),
        [1, 2]
    );
    check_lines(&store, 1, 0, 20, 0);
    store.commit(vec![WriteOp::Append(append(1, 20, 10))]).unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.damage(), Vec::<String>::new());
    check_lines(&store, 1, 0, 30, 0);
}

#[test]
fn segments_are_sealed_emptied_and_removed_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let options = || EmbeddedOptions {
        segment_bytes: 20_000,
        settle_text_bytes: 4_000,
        settle_idle: Duration::ZERO,
        ..EmbeddedOptions::default()
    };
    let mut store = EmbeddedStore::open(dir.path(), options()).unwrap();
    let agent = v1::Agent {
        agent_id: "agent-1".to_owned(),
        ..Default::default()
    };
    store
        .commit(vec![
            WriteOp::PutStream(stream(1)),
            WriteOp::PutAgent(agent.clone()),
        ])
        .unwrap();
    let mut head = 0;
    for round in 0..40 {
        for _ in 0..40 {
            store.commit(vec![WriteOp::Append(append(1, head, 3))]).unwrap();
            head += 3;
        }
        settle(&store);
        if round % 8 == 7 {
            drop(store);
            store = EmbeddedStore::open(dir.path(), options()).unwrap();
            assert_eq!(store.damage(), Vec::<String>::new());
        }
        check_lines(&store, 1, 0, head, 1 << 20);
    }
    let files = std::fs::read_dir(dir.path().join("log")).unwrap().count() as u64;
    let index = store.volume.index();
    assert_eq!(
        files,
        index.segments.len() as u64,
        "removed segments have no files"
    );
    let (written, live): (u64, u64) = index.segments.values().fold((0, 0), |sum, state| {
        (sum.0 + state.bytes, sum.1 + state.live_bytes)
    });
    drop(index);
    assert!(
        written < 3 * live + 60_000,
        "{written} bytes in files for {live} that are needed"
    );
    assert!(
        head * 40 > 2 * written,
        "settling and emptying took away the small blocks"
    );
    assert_eq!(store.load_agents().unwrap(), [agent]);
    assert_eq!(
        store.load_streams().unwrap()[0].checkpoint,
        format!("after {head}")
    );
    // What is counted is what is there.
    let counted: Vec<u64> = store
        .volume
        .index()
        .segments
        .values()
        .map(|state| state.live_bytes)
        .collect();
    drop(store);
    let store = EmbeddedStore::open(dir.path(), options()).unwrap();
    let again: Vec<u64> = store
        .volume
        .index()
        .segments
        .values()
        .map(|state| state.live_bytes)
        .collect();
    assert_eq!(counted, again);
}

#[test]
fn below_the_floor_nothing_is_taken_and_everything_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let free = Arc::new(AtomicU64::new(u64::MAX));
    let options = EmbeddedOptions {
        min_free_bytes: 1000,
        free_space: FreeSpace::new({
            let free = Arc::clone(&free);
            move |_| Ok(free.load(Ordering::Relaxed))
        }),
        ..EmbeddedOptions::default()
    };
    let store = EmbeddedStore::open(dir.path(), options).unwrap();
    store.commit(vec![WriteOp::PutStream(stream(1))]).unwrap();
    store.commit(vec![WriteOp::Append(append(1, 0, 10))]).unwrap();
    free.store(999, Ordering::Relaxed);
    let refused = vec![WriteOp::Append(append(1, 10, 10))];
    let error = store.commit(refused.clone()).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert!(error.to_string().starts_with("disk full: "), "{error}");
    assert!(error.to_string().contains("999 bytes are free"), "{error}");
    assert!(error.to_string().contains("min_free_bytes"), "{error}");
    check_lines(&store, 1, 0, 10, 0);
    free.store(1000, Ordering::Relaxed);
    store.commit(refused).unwrap();
    check_lines(&store, 1, 0, 20, 0);
}
