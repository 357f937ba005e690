//! The relay's store in a simulation: the in-memory one behind what disks and crashes do to it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millstream_proto::v1;
use millstream_store::memory::MemoryStore;
use millstream_store::{LogStore, StoreError, StreamRecord, WriteOp};
use tokio::sync::Notify;

use crate::dice::Dice;
use crate::mutant::Mutant;
use crate::net::{Death, Net};
use crate::trace::Trace;

/// How the disk behaves at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Well,
    /// Commits fail.
    Full,
    /// Commits are applied and fail all the same, as when the disk is full behind the journal.
    FullBehind,
    /// Syncs fail: commits are there to be read, and not durable.
    CannotSync,
}

/// The process dies at a call of its store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeathWish {
    /// After so many calls.
    pub(crate) calls: u64,
    pub(crate) death: Death,
}

/// The disk of the relay's host: it stays when the relay's process goes.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    content: Arc<Mutex<Arc<MemoryStore>>>,
    state: Arc<Mutex<State>>,
    /// A death wish came true.
    pub(crate) died: Arc<Notify>,
    /// Acknowledged means synced.
    is_strict: bool,
    net: Net,
    dice: Dice,
    trace: Trace,
    mutant: Option<Mutant>,
}

/// The relay's host.
pub(crate) const RELAY: &str = "relay";

#[derive(Debug, Default)]
struct State {
    mood: Mood,
    wish: Option<DeathWish>,
    fulfilled: Option<Death>,
    /// A failed commit that was applied.
    applied: bool,
    before_last_commit: Option<Arc<MemoryStore>>,
    /// What readers are shown while a commit that was applied is told to have failed.
    shown: Option<BTreeMap<String, u64>>,
    /// A power cut took commits.
    has_lost: bool,
}

impl Disk {
    pub(crate) fn new(is_strict: bool, net: Net, dice: Dice, trace: Trace, mutant: Option<Mutant>) -> Self {
        let content = Arc::new(MemoryStore::with_id("simulated".to_owned()));
        Self {
            content: Arc::new(Mutex::new(content)),
            state: Arc::default(),
            died: Arc::default(),
            is_strict,
            net,
            dice,
            trace,
            mutant,
        }
    }

    pub(crate) fn content(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.content.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        self.state().mood = mood;
    }

    pub(crate) fn wish(&self, wish: Option<DeathWish>) {
        self.state().wish = wish;
    }

    /// How the process died at a call of its store, told once.
    pub(crate) fn take_death(&self) -> Option<Death> {
        self.state().fulfilled.take()
    }

    /// The process is gone: what the next one finds.
    pub(crate) fn crash(&self, death: Death) {
        let content = self.content();
        let mut left = match death {
            Death::Killed => content.after_kill(),
            Death::PowerCut => {
                let unsynced = content.unsynced_commits();
                let survivors = self.dice.size(0..unsynced + 1);
                self.trace.event(format_args!(
                    "disk: {survivors} of {unsynced} commits survive the power cut"
                ));
                self.state().has_lost |= survivors < unsynced;
                content.after_power_cut(survivors)
            }
        };
        let mut state = self.state();
        if self.mutant == Some(Mutant::ForgetsAtKill)
            && death == Death::Killed
            && let Some(before) = state.before_last_commit.take()
        {
            left = before.after_kill();
        }
        if self.mutant == Some(Mutant::LosesCheckpoint) {
            left = without_checkpoints(&left);
        }
        state.applied = false;
        state.shown = None;
        state.wish = None;
        drop(state);
        *self.content.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(left);
    }

    /// An agent takes lines below `next` for stored.
    pub(crate) fn check_acknowledged(&self, source: &str, next: u64) {
        let content = self.content();
        let next_in = |records: Vec<StreamRecord>| {
            let its = records.iter().find(|record| record.source == source);
            its.map_or(0, |record| record.next_sequence)
        };
        // Where a power cut may take what was acknowledged, a kill still must not.
        let (kept, what) = if self.is_strict {
            (next_in(content.durable_streams()), "durable")
        } else if self.state().has_lost {
            return;
        } else {
            (next_in(self.records()), "committed")
        };
        if next > kept {
            self.trace.breach(format_args!(
                "{source}: acknowledged to line {next}, and {what} to {kept}"
            ));
        }
    }

    /// How far readers are shown each source's stream.
    pub(crate) fn heads(&self) -> BTreeMap<String, u64> {
        let shown = self.state().shown.clone();
        shown.unwrap_or_else(|| Self::heads_of(&self.content()))
    }

    fn heads_of(content: &MemoryStore) -> BTreeMap<String, u64> {
        let records = content.load_streams().expect("the store in memory can be read");
        let heads = records
            .into_iter()
            .map(|record| (record.source, record.next_sequence));
        heads.collect()
    }

    /// Every stream as it is committed.
    pub(crate) fn records(&self) -> Vec<StreamRecord> {
        self.content()
            .load_streams()
            .expect("the store in memory can be read")
    }

    /// For the relay's next process.
    pub(crate) fn open(&self) -> Arc<SimStore> {
        Arc::new(SimStore {
            disk: self.clone(),
            content: self.content(),
            is_dead: AtomicBool::new(false),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same lines, and each stream's checkpoint as it was at the very begin.
fn without_checkpoints(store: &MemoryStore) -> MemoryStore {
    let bare = MemoryStore::with_id(store.store_id().to_owned());
    let copy = || -> Result<(), StoreError> {
        for record in store.load_streams()? {
            let empty = StreamRecord {
                next_sequence: 0,
                text_bytes: 0,
                checkpoint: bytes::Bytes::new(),
                ..record.clone()
            };
            let mut ops = vec![WriteOp::PutStream(empty)];
            ops.extend(
                store
                    .read_blocks(record.stream_id, 0, usize::MAX)?
                    .into_iter()
                    .map(|block| {
                        WriteOp::Append(millstream_store::AppendOp {
                            stream_id: record.stream_id,
                            last_line_unix_us: millstream_proto::block::last_time_unix_us(&block),
                            block,
                            checkpoint: bytes::Bytes::new(),
                        })
                    }),
            );
            bare.commit(ops)?;
        }
        bare.sync()
    };
    copy().expect("the store in memory takes what it gave");
    bare
}

/// The disk as one process of the relay has it. Once the process is dead, nothing that is left of it reaches the
/// disk.
#[derive(Debug)]
pub(crate) struct SimStore {
    disk: Disk,
    content: Arc<MemoryStore>,
    is_dead: AtomicBool,
}

impl SimStore {
    pub(crate) fn die(&self) {
        self.is_dead.store(true, Ordering::Relaxed);
    }

    fn alive(&self) -> Result<(), StoreError> {
        if self.is_dead.load(Ordering::Relaxed) {
            return Err(StoreError::Engine {
                what: "a call of a dead process".to_owned(),
                cause: "it is dead".to_owned(),
            });
        }
        Ok(())
    }

    /// Dies here if it is time, after the call was carried out or before.
    fn maybe_die(&self, call: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
        self.alive()?;
        let mut state = self.disk.state();
        let is_time = match &mut state.wish {
            Some(wish) if wish.calls == 0 => true,
            Some(wish) => {
                wish.calls -= 1;
                false
            }
            None => false,
        };
        if !is_time {
            drop(state);
            return call();
        }
        let death = state.wish.take().map(|wish| wish.death);
        drop(state);
        if self.disk.dice.one_in(2) {
            // Whether it worked matters to nobody any more.
            let _ = call();
        }
        self.disk.state().fulfilled = death;
        self.die();
        self.disk.net.down(RELAY, death.unwrap_or(Death::Killed));
        self.disk.died.notify_one();
        self.alive()
    }

    fn full(place: &str) -> StoreError {
        StoreError::Full {
            place: place.to_owned(),
            cause: "no space left".to_owned(),
        }
    }
}

impl LogStore for SimStore {
    fn store_id(&self) -> &str {
        self.content.store_id()
    }

    fn load_streams(&self) -> Result<Vec<StreamRecord>, StoreError> {
        self.content.load_streams()
    }

    fn load_agents(&self) -> Result<Vec<v1::Agent>, StoreError> {
        self.content.load_agents()
    }

    fn commit(&self, ops: Vec<WriteOp>) -> Result<(), StoreError> {
        self.disk.trace.count(b'c', [ops.len() as u64, 0, 0]);
        self.maybe_die(|| {
            let mut state = self.disk.state();
            if state.mood == Mood::Full {
                return Err(Self::full("the simulated disk"));
            }
            // The caller repeats a failed commit unchanged, and what was applied is not applied again.
            let heads = Disk::heads_of(&self.content);
            if !std::mem::take(&mut state.applied) {
                if self.disk.mutant == Some(Mutant::ForgetsAtKill) {
                    state.before_last_commit = Some(Arc::new(self.content.after_kill()));
                }
                self.content.commit(ops)?;
            }
            if state.mood == Mood::FullBehind {
                state.applied = true;
                state.shown.get_or_insert(heads);
                return Err(Self::full("the simulated disk, behind the journal"));
            }
            state.shown = None;
            Ok(())
        })
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.disk.trace.count(b's', [0; 3]);
        self.maybe_die(|| {
            if self.disk.state().mood == Mood::CannotSync {
                return Err(Self::full("the simulated disk, at a sync"));
            }
            if self.disk.mutant == Some(Mutant::AcknowledgesBeforeSync) {
                return Ok(());
            }
            self.content.sync()
        })
    }

    fn read_blocks(&self, stream_id: u64, from: u64, max_bytes: usize) -> Result<Vec<v1::Block>, StoreError> {
        self.alive()?;
        let mut blocks = self.content.read_blocks(stream_id, from, max_bytes)?;
        if self.disk.mutant == Some(Mutant::SkipsStoredBlock) && blocks.len() > 2 {
            blocks.remove(1);
        }
        Ok(blocks)
    }

    fn seek_time(&self, stream_id: u64, unix_us: i64) -> Result<u64, StoreError> {
        self.alive()?;
        self.content.seek_time(stream_id, unix_us)
    }

    fn maintain(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn disk_bytes(&self) -> u64 {
        self.content.disk_bytes()
    }
}
