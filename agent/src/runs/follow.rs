//! The agent's side of a run: reads its spool as a source that can go back, deletes what the relay has
//! acknowledged, and reports the end.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use inotify::{Inotify, WatchMask};
use millstream_proto::v1::{self, Channel};
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::RunDir;
use crate::lines::{LineSplitter, OPEN_LINE_WAIT};
use crate::outbox::{Outbox, RESUMABLE_HOLD_BYTES, StreamSpec, StreamWriter, WriteError, now_unix_us};
use crate::spool::reader::{Next, Place, SpoolReader};

/// Before a run that could not be followed is tried again.
const RETRY_WAIT: Duration = Duration::from_secs(10);

/// A supervisor that holds its lock writes its process id within moments.
const PID_TICK: Duration = Duration::from_millis(20);

/// Why a run cannot be followed now.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error("cannot read the run's spool: {0}")]
    Io(#[from] io::Error),
    #[error("the relay refuses the run: {0}")]
    Refused(String),
}

/// How following ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    /// The run ended; `success`: with exit code 0.
    Ended { success: bool },
    /// The run's supervisor is gone without an exit status.
    Lost,
    /// The agent stops; the run goes on.
    Left,
}

impl std::fmt::Display for Followed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Ended { success: true } => "ended with success",
            Self::Ended { success: false } => "failed",
            Self::Lost => "lost",
            Self::Left => "goes on without this agent",
        })
    }
}

/// What stands in the checkpoint: for each channel, everything before its position is in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Position {
    place: Place,
    /// Bytes of the record at `place`.
    bytes: u32,
}

const CHANNELS: [Channel; 3] = [Channel::Stdout, Channel::Stderr, Channel::Notice];
const VERSION: u8 = 1;
const POSITION_BYTES: usize = 20;

type Positions = [Position; CHANNELS.len()];

fn encode(positions: &Positions) -> Bytes {
    let mut bytes = vec![VERSION];
    for position in positions {
        bytes.extend(position.place.segment.to_le_bytes());
        bytes.extend(position.place.offset.to_le_bytes());
        bytes.extend(position.bytes.to_le_bytes());
    }
    bytes.into()
}

/// Positions of an empty checkpoint are the beginning; `None` for bytes that this agent did not write.
fn decode(bytes: &[u8]) -> Option<Positions> {
    let Some((version, bytes)) = bytes.split_first() else {
        return Some(Positions::default());
    };
    if *version != VERSION || bytes.len() != CHANNELS.len() * POSITION_BYTES {
        return None;
    }
    let mut positions = Positions::default();
    for (position, bytes) in positions.iter_mut().zip(bytes.chunks_exact(POSITION_BYTES)) {
        position.place.segment = u64::from_le_bytes(bytes[..8].try_into().ok()?);
        position.place.offset = u64::from_le_bytes(bytes[8..16].try_into().ok()?);
        position.bytes = u32::from_le_bytes(bytes[16..].try_into().ok()?);
    }
    Some(positions)
}

fn earliest(positions: &Positions) -> Place {
    positions
        .iter()
        .map(|position| position.place)
        .min()
        .unwrap_or_default()
}

/// Follows the run until its end is acknowledged (its directory is then removed) or `stop` is cancelled. With
/// `stop_run` the run is told to stop too, and followed to its end. What fails is tried again: the output waits
/// in the spool meanwhile, and nobody may take the run for ended.
pub async fn follow(run: &RunDir, outbox: &Outbox, stop: &CancellationToken, stop_run: bool) -> Followed {
    loop {
        match follow_once(run, outbox, stop, stop_run).await {
            Ok(followed) => return followed,
            Err(error) => warn!(
                "run {}: {error}; its output waits in {}, trying again",
                run.description.run_id,
                run.path.display()
            ),
        }
        tokio::select! {
            () = stop.cancelled() => return Followed::Left,
            () = tokio::time::sleep(RETRY_WAIT) => {}
        }
    }
}

async fn follow_once(
    run: &RunDir,
    outbox: &Outbox,
    stop: &CancellationToken,
    stop_run: bool,
) -> Result<Followed, FollowError> {
    let writer = outbox.open(StreamSpec {
        source: run.description.source.clone(),
        instance: run.description.run_id.clone(),
        labels: run.description.labels.clone(),
        run: Some(run.description.to_run()),
        path: None,
        resumable: true,
        hold_bytes: RESUMABLE_HOLD_BYTES,
    });
    let mut following = Following {
        run,
        writer: &writer,
        reader: SpoolReader::new(run.path.clone(), Place::default()),
        positions: Positions::default(),
        splitters: Default::default(),
        deleted_before: 0,
    };
    let follow = async {
        let mut opened = writer.opened().await;
        loop {
            let result = match opened {
                Ok(position) => {
                    following.go_to(&position.checkpoint);
                    following.deliver_to_end().await
                }
                Err(error) => Err(error.into()),
            };
            match result {
                Err(Stopped::Write(WriteError::Rewound(position))) => opened = Ok(position),
                Err(Stopped::Write(WriteError::Refused(_))) if writer.is_ended() => {
                    run.remove()?;
                    return Ok(run.end()?.map_or(Followed::Lost, |end| Followed::Ended {
                        success: end.is_success(),
                    }));
                }
                Err(Stopped::Write(WriteError::Refused(reason))) => return Err(FollowError::Refused(reason)),
                Err(Stopped::Io(error)) => return Err(FollowError::Io(error)),
                Ok(followed) => return Ok(followed),
            }
        }
    };
    tokio::pin!(follow);
    tokio::select! {
        result = &mut follow => return result,
        () = stop.cancelled() => {}
    }
    if stop_run && let Some(pid) = supervisor_of(run).await? {
        info!(
            "source {}: stopping run {}",
            run.description.source, run.description.run_id
        );
        rustix::process::kill_process(pid, Signal::TERM).map_err(io::Error::from)?;
        return follow.await;
    }
    Ok(Followed::Left)
}

/// Process id of the run's supervisor; `None` when it does not live.
async fn supervisor_of(run: &RunDir) -> io::Result<Option<Pid>> {
    while run.is_supervised()? {
        if let Some(pid) = run.supervisor() {
            return Ok(Some(pid));
        }
        tokio::time::sleep(PID_TICK).await;
    }
    Ok(None)
}

#[expect(
    deprecated,
    reason = "it is unsound for types whose descriptor may change; an OwnedFd's does not"
)]
/// Readable once the run's supervisor has ended; `None` when it has already.
async fn watch_supervisor(run: &RunDir) -> io::Result<Option<AsyncFd<OwnedFd>>> {
    let Some(pid) = supervisor_of(run).await? else {
        return Ok(None);
    };
    match rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK) {
        // Still the holder of the lock after the number was turned into a handle: it is the same process.
        Ok(handle) if run.is_supervised()? => Ok(Some(AsyncFd::with_interest(handle, Interest::READABLE)?)),
        Ok(_) | Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

enum Stopped {
    Io(io::Error),
    Write(WriteError),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<WriteError> for Stopped {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

struct Following<'a> {
    run: &'a RunDir,
    writer: &'a StreamWriter,
    reader: SpoolReader,
    positions: Positions,
    /// One a channel, in the order of [`CHANNELS`].
    splitters: [LineSplitter; CHANNELS.len()],
    /// Segments before this one are deleted.
    deleted_before: u64,
}

impl Following<'_> {
    /// Goes on where the relay's store ends.
    fn go_to(&mut self, checkpoint: &[u8]) {
        self.positions = decode(checkpoint).unwrap_or_else(|| {
            let run_id = &self.run.description.run_id;
            warn!("run {run_id}: the checkpoint was written by another version; reading from the beginning");
            Positions::default()
        });
        self.reader = SpoolReader::new(self.run.path.clone(), earliest(&self.positions));
        self.splitters = Default::default();
    }

    /// Sends everything, then the end, and waits until that is acknowledged.
    async fn deliver_to_end(&mut self) -> Result<Followed, Stopped> {
        let inotify = Inotify::init()?;
        let mask = WatchMask::CREATE | WatchMask::MODIFY | WatchMask::MOVED_TO;
        inotify.watches().add(&self.run.path, mask)?;
        let mut events = inotify.into_event_stream([0; 4096])?;
        let mut supervisor = watch_supervisor(self.run).await?;
        loop {
            // In this order: what is written before the end or the death is read after them.
            let alive = supervisor.is_some();
            let end = self.run.end()?;
            let finished = end.is_some() || !alive;
            self.send_what_is_there(finished).await?;
            if finished {
                return self.send_end(end).await;
            }
            let open_line = self.splitters.iter().any(|splitter| splitter.open_bytes() > 0);
            tokio::select! {
                event = events.next() => {
                    event.transpose()?;
                }
                () = self.writer.changed() => {
                    self.look_at_relay()?;
                }
                () = tokio::time::sleep(OPEN_LINE_WAIT), if open_line => self.send_open_lines().await?,
                () = gone(&supervisor) => supervisor = None,
            }
        }
    }

    /// Pushes every record that is there.
    async fn send_what_is_there(&mut self, finished: bool) -> Result<(), Stopped> {
        loop {
            self.delete_acknowledged()?;
            let notice = match self.reader.next(finished)? {
                Next::End => return Ok(()),
                Next::Record(place, record) => {
                    let Some(channel) = CHANNELS.iter().position(|channel| *channel == record.channel) else {
                        continue;
                    };
                    let skipped = if self.positions[channel].place == place {
                        self.positions[channel].bytes as usize
                    } else if self.positions[channel].place > place {
                        record.bytes.len()
                    } else {
                        0
                    };
                    let length = record.bytes.len();
                    let mut rest = &record.bytes[skipped.min(length)..];
                    loop {
                        // Bytes of a split long line count from the record's end, too.
                        let left_before = rest.len();
                        let Some(piece) = self.splitters[channel].next_piece(&mut rest) else {
                            break;
                        };
                        debug_assert!(left_before > rest.len());
                        let (consumed, whole) = (length - rest.len(), piece.input_bytes());
                        let positions = &mut self.positions;
                        let time = record.time_unix_us;
                        self.writer
                            .push_at(&piece, record.channel, time, |done| {
                                let bytes = consumed.saturating_sub(whole - done);
                                positions[channel] = Position {
                                    place,
                                    bytes: u32::try_from(bytes).expect("a record is far below 4 GiB"),
                                };
                                encode(positions)
                            })
                            .await?;
                    }
                    let next = self.reader.place();
                    for (position, splitter) in self.positions.iter_mut().zip(&self.splitters) {
                        // A channel without an open line needs nothing before this; unless it is ahead.
                        if splitter.open_bytes() == 0 && position.place < next {
                            *position = Position {
                                place: next,
                                bytes: 0,
                            };
                        }
                    }
                    continue;
                }
                Next::Damaged { bytes } => format!(
                    "spool-damaged: {bytes} bytes of the spool could not be read (torn or altered on disk); the \
                     output in them is missing here"
                ),
                Next::Missing { segments } => {
                    format!(
                        "spool-missing: {segments} segments of the spool are gone; output is missing here"
                    )
                }
            };
            warn!("run {}: {notice}", self.run.description.run_id);
            self.send_open_lines().await?;
            let next = self.reader.place();
            for position in &mut self.positions {
                *position = (*position).max(Position {
                    place: next,
                    bytes: 0,
                });
            }
            self.writer.notice(&notice, Some(encode(&self.positions))).await?;
        }
    }

    async fn send_open_lines(&mut self) -> Result<(), Stopped> {
        let next = self.reader.place();
        for (index, splitter) in self.splitters.iter_mut().enumerate() {
            if let Some(piece) = splitter.take_open() {
                let positions = &mut self.positions;
                self.writer
                    .push(&piece, CHANNELS[index], |_| {
                        positions[index] = Position {
                            place: next,
                            bytes: 0,
                        };
                        encode(positions)
                    })
                    .await?;
            }
        }
        Ok(())
    }

    async fn send_end(&mut self, end: Option<super::End>) -> Result<Followed, Stopped> {
        self.send_open_lines().await?;
        let run_id = &self.run.description.run_id;
        let followed = if let Some(end) = end {
            let success = end.is_success();
            self.writer.end(end.to_stream_end());
            Followed::Ended { success }
        } else {
            let killed = self.run.kill_leftovers()?;
            let what = if killed {
                "; its command was still there and was killed"
            } else {
                ""
            };
            let message = format!(
                "run-lost: the process that held this run is gone (killed, or the host went down){what}; the exit \
                 status is not known"
            );
            warn!("run {run_id}: {message}");
            self.writer
                .notice(&message, Some(encode(&self.positions)))
                .await?;
            self.writer.end(v1::StreamEnd {
                reason: v1::EndReason::Lost.into(),
                end_unix_us: now_unix_us(),
                message,
                ..v1::StreamEnd::default()
            });
            Followed::Lost
        };
        while !self.writer.is_ended() {
            self.look_at_relay()?;
            self.delete_acknowledged()?;
            self.writer.changed().await;
        }
        self.run.remove()?;
        Ok(followed)
    }

    fn look_at_relay(&self) -> Result<(), Stopped> {
        self.writer.check_now().map_err(Stopped::Write)
    }

    /// The relay has it for good: its place on disk is free.
    fn delete_acknowledged(&mut self) -> io::Result<()> {
        if let Some(positions) = decode(&self.writer.durable_checkpoint()) {
            let segment = earliest(&positions).segment;
            if segment > self.deleted_before {
                self.reader.delete_before(segment)?;
                self.deleted_before = segment;
            }
        }
        Ok(())
    }
}

async fn gone(supervisor: &Option<AsyncFd<OwnedFd>>) {
    match supervisor {
        Some(handle) => {
            // An error means as much as readiness: look what is there.
            let _ = handle.readable().await;
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_checkpoint_reads_back_as_it_was_written(numbers: [(u64, u64, u32); 3]) {
            let positions = numbers.map(|(segment, offset, bytes)| Position {
                place: Place { segment, offset },
                bytes,
            });
            prop_assert_eq!(decode(&encode(&positions)), Some(positions));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
