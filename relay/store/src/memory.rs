//! A store in memory, for tests of what stands on the contract. It keeps blocks as they came, forgets
//! everything when it is dropped, and knows what a crash would leave: a killed process leaves every commit, a
//! power cut what was synced and perhaps some commits after that.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use millstream_proto::block::OpenBlock;
use millstream_proto::v1;
use prost::Message as _;

use crate::{AppendOp, LogStore, StoreError, StreamRecord, WriteOp};

/// A [`LogStore`] that is gone with the process.
#[derive(Debug)]
pub struct MemoryStore {
    /// Differs between the stores of one process, but for those that are left of another one.
    store_id: String,
    state: RwLock<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// What readers see.
    live: Content,
    /// What was synced.
    durable: Content,
    /// The commits between the two, oldest first.
    unsynced: Vec<Vec<WriteOp>>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Self::with_id(format!("memory-{}", COUNT.fetch_add(1, Ordering::Relaxed)))
    }
}

#[derive(Clone, Debug, Default)]
struct Content {
    streams: BTreeMap<u64, StreamRecord>,
    agents: BTreeMap<String, v1::Agent>,
    /// By stream id and first sequence.
    blocks: BTreeMap<(u64, u64), (v1::Block, i64)>,
}

impl MemoryStore {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store of this identity.
    #[must_use]
    pub fn with_id(store_id: String) -> Self {
        Self {
            store_id,
            state: RwLock::default(),
        }
    }

    /// What the next process finds after this one was killed now: every commit, also what a power cut could
    /// still take.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        Self {
            store_id: self.store_id.clone(),
            state: RwLock::new(state.clone()),
        }
    }

    /// What is left after the power was cut now: everything that was synced, and of the commits after it the
    /// first `survivors`, as a journal that was written in part.
    #[must_use]
    pub fn after_power_cut(&self, survivors: usize) -> Self {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let mut content = state.durable.clone();
        for commit in state.unsynced.iter().take(survivors) {
            content.apply(commit.clone());
        }
        Self {
            store_id: self.store_id.clone(),
            state: RwLock::new(State {
                live: content.clone(),
                durable: content,
                unsynced: Vec::new(),
            }),
        }
    }

    /// Commits that a power cut may take.
    #[must_use]
    pub fn unsynced_commits(&self) -> usize {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.unsynced.len()
    }

    /// The records of all streams as a power cut would leave them at least.
    #[must_use]
    pub fn durable_streams(&self) -> Vec<StreamRecord> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.durable.streams.values().cloned().collect()
    }

    fn read<T>(&self, look: impl FnOnce(&Content) -> T) -> T {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner).live)
    }
}

impl Content {
    /// Refuses what the operations must not do, before any of them is applied.
    fn check(&self, ops: &[WriteOp]) -> Result<(), StoreError> {
        let mut heads = BTreeMap::new();
        for op in ops {
            match op {
                WriteOp::PutStream(record) => {
                    let known = self.streams.get(&record.stream_id).unwrap_or(record);
                    heads.entry(record.stream_id).or_insert(known.next_sequence);
                }
                WriteOp::Append(op) => {
                    let refuse = |cause: String| StoreError::Refused {
                        what: format!("append to stream {}", op.stream_id),
                        cause,
                    };
                    let stored = self.streams.get(&op.stream_id).map(|stream| stream.next_sequence);
                    let next_sequence = heads
                        .get(&op.stream_id)
                        .copied()
                        .or(stored)
                        .ok_or_else(|| refuse("the stream was never put".to_owned()))?;
                    if op.block.first_sequence != next_sequence {
                        return Err(refuse(format!(
                            "the block begins at line {}, the stream stands at {next_sequence}",
                            op.block.first_sequence
                        )));
                    }
                    if !op.block.sequences.is_empty() || op.block.line_count == 0 {
                        return Err(refuse("the block has gaps or no lines".to_owned()));
                    }
                    heads.insert(op.stream_id, next_sequence + u64::from(op.block.line_count));
                }
                WriteOp::PutAgent(_) => {}
            }
        }
        Ok(())
    }

    /// Applies operations that were checked.
    fn apply(&mut self, ops: Vec<WriteOp>) {
        for op in ops {
            match op {
                WriteOp::PutStream(record) => self.put_stream(record),
                WriteOp::Append(append) => self.append(append),
                WriteOp::PutAgent(agent) => {
                    self.agents.insert(agent.agent_id.clone(), agent);
                }
            }
        }
    }

    fn append(&mut self, op: AppendOp) {
        let Some(stream) = self.streams.get_mut(&op.stream_id) else {
            return;
        };
        stream.next_sequence += u64::from(op.block.line_count);
        stream.text_bytes += u64::from(op.block.text_bytes);
        stream.last_line_unix_us = op.last_line_unix_us;
        if !op.checkpoint.is_empty() {
            stream.checkpoint = op.checkpoint;
        }
        let key = (op.stream_id, op.block.first_sequence);
        self.blocks.insert(key, (op.block, op.last_line_unix_us));
    }

    fn put_stream(&mut self, record: StreamRecord) {
        let record = match self.streams.get(&record.stream_id) {
            // What lines change is not the caller's to replace.
            Some(old) => StreamRecord {
                first_sequence: old.first_sequence,
                next_sequence: old.next_sequence,
                text_bytes: old.text_bytes,
                last_line_unix_us: old.last_line_unix_us,
                checkpoint: old.checkpoint.clone(),
                ..record
            },
            None => record,
        };
        self.streams.insert(record.stream_id, record);
    }
}

impl LogStore for MemoryStore {
    fn store_id(&self) -> &str {
        &self.store_id
    }

    fn load_streams(&self) -> Result<Vec<StreamRecord>, StoreError> {
        Ok(self.read(|content| content.streams.values().cloned().collect()))
    }

    fn load_agents(&self) -> Result<Vec<v1::Agent>, StoreError> {
        Ok(self.read(|content| content.agents.values().cloned().collect()))
    }

    fn commit(&self, ops: Vec<WriteOp>) -> Result<(), StoreError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.live.check(&ops)?;
        state.live.apply(ops.clone());
        state.unsynced.push(ops);
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for commit in std::mem::take(&mut state.unsynced) {
            state.durable.apply(commit);
        }
        Ok(())
    }

    fn read_blocks(&self, stream_id: u64, from: u64, max_bytes: usize) -> Result<Vec<v1::Block>, StoreError> {
        let mut total_bytes = 0_usize;
        Ok(self.read(|content| {
            content
                .blocks
                .range((stream_id, 0)..=(stream_id, u64::MAX))
                .map(|(_, (block, _))| block)
                .skip_while(|block| block.first_sequence + u64::from(block.line_count) <= from)
                .take_while(|block| {
                    let is_first = total_bytes == 0;
                    total_bytes += block.encoded_len();
                    is_first || total_bytes <= max_bytes
                })
                .cloned()
                .collect()
        }))
    }

    fn seek_time(&self, stream_id: u64, unix_us: i64) -> Result<u64, StoreError> {
        self.read(|content| {
            let late = content
                .blocks
                .range((stream_id, 0)..=(stream_id, u64::MAX))
                .find(|(_, (_, last_time_unix_us))| *last_time_unix_us >= unix_us);
            let Some((_, (block, _))) = late else {
                return Ok(content
                    .streams
                    .get(&stream_id)
                    .map_or(0, |stream| stream.next_sequence));
            };
            let open = OpenBlock::open(block).map_err(|error| StoreError::Damaged {
                place: format!("stream {stream_id}, line {}", block.first_sequence),
                cause: error.to_string(),
            })?;
            Ok(open
                .lines()
                .find(|line| line.time_unix_us >= unix_us)
                .map_or(open.next_sequence(), |line| line.sequence))
        })
    }

    fn maintain(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn disk_bytes(&self) -> u64 {
        self.read(|content| {
            content
                .blocks
                .values()
                .map(|(block, _)| block.encoded_len() as u64)
                .sum()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_the_contract() {
        crate::conformance::run(MemoryStore::new, |store| store.after_kill());
    }

    #[test]
    fn a_kill_leaves_every_commit_and_a_power_cut_what_was_synced_and_a_prefix_of_the_rest() {
        let store = MemoryStore::new();
        let commit = |ops| store.commit(ops).unwrap();
        let append = |first| WriteOp::Append(crate::conformance::append(1, first, 10));
        commit(vec![WriteOp::PutStream(crate::conformance::stream(1)), append(0)]);
        store.sync().unwrap();
        commit(vec![append(10)]);
        commit(vec![append(20), append(30)]);
        let head = |store: &MemoryStore| store.load_streams().unwrap()[0].next_sequence;
        assert_eq!(store.durable_streams()[0].next_sequence, 10);
        assert_eq!(head(&store.after_kill()), 40);
        for (survivors, next_sequence) in [(0, 10), (1, 20), (2, 40), (9, 40)] {
            let left = store.after_power_cut(survivors);
            assert_eq!((head(&left), left.unsynced_commits()), (next_sequence, 0));
            assert_eq!(left.store_id(), store.store_id());
        }
        // The next process has not synced it either.
        assert_eq!(head(&store.after_kill().after_power_cut(0)), 10);
    }
}
