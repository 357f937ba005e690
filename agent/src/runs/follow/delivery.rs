//! Sends what is in a spool, and says what is missing from it.

use std::io;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use millstream_proto::v1::{self, Channel};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::super::watch::Watch;
use super::super::{End, RunDir, Work};
use super::position::{self, Position, Positions, spool_number};
use super::{Beside, Followed};
use crate::lines::{LineSplitter, OPEN_LINE_WAIT};
use crate::outbox::{StreamWriter, WriteError, now_unix_us};
use crate::spool::reader::{Next, Place, SpoolReader};
use crate::spool::record::Record;
use crate::spool::{CHANNELS, Count, Totals, WhenFull, index_of};

pub(super) enum Stopped {
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

pub(super) struct Delivery<'a> {
    run: &'a RunDir,
    writer: &'a StreamWriter,
    beside: Option<&'a Beside>,
    spool: u64,
    reader: SpoolReader,
    positions: Positions,
    /// Behind the last record that was taken.
    taken: (Place, Totals),
    /// One a channel, in the order of [`CHANNELS`].
    splitters: [LineSplitter; CHANNELS.len()],
    /// The relay had lines that it does not have any more.
    is_again: bool,
    /// Segments before this one are deleted.
    deleted_before: u64,
}

impl<'a> Delivery<'a> {
    pub(super) fn new(run: &'a RunDir, writer: &'a StreamWriter, beside: Option<&'a Beside>) -> Self {
        Self {
            run,
            writer,
            beside,
            spool: spool_number(&run.description.run_id),
            reader: SpoolReader::new(run.path.clone(), Place::default()),
            positions: Positions::default(),
            taken: Default::default(),
            splitters: Default::default(),
            is_again: false,
            deleted_before: 0,
        }
    }

    /// Goes on where the relay's store ends. `is_again`: it had more before.
    pub(super) fn go_to(&mut self, checkpoint: &[u8], is_again: bool) {
        self.positions = match position::decode(checkpoint) {
            Some((spool, positions)) if spool == self.spool => positions,
            // The stream had another spool before; nothing of this one is in it.
            Some(_) => Positions::default(),
            None => {
                if !checkpoint.is_empty() {
                    let run_id = &self.run.description.run_id;
                    warn!(
                        "run {run_id}: the checkpoint was written by another version; reading from the beginning"
                    );
                }
                Positions::default()
            }
        };
        let place = position::earliest(&self.positions);
        self.reader = SpoolReader::new(self.run.path.clone(), place);
        self.taken = (place, self.positions.map(|position| position.total));
        self.splitters = Default::default();
        self.is_again = is_again;
    }

    /// Sends everything; for a run also its end, and waits until that is acknowledged. `closing`: it has no end,
    /// and once this is cancelled nothing more comes.
    pub(super) async fn deliver_to_end(
        &mut self,
        closing: Option<&CancellationToken>,
    ) -> Result<Followed, Stopped> {
        let mut watch = Watch::new(self.run).await?;
        loop {
            // In this order: what is written before the end or the death is read after them.
            let is_over = match closing {
                Some(closing) => closing.is_cancelled(),
                None => !watch.is_supervised(),
            };
            let end = if closing.is_some() { None } else { self.run.end()? };
            let finished = end.is_some() || is_over;
            self.send_what_is_there(finished).await?;
            if finished {
                self.send_open_lines().await?;
                return match closing {
                    Some(_) => Ok(Followed::Left),
                    None => self.send_end(end).await,
                };
            }
            let open_line = self.splitters.iter().any(|splitter| splitter.open_bytes() > 0);
            tokio::select! {
                changed = watch.changed() => changed?,
                () = self.writer.changed() => self.look_at_relay()?,
                () = tokio::time::sleep(OPEN_LINE_WAIT), if open_line => self.send_open_lines().await?,
                () = cancelled(closing) => {}
            }
        }
    }

    /// Pushes every record that is there.
    async fn send_what_is_there(&mut self, finished: bool) -> Result<(), Stopped> {
        loop {
            self.delete_acknowledged()?;
            let notice = match self.reader.next(finished)? {
                Next::End => return Ok(()),
                Next::Record(place, record, total) if record.channel == Channel::Notice => {
                    let (bytes, time_unix_us) = (record.bytes.to_vec(), record.time_unix_us);
                    // What is said comes after all that was written before it, a line without its end included.
                    self.send_open_lines().await?;
                    let record = Record {
                        channel: Channel::Notice,
                        time_unix_us,
                        bytes: &bytes,
                    };
                    self.piecewise(Channel::Notice)
                        .send(place, &record, total)
                        .await?;
                    self.took_up_to_reader();
                    continue;
                }
                Next::Record(place, record, total) => {
                    let delivery = Piecewise {
                        run: self.run,
                        writer: self.writer,
                        spool: self.spool,
                        positions: &mut self.positions,
                        splitter: &mut self.splitters[index_of(record.channel)],
                    };
                    delivery.send(place, &record, total).await?;
                    self.took_up_to_reader();
                    continue;
                }
                Next::Damaged { bytes } => Some(format!(
                    "spool-damaged: {bytes} bytes of the spool could not be read (torn or altered on disk); the \
                     output in them is missing here"
                )),
                Next::Missing { counted, .. } => self.explain_missing(counted),
            };
            // With what was known before it: they are of the other side of the hole.
            self.send_open_lines().await?;
            for (position, total) in self.positions.iter_mut().zip(self.reader.totals()) {
                if position.place < self.reader.place() {
                    *position = Position::at(self.reader.place(), *total);
                }
            }
            self.took_up_to_reader();
            if let Some(notice) = notice {
                warn!("run {}: {notice}", self.run.description.run_id);
                let checkpoint = position::encode(self.spool, &self.positions);
                self.writer.notice(&notice, Some(checkpoint)).await?;
            }
        }
    }

    fn took_up_to_reader(&mut self) {
        self.taken = (self.reader.place(), *self.reader.totals());
        for (index, position) in self.positions.iter_mut().enumerate() {
            // A channel without an open line needs nothing before this; unless it is ahead.
            if self.splitters[index].open_bytes() == 0 && position.place < self.taken.0 {
                *position = Position::at(self.taken.0, self.taken.1[index]);
            }
        }
    }

    /// What was in the segments that are gone, in words; `None` when nothing of the process was.
    fn explain_missing(&self, counted: bool) -> Option<String> {
        let mut gone = Count::default();
        for channel in [Channel::Stdout, Channel::Stderr] {
            let index = index_of(channel);
            gone += self.reader.totals()[index].since(self.positions[index].total);
        }
        let amount = match (counted, gone) {
            (true, Count { bytes: 0, .. }) => return None,
            (true, Count { bytes, lines }) => format!("{lines} lines ({bytes} bytes)"),
            (false, _) => "an unknown number of lines".to_owned(),
        };
        let bound = self.run.description.spool;
        Some(if self.is_again {
            format!(
                "gap: {amount} of output are missing here: the relay had acknowledged and then lost them, and the \
                 spool does not have them any more"
            )
        } else if bound.when_full == WhenFull::DropOldest {
            format!(
                "gap: {amount} of output were dropped here: the spool was full (spool_max_bytes = {}, \
                 spool_when_full = \"drop-oldest\")",
                bound.max_bytes
            )
        } else {
            format!("gap: {amount} of output are missing here: somebody deleted their part of the spool")
        })
    }

    fn piecewise(&mut self, channel: Channel) -> Piecewise<'_> {
        Piecewise {
            run: self.run,
            writer: self.writer,
            spool: self.spool,
            positions: &mut self.positions,
            splitter: &mut self.splitters[index_of(channel)],
        }
    }

    async fn send_open_lines(&mut self) -> Result<(), Stopped> {
        let (place, totals) = self.taken;
        for (index, splitter) in self.splitters.iter_mut().enumerate() {
            if let Some(piece) = splitter.take_open() {
                let (spool, positions) = (self.spool, &mut self.positions);
                if is_for_log(self.run, CHANNELS[index]) {
                    say(self.run, piece.text());
                    positions[index] = Position::at(place, totals[index]);
                    continue;
                }
                self.writer
                    .push(&piece, CHANNELS[index], |_| {
                        positions[index] = Position::at(place, totals[index]);
                        position::encode(spool, positions)
                    })
                    .await?;
            }
        }
        Ok(())
    }

    async fn send_end(&mut self, end: Option<End>) -> Result<Followed, Stopped> {
        let run_id = &self.run.description.run_id;
        let followed = if let Some(end) = end {
            let end = end.to_stream_end();
            self.writer.end(end.clone());
            Followed::Ended(Box::new(end))
        } else {
            let killed = self.run.kill_leftovers()?;
            let what = if killed {
                "; its command was still there and was killed"
            } else {
                ""
            };
            let message = format!(
                "run-lost: the process that held this run is gone (killed, or the host went down){what}; how it \
                 ended is not known"
            );
            warn!("run {run_id}: {message}");
            let checkpoint = position::encode(self.spool, &self.positions);
            self.writer.notice(&message, Some(checkpoint)).await?;
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
        if self.beside.is_none() {
            self.run.remove()?;
        }
        Ok(followed)
    }

    fn look_at_relay(&self) -> Result<(), Stopped> {
        self.writer.check_now().map_err(Stopped::Write)
    }

    /// The relay has it for good, and it was shown: its place on disk is free.
    fn delete_acknowledged(&mut self) -> io::Result<()> {
        let Some((spool, positions)) = position::decode(&self.writer.durable_checkpoint()) else {
            return Ok(());
        };
        let mut segment = position::earliest(&positions).segment;
        if let Some(beside) = self.beside {
            segment = segment.min(beside.segment.load(Ordering::Relaxed));
        }
        if spool == self.spool && segment > self.deleted_before {
            self.reader.delete_before(segment)?;
            self.deleted_before = segment;
        }
        Ok(())
    }
}

/// One record on its way into the stream, line by line.
struct Piecewise<'a> {
    run: &'a RunDir,
    writer: &'a StreamWriter,
    spool: u64,
    positions: &'a mut Positions,
    splitter: &'a mut LineSplitter,
}

impl Piecewise<'_> {
    /// `total`: all text of the channel up to the record's end.
    async fn send(self, place: Place, record: &Record<'_>, total: Count) -> Result<(), Stopped> {
        let channel = index_of(record.channel);
        let known = self.positions[channel];
        let length = record.bytes.len();
        let skipped = match place.cmp(&known.place) {
            std::cmp::Ordering::Equal => (known.bytes as usize).min(length),
            std::cmp::Ordering::Less => length,
            std::cmp::Ordering::Greater => 0,
        };
        let mut rest = &record.bytes[skipped..];
        let (spool, positions) = (self.spool, self.positions);
        while let Some(piece) = self.splitter.next_piece(&mut rest) {
            let (consumed, whole) = (length - rest.len(), piece.input_bytes());
            if is_for_log(self.run, record.channel) {
                say(self.run, piece.text());
                continue;
            }
            let checkpoint_after = |done: usize| -> Bytes {
                // Text of an open line may have come in records before this one.
                let consumed = consumed.saturating_sub(whole - done);
                let left = Count::of(&record.bytes[consumed..]);
                positions[channel] = Position {
                    place,
                    bytes: u32::try_from(consumed).expect("a record is far below 4 GiB"),
                    total: total.since(left),
                };
                position::encode(spool, positions)
            };
            self.writer
                .push_at(&piece, record.channel, record.time_unix_us, checkpoint_after)
                .await?;
        }
        Ok(())
    }
}

/// What a kept command says on standard error is about itself ("has become inaccessible"), not a line of what it
/// follows.
fn is_for_log(run: &RunDir, channel: Channel) -> bool {
    channel == Channel::Stderr && matches!(run.description.work, Work::Kept(_))
}

fn say(run: &RunDir, text: &[u8]) {
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        info!("source {}: {}", run.description.source, line.escape_ascii());
    }
}

async fn cancelled(token: Option<&CancellationToken>) {
    match token {
        Some(token) if !token.is_cancelled() => token.cancelled().await,
        _ => std::future::pending().await,
    }
}
