//! What the writer can be asked to do.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use millstream_proto::v1;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::ingest::Session;
use crate::streams::{StreamHandle, StreamKey};

#[derive(Debug)]
pub(crate) enum Command {
    OpenSession {
        session: Arc<Session>,
        agent: v1::Agent,
        reply: oneshot::Sender<u64>,
    },
    CloseSession {
        session: Arc<Session>,
    },
    OpenStream {
        open: OpenStream,
        reply: oneshot::Sender<Result<Opened, String>>,
    },
    Append {
        append: Append,
        permit: OwnedSemaphorePermit,
    },
    End(End),
    /// Answered once everything that was queued before is durable and acknowledged.
    Barrier {
        reply: oneshot::Sender<()>,
    },
    Stop {
        reply: oneshot::Sender<()>,
    },
}

/// A stream that an agent wants to write, with labels that were validated and composed.
#[derive(Debug)]
pub(crate) struct OpenStream {
    pub(crate) session: Arc<Session>,
    pub(crate) key: StreamKey,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) run: Option<v1::Run>,
}

/// Where the stream stands, after everything that was queued before.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) stream: Arc<StreamHandle>,
    pub(crate) next_sequence: u64,
    pub(crate) checkpoint: Bytes,
    pub(crate) is_ended: bool,
}

/// A validated block.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) session: Arc<Session>,
    pub(crate) handle: u32,
    pub(crate) stream: Arc<StreamHandle>,
    pub(crate) block: v1::Block,
    pub(crate) checkpoint: Bytes,
    /// What it takes of its session's share of the queue.
    pub(crate) share: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
pub(crate) struct End {
    pub(crate) session: Arc<Session>,
    pub(crate) handle: u32,
    pub(crate) stream: Arc<StreamHandle>,
    pub(crate) next_sequence: u64,
    pub(crate) end: v1::StreamEnd,
}
