//! One open file: offsets, open line, and chunks into the outbox. Knows nothing of names.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use bytes::Bytes;
use millstream_proto::v1::Channel;

use super::checkpoint::Checkpoint;
use super::identity::{Fingerprint, Identity, TRAIL_BYTES, Trail, modified_unix_ns};
use crate::lines::{LineSplitter, OPEN_LINE_WAIT, Piece};
use crate::outbox::{StreamWriter, WriteError};

/// One read, bytes. Large enough that a system call costs nothing per line, small enough to stay in cache
/// between reading and copying into the block.
const CHUNK_BYTES: usize = 256 << 10;

/// Chunks that are read before the caller looks around again.
const TURN_CHUNKS: usize = 64;

pub(super) struct FileReader {
    file: File,
    pub(super) identity: Identity,
    /// Next byte to read.
    read_offset: u64,
    /// What was read last, at most [`TRAIL_BYTES`]: it is read again with what follows it, so that a file
    /// that was rewritten in place cannot pass for one that grew.
    last_bytes: Vec<u8>,
    /// Bytes before it were pushed. Behind `read_offset` by what the splitter holds of an open line.
    pushed_offset: u64,
    pushed_trail: Trail,
    /// The last pushed line was partial.
    pub(super) line_continues: bool,
    splitter: LineSplitter,
    last_read: Instant,
    /// Empty while there is nothing to read, so that idle files cost no memory.
    buffer: Vec<u8>,
}

/// What one turn of reading found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing new.
    Idle,
    /// Everything that was there.
    Read,
    /// A good deal, and there is more.
    More,
    /// What was read before is not there any more: the file was cut or rewritten.
    Rewritten,
}

impl FileReader {
    /// Reads `file` from its start.
    pub(super) fn new(file: File, line_continues: bool) -> Self {
        Self {
            identity: identity_or_unknown(&file),
            file,
            read_offset: 0,
            last_bytes: Vec::new(),
            pushed_offset: 0,
            pushed_trail: Trail::default(),
            line_continues,
            splitter: LineSplitter::default(),
            last_read: Instant::now(),
            buffer: Vec::new(),
        }
    }

    /// Goes on at `offset`, whatever stands before it.
    pub(super) fn at(file: File, offset: u64, line_continues: bool) -> Self {
        let mut reader = Self::new(file, line_continues);
        let mut last = [0; TRAIL_BYTES];
        let wanted = usize::try_from(offset).unwrap_or(TRAIL_BYTES).min(TRAIL_BYTES);
        // Unreadable now: the first turn finds out.
        if reader
            .file
            .read_exact_at(&mut last[..wanted], offset - wanted as u64)
            .is_ok()
        {
            reader.last_bytes = last[..wanted].to_vec();
        }
        reader.read_offset = offset;
        reader.pushed_offset = offset;
        reader.pushed_trail = Trail::of(&reader.last_bytes);
        reader
    }

    /// At the place of a checkpoint that does not hold any more: only good for beginning anew.
    pub(super) fn resting(file: File, checkpoint: &Checkpoint) -> Self {
        let mut reader = Self::new(file, checkpoint.line_continues);
        reader.identity = checkpoint.identity;
        reader.read_offset = checkpoint.offset;
        reader.pushed_offset = checkpoint.offset;
        reader.pushed_trail = checkpoint.trail;
        reader
    }

    pub(super) fn offset(&self) -> u64 {
        self.read_offset
    }

    pub(super) fn size(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    /// Its identity, with its last write as of now.
    pub(super) fn look(&mut self) -> &Identity {
        if let Ok(metadata) = self.file.metadata() {
            self.identity.written_unix_ns = modified_unix_ns(&metadata);
        }
        &self.identity
    }

    /// No name leads to the file any more.
    pub(super) fn is_deleted(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }

    /// It is shorter than what was read, or begins differently.
    pub(super) fn was_truncated(&self) -> bool {
        self.size() < self.read_offset || !self.identity.fingerprint.still_holds(&self.file).unwrap_or(true)
    }

    /// For a reader that begins anew.
    pub(super) fn second_handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Begins anew, and forgets what the file was.
    pub(super) fn rewind(&mut self) {
        self.read_offset = 0;
        self.last_bytes.clear();
        self.pushed_offset = 0;
        self.pushed_trail = Trail::default();
        self.splitter = LineSplitter::default();
        self.identity = identity_or_unknown(&self.file);
    }

    /// The place behind the last pushed byte.
    pub(super) fn place(&self) -> Checkpoint {
        Checkpoint {
            identity: self.identity,
            offset: self.pushed_offset,
            trail: self.pushed_trail,
            line_continues: self.line_continues,
        }
    }

    pub(super) fn checkpoint(&self) -> Option<Bytes> {
        Some(self.place().encode())
    }

    /// Reads and pushes up to the present end of the file, or for one turn. The inner error is the file's.
    pub(super) async fn read_available(
        &mut self,
        writer: &StreamWriter,
    ) -> Result<io::Result<Turn>, WriteError> {
        for chunk in 0..TURN_CHUNKS {
            let waiting =
                usize::try_from(self.size().saturating_sub(self.read_offset)).unwrap_or(CHUNK_BYTES);
            // One more than there is, so that a file without a size (in /proc, say) is read too.
            let wanted = waiting.saturating_add(1).next_multiple_of(4096).min(CHUNK_BYTES) + TRAIL_BYTES;
            if self.buffer.len() < wanted {
                self.buffer.resize(wanted, 0);
            }
            let mut buffer = std::mem::take(&mut self.buffer);
            let known = self.last_bytes.len();
            let from = self.read_offset - known as u64;
            let result = loop {
                match self.file.read_at(&mut buffer[..wanted], from) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    result => break result,
                }
            };
            let read = match result {
                Ok(read) => read,
                Err(error) => return Ok(Err(error)),
            };
            if read < known || buffer[..known] != self.last_bytes[..] {
                return Ok(Ok(Turn::Rewritten));
            }
            let new = &buffer[known..read];
            if new.is_empty() {
                self.buffer = buffer;
                return Ok(Ok(if chunk == 0 { Turn::Idle } else { Turn::Read }));
            }
            self.last_read = Instant::now();
            self.read_offset += new.len() as u64;
            self.last_bytes.clear();
            self.last_bytes
                .extend_from_slice(&buffer[read.saturating_sub(TRAIL_BYTES)..read]);
            if self.identity.fingerprint.can_grow()
                && let Ok(fingerprint) = Fingerprint::of(&self.file, u16::MAX)
            {
                self.identity.fingerprint = fingerprint;
            }
            self.push(writer, new).await?;
            self.buffer = buffer;
            // Other files and the uplink get their turn after each chunk.
            tokio::task::yield_now().await;
        }
        Ok(Ok(Turn::More))
    }

    async fn push(&mut self, writer: &StreamWriter, mut chunk: &[u8]) -> Result<(), WriteError> {
        let (identity, mut pushed) = (self.identity, self.pushed_offset);
        while let Some(piece) = self.splitter.next_piece(&mut chunk) {
            push_piece(writer, &piece, identity, pushed).await?;
            pushed += piece.input_bytes() as u64;
            self.pushed_offset = pushed;
            self.pushed_trail = Trail::of(piece.text());
            self.line_continues = piece.is_partial();
        }
        Ok(())
    }

    /// Sends the open line as partial.
    pub(super) async fn send_open_line(&mut self, writer: &StreamWriter) -> Result<(), WriteError> {
        let (identity, pushed) = (self.identity, self.pushed_offset);
        if let Some(piece) = self.splitter.take_open() {
            push_piece(writer, &piece, identity, pushed).await?;
            self.pushed_offset += piece.input_bytes() as u64;
            self.pushed_trail = Trail::of(piece.text());
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

/// Pushes a piece that begins at `offset` of the file.
async fn push_piece(
    writer: &StreamWriter,
    piece: &Piece<'_>,
    identity: Identity,
    offset: u64,
) -> Result<(), WriteError> {
    let checkpoint_after = |done: usize| {
        Checkpoint {
            identity,
            offset: offset + done as u64,
            trail: Trail::of(&piece.text()[..done]),
            line_continues: piece.is_partial(),
        }
        .encode()
    };
    writer.push(piece, Channel::Stdout, checkpoint_after).await
}

/// Identity of a file that was just opened, or one that never matches when it cannot be had.
fn identity_or_unknown(file: &File) -> Identity {
    Identity::of(file).unwrap_or(Identity {
        device: 0,
        inode: 0,
        born_unix_ns: 0,
        written_unix_ns: 0,
        fingerprint: Fingerprint::default(),
    })
}
