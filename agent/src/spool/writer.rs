//! Appends records to a spool and keeps its bound. One process writes a spool; another deletes segments.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use super::record::{self, Record};
use super::segment_path;

/// A segment is closed at this size, or at an eighth of a small spool, so that a full spool always has
/// segments that can be deleted while the newest one is written.
const MAX_SEGMENT_BYTES: u64 = 4 << 20;

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    Written,
    /// The bound is reached: nothing was written; try again once a segment was deleted.
    Full,
    /// The disk is full: nothing was written; try again later.
    DiskFull,
}

/// The writing side.
#[derive(Debug)]
pub struct SpoolWriter {
    directory: PathBuf,
    max_bytes: u64,
    segment_bytes: u64,
    /// Closed segments that existed at the last look, with their sizes.
    closed: VecDeque<(u64, u64)>,
    current: Option<(File, u64)>,
    next_segment: u64,
    buffer: Vec<u8>,
}

impl SpoolWriter {
    /// An empty spool in an existing directory.
    #[must_use]
    pub fn new(directory: PathBuf, max_bytes: u64) -> Self {
        let max_bytes = max_bytes.max(super::MIN_SPOOL_BYTES);
        Self {
            directory,
            max_bytes,
            segment_bytes: MAX_SEGMENT_BYTES.min(max_bytes / 8),
            closed: VecDeque::new(),
            current: None,
            next_segment: 0,
            buffer: Vec::new(),
        }
    }

    /// Appends one record, whole or not at all.
    ///
    /// # Errors
    /// As the system gives them; a full disk is no error but [`Appended::DiskFull`].
    pub fn append(&mut self, record: &Record<'_>) -> io::Result<Appended> {
        let bytes = (record::HEADER_BYTES + record.bytes.len()) as u64;
        if self.held_bytes() + bytes > self.max_bytes {
            self.forget_deleted();
            if self.held_bytes() + bytes > self.max_bytes {
                return Ok(Appended::Full);
            }
        }
        if self
            .current
            .as_ref()
            .is_none_or(|(_, length)| *length >= self.segment_bytes)
        {
            match self.begin_segment() {
                Err(error) if is_disk_full(&error) => return Ok(Appended::DiskFull),
                result => result?,
            }
        }
        let segment = self.next_segment - 1;
        let (file, length) = self.current.as_mut().expect("a segment was begun above");
        self.buffer.clear();
        record::encode(record, segment, &mut self.buffer);
        match file.write_all_at(&self.buffer, *length) {
            Ok(()) => {
                *length += bytes;
                Ok(Appended::Written)
            }
            Err(error) if is_disk_full(&error) => {
                // What was written of it must not stand in the way of the next attempt.
                file.set_len(*length)?;
                Ok(Appended::DiskFull)
            }
            Err(error) => Err(error),
        }
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        let path = segment_path(&self.directory, self.next_segment);
        let file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(path)?;
        if let Some((_, length)) = self.current.replace((file, 0)) {
            self.closed.push_back((self.next_segment - 1, length));
        }
        self.next_segment += 1;
        Ok(())
    }

    fn held_bytes(&self) -> u64 {
        let closed: u64 = self.closed.iter().map(|(_, length)| length).sum();
        closed + self.current.as_ref().map_or(0, |(_, length)| *length)
    }

    fn forget_deleted(&mut self) {
        self.closed
            .retain(|(segment, _)| segment_path(&self.directory, *segment).exists());
    }
}

fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
