//! Modelled sources on the agent's real outbox. They do what `sources/file` and `runs/follow` do, but for the files.

use bytes::Bytes;
use millstream_agent::lines::Piece;
use millstream_agent::outbox::{Opened, Outbox, StreamSpec, StreamWriter, WriteError};
use millstream_proto::v1;
use tokio::time::sleep;

use crate::dice::Dice;
use crate::disk::Disk;
use crate::log::{Kind, Log};
use crate::trace::Trace;

/// Small, so that sources wait for the outbox now and then.
const HOLD_BYTES: usize = 96 << 10;

/// Follows a log until its end is acknowledged.
pub(crate) async fn follow(log: Log, outbox: Outbox, dice: Dice, disk: Disk, trace: Trace) {
    let is_resumable = log.kind != Kind::Pipe;
    loop {
        let writer = outbox.open(StreamSpec {
            source: log.source.clone(),
            instance: "log".to_owned(),
            labels: [("kind".to_owned(), format!("{:?}", log.kind))].into(),
            run: None,
            path: None,
            resumable: is_resumable,
            outlives: false,
            hold_bytes: HOLD_BYTES,
        });
        let mut source = Source {
            log: &log,
            writer: &writer,
            dice: &dice,
            disk: &disk,
            trace: &trace,
            at: 0,
        };
        let reason = source.run().await;
        source.note_acknowledged();
        if writer.is_ended() {
            trace.event(format_args!("{}: ended", log.source));
            return;
        }
        // The relay is at a limit or the like; none is in a simulation.
        trace.breach(format_args!("{}: refused: {reason:?}", log.source));
        drop(writer);
        sleep(dice.wait(1000..10_000)).await;
    }
}

struct Source<'a> {
    log: &'a Log,
    writer: &'a StreamWriter,
    dice: &'a Dice,
    disk: &'a Disk,
    trace: &'a Trace,
    /// The next line to push.
    at: u64,
}

impl Source<'_> {
    /// Runs until the relay takes no more, because the stream is ended or refused.
    async fn run(&mut self) -> WriteError {
        let mut opened = self.writer.opened().await;
        loop {
            let result = match opened {
                Ok(position) => {
                    self.go_to(&position);
                    self.deliver().await
                }
                Err(error) => Err(error),
            };
            match result {
                Ok(()) => return WriteError::Refused("it is ended".to_owned()),
                Err(WriteError::Rewound(position)) => opened = Ok(position),
                Err(refused) => return refused,
            }
        }
    }

    fn go_to(&mut self, position: &Opened) {
        if self.log.kind == Kind::Pipe {
            return;
        }
        self.at = decode(&position.checkpoint);
        self.trace.event(format_args!(
            "{}: goes on at line {} with checkpoint {}",
            self.log.source, position.next_sequence, self.at
        ));
        if self.at != position.next_sequence {
            self.trace.breach(format_args!(
                "{}: the relay stands at line {} with the checkpoint of line {}",
                self.log.source, position.next_sequence, self.at
            ));
        }
    }

    async fn deliver(&mut self) -> Result<(), WriteError> {
        loop {
            let changed = self.log.changed();
            let (written, is_ended) = (self.log.len(), self.log.is_ended());
            while self.at < written {
                self.push_some().await?;
            }
            if is_ended {
                self.writer.end(v1::StreamEnd {
                    reason: v1::EndReason::Exited.into(),
                    exit_code: Some(0),
                    ..v1::StreamEnd::default()
                });
                while !self.writer.is_ended() {
                    self.note_acknowledged();
                    self.writer.check_now()?;
                    self.writer.changed().await;
                }
                return Ok(());
            }
            tokio::select! {
                biased;
                () = self.writer.changed() => {
                    self.note_acknowledged();
                    self.writer.check_now()?;
                }
                () = changed => {}
            }
        }
    }

    /// Pushes the next few lines.
    async fn push_some(&mut self) -> Result<(), WriteError> {
        self.note_acknowledged();
        let Some(lines) = self.log.read(self.at, self.dice.size(1..20)) else {
            self.trace.breach(format_args!(
                "{}: line {} was acknowledged, is deleted, and the relay wants it again",
                self.log.source, self.at
            ));
            return std::future::pending().await;
        };
        // Each with its own time, as a source that reads what others captured does.
        for line in lines {
            let after = encode(self.at + 1);
            let has_checkpoint = self.log.kind != Kind::Pipe;
            let checkpoint = |_| {
                if has_checkpoint {
                    after.clone()
                } else {
                    Bytes::new()
                }
            };
            let piece = Piece::Lines(&line.text);
            self.writer
                .push_at(&piece, v1::Channel::Stdout, line.time_unix_us, checkpoint)
                .await?;
            self.at += 1;
        }
        // Lets the uplink see it, as a real source does between chunks.
        tokio::task::yield_now().await;
        Ok(())
    }

    fn note_acknowledged(&self) {
        let checkpoint = self.writer.durable_checkpoint();
        if !checkpoint.is_empty() {
            let next = decode(&checkpoint);
            self.log.acknowledge(next);
            self.disk.check_acknowledged(&self.log.source, next);
        }
    }
}

fn encode(line: u64) -> Bytes {
    Bytes::copy_from_slice(&line.to_le_bytes())
}

/// Empty: the beginning.
fn decode(checkpoint: &[u8]) -> u64 {
    checkpoint.try_into().map_or(0, u64::from_le_bytes)
}
