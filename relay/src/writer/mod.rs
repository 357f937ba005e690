//! The one writer: it owns every stream's head and is alone in changing the store. It has a thread of its own,
//! because the store blocks.
//!
//! It takes all commands that wait, commits them in one atomic write, shows the lines to readers (they
//! survive a crash of the process from here on), makes them durable, and only then acknowledges. The
//! more waits, the larger the group, so one fsync serves many agents.

mod command;
mod group;
mod thread;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};

pub(crate) use command::{Append, Command, End, OpenStream, Opened};
pub(crate) use thread::{WriterParts, run};

use crate::ingest::Session;

/// When commits are made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before each acknowledgement, one fsync for the whole group: an acknowledged line survives a power
    /// failure.
    Always,
    /// At most this long after a commit: an acknowledged line survives a crash of the relay; a power
    /// failure may take the last interval.
    Interval(Duration),
    /// When the system likes: an acknowledged line survives a crash of the relay only.
    Never,
}

/// Commands that may wait for the writer. Senders wait when it is full, which stops them reading from
/// their agents.
const QUEUE_COMMANDS: usize = 4096;

/// Handle to the writer thread.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Command>,
    /// Bytes of blocks that wait for the writer, over all sessions.
    queue_bytes: Arc<Semaphore>,
    queue_limit_bytes: usize,
}

/// The writer thread has stopped; the relay is shutting down.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the relay is stopping")]
pub(crate) struct Stopped;

impl Writer {
    pub(crate) fn new(queue_limit_bytes: usize) -> (Self, mpsc::Receiver<Command>) {
        let (queue, receiver) = mpsc::channel(QUEUE_COMMANDS);
        let queue_bytes = Arc::new(Semaphore::new(queue_limit_bytes));
        (
            Self {
                queue,
                queue_bytes,
                queue_limit_bytes,
            },
            receiver,
        )
    }

    /// Starts a session and fences the agent's earlier one. Returns its epoch.
    pub(crate) async fn open_session(
        &self,
        session: Arc<Session>,
        agent: millstream_proto::v1::Agent,
    ) -> Result<u64, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::OpenSession {
            session,
            agent,
            reply,
        })
        .await?;
        answer.await.map_err(|_| Stopped)
    }

    pub(crate) async fn open_stream(&self, open: OpenStream) -> Result<Result<Opened, String>, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::OpenStream { open, reply }).await?;
        answer.await.map_err(|_| Stopped)
    }

    /// Queues a block; waits while too many bytes wait already.
    pub(crate) async fn append(&self, append: Append) -> Result<(), Stopped> {
        let bytes = append.block.text.len().clamp(1, self.queue_limit_bytes);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.queue_bytes)
            .acquire_many_owned(bytes)
            .await
            .map_err(|_| Stopped)?;
        self.send(Command::Append { append, permit }).await
    }

    pub(crate) async fn send(&self, command: Command) -> Result<(), Stopped> {
        self.queue.send(command).await.map_err(|_| Stopped)
    }

    /// Commits and syncs everything that was queued before, then stops the thread.
    pub(crate) async fn stop(&self) {
        let (reply, answer) = oneshot::channel();
        if self.send(Command::Stop { reply }).await.is_ok() {
            // An error means that the thread was gone already, which is what was asked for.
            let _ = answer.await;
        }
    }
}
