//! One group of commands on its way into the store: what to write, and what to do afterwards.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use millstream_proto::block::{OpenBlock, last_time_unix_us};
use millstream_proto::v1;
use millstream_store::{AppendOp, StreamRecord, WriteOp};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::command::{Append, End, Opened};
use crate::ingest::Session;
use crate::streams::{Published, StreamHandle, StreamKey, block_frame};

/// A stream's head as the writer will leave it once everything staged is committed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Head {
    pub(super) next_sequence: u64,
    pub(super) is_ended: bool,
}

/// Filled by `stage_…`, emptied by the thread.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) operations: Vec<WriteOp>,
    pub(super) publications: BTreeMap<u64, (Arc<StreamHandle>, Vec<Published>)>,
    pub(super) ends: Vec<(Arc<StreamHandle>, v1::StreamEnd)>,
    pub(super) after_sync: Vec<AfterSync>,
    /// Streams that are made by this group; the registry learns of them when they are durable.
    pub(super) made: HashSet<StreamKey>,
    pub(super) permits: Vec<OwnedSemaphorePermit>,
    pub(super) lines: u64,
    pub(super) text_bytes: u64,
}

/// What has to wait until the group is durable.
#[derive(Debug)]
pub(super) enum AfterSync {
    Ack {
        session: Arc<Session>,
        handle: u32,
        next_sequence: u64,
        ended: bool,
    },
    Opened {
        reply: oneshot::Sender<Result<Opened, String>>,
        opened: Opened,
    },
    /// A stream that did not exist.
    Made {
        reply: oneshot::Sender<Result<Opened, String>>,
        key: StreamKey,
        record: Box<StreamRecord>,
    },
    Barrier {
        reply: oneshot::Sender<()>,
    },
}

impl Group {
    pub(super) fn is_empty(&self) -> bool {
        self.operations.is_empty() && self.after_sync.is_empty()
    }

    /// Stages a block against the head: trims what is known, refuses a gap.
    pub(super) fn stage_append(&mut self, head: &mut Head, append: Append) -> Result<(), Box<v1::Refusal>> {
        let Append {
            session,
            handle,
            stream,
            block,
            checkpoint,
            // It was handed over to the group.
            share: _,
        } = append;
        let first = block.first_sequence;
        let next = first + u64::from(block.line_count);
        let refusal = |reason: v1::RefusalReason, message: String| {
            Err(Box::new(v1::Refusal {
                handle,
                reason: reason.into(),
                message,
                next_sequence: head.next_sequence,
            }))
        };
        if head.is_ended {
            let message = format!("stream {} was ended; nothing can follow", stream.stream_id);
            return refusal(v1::RefusalReason::Ended, message);
        }
        if first > head.next_sequence {
            let message = format!(
                "block starts at line {first} of stream {}, but line {} is next; open the stream again and \
                 go on from there",
                stream.stream_id, head.next_sequence
            );
            return refusal(v1::RefusalReason::Gap, message);
        }
        let acknowledge = |next_sequence| AfterSync::Ack {
            session,
            handle,
            next_sequence,
            ended: false,
        };
        if next <= head.next_sequence {
            // A replay of lines that are committed; the acknowledgement was lost, or waits in this group.
            self.after_sync.push(acknowledge(head.next_sequence));
            return Ok(());
        }
        let block = if first < head.next_sequence {
            let trimmed = OpenBlock::open(&block).map(|open| open.slice(head.next_sequence..next));
            match trimmed {
                Ok(Some(block)) => block,
                Ok(None) => unreachable!("the block ends above the head"),
                Err(error) => return refusal(v1::RefusalReason::Malformed, error.to_string()),
            }
        } else {
            block
        };
        head.next_sequence = next;
        self.after_sync.push(acknowledge(next));
        self.push_block(stream, block, checkpoint);
        Ok(())
    }

    fn push_block(&mut self, stream: Arc<StreamHandle>, block: v1::Block, checkpoint: Bytes) {
        let last_line_unix_us = last_time_unix_us(&block);
        self.lines += u64::from(block.line_count);
        self.text_bytes += u64::from(block.text_bytes);
        let published = Published {
            first_sequence: block.first_sequence,
            next_sequence: block.first_sequence + u64::from(block.line_count),
            text_bytes: block.text_bytes.into(),
            last_line_unix_us,
            checkpoint: checkpoint.clone(),
            frame: block_frame(stream.stream_id, block.clone()),
        };
        self.operations.push(WriteOp::Append(AppendOp {
            stream_id: stream.stream_id,
            block,
            checkpoint,
            last_line_unix_us,
        }));
        let stream_id = stream.stream_id;
        self.publications
            .entry(stream_id)
            .or_insert_with(|| (stream, Vec::new()))
            .1
            .push(published);
    }

    /// Stages the end of a stream; `record_of` gives the record to store it in.
    pub(super) fn stage_end(&mut self, head: &mut Head, end: End) -> Result<(), Box<v1::Refusal>> {
        let End {
            session,
            handle,
            stream,
            next_sequence,
            end,
        } = end;
        if !head.is_ended {
            if next_sequence != head.next_sequence {
                return Err(Box::new(v1::Refusal {
                    handle,
                    reason: v1::RefusalReason::Gap.into(),
                    message: format!(
                        "stream {} ends after line {next_sequence}, but line {} is next; open the stream \
                         again and go on from there",
                        stream.stream_id, head.next_sequence
                    ),
                    next_sequence: head.next_sequence,
                }));
            }
            head.is_ended = true;
            let mut record = stream.record();
            record.end = Some(end.clone());
            self.operations.push(WriteOp::PutStream(record));
            self.ends.push((stream, end));
        }
        self.after_sync.push(AfterSync::Ack {
            session,
            handle,
            next_sequence: head.next_sequence,
            ended: true,
        });
        Ok(())
    }
}
