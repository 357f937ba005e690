//! Reads a spool from a place, record by record, and says what is damaged or missing. It deletes only what its
//! user names.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::record::{self, Decoded, HEADER_BYTES, MAX_CHUNK_BYTES, Record};
use super::{Count, Totals, index_of, remove_segment, segment, segment_path, segments};

/// Read at once; several records.
const READ_BYTES: usize = 4 * (HEADER_BYTES + MAX_CHUNK_BYTES);

/// The place of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    pub segment: u64,
    /// Byte of the segment's file at which the record begins.
    pub offset: u64,
}

impl Place {
    /// Before everything of a segment.
    #[must_use]
    pub fn start_of(segment: u64) -> Self {
        Self { segment, offset: 0 }
    }
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// With all text of its channel up to its end.
    Record(Place, Record<'a>, Count),
    /// So many bytes of segments cannot be read and were stepped over.
    Damaged { bytes: u64 },
    /// So many segments before this place are gone. `counted`: [`SpoolReader::totals`] tells what was in them.
    Missing { segments: u64, counted: bool },
    /// Nothing more is there now; with a finished spool: ever.
    End,
}

/// The reading side.
#[derive(Debug)]
pub struct SpoolReader {
    directory: PathBuf,
    place: Place,
    file: Option<File>,
    /// Bytes of the segment from `place` on, as far as they were read.
    buffer: Vec<u8>,
    /// Where in `buffer` `place` is.
    at: usize,
    /// All text of the spool before `place`.
    totals: Totals,
}

impl SpoolReader {
    /// Begins at `place`, or at the oldest segment after it.
    #[must_use]
    pub fn new(directory: PathBuf, place: Place) -> Self {
        Self {
            directory,
            place,
            file: None,
            buffer: Vec::new(),
            at: 0,
            totals: Totals::default(),
        }
    }

    /// The place after the last record that was given.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// All text of the spool before [`SpoolReader::place`], also what was read by others. Right once something
    /// was read; after damage, from the next segment on.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// The next record. `finished`: nobody writes any more, so what is incomplete stays so.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn next(&mut self, finished: bool) -> io::Result<Next<'_>> {
        loop {
            if self.file.is_none() {
                if let Some(found) = self.open()? {
                    return Ok(found);
                }
                // Nothing was there. What the writer makes from now on is for the next call: a later segment would be
                // taken for proof that this one, which was not seen yet, is complete.
                if self.file.is_none() {
                    return Ok(Next::End);
                }
            }
            if self.buffered_is_incomplete() && self.fill()? {
                continue;
            }
            match record::decode(&self.buffer[self.at..], self.place.segment) {
                Decoded::Record(_) => break,
                Decoded::Incomplete | Decoded::Damaged => {
                    // A later segment proves that this one is complete; look again after that proof.
                    let closed = finished || self.has_later_segment()?;
                    if closed && self.fill()? {
                        continue;
                    }
                    if self.buffer.len() == self.at {
                        if closed && self.step_to_next_segment()? {
                            continue;
                        }
                        return Ok(Next::End);
                    }
                    while self.fill()? {}
                    if self.starts_with_record() {
                        // The writer completed it between the two looks.
                        continue;
                    }
                    let damaged = self.damaged_bytes(closed);
                    if damaged == 0 {
                        return Ok(Next::End);
                    }
                    self.advance(damaged);
                    return Ok(Next::Damaged {
                        bytes: damaged as u64,
                    });
                }
            }
        }
        let place = self.place;
        let Decoded::Record(found) = record::decode(&self.buffer[self.at..], place.segment) else {
            unreachable!("the loop ends at a record");
        };
        let length = HEADER_BYTES + found.bytes.len();
        self.at += length;
        self.place.offset += length as u64;
        let channel = index_of(found.channel);
        self.totals[channel] += Count::of(found.bytes);
        Ok(Next::Record(place, found, self.totals[channel]))
    }

    /// Deletes every segment before `segment`.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn delete_before(&self, segment: u64) -> io::Result<()> {
        for found in segments(&self.directory)? {
            if found < segment {
                remove_segment(&self.directory, found)?;
            }
        }
        Ok(())
    }

    /// Opens the segment of `place` or the oldest after it. `Some`: what to say instead of a record.
    fn open(&mut self) -> io::Result<Option<Next<'static>>> {
        loop {
            let Some(mut found) = self.oldest()? else {
                return Ok(None);
            };
            if found > self.place.segment {
                // A listing may lack what is made while it is read; what is older than something that was seen is in
                // the next one, unless it is gone.
                found = self.oldest()?.unwrap_or(found);
            }
            match File::open(segment_path(&self.directory, found)) {
                // The writer dropped it between the two looks.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => self.file = Some(file?),
            }
            let missing = found - self.place.segment;
            let wanted = if missing == 0 { self.place.offset } else { 0 };
            self.place = Place::start_of(found);
            self.forget_buffer();
            let damaged = self.read_header()?;
            if missing > 0 {
                return Ok(Some(Next::Missing {
                    segments: missing,
                    counted: damaged.is_none(),
                }));
            }
            if wanted == 0 {
                return Ok(damaged.map(|bytes| Next::Damaged { bytes }));
            }
            self.skip_to(wanted)?;
            return Ok(None);
        }
    }

    /// The oldest segment from that of `place` on.
    fn oldest(&self) -> io::Result<Option<u64>> {
        let found = segments(&self.directory)?;
        Ok(found.into_iter().find(|segment| *segment >= self.place.segment))
    }

    /// Takes the totals at the front of a segment and steps behind it. `Some`: the front is damaged, and of so
    /// many bytes.
    fn read_header(&mut self) -> io::Result<Option<u64>> {
        while self.buffer.len() < segment::HEADER_BYTES && self.fill()? {}
        let totals = segment::decode(&self.buffer, self.place.segment);
        let length = segment::HEADER_BYTES.min(self.buffer.len());
        self.advance(length);
        match totals {
            Some(totals) => self.totals = totals,
            None => return Ok(Some(length as u64)),
        }
        Ok(None)
    }

    /// Counts what is before `offset`, which was read before.
    fn skip_to(&mut self, offset: u64) -> io::Result<()> {
        while self.place.offset < offset {
            let (channel, bytes, count) = match record::decode(&self.buffer[self.at..], self.place.segment) {
                Decoded::Record(found) => {
                    let length = HEADER_BYTES + found.bytes.len();
                    (found.channel, length, Count::of(found.bytes))
                }
                Decoded::Incomplete | Decoded::Damaged => {
                    if self.fill()? {
                        continue;
                    }
                    break;
                }
            };
            self.advance(bytes);
            self.totals[index_of(channel)] += count;
        }
        // Behind damage there may be no record that ends exactly there.
        self.place.offset = offset;
        self.forget_buffer();
        Ok(())
    }

    fn buffered_is_incomplete(&self) -> bool {
        record::decode(&self.buffer[self.at..], self.place.segment) == Decoded::Incomplete
    }

    /// Reads on behind what is buffered. True: there was more.
    fn fill(&mut self) -> io::Result<bool> {
        let Some(file) = &self.file else {
            return Ok(false);
        };
        self.buffer.drain(..self.at);
        self.at = 0;
        let have = self.buffer.len();
        self.buffer.resize(have + READ_BYTES, 0);
        let read = file.read_at(&mut self.buffer[have..], self.place.offset + have as u64);
        self.buffer.truncate(have + read.as_ref().map_or(0, |read| *read));
        Ok(read? > 0)
    }

    fn forget_buffer(&mut self) {
        self.buffer.clear();
        self.at = 0;
    }

    fn has_later_segment(&self) -> io::Result<bool> {
        Ok(segments(&self.directory)?
            .last()
            .is_some_and(|last| *last > self.place.segment))
    }

    fn step_to_next_segment(&mut self) -> io::Result<bool> {
        if !self.has_later_segment()? {
            return Ok(false);
        }
        self.file = None;
        self.forget_buffer();
        self.place = Place::start_of(self.place.segment + 1);
        Ok(true)
    }

    fn starts_with_record(&self) -> bool {
        matches!(
            record::decode(&self.buffer[self.at..], self.place.segment),
            Decoded::Record(_)
        )
    }

    /// Bytes up to the next intact record; 0 while the rest may still come. All that there is of the segment
    /// is in the buffer.
    fn damaged_bytes(&self, closed: bool) -> usize {
        let rest = &self.buffer[self.at..];
        if !closed && record::decode(rest, self.place.segment) == Decoded::Incomplete {
            return 0;
        }
        let intact = (1..rest.len()).find(|at| {
            matches!(
                record::decode(&rest[*at..], self.place.segment),
                Decoded::Record(_)
            )
        });
        intact.unwrap_or(if closed { rest.len() } else { 0 })
    }

    fn advance(&mut self, bytes: usize) {
        self.at += bytes;
        self.place.offset += bytes as u64;
    }
}
