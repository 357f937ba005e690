//! The agent's side of a run: reads its spool as a source that can go back, deletes what the relay has
//! acknowledged, and reports the end. [`delivery`] sends, [`position`] is the checkpoint.

mod delivery;
mod position;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use millstream_proto::v1;
use rustix::process::Signal;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::watch::{self, Watch};
use super::{End, RunDir, Work};
use crate::outbox::{Outbox, RESUMABLE_HOLD_BYTES, StreamSpec, StreamWriter, WriteError};
use crate::spool::CHANNELS;
use crate::spool::reader::{Next, SpoolReader};
use delivery::{Delivery, Stopped};

/// Before a run that could not be followed is tried again.
const RETRY_WAIT: Duration = Duration::from_secs(10);

/// Why a run cannot be followed now.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error("cannot read the run's spool: {0}")]
    Io(#[from] io::Error),
    #[error("the relay refuses the run: {0}")]
    Refused(String),
}

/// How following ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    Ended(Box<v1::StreamEnd>),
    /// The run's supervisor is gone without an exit status.
    Lost,
    /// The agent stops; the run goes on.
    Left,
    /// The relay does not take it, and [`Follow::gives_up`].
    Refused(String),
}

impl Followed {
    /// It ended as a command does that succeeds.
    #[must_use]
    pub fn is_success(&self) -> bool {
        let Self::Ended(end) = self else {
            return false;
        };
        match end.reason() {
            v1::EndReason::Exited => end.exit_code == Some(0),
            v1::EndReason::EndOfInput => true,
            _ => false,
        }
    }
}

impl std::fmt::Display for Followed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Ended(_) if self.is_success() => "ended with success",
            Self::Ended(_) => "failed",
            Self::Lost => "lost",
            Self::Left => "goes on without this agent",
            Self::Refused(reason) => reason,
        })
    }
}

/// Who else reads a run's spool here, so that nothing is deleted before it was shown.
#[derive(Debug, Default)]
pub struct Beside {
    /// Segments before this one were shown.
    segment: AtomicU64,
    /// Nobody sends it: what was shown is deleted by who shows it.
    alone: AtomicBool,
}

impl Beside {
    /// Everything before this segment was shown. True: delete it.
    #[must_use]
    pub fn shown_up_to(&self, segment: u64) -> bool {
        self.segment.store(segment, Ordering::Relaxed);
        self.alone.load(Ordering::Relaxed)
    }

    /// Nobody sends it any more.
    pub fn nobody_sends(&self) {
        self.alone.store(true, Ordering::Relaxed);
    }
}

/// How to follow a run.
#[derive(Debug, Clone, Copy)]
pub struct Follow<'a> {
    pub run: &'a RunDir,
    pub outbox: &'a Outbox,
    /// Somebody else reads it here, too, and removes the directory.
    pub beside: Option<&'a Beside>,
    /// Told to stop, the run is stopped too, and followed to its end.
    pub stops_run: bool,
    /// Once the relay has refused it, rather than try again for ever.
    pub gives_up: bool,
}

impl<'a> Follow<'a> {
    /// Without stopping, giving up or anybody else.
    #[must_use]
    pub fn new(run: &'a RunDir, outbox: &'a Outbox) -> Self {
        Self {
            run,
            outbox,
            beside: None,
            stops_run: false,
            gives_up: false,
        }
    }

    /// Follows the run until its end is acknowledged (its directory is then removed, unless somebody else reads it)
    /// or `stop` is cancelled. What fails is tried again: the output waits in the spool meanwhile, and nobody may take the run for
    /// ended.
    ///
    /// A [kept](super::Kept) command has no end: `stop` means that there is no supervisor any more and none will
    /// be; what is there is sent then.
    pub async fn follow(self, stop: &CancellationToken) -> Followed {
        let run_id = &self.run.description.run_id;
        loop {
            // Boxed: it is large, and is a part of what every source is.
            match Box::pin(self.once(stop)).await {
                Ok(followed) => return followed,
                Err(FollowError::Refused(reason)) if self.gives_up => return Followed::Refused(reason),
                Err(error) => warn!(
                    "run {run_id}: {error}; its output waits in {}, trying again",
                    self.run.path.display()
                ),
            }
            tokio::select! {
                () = stop.cancelled() => return Followed::Left,
                () = tokio::time::sleep(RETRY_WAIT) => {}
            }
        }
    }

    async fn once(&self, stop: &CancellationToken) -> Result<Followed, FollowError> {
        let writer = open(self.run, self.outbox);
        if let Work::Kept(_) = self.run.description.work {
            return self.deliver(&writer, Some(stop)).await;
        }
        let deliver = self.deliver(&writer, None);
        tokio::pin!(deliver);
        tokio::select! {
            result = &mut deliver => return result,
            () = stop.cancelled() => {}
        }
        if self.stops_run && stop_supervisor(self.run).await? {
            return deliver.await;
        }
        Ok(Followed::Left)
    }

    /// Goes to where the relay says that the stream stands, again and again.
    async fn deliver(
        &self,
        writer: &StreamWriter,
        closing: Option<&CancellationToken>,
    ) -> Result<Followed, FollowError> {
        let run = self.run;
        let mut delivery = Delivery::new(run, writer, self.beside);
        let mut opened = writer.opened().await;
        let mut is_again = false;
        loop {
            let result = match opened {
                Ok(position) => {
                    delivery.go_to(&position.checkpoint, is_again);
                    delivery.deliver_to_end(closing).await
                }
                Err(error) => Err(error.into()),
            };
            match result {
                Err(Stopped::Write(WriteError::Rewound(position))) => opened = Ok(position),
                Err(Stopped::Write(WriteError::Refused(_))) if writer.is_ended() => {
                    let end = run.end()?;
                    if self.beside.is_none() {
                        run.remove()?;
                    }
                    return Ok(end.map_or(Followed::Lost, |end| {
                        Followed::Ended(Box::new(end.to_stream_end()))
                    }));
                }
                Err(Stopped::Write(WriteError::Refused(reason))) => return Err(FollowError::Refused(reason)),
                Err(Stopped::Io(error)) => return Err(FollowError::Io(error)),
                Ok(followed) => return Ok(followed),
            }
            is_again = true;
        }
    }
}

fn open(run: &RunDir, outbox: &Outbox) -> StreamWriter {
    let description = &run.description;
    let path = match &description.work {
        Work::Kept(kept) => Some(kept.path.clone()),
        Work::Command(_) | Work::Input => None,
    };
    outbox.open(StreamSpec {
        source: description.source.clone(),
        instance: description.instance().to_owned(),
        labels: description.labels.clone(),
        run: description.to_run(),
        path,
        resumable: true,
        outlives: true,
        hold_bytes: RESUMABLE_HOLD_BYTES,
    })
}

/// Tells the run's supervisor to climb the stop ladder. False: there is none.
pub(crate) async fn stop_supervisor(run: &RunDir) -> io::Result<bool> {
    let Some(pid) = watch::supervisor_of(run).await? else {
        return Ok(false);
    };
    info!(
        "source {}: stopping {}",
        run.description.source, run.description.run_id
    );
    match rustix::process::kill_process(pid, Signal::TERM) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Waits until the run's supervisor is gone, and kills what it left when it was killed.
pub(crate) async fn supervisor_gone(run: &RunDir) -> io::Result<()> {
    Watch::new(run).await?.gone().await;
    if run.end()?.is_none() {
        run.kill_leftovers()?;
    }
    Ok(())
}

/// Lines that the relay has not confirmed, when it has `checkpoint`: those behind it, an open one included.
///
/// # Errors
/// When the spool cannot be read.
pub fn undelivered_lines(run: &RunDir, checkpoint: &[u8]) -> io::Result<u64> {
    let positions = position::decode(checkpoint).unwrap_or_default().1;
    let mut reader = SpoolReader::new(run.path.clone(), position::earliest(&positions));
    let mut open_lines = [false; CHANNELS.len()];
    loop {
        match reader.next(true)? {
            Next::End => break,
            Next::Record(_, record, _) => {
                let channel = crate::spool::index_of(record.channel);
                open_lines[channel] = record.bytes.last().is_some_and(|last| *last != b'\n');
            }
            Next::Damaged { .. } | Next::Missing { .. } => {}
        }
    }
    let mut lines = 0;
    let channels = CHANNELS
        .iter()
        .zip(open_lines)
        .zip(reader.totals())
        .zip(&positions);
    for (((channel, is_open), total), position) in channels {
        // What is said of the run is no output of it.
        if *channel != v1::Channel::Notice {
            lines += total.since(position.total).lines + u64::from(is_open);
        }
    }
    Ok(lines)
}

/// How the run ended, as a shell would report it.
#[must_use]
pub fn shell_status(end: &End) -> u8 {
    use super::How;
    /// Shells' exit status for a command that does not exist, and for one that cannot be executed.
    const NOT_FOUND: u8 = 127;
    const NOT_EXECUTABLE: u8 = 126;
    match &end.how {
        How::Exited { code, signal } => {
            let code = code.or_else(|| signal.map(|signal| 128 + signal)).unwrap_or(1);
            u8::try_from(code & 0xff).unwrap_or(1)
        }
        How::StartFailed { not_found: true, .. } => NOT_FOUND,
        How::StartFailed { .. } => NOT_EXECUTABLE,
        How::EndOfInput => 0,
        How::InputFailed { .. } | How::Stopped => 1,
    }
}
