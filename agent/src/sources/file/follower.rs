//! One path followed for ever: reads what is new, notices truncation, goes from one generation to the next.
//! One task a path; it sleeps while nothing happens. Where to begin is [`super::resume`]'s, which generation
//! is next is [`super::chain`]'s, when a path that is gone is let go [`super::absence`]'s.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::{info, warn};

use super::FileSettings;
use super::absence::{Absence, LetGo};
use super::chain::{Chain, Name};
use super::open::OpenComplaint;
use super::reader::{FileReader, Turn};
use crate::backoff::Backoff;
use crate::outbox::{StreamWriter, WriteError};

/// How often a file that lost its name is looked at; nothing else tells of writes to it.
const NAMELESS_TICK: Duration = Duration::from_millis(100);

/// What tells a follower that something may have changed.
#[derive(Debug, Default)]
pub(super) struct Wake {
    /// The content of the file at the path.
    content: Notify,
    /// Which file is at the path.
    name: Notify,
}

impl Wake {
    pub(super) fn content_changed(&self) {
        self.content.notify_one();
    }

    pub(super) fn name_changed(&self) {
        self.content.notify_one();
        self.name.notify_one();
    }
}

pub(super) struct Follower {
    pub(super) path: PathBuf,
    pub(super) writer: StreamWriter,
    pub(super) wake: Arc<Wake>,
    pub(super) settings: Arc<FileSettings>,
    /// It was there when the source started.
    pub(super) present_at_start: bool,
    pub(super) chain: Chain,
    pub(super) absence: Absence,
}

/// Why the reading of one file is over.
enum Finished {
    /// Another file has the path.
    Replaced,
    /// It is deleted and read to its end.
    Gone,
}

impl Follower {
    /// Runs until the relay refuses the stream, or the path has named nothing for long; the caller cancels by
    /// dropping.
    pub(super) async fn run(self) -> Option<LetGo> {
        // Side by side, so that generations are noticed also while the reader waits for the relay.
        tokio::select! {
            () = self.read() => None,
            () = self.chain.watch(&self.wake.name) => None,
            () = self.absence.is_over() => Some(self.absence.let_go(&self.path, &self.writer.durable_checkpoint())),
        }
    }

    async fn read(&self) {
        let path = self.path.display();
        let mut opened = self.writer.opened().await;
        loop {
            let position = match opened {
                Ok(position) => position,
                Err(WriteError::Rewound(position)) => {
                    warn!(
                        "{path}: the relay's store ends at s{}; reading again from there",
                        position.next_sequence
                    );
                    position
                }
                Err(WriteError::Refused(reason)) => {
                    warn!("{path} is not followed any more: the relay refuses its stream: {reason}");
                    return;
                }
            };
            self.absence.opened_at(&position.checkpoint);
            let error = match self.resume(&position).await {
                Ok(reader) => self.follow(reader).await,
                Err(error) => error,
            };
            opened = Err(error);
        }
    }

    async fn follow(&self, mut reader: FileReader) -> WriteError {
        loop {
            let finished = match self.read_for_ever(&mut reader).await {
                Ok(finished) => finished,
                Err(error) => return error,
            };
            match finished {
                Finished::Replaced => {
                    info!("{} was rotated; going on with the new file", self.path.display());
                }
                Finished::Gone => {
                    info!("{} was deleted; waiting for a new file", self.path.display());
                    self.absence.was_read_to_its_end();
                }
            }
            let line_continues = reader.line_continues;
            // Not held while there is no other: its space is freed.
            drop(reader);
            reader = match self.next_generation(line_continues).await {
                Ok(reader) => reader,
                Err(error) => return error,
            };
        }
    }

    /// The generation after the one that was read last, when there is one.
    pub(super) async fn next_generation(&self, line_continues: bool) -> Result<FileReader, WriteError> {
        let mut complaint = OpenComplaint::default();
        let mut backoff = retry_backoff();
        loop {
            let looked = self.chain.look();
            if let Some(next) = self.chain.next() {
                complaint.over(&self.path);
                self.absence.is_read_again();
                let reader = FileReader::new(next.file, line_continues);
                if next.was_copied {
                    let text = format!(
                        "file-truncated: {} was truncated and is read from its start; what stood there was read \
                         from its copy, but what was written after that copy was made is missing",
                        self.path.display()
                    );
                    self.writer.notice(&text, reader.checkpoint()).await?;
                }
                for notice in self.chain.take_notices() {
                    self.writer.notice(&notice, reader.checkpoint()).await?;
                }
                return Ok(reader);
            }
            match looked {
                Err(error) => complaint.say(&self.path, &error),
                Ok(Name::Nothing) => complaint.say(&self.path, &io::ErrorKind::NotFound.into()),
                // The same file again: it was renamed back, or it was rotated while this looked.
                Ok(Name::Ours | Name::Other) => {}
            }
            self.wait_for_path(&mut backoff).await?;
        }
    }

    /// Reads what is there and what comes, until the file is over.
    async fn read_for_ever(&self, reader: &mut FileReader) -> Result<Finished, WriteError> {
        // Since when the path names another file or none, and nothing was read.
        let mut nameless_since: Option<Instant> = None;
        let mut complained = false;
        let mut successor = OpenComplaint::default();
        loop {
            if reader.was_truncated() {
                self.restart_generation(reader).await?;
            }
            let before = Instant::now();
            let turn = match reader.read_available(&self.writer).await? {
                Ok(turn) => turn,
                Err(error) => {
                    if !complained {
                        warn!("cannot read {}: {error}; trying again", self.path.display());
                        complained = true;
                    }
                    Turn::Idle
                }
            };
            match turn {
                Turn::Rewritten => {
                    self.restart_generation(reader).await?;
                    continue;
                }
                Turn::More | Turn::Read => nameless_since = nameless_since.map(|_| before),
                Turn::Idle => {}
            }
            self.chain.saw(reader.look());
            let name = match self.chain.look() {
                Ok(name) => {
                    successor.over(&self.path);
                    name
                }
                // Of the file that is at the path now, not of this one.
                Err(error) => {
                    successor.say(&self.path, &error);
                    Name::Other
                }
            };
            let is_over = self.chain.has_next() || (name == Name::Nothing && reader.is_deleted());
            if name == Name::Ours && !is_over {
                nameless_since = None;
            } else {
                let since = *nameless_since.get_or_insert(before);
                if is_over && turn == Turn::Idle && since.elapsed() >= self.settings.rotate_wait {
                    reader.send_open_line(&self.writer).await?;
                    return Ok(match self.chain.has_next() {
                        true => Finished::Replaced,
                        false => Finished::Gone,
                    });
                }
            }
            if turn != Turn::More {
                self.wait_for_change(reader, nameless_since.is_some()).await?;
            }
        }
    }

    async fn wait_for_change(&self, reader: &mut FileReader, nameless: bool) -> Result<(), WriteError> {
        reader.rest();
        let open_line_due = reader.open_line_due();
        tokio::select! {
            () = self.wake.content.notified() => {}
            error = self.writer.disturbed() => return Err(error),
            () = tokio::time::sleep(NAMELESS_TICK), if nameless => {}
            () = sleep_until(open_line_due), if open_line_due.is_some() => {
                reader.send_open_line(&self.writer).await?;
            }
        }
        Ok(())
    }

    /// The file was cut or rewritten: finishes it from a copy that was made before, where there is one, says
    /// so and reads it from its start.
    pub(super) async fn restart_generation(&self, reader: &mut FileReader) -> Result<(), WriteError> {
        let place = reader.place();
        if let Some(copy) = self.chain.lineage.find_copy(&place)
            && let Ok(original) = reader.second_handle()
        {
            info!(
                "{} was truncated; reading the rest from the copy that was made of it",
                self.path.display()
            );
            *reader = FileReader::at(copy, place.offset, place.line_continues);
            self.chain.insert_before(&reader.identity, original);
            return Ok(());
        }
        reader.send_open_line(&self.writer).await?;
        let (was, size) = (reader.offset(), reader.size());
        let path = self.path.display();
        let change = if size < was {
            format!("{path} shrank from {was} to {size} bytes")
        } else {
            format!("{path} was truncated and written anew")
        };
        reader.rewind();
        let text =
            format!("file-truncated: {change}; reading from its start, what was not read by then is missing");
        self.writer.notice(&text, reader.checkpoint()).await
    }

    pub(super) async fn wait_for_path(&self, backoff: &mut Backoff) -> Result<(), WriteError> {
        let is_wanted = self.chain.has_next() || !self.writer.is_settled();
        self.absence.look(&self.path, is_wanted);
        tokio::select! {
            () = self.wake.content.notified() => Ok(()),
            () = tokio::time::sleep(backoff.next_wait()) => Ok(()),
            error = self.writer.disturbed() => Err(error),
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at.into()).await;
    }
}

pub(super) fn retry_backoff() -> Backoff {
    Backoff::new(Duration::from_millis(250), Duration::from_secs(10))
}
