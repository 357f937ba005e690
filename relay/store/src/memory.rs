//! A store in memory, for tests of what stands on the contract. It keeps blocks as they came and forgets
//! everything when it is dropped.

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
    /// Differs between the stores of one process.
    store_id: String,
    content: RwLock<Content>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let store_id = format!("memory-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        Self {
            store_id,
            content: RwLock::default(),
        }
    }
}

#[derive(Debug, Default)]
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

    fn read<T>(&self, look: impl FnOnce(&Content) -> T) -> T {
        look(&self.content.read().unwrap_or_else(PoisonError::into_inner))
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
        let mut content = self.content.write().unwrap_or_else(PoisonError::into_inner);
        content.check(&ops)?;
        for op in ops {
            match op {
                WriteOp::PutStream(record) => content.put_stream(record),
                WriteOp::Append(append) => content.append(append),
                WriteOp::PutAgent(agent) => {
                    content.agents.insert(agent.agent_id.clone(), agent);
                }
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
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
        crate::conformance::run(MemoryStore::new, |store| store);
    }
}
