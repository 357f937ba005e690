//! Reads: every call sees the store as it was at one moment, whatever commits and the settler do beside
//! it.

use std::ops::RangeInclusive;

use bytes::Bytes;
use fjall::{Guard, Readable as _, Snapshot};
use millstream_proto::block::OpenBlock;
use millstream_proto::v1;

use super::engine::{Engine, engine_error};
use super::kv::block_index::{BlockIndex, BlockKey};
use super::kv::head::Head;
use super::kv::{self, LayoutError, agent, block_body, block_index, head, stream};
use crate::{StoreError, StreamRecord};

/// The store at one moment.
pub(crate) struct View<'a> {
    engine: &'a Engine,
    snapshot: Snapshot,
}

impl<'a> View<'a> {
    pub(crate) fn new(engine: &'a Engine) -> Self {
        Self {
            engine,
            snapshot: engine.database.snapshot(),
        }
    }

    pub(crate) fn streams(&self) -> Result<Vec<StreamRecord>, StoreError> {
        let mut records = Vec::new();
        for guard in self.snapshot.iter(&self.engine.streams) {
            let (key, value) = entry(guard, "streams")?;
            let stream_id = kv::deser_stream_key(&key).map_err(|error| damaged("streams", &error))?;
            let place = format!("stream {stream_id}");
            let head = self.head(stream_id)?.ok_or_else(|| StoreError::Damaged {
                place: place.clone(),
                cause: "its head is missing".to_owned(),
            })?;
            let record =
                stream::deser_value(stream_id, value, head).map_err(|error| damaged(&place, &error))?;
            records.push(record);
        }
        Ok(records)
    }

    pub(crate) fn agents(&self) -> Result<Vec<v1::Agent>, StoreError> {
        let mut agents = Vec::new();
        for guard in self.snapshot.iter(&self.engine.agents) {
            let (key, value) = entry(guard, "agents")?;
            let agent_id = agent::deser_key(&key).map_err(|error| damaged("agents", &error))?;
            let place = format!("agent {agent_id}");
            agents.push(agent::deser_value(value).map_err(|error| damaged(&place, &error))?);
        }
        Ok(agents)
    }

    /// Where the stream stands; `None` when it was never put.
    pub(crate) fn head(&self, stream_id: u64) -> Result<Option<Head>, StoreError> {
        let place = format!("head of stream {stream_id}");
        let stored = self
            .snapshot
            .get(&self.engine.heads, kv::ser_stream_key(stream_id))
            .map_err(|error| engine_error(&place, &error))?;
        stored
            .map(|value| head::deser_value(&value).map_err(|error| damaged(&place, &error)))
            .transpose()
    }

    /// Streams from an id on with the sequence at which each stands.
    pub(crate) fn heads_from(
        &self,
        stream_id: u64,
    ) -> impl Iterator<Item = Result<(u64, Head), StoreError>> + use<> {
        self.snapshot
            .range(&self.engine.heads, kv::ser_stream_key(stream_id)..)
            .map(|guard| {
                let (key, value) = entry(guard, "heads")?;
                let stream_id = kv::deser_stream_key(&key).map_err(|error| damaged("heads", &error))?;
                let place = format!("head of stream {stream_id}");
                Ok((
                    stream_id,
                    head::deser_value(&value).map_err(|error| damaged(&place, &error))?,
                ))
            })
    }

    pub(crate) fn frontier(&self, stream_id: u64) -> Result<u64, StoreError> {
        let place = format!("settle frontier of stream {stream_id}");
        let stored = self
            .snapshot
            .get(&self.engine.frontiers, kv::ser_stream_key(stream_id))
            .map_err(|error| engine_error(&place, &error))?;
        stored.map_or(Ok(0), |value| {
            kv::frontier::deser_value(&value).map_err(|error| damaged(&place, &error))
        })
    }

    /// Index entries of the stream's blocks that begin within the range; ascending, also from the back.
    pub(crate) fn blocks(
        &self,
        stream_id: u64,
        first_sequences: RangeInclusive<u64>,
    ) -> impl DoubleEndedIterator<Item = Result<(BlockKey, BlockIndex), StoreError>> + use<> {
        let key = |first_sequence| {
            block_index::ser_key(BlockKey {
                stream_id,
                first_sequence,
            })
        };
        self.snapshot
            .range(
                &self.engine.block_index,
                key(*first_sequences.start())..=key(*first_sequences.end()),
            )
            .map(move |guard| {
                let place = || format!("block index of stream {stream_id}");
                let (key, value) = guard
                    .into_inner()
                    .map_err(|error| engine_error(&place(), &error))?;
                let key = block_index::deser_key(&key).map_err(|error| damaged(&place(), &error))?;
                let index =
                    block_index::deser_value(&value.into()).map_err(|error| damaged(&place(), &error))?;
                Ok((key, index))
            })
    }

    /// The block that holds the line or, when that is not stored, the newest one before it.
    pub(crate) fn block_at(
        &self,
        stream_id: u64,
        sequence: u64,
    ) -> Result<Option<(BlockKey, BlockIndex)>, StoreError> {
        self.blocks(stream_id, 0..=sequence).next_back().transpose()
    }

    /// Loads a block and checks that it is what was written.
    pub(crate) fn load(&self, key: BlockKey, index: &BlockIndex) -> Result<v1::Block, StoreError> {
        let damage = |cause: String| StoreError::Damaged {
            place: place(key, index),
            cause,
        };
        let encoded: Bytes = match &index.inline {
            Some(encoded) => encoded.clone(),
            None => self
                .snapshot
                .get(&self.engine.block_bodies, block_index::ser_key(key))
                .map_err(|error| engine_error(&place(key, index), &error))?
                .ok_or_else(|| damage("its body is missing".to_owned()))?
                .into(),
        };
        let checksum = index.compute_checksum(key, &encoded);
        if checksum != index.checksum {
            return Err(damage(format!(
                "its checksum is {checksum:016x}, not {:016x}",
                index.checksum
            )));
        }
        block_body::deser_value(encoded).map_err(|error| damage(error.to_string()))
    }

    /// See [`crate::LogStore::read_blocks`].
    pub(crate) fn read_blocks(
        &self,
        stream_id: u64,
        from: u64,
        max_bytes: usize,
    ) -> Result<Vec<v1::Block>, StoreError> {
        let mut blocks = Vec::new();
        match self.read_until_damage(stream_id, from, max_bytes, &mut blocks) {
            Ok(()) if blocks.is_empty() => match self.head(stream_id)? {
                Some(head) if head.next_sequence > from => Err(StoreError::DamagedLines {
                    stream_id,
                    first_sequence: from,
                    next_sequence: head.next_sequence,
                    cause: "they are missing from the index".to_owned(),
                }),
                _ => Ok(blocks),
            },
            // The next call begins there.
            Err(StoreError::Damaged { .. } | StoreError::DamagedLines { .. }) if !blocks.is_empty() => {
                Ok(blocks)
            }
            // A part of the index is damaged, and with it the lines that only this part knows of.
            Err(StoreError::Damaged { cause, .. }) => Err(StoreError::DamagedLines {
                stream_id,
                first_sequence: from,
                next_sequence: self.first_readable_after(stream_id, from)?,
                cause,
            }),
            Err(error) => Err(error),
            Ok(()) => Ok(blocks),
        }
    }

    fn read_until_damage(
        &self,
        stream_id: u64,
        from: u64,
        max_bytes: usize,
        blocks: &mut Vec<v1::Block>,
    ) -> Result<(), StoreError> {
        let start = match self.block_at(stream_id, from)? {
            Some((key, index)) if index.next_sequence > from => key.first_sequence,
            _ => from,
        };
        let mut reached = start;
        let mut total_bytes = 0_usize;
        for found in self.blocks(stream_id, start..=u64::MAX) {
            let (key, index) = found?;
            if key.first_sequence < reached {
                // A settled block has these lines too; that they were replaced was lost with a damaged
                // part of the journal.
                continue;
            }
            if key.first_sequence > reached {
                // A hole. Above the oldest stored line nothing is ever removed on purpose.
                let oldest = self.head(stream_id)?.map_or(0, |head| head.first_sequence);
                match blocks.is_empty() {
                    false => break,
                    true if reached < oldest => {}
                    true => {
                        return Err(StoreError::DamagedLines {
                            stream_id,
                            first_sequence: reached,
                            next_sequence: key.first_sequence,
                            cause: "they are missing from the index".to_owned(),
                        });
                    }
                }
            }
            total_bytes = total_bytes.saturating_add(index.stored_bytes as usize);
            if !blocks.is_empty() && total_bytes > max_bytes {
                break;
            }
            let block = self.load(key, &index).map_err(|error| match error {
                StoreError::Damaged { cause, .. } => StoreError::DamagedLines {
                    stream_id,
                    first_sequence: key.first_sequence.max(from),
                    next_sequence: index.next_sequence,
                    cause,
                },
                other => other,
            })?;
            reached = index.next_sequence;
            blocks.push(block);
        }
        Ok(())
    }

    /// First line behind a damaged part of the index that holds line `from`, or the head when there is none.
    /// A damaged part is one range of keys, so that asking behind it works again.
    fn first_readable_after(&self, stream_id: u64, from: u64) -> Result<u64, StoreError> {
        let head = self.head(stream_id)?.map_or(from, |head| head.next_sequence);
        let entry_from = |sequence: u64| self.blocks(stream_id, sequence..=u64::MAX).next().transpose();
        let (mut bad, mut step) = (from, 1_u64);
        // Ever larger steps until something can be read.
        let mut good = loop {
            let place = bad.saturating_add(step);
            if place >= head {
                break head;
            }
            match entry_from(place) {
                Err(StoreError::Damaged { .. }) => bad = place,
                Ok(_) => break place,
                Err(error) => return Err(error),
            }
            step = step.saturating_mul(2);
        };
        while bad + 1 < good {
            let middle = bad + (good - bad) / 2;
            match entry_from(middle) {
                Err(StoreError::Damaged { .. }) => bad = middle,
                Ok(_) => good = middle,
                Err(error) => return Err(error),
            }
        }
        match entry_from(good) {
            Ok(Some((key, _))) => Ok(key.first_sequence.max(from + 1)),
            _ => Ok(head.max(from + 1)),
        }
    }

    /// See [`crate::LogStore::seek_time`]. Looks at index entries only, but for the one block that holds
    /// the line.
    pub(crate) fn seek_time(&self, stream_id: u64, unix_us: i64) -> Result<u64, StoreError> {
        let bounds = {
            let mut all = self.blocks(stream_id, 0..=u64::MAX);
            let first = all.next().transpose()?;
            let last = all.next_back().transpose()?.or_else(|| first.clone());
            first.zip(last)
        };
        let Some((first, last)) = bounds else {
            return Ok(self.head(stream_id)?.map_or(0, |head| head.next_sequence));
        };
        if last.1.last_time_unix_us < unix_us {
            return Ok(last.1.next_sequence);
        }
        // `found` ends late enough; every block that begins below `low` ends too early.
        let (mut low, mut found) = (first.0.first_sequence, last);
        while low < found.0.first_sequence {
            let middle = low + (found.0.first_sequence - low) / 2;
            match self.block_at(stream_id, middle)? {
                Some(block) if block.1.last_time_unix_us >= unix_us => {
                    if block.0.first_sequence < low {
                        // Lines are missing between; what follows `middle` is known to do.
                        break;
                    }
                    found = block;
                }
                Some(block) => low = block.1.next_sequence.max(middle + 1),
                None => low = middle + 1,
            }
        }
        let (key, index) = found;
        if index.first_time_unix_us >= unix_us {
            return Ok(key.first_sequence);
        }
        let open = OpenBlock::open(&self.load(key, &index)?).map_err(|error| StoreError::Damaged {
            place: place(key, &index),
            cause: error.to_string(),
        })?;
        Ok(open
            .lines()
            .find(|line| line.time_unix_us >= unix_us)
            .map_or(index.next_sequence, |line| line.sequence))
    }
}

/// A block's name in messages.
pub(crate) fn place(key: BlockKey, index: &BlockIndex) -> String {
    format!(
        "stream {}, lines {} to {}",
        key.stream_id,
        key.first_sequence,
        index.next_sequence.saturating_sub(1)
    )
}

fn entry(guard: Guard, what: &str) -> Result<(Bytes, Bytes), StoreError> {
    let (key, value) = guard.into_inner().map_err(|error| engine_error(what, &error))?;
    Ok((key.into(), value.into()))
}

fn damaged(place: &str, error: &LayoutError) -> StoreError {
    StoreError::Damaged {
        place: place.to_owned(),
        cause: error.to_string(),
    }
}
