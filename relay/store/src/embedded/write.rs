//! Commits: operations into one batch of the log, and into the index once they are there. Knows nothing of settling
//! but that it wants to hear what was appended.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;

use bytes::Bytes;
use millstream_proto::v1;
use prost::Message as _;

use super::catalog::Note;
use super::index::SMALL_TEXT_BYTES;
use super::layout::block::{self, BlockFacts, FLAG_COMPRESSED};
use super::layout::frame::Kind;
use super::layout::stream::{self, Head};
use super::log::{Draft, Log};
use super::volume::{Volume, agent_draft, io_error, stream_draft};
use crate::{AppendOp, StoreError, StreamRecord, WriteOp};

/// An encoded block is far smaller; the format holds less than four times as much.
const MAX_BLOCK_BYTES: usize = 64 << 20;

/// Lines of a stream that are noted ahead as given out: as many as it has, within these limits. A damaged file may
/// cost so many sequences, never lines; a smaller step costs more notes.
const BOUND_STEP: (u64, u64) = (1 << 10, 1 << 20);

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

/// Applies all operations or none. The caller holds the log, so only one commit runs at a time.
pub(crate) fn commit(volume: &Volume, log: &mut Log, ops: Vec<WriteOp>) -> Result<Vec<Event>, StoreError> {
    let mut commit = Commit {
        volume,
        heads: BTreeMap::new(),
        streams: BTreeMap::new(),
        agents: BTreeMap::new(),
        blocks: Vec::new(),
        events: Vec::new(),
    };
    for op in ops {
        match op {
            WriteOp::PutStream(record) => commit.put_stream(&record),
            WriteOp::Append(append) => commit.append(append)?,
            WriteOp::PutAgent(agent) => {
                commit.agents.insert(agent.agent_id.clone(), agent);
            }
        }
    }
    commit.finish(log)
}

struct PutStream {
    created: Head,
    body: Bytes,
    is_ended: bool,
}

struct Commit<'a> {
    volume: &'a Volume,
    /// Of the streams that this commit touches, as it leaves them so far.
    heads: BTreeMap<u64, Head>,
    streams: BTreeMap<u64, PutStream>,
    agents: BTreeMap<String, v1::Agent>,
    blocks: Vec<(BlockFacts, Draft)>,
    events: Vec<Event>,
}

impl Commit<'_> {
    fn put_stream(&mut self, record: &StreamRecord) {
        let stream_id = record.stream_id;
        let created = match self.streams.remove(&stream_id) {
            Some(put) => put.created,
            None => {
                let index = self.volume.index();
                let known = index.streams.get(&stream_id);
                known.map_or_else(|| Head::of(record), |known| known.created.clone())
            }
        };
        if self.head(stream_id).is_none() {
            self.heads.insert(stream_id, created.clone());
        }
        let put = PutStream {
            created,
            body: stream::to_body(record),
            is_ended: record.end.is_some(),
        };
        if put.is_ended {
            self.events.push(Event::Ended { stream_id });
        }
        self.streams.insert(stream_id, put);
    }

    fn append(&mut self, op: AppendOp) -> Result<(), StoreError> {
        let stream_id = op.stream_id;
        let refuse = |cause: String| StoreError::Refused {
            what: format!("append to stream {stream_id}"),
            cause,
        };
        let Some(head) = self.head(stream_id) else {
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
        if block.encoded_len() > MAX_BLOCK_BYTES {
            return Err(refuse(format!(
                "a block of {} bytes is too large",
                block.encoded_len()
            )));
        }
        head.next_sequence = next_sequence;
        head.text_bytes = head.text_bytes.saturating_add(u64::from(block.text_bytes));
        head.last_line_unix_us = op.last_line_unix_us;
        if !op.checkpoint.is_empty() {
            head.checkpoint = op.checkpoint;
        }
        let is_compressed = block.codec == i32::from(v1::Codec::Zstd);
        let facts = BlockFacts {
            stream_id,
            first_sequence: block.first_sequence,
            next_sequence,
            first_time_unix_us: block.first_time_unix_us,
            last_time_unix_us: op.last_line_unix_us,
            text_bytes: block.text_bytes,
            stream_text_bytes: head.text_bytes,
            flags: if is_compressed { FLAG_COMPRESSED } else { 0 },
            checkpoint: head.checkpoint.clone(),
        };
        self.events.push(Event::Appended {
            stream_id,
            first_sequence: block.first_sequence,
            text_bytes: block.text_bytes,
            is_compressed,
        });
        let draft = block_draft(&facts, block);
        self.blocks.push((facts, draft));
        Ok(())
    }

    /// The stream's head as this commit leaves it so far; `None` when it was never put.
    fn head(&mut self, stream_id: u64) -> Option<&mut Head> {
        match self.heads.entry(stream_id) {
            MapEntry::Occupied(known) => Some(known.into_mut()),
            MapEntry::Vacant(vacant) => {
                let index = self.volume.index();
                let head = index.streams.get(&stream_id)?.head.clone();
                Some(vacant.insert(head))
            }
        }
    }

    fn finish(self, log: &mut Log) -> Result<Vec<Event>, StoreError> {
        let mut drafts: Vec<Draft> = Vec::new();
        for (stream_id, put) in &self.streams {
            drafts.push(stream_draft(*stream_id, &put.created, put.body.clone()));
        }
        let agents: Vec<Bytes> = self
            .agents
            .values()
            .map(|agent| agent.encode_to_vec().into())
            .collect();
        drafts.extend(agents.iter().map(|body| agent_draft(body.clone())));
        let (facts, blocks): (Vec<BlockFacts>, Vec<Draft>) = self.blocks.into_iter().unzip();
        drafts.extend(blocks);
        if drafts.is_empty() {
            return Ok(self.events);
        }
        let placed = log
            .append(&self.volume.index, &drafts)
            .map_err(|error| io_error("commit", &error))?;
        drop(drafts);
        let mut places = placed.iter();
        let mut index = self.volume.index_mut();
        for ((stream_id, put), placed) in self.streams.iter().zip(places.by_ref()) {
            index.put_stream(*stream_id, put.created.clone(), *placed, put.body.clone());
            let note = Note::stream(placed.batch, *stream_id, &put.created, put.body.clone());
            log.catalog.note(note);
        }
        for (body, placed) in agents.into_iter().zip(places.by_ref()) {
            log.catalog.note(Note::agent(placed.batch, body.clone()));
            if let Err(error) = index.put_agent(*placed, body) {
                tracing::warn!(%error, "an agent's record cannot be read");
            }
        }
        for (facts, placed) in facts.iter().zip(places) {
            index.put_block(facts, placed);
        }
        let mut has_new_bounds = false;
        for (stream_id, head) in &self.heads {
            let Some(stream) = index.streams.get_mut(stream_id) else {
                continue;
            };
            let is_ended = self.streams.get(stream_id).is_some_and(|put| put.is_ended);
            if is_ended && stream.bound != head.next_sequence {
                stream.bound = head.next_sequence;
            } else if head.next_sequence > stream.bound {
                let step = head.next_sequence.clamp(BOUND_STEP.0, BOUND_STEP.1);
                stream.bound = head.next_sequence.saturating_add(step);
            } else {
                continue;
            }
            log.catalog.note(Note::bound(*stream_id, stream.bound));
            has_new_bounds = true;
        }
        drop(index);
        if has_new_bounds {
            log.note_known();
        }
        log.catalog.write();
        Ok(self.events)
    }
}

/// The record of a block.
pub(crate) fn block_draft(facts: &BlockFacts, block: &v1::Block) -> Draft {
    let (small, text) = block::encode(block);
    Draft {
        kind: Kind::Block,
        meta: facts.to_meta(),
        small: small.into(),
        text,
        seed: block::seed(facts.stream_id, facts.first_sequence),
    }
}

/// Whether a block is to be settled.
pub(crate) fn is_unsettled(text_bytes: u32, is_compressed: bool) -> bool {
    text_bytes < SMALL_TEXT_BYTES || !is_compressed
}
