//! Streams that the relay writes itself, such as the audit: through the writer like everybody's, so that they are
//! stored, delivered and searched like everybody's.
//!
//! Their agent is [`RELAY_AGENT_ID`], which no agent can be: nothing that comes over the wire writes to them.

use std::sync::Arc;

use millstream_proto::block::BlockBuilder;
use millstream_proto::v1::Channel;

use crate::clock::now_unix_us;
use crate::core::CoreParts;
use crate::ingest::Session;
use crate::streams::{StreamHandle, StreamKey};
use crate::writer::{Append, OpenStream, Stopped};

/// Agent id of what the relay itself writes: no id that an agent could have.
pub(crate) const RELAY_AGENT_ID: &str = "@relay";

/// One stream of the relay's own. Only one task may write to it.
#[derive(Debug)]
pub(crate) struct OwnStream {
    parts: Arc<CoreParts>,
    session: Arc<Session>,
    stream: Arc<StreamHandle>,
    next_sequence: u64,
}

/// Why it cannot be written.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum OwnStreamError {
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error("{0}")]
    Refused(String),
}

impl OwnStream {
    /// Opens the stream `source`, or makes it. Waits until that is durable.
    pub(crate) async fn open(parts: Arc<CoreParts>, source: &str) -> Result<Self, OwnStreamError> {
        let session = Arc::new(Session::new(RELAY_AGENT_ID.to_owned()));
        let labels = [("agent", RELAY_AGENT_ID), ("host", "relay"), ("source", source)];
        let open = OpenStream {
            session: Arc::clone(&session),
            key: StreamKey {
                agent_id: RELAY_AGENT_ID.to_owned(),
                source: source.to_owned(),
                instance: source.to_owned(),
            },
            labels: labels
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            run: None,
        };
        let opened = parts
            .writer
            .open_stream(open)
            .await?
            .map_err(OwnStreamError::Refused)?;
        opened.stream.opened();
        Ok(Self {
            parts,
            session,
            stream: opened.stream,
            next_sequence: opened.next_sequence,
        })
    }

    /// Appends lines, which must not be longer than a block holds. Returns once the writer has them.
    pub(crate) async fn append(&mut self, lines: &[String]) -> Result<(), Stopped> {
        // Nobody waits for acknowledgements here.
        self.session.take();
        let mut builder = BlockBuilder::new();
        let now = now_unix_us();
        for line in lines {
            if !builder.push_line(line.as_bytes(), now, Channel::Stdout, false) {
                self.send(&mut builder).await?;
                builder.push_line(line.as_bytes(), now, Channel::Stdout, false);
            }
        }
        self.send(&mut builder).await
    }

    async fn send(&mut self, builder: &mut BlockBuilder) -> Result<(), Stopped> {
        let Some(block) = builder.finish(self.next_sequence) else {
            return Ok(());
        };
        self.next_sequence += u64::from(block.line_count);
        let append = Append {
            session: Arc::clone(&self.session),
            handle: 0,
            stream: Arc::clone(&self.stream),
            block,
            checkpoint: bytes::Bytes::new(),
            share: None,
        };
        self.parts.writer.append(append).await
    }
}

impl Drop for OwnStream {
    fn drop(&mut self) {
        self.stream.closed();
    }
}
