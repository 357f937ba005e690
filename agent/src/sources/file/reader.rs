//! One open file: offsets, open line, and chunks into the outbox.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Instant;

use bytes::Bytes;
use millstream_proto::v1::Channel;

use super::checkpoint::Checkpoint;
use super::follower::identity_or_unknown;
use super::identity::{Fingerprint, Identity};
use crate::lines::{LineSplitter, OPEN_LINE_WAIT};
use crate::outbox::{StreamWriter, WriteError};

/// One read, bytes. Large enough that a system call costs nothing per line, small enough to stay in cache
/// between reading and copying into the block.
const CHUNK_BYTES: usize = 256 << 10;

pub(super) struct FileReader {
    file: File,
    pub(super) identity: Identity,
    /// Next byte to read.
    read_offset: u64,
    /// Bytes before it were pushed. Behind `read_offset` by what the splitter holds of an open line.
    pushed_offset: u64,
    /// The last pushed line was partial.
    pub(super) line_continues: bool,
    splitter: LineSplitter,
    last_read: Instant,
    /// Empty while there is nothing to read, so that idle files cost no memory.
    buffer: Vec<u8>,
}

impl FileReader {
    pub(super) fn new(file: File, offset: u64) -> Self {
        Self {
            identity: identity_or_unknown(&file),
            file,
            read_offset: offset,
            pushed_offset: offset,
            line_continues: false,
            splitter: LineSplitter::default(),
            last_read: Instant::now(),
            buffer: Vec::new(),
        }
    }

    /// The file that took this one's path, from its start.
    pub(super) fn next_file(&self, file: File) -> Self {
        Self {
            line_continues: self.line_continues,
            ..Self::new(file, 0)
        }
    }

    pub(super) fn offset(&self) -> u64 {
        self.read_offset
    }

    pub(super) fn size(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    /// No name leads to the file any more.
    pub(super) fn is_deleted(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }

    /// It is shorter than what was read, or begins differently.
    pub(super) fn was_truncated(&self) -> bool {
        self.size() < self.read_offset || !self.identity.fingerprint.still_holds(&self.file).unwrap_or(true)
    }

    pub(super) fn rewind(&mut self) {
        self.read_offset = 0;
        self.pushed_offset = 0;
        self.splitter = LineSplitter::default();
        self.identity = identity_or_unknown(&self.file);
    }

    pub(super) fn checkpoint(&self) -> Option<Bytes> {
        Some(self.checkpoint_at(self.pushed_offset, self.line_continues))
    }

    fn checkpoint_at(&self, offset: u64, line_continues: bool) -> Bytes {
        Checkpoint {
            identity: self.identity,
            offset,
            line_continues,
        }
        .encode()
    }

    /// Reads and pushes up to the present end of the file. True: there was something. The inner error is
    /// the file's.
    pub(super) async fn read_available(
        &mut self,
        writer: &StreamWriter,
    ) -> Result<io::Result<bool>, WriteError> {
        let mut progress = false;
        loop {
            let waiting =
                usize::try_from(self.size().saturating_sub(self.read_offset)).unwrap_or(CHUNK_BYTES);
            // One more than there is, so that a file without a size (in /proc, say) is read too.
            let wanted = waiting.saturating_add(1).next_multiple_of(4096).min(CHUNK_BYTES);
            if self.buffer.len() < wanted {
                self.buffer.resize(wanted, 0);
            }
            let mut buffer = std::mem::take(&mut self.buffer);
            let result = self.file.read_at(&mut buffer[..wanted], self.read_offset);
            let read = match result {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    self.buffer = buffer;
                    continue;
                }
                Err(error) => return Ok(Err(error)),
            };
            if read == 0 {
                self.buffer = buffer;
                return Ok(Ok(progress));
            }
            progress = true;
            self.last_read = Instant::now();
            self.read_offset += read as u64;
            if self.identity.fingerprint.can_grow()
                && let Ok(fingerprint) = Fingerprint::of(&self.file, u16::MAX)
            {
                self.identity.fingerprint = fingerprint;
            }
            self.push(writer, &buffer[..read]).await?;
            self.buffer = buffer;
            // Other files and the uplink get their turn after each chunk.
            tokio::task::yield_now().await;
        }
    }

    async fn push(&mut self, writer: &StreamWriter, mut chunk: &[u8]) -> Result<(), WriteError> {
        let (identity, mut pushed) = (self.identity, self.pushed_offset);
        while let Some(piece) = self.splitter.next_piece(&mut chunk) {
            let line_continues = matches!(piece, crate::lines::Piece::Partial(_));
            let checkpoint_after = |done: usize| {
                Checkpoint {
                    identity,
                    offset: pushed + done as u64,
                    line_continues,
                }
                .encode()
            };
            writer.push(&piece, Channel::Stdout, checkpoint_after).await?;
            pushed += piece.input_bytes() as u64;
            self.pushed_offset = pushed;
            self.line_continues = line_continues;
        }
        Ok(())
    }

    /// Sends the open line as partial.
    pub(super) async fn send_open_line(&mut self, writer: &StreamWriter) -> Result<(), WriteError> {
        let (identity, pushed) = (self.identity, self.pushed_offset);
        if let Some(piece) = self.splitter.take_open() {
            let checkpoint_after = |done: usize| {
                Checkpoint {
                    identity,
                    offset: pushed + done as u64,
                    line_continues: true,
                }
                .encode()
            };
            writer.push(&piece, Channel::Stdout, checkpoint_after).await?;
            self.pushed_offset += piece.input_bytes() as u64;
            self.line_continues = true;
        }
        Ok(())
    }

    /// When the open line has waited long enough.
    pub(super) fn open_line_due(&self) -> Option<Instant> {
        (self.splitter.open_bytes() > 0).then(|| self.last_read + OPEN_LINE_WAIT)
    }

    /// Nothing to read now: gives memory back.
    pub(super) fn rest(&mut self) {
        self.buffer = Vec::new();
        self.splitter.shrink();
    }
}
