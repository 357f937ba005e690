//! Appends records to a spool and keeps its bound. One process writes a spool; another reads it and deletes
//! what it does not need any more.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::reader::{Next, Place, SpoolReader};
use super::record::{self, Record};
use super::{Bound, Count, Totals, WhenFull, index_of, segment, segment_path, segments};

/// A segment is closed at this size, or at an eighth of a small spool, so that a full spool always has
/// segments that can be deleted while the newest one is written.
const MAX_SEGMENT_BYTES: u64 = 4 << 20;

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// So many bytes of it are in the spool; the caller appends the rest as a record of its own.
    Written(usize),
    /// The bound is reached: nothing was written; try again once a segment was deleted.
    Full,
    /// The disk is full: nothing was written; try again later.
    DiskFull,
}

/// What the writer does to the disk: the system's calls, or a test's that die in the middle.
pub(super) trait Disk {
    fn create(&mut self, path: &Path) -> io::Result<File>;
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;
    fn write(&mut self, file: &File, bytes: &[u8], at: u64) -> io::Result<()>;
    fn cut(&mut self, file: &File, length: u64) -> io::Result<()>;
    fn remove(&mut self, directory: &Path, segment: u64) -> io::Result<()>;
}

#[derive(Debug)]
struct System;

impl Disk for System {
    fn create(&mut self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true);
        options.mode(0o600).open(path)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn write(&mut self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    fn cut(&mut self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    fn remove(&mut self, directory: &Path, segment: u64) -> io::Result<()> {
        super::remove_segment(directory, segment)
    }
}

/// The writing side.
pub struct SpoolWriter {
    directory: PathBuf,
    disk: Box<dyn Disk + Send>,
    bound: Bound,
    segment_bytes: u64,
    /// Closed segments that existed at the last look, with their sizes.
    closed: VecDeque<(u64, u64)>,
    current: Option<(File, u64)>,
    next_segment: u64,
    /// All text so far.
    totals: Totals,
    /// The last byte of each channel ended a line, or there was none.
    at_line_start: [bool; super::CHANNELS.len()],
    buffer: Vec<u8>,
}

impl std::fmt::Debug for SpoolWriter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("SpoolWriter")
            .field("directory", &self.directory)
            .field("next_segment", &self.next_segment)
            .finish_non_exhaustive()
    }
}

impl SpoolWriter {
    /// The spool in an existing directory, behind what is there of an earlier writer's.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn open(directory: PathBuf, bound: Bound) -> io::Result<Self> {
        let max_bytes = bound.max_bytes.max(super::MIN_SPOOL_BYTES);
        let segment_bytes = MAX_SEGMENT_BYTES.min(max_bytes / 8);
        Self::open_on(
            Box::new(System),
            directory,
            Bound { max_bytes, ..bound },
            segment_bytes,
        )
    }

    pub(super) fn open_on(
        disk: Box<dyn Disk + Send>,
        directory: PathBuf,
        bound: Bound,
        segment_bytes: u64,
    ) -> io::Result<Self> {
        let mut closed = VecDeque::new();
        for segment in segments(&directory)? {
            closed.push_back((segment, segment_path(&directory, segment).metadata()?.len()));
        }
        let totals = totals_of(&directory)?;
        Ok(Self {
            next_segment: closed.back().map_or(0, |(last, _)| last + 1),
            directory,
            disk,
            bound,
            segment_bytes,
            closed,
            current: None,
            totals,
            at_line_start: [true; super::CHANNELS.len()],
            buffer: Vec::new(),
        })
    }

    /// Appends a record, or the front of it. `beyond`: so many bytes may stand above the bound, for what a
    /// process has left behind that is over.
    ///
    /// # Errors
    /// As the system gives them; a full disk is no error but [`Appended::DiskFull`].
    pub fn append(&mut self, record: &Record<'_>, beyond: u64) -> io::Result<Appended> {
        loop {
            if !self.make_room(record, beyond)? {
                return Ok(Appended::Full);
            }
            match self.append_to_current(record) {
                Err(error) if is_disk_full(&error) => {
                    self.forget_deleted();
                    if self.bound.when_full == WhenFull::Block || !self.drop_oldest()? {
                        return Ok(Appended::DiskFull);
                    }
                }
                result => return result.map(Appended::Written),
            }
        }
    }

    /// False: there is none.
    fn make_room(&mut self, record: &Record<'_>, beyond: u64) -> io::Result<bool> {
        let needed = (segment::HEADER_BYTES + record::HEADER_BYTES + record.bytes.len()) as u64;
        let fits = |writer: &Self| writer.held_bytes() + needed <= writer.bound.max_bytes + beyond;
        if fits(self) {
            return Ok(true);
        }
        self.forget_deleted();
        while !fits(self) {
            if self.bound.when_full == WhenFull::Block || !self.drop_oldest()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// False: there is only the one that is being written.
    fn drop_oldest(&mut self) -> io::Result<bool> {
        let Some((oldest, _)) = self.closed.front() else {
            return Ok(false);
        };
        self.disk.remove(&self.directory, *oldest)?;
        self.closed.pop_front();
        Ok(true)
    }

    fn append_to_current(&mut self, record: &Record<'_>) -> io::Result<usize> {
        let length = self.current.as_ref().map_or(u64::MAX, |(_, length)| *length);
        let mut bytes = record.bytes;
        if length >= self.segment_bytes {
            let front = self.front_to_end_of_lines(record);
            if front.is_empty() || length >= 2 * self.segment_bytes {
                self.begin_segment()?;
            } else {
                bytes = front;
            }
        }
        self.write(&Record { bytes, ..*record })
    }

    /// Segments should end with whole lines, so that a drop of some cuts none: the front of a record that ends
    /// the open lines. Empty when none are open; all of it when that does not end them.
    fn front_to_end_of_lines<'a>(&self, record: &Record<'a>) -> &'a [u8] {
        let channel = index_of(record.channel);
        let mut others = (0..super::CHANNELS.len()).filter(|other| *other != channel);
        if others.all(|other| self.at_line_start[other]) {
            if self.at_line_start[channel] {
                return &[];
            }
            if let Some(end) = memchr::memchr(b'\n', record.bytes) {
                return &record.bytes[..=end];
            }
        }
        record.bytes
    }

    fn write(&mut self, record: &Record<'_>) -> io::Result<usize> {
        let segment = self.next_segment - 1;
        let (file, length) = self.current.as_mut().expect("the caller began a segment");
        self.buffer.clear();
        record::encode(record, segment, &mut self.buffer);
        if let Err(error) = self.disk.write(file, &self.buffer, *length) {
            // What was written of it must not stand in the way of the next attempt.
            self.disk.cut(file, *length)?;
            return Err(error);
        }
        *length += self.buffer.len() as u64;
        let channel = index_of(record.channel);
        self.totals[channel] += Count::of(record.bytes);
        if let Some(last) = record.bytes.last() {
            self.at_line_start[channel] = *last == b'\n';
        }
        Ok(record.bytes.len())
    }

    /// It appears under its name with its front, so that there is no segment without one.
    fn begin_segment(&mut self) -> io::Result<()> {
        let beside = self.directory.join("next");
        let file = self.disk.create(&beside)?;
        let header = segment::encode(self.next_segment, &self.totals);
        self.disk.write(&file, &header, 0)?;
        let path = segment_path(&self.directory, self.next_segment);
        self.disk.rename(&beside, &path)?;
        if let Some((_, length)) = self.current.replace((file, header.len() as u64)) {
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

/// All text that an earlier writer has put into the spool.
fn totals_of(directory: &Path) -> io::Result<Totals> {
    let Some(last) = segments(directory)?.pop() else {
        return Ok(Totals::default());
    };
    let mut reader = SpoolReader::new(directory.to_path_buf(), Place::start_of(last));
    while reader.next(true)? != Next::End {}
    Ok(*reader.totals())
}

fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
