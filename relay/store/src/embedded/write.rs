//! Commits: operations into one atomic batch of the engine. Knows nothing of settling but that it wants
//! to hear what was appended.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytes::Bytes;
use fjall::{OwnedWriteBatch, PersistMode};
use millstream_proto::v1;

use super::engine::{Engine, engine_error};
use super::kv::block_index::{BlockIndex, BlockKey, INLINE_MAX_BYTES};
use super::kv::head::Head;
use super::kv::{self, agent, block_body, block_index, head, stream};
use crate::{AppendOp, StoreError, StreamRecord, WriteOp};

/// What a commit did, for the settler.
pub(crate) enum Event {
    Appended {
        stream_id: u64,
        first_sequence: u64,
        text_bytes: u32,
        is_compressed: bool,
    },
    Ended {
        stream_id: u64,
    },
}

/// Applies all operations or none. The caller sees to it that only one commit runs at a time. `is_in_doubt`:
/// the operations may be there already, from an attempt that failed.
pub(crate) fn commit(
    engine: &Engine,
    ops: Vec<WriteOp>,
    is_in_doubt: bool,
) -> Result<Vec<Event>, StoreError> {
    let mut commit = Commit {
        engine,
        batch: engine.database.batch().durability(Some(PersistMode::Buffer)),
        heads: HashMap::new(),
        streams: HashMap::new(),
        agents: HashMap::new(),
        events: Vec::new(),
    };
    for op in ops {
        match op {
            WriteOp::PutStream(record) => commit.put_stream(&record)?,
            WriteOp::Append(append) if is_in_doubt && commit.has(&append)? => {}
            WriteOp::Append(append) => commit.append(&append)?,
            WriteOp::PutAgent(record) => {
                commit.agents.insert(record.agent_id.clone(), record);
            }
        }
    }
    commit.finish()
}

/// The maps collect what several operations of one commit may change: the engine keeps only one value of
/// a key in a batch, and which one is not defined.
struct Commit<'a> {
    engine: &'a Engine,
    batch: OwnedWriteBatch,
    heads: HashMap<u64, Head>,
    streams: HashMap<u64, Vec<u8>>,
    agents: HashMap<String, v1::Agent>,
    events: Vec<Event>,
}

impl Commit<'_> {
    fn put_stream(&mut self, record: &StreamRecord) -> Result<(), StoreError> {
        if self.head(record.stream_id)?.is_none() {
            let head = Head {
                first_sequence: record.first_sequence,
                next_sequence: record.next_sequence,
                text_bytes: record.text_bytes,
                last_line_unix_us: record.last_line_unix_us,
                checkpoint: record.checkpoint.clone(),
            };
            self.heads.insert(record.stream_id, head);
        }
        self.streams.insert(record.stream_id, stream::ser_value(record));
        if record.end.is_some() {
            self.events.push(Event::Ended {
                stream_id: record.stream_id,
            });
        }
        Ok(())
    }

    /// Whether the lines were committed before. Each line has its place for ever, so the head tells.
    fn has(&mut self, op: &AppendOp) -> Result<bool, StoreError> {
        let next_sequence = op.block.first_sequence + u64::from(op.block.line_count);
        let head = self.head(op.stream_id)?;
        Ok(head.is_some_and(|head| next_sequence <= head.next_sequence))
    }

    fn append(&mut self, op: &AppendOp) -> Result<(), StoreError> {
        let stream_id = op.stream_id;
        let refuse = |cause: String| StoreError::Refused {
            what: format!("append to stream {stream_id}"),
            cause,
        };
        let Some(head) = self.head(stream_id)? else {
            return Err(refuse("the stream was never put".to_owned()));
        };
        let block = &op.block;
        if block.first_sequence != head.next_sequence {
            return Err(refuse(format!(
                "the block begins at line {}, the stream stands at {}",
                block.first_sequence, head.next_sequence
            )));
        }
        if !block.sequences.is_empty() || block.line_count == 0 {
            return Err(refuse("the block has gaps or no lines".to_owned()));
        }
        let next_sequence = block
            .first_sequence
            .checked_add(u64::from(block.line_count))
            .ok_or_else(|| refuse("the sequence leaves 64 bits".to_owned()))?;
        head.next_sequence = next_sequence;
        head.text_bytes = head.text_bytes.saturating_add(u64::from(block.text_bytes));
        head.last_line_unix_us = op.last_line_unix_us;
        if !op.checkpoint.is_empty() {
            head.checkpoint = op.checkpoint.clone();
        }
        let index = put_block(
            self.engine,
            &mut self.batch,
            stream_id,
            block,
            op.last_line_unix_us,
            false,
        )?;
        self.events.push(Event::Appended {
            stream_id,
            first_sequence: block.first_sequence,
            text_bytes: index.text_bytes,
            is_compressed: index.is_compressed,
        });
        Ok(())
    }

    /// The stream's head as this commit leaves it so far.
    fn head(&mut self, stream_id: u64) -> Result<Option<&mut Head>, StoreError> {
        match self.heads.entry(stream_id) {
            Entry::Occupied(known) => Ok(Some(known.into_mut())),
            Entry::Vacant(vacant) => {
                let what = format!("head of stream {stream_id}");
                let stored = self
                    .engine
                    .heads
                    .get(kv::ser_stream_key(stream_id))
                    .map_err(|error| engine_error(&what, &error))?;
                let Some(value) = stored else {
                    return Ok(None);
                };
                let head = head::deser_value(&value).map_err(|error| StoreError::Damaged {
                    place: what,
                    cause: error.to_string(),
                })?;
                Ok(Some(vacant.insert(head)))
            }
        }
    }

    fn finish(mut self) -> Result<Vec<Event>, StoreError> {
        for (stream_id, head) in &self.heads {
            self.batch.insert(
                &self.engine.heads,
                kv::ser_stream_key(*stream_id),
                head::ser_value(head),
            );
        }
        for (stream_id, value) in self.streams {
            self.batch
                .insert(&self.engine.streams, kv::ser_stream_key(stream_id), value);
        }
        for (agent_id, record) in &self.agents {
            self.batch.insert(
                &self.engine.agents,
                agent::ser_key(agent_id),
                agent::ser_value(record),
            );
        }
        self.batch
            .commit()
            .map_err(|error| engine_error("commit", &error))?;
        Ok(self.events)
    }
}

/// Adds a block to the batch: to the index, and its body apart when it is large.
pub(crate) fn put_block(
    engine: &Engine,
    batch: &mut OwnedWriteBatch,
    stream_id: u64,
    block: &v1::Block,
    last_time_unix_us: i64,
    is_settled: bool,
) -> Result<BlockIndex, StoreError> {
    let key = BlockKey {
        stream_id,
        first_sequence: block.first_sequence,
    };
    let encoded: Bytes = block_body::ser_value(block);
    let is_inline = encoded.len() <= INLINE_MAX_BYTES;
    let mut index = BlockIndex {
        next_sequence: block.first_sequence + u64::from(block.line_count),
        first_time_unix_us: block.first_time_unix_us,
        last_time_unix_us,
        text_bytes: block.text_bytes,
        stored_bytes: u32::try_from(encoded.len()).map_err(|_| StoreError::Refused {
            what: format!("append to stream {stream_id}"),
            cause: format!("a block of {} bytes is too large", encoded.len()),
        })?,
        is_compressed: block.codec == i32::from(v1::Codec::Zstd),
        is_settled,
        checksum: 0,
        inline: is_inline.then(|| encoded.clone()),
    };
    index.checksum = index.compute_checksum(key, &encoded);
    let key = block_index::ser_key(key);
    batch.insert(&engine.block_index, key, block_index::ser_value(&index));
    if !is_inline {
        batch.insert(&engine.block_bodies, key, encoded);
    }
    Ok(index)
}
