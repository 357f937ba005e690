//! Where a follower begins: at the place that the relay's checkpoint names, in whatever file that is now, or at
//! the start or end of a file that nobody has read.

use std::io;

use tracing::info;

use super::checkpoint::Checkpoint;
use super::follower::{Follower, retry_backoff};
use super::open::{OpenComplaint, open_regular};
use super::reader::FileReader;
use crate::outbox::{Opened, WriteError};
use crate::sources::Start;

impl Follower {
    /// Finds the place to go on from.
    pub(super) async fn resume(&self, position: &Opened) -> Result<FileReader, WriteError> {
        let checkpoint = match Checkpoint::decode(&position.checkpoint) {
            Ok(Some(checkpoint)) => checkpoint,
            Ok(None) => return self.begin(position.next_sequence).await,
            Err(error) => {
                let text = format!(
                    "checkpoint-unreadable: {error}; reading {} from its start, lines may be repeated",
                    self.path.display()
                );
                self.writer.notice(&text, None).await?;
                return self.begin(1).await;
            }
        };
        self.chain.begin(checkpoint.identity);
        if self.absence.knows_end(&position.checkpoint) {
            return self.next_generation(checkpoint.line_continues).await;
        }
        let mut complaint = OpenComplaint::default();
        let mut backoff = retry_backoff();
        loop {
            match open_regular(&self.path) {
                Ok(file) => {
                    let is_of = |metadata| checkpoint.identity.is_of(&metadata);
                    if file.metadata().is_ok_and(is_of) {
                        complaint.over(&self.path);
                        return self.go_on(file, &checkpoint).await;
                    }
                    if let Some(rotated) = self.chain.lineage.find(&checkpoint) {
                        info!(
                            "{} was rotated while the agent was away; finishing the old file",
                            self.path.display()
                        );
                        return self.go_on(rotated, &checkpoint).await;
                    }
                    return self.go_on_without(&checkpoint).await;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if let Some(rotated) = self.chain.lineage.find(&checkpoint) {
                        return self.go_on(rotated, &checkpoint).await;
                    }
                    complaint.say(&self.path, &error);
                }
                Err(error) => complaint.say(&self.path, &error),
            }
            self.wait_for_path(&mut backoff).await?;
        }
    }

    /// The file of the checkpoint is there, perhaps with other content.
    async fn go_on(&self, file: std::fs::File, checkpoint: &Checkpoint) -> Result<FileReader, WriteError> {
        let holds = checkpoint
            .identity
            .fingerprint
            .still_holds(&file)
            .unwrap_or(false)
            && checkpoint
                .trail
                .still_holds(&file, checkpoint.offset)
                .unwrap_or(false);
        if holds {
            return Ok(FileReader::at(file, checkpoint.offset, checkpoint.line_continues));
        }
        let mut reader = FileReader::resting(file, checkpoint);
        self.restart_generation(&mut reader).await?;
        Ok(reader)
    }

    /// The file of the checkpoint cannot be found: says so, and goes on with the oldest that came after it.
    async fn go_on_without(&self, checkpoint: &Checkpoint) -> Result<FileReader, WriteError> {
        let reader = self.next_generation(checkpoint.line_continues).await?;
        let text = format!(
            "gap: the file that was at {} cannot be found; it was read up to byte {}, what came after that is \
             missing; going on with the file that came next",
            self.path.display(),
            checkpoint.offset
        );
        self.writer.notice(&text, reader.checkpoint()).await?;
        Ok(reader)
    }

    /// No checkpoint: a stream without a line, or one whose store lost its checkpoint.
    async fn begin(&self, next_sequence: u64) -> Result<FileReader, WriteError> {
        let at_end = self.settings.start == Start::End && self.present_at_start && next_sequence == 0;
        if at_end && let Ok(file) = open_regular(&self.path) {
            let size = file.metadata().map_or(0, |metadata| metadata.len());
            let reader = FileReader::at(file, size, false);
            self.chain.begin(reader.identity);
            if size > 0 {
                let path = self.path.display();
                let text =
                    format!("file-start: {path} is read from byte {size}, where it ended at first sight");
                self.writer.notice(&text, reader.checkpoint()).await?;
            }
            return Ok(reader);
        }
        let mut complaint = OpenComplaint::default();
        let mut backoff = retry_backoff();
        let file = loop {
            match open_regular(&self.path) {
                Ok(file) => {
                    complaint.over(&self.path);
                    break file;
                }
                Err(error) => complaint.say(&self.path, &error),
            }
            self.wait_for_path(&mut backoff).await?;
        };
        let reader = FileReader::new(file, false);
        self.chain.begin(reader.identity);
        Ok(reader)
    }
}
