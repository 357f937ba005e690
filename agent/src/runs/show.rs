//! Shows a run's output while it is held: reads its spool beside the follower, and copies it to this process's own
//! standard output and error.

use std::io;
use std::pin::Pin;

use millstream_proto::v1::Channel;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::follow::Beside;
use super::watch::Watch;
use super::{End, RunDir};
use crate::spool::reader::{Next, Place, SpoolReader};

/// Where output is shown.
pub struct Tee {
    stdout: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    stderr: Option<Pin<Box<dyn AsyncWrite + Send>>>,
}

impl std::fmt::Debug for Tee {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Tee")
            .field("active", &self.stdout.is_some())
            .finish()
    }
}

impl Tee {
    #[must_use]
    pub fn none() -> Self {
        Self {
            stdout: None,
            stderr: None,
        }
    }

    /// To this process's own standard output and error.
    #[must_use]
    pub fn own() -> Self {
        Self {
            stdout: Some(Box::pin(tokio::io::stdout())),
            stderr: Some(Box::pin(tokio::io::stderr())),
        }
    }

    async fn write(&mut self, channel: Channel, bytes: &[u8]) {
        let target = match channel {
            Channel::Stdout => &mut self.stdout,
            Channel::Stderr => &mut self.stderr,
            Channel::Notice => return,
        };
        if let Some(writer) = target {
            let written = async {
                writer.write_all(bytes).await?;
                writer.flush().await
            };
            // A reader that went away (`| head`) does not end the build.
            if written.await.is_err() {
                *target = None;
            }
        }
    }
}

/// Shows everything to the end and returns that; `None`: the supervisor is gone without one.
///
/// # Errors
/// When the spool cannot be read.
pub async fn show(run: &RunDir, tee: &mut Tee, beside: &Beside) -> io::Result<Option<End>> {
    let mut watch = Watch::new(run).await?;
    let mut reader = SpoolReader::new(run.path.clone(), Place::default());
    loop {
        // In this order: what is written before the end or the death is read after them.
        let is_over = !watch.is_supervised();
        let end = run.end()?;
        let finished = end.is_some() || is_over;
        loop {
            match reader.next(finished)? {
                Next::End => break,
                Next::Record(_, record, _) => tee.write(record.channel, record.bytes).await,
                Next::Damaged { .. } | Next::Missing { .. } => {
                    let words =
                        b"\nmillstream-agent: output is missing here: it could not be read, or was dropped \
                                  because the spool was full\n";
                    tee.write(Channel::Stderr, words).await;
                }
            }
            let before = reader.place().segment;
            if beside.shown_up_to(before) {
                reader.delete_before(before)?;
            }
        }
        if finished {
            if beside.shown_up_to(u64::MAX) {
                reader.delete_before(u64::MAX)?;
            }
            return Ok(end);
        }
        watch.changed().await?;
    }
}
