//! The writing end of the log: batches go to the end of the active segment, and a full one is followed by the next.
//! A batch is there as a whole or not at all; one that could not be written is cut off again.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use bytes::Bytes;

use super::catalog::{Catalog, Note};
use super::directory::FORMAT_VERSION;
use super::disk::{Disk, DiskFile};
use super::index::{Index, Placed};
use super::layout::frame::{Head, Kind, Place, body_check};
use super::layout::notes::{SegmentNote, header_meta};
use super::segment::{self, Segment};
use super::volume::{read, write};

/// Pieces of a body that are smaller are collected into one write with what is beside them.
const DIRECT_WRITE_BYTES: usize = 32 << 10;

/// A record that is to be written.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) kind: Kind,
    pub(crate) meta: Vec<u8>,
    /// The body, in two pieces.
    pub(crate) small: Bytes,
    pub(crate) text: Bytes,
    /// What the body's checksum is tied to.
    pub(crate) seed: u64,
}

/// The segment that is written to.
#[derive(Debug)]
struct Active {
    number: u32,
    file: Arc<DiskFile>,
    bytes: u64,
    synced_bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) folder: PathBuf,
    pub(crate) store_id: String,
    pub(crate) disk: Disk,
    pub(crate) segment_bytes: u64,
    active: Option<Active>,
    pub(crate) next_number: u32,
    pub(crate) next_batch: u64,
    pub(crate) catalog: Catalog,
    /// A sync failed: what was written since the one before may not be on disk, and the system will not say so
    /// again. Number of the segment, and from where on.
    suspect: Option<(u32, u64)>,
}

impl Log {
    pub(crate) fn new(
        folder: PathBuf,
        store_id: String,
        disk: Disk,
        segment_bytes: u64,
        catalog: Catalog,
    ) -> Self {
        Self {
            folder,
            store_id,
            disk,
            segment_bytes,
            active: None,
            next_number: 1,
            next_batch: 1,
            catalog,
            suspect: None,
        }
    }

    /// Goes on in a segment that an earlier process left, behind its last whole batch.
    pub(crate) fn go_on_in(&mut self, segment: &Segment, bytes: u64) -> io::Result<()> {
        let file = self.disk.open(&segment.path)?;
        file.set_len(bytes)?;
        // That process may not have synced it.
        file.sync()?;
        self.active = Some(Active {
            number: segment.number,
            file: Arc::new(file),
            bytes,
            synced_bytes: bytes,
        });
        Ok(())
    }

    pub(crate) fn active_number(&self) -> Option<u32> {
        self.active.as_ref().map(|active| active.number)
    }

    /// So much of a segment is durable.
    pub(crate) fn known_bytes(&self, number: u32) -> Option<u64> {
        let active = self.active.as_ref().filter(|active| active.number == number)?;
        Some(active.synced_bytes)
    }

    /// Writes the records as one batch, which is durable only after [`Log::sync`]. On failure none of them is
    /// there.
    pub(crate) fn append(&mut self, index: &RwLock<Index>, drafts: &[Draft]) -> io::Result<Vec<Placed>> {
        if self
            .active
            .as_ref()
            .is_none_or(|active| active.bytes >= self.segment_bytes)
        {
            self.roll(index)?;
        }
        let batch = self.next_batch;
        let active = self.active.as_mut().ok_or(io::ErrorKind::NotFound)?;
        match write_batch(active, batch, drafts) {
            Ok((bytes, placed)) => {
                active.bytes = bytes;
                self.next_batch += 1;
                if let Some(state) = write(index).segments.get_mut(&active.number) {
                    state.bytes = bytes;
                }
                Ok(placed)
            }
            Err(error) => {
                if active.file.set_len(active.bytes).is_err() {
                    // What is behind the end cannot be taken away: the next batch goes elsewhere, and a start finds
                    // a batch here that was never finished.
                    let left = self.active.take();
                    self.leave(left)?;
                }
                Err(error)
            }
        }
    }

    /// Ends the active segment; the next batch begins a new one.
    pub(crate) fn end_segment(&mut self) -> io::Result<()> {
        self.sync()?;
        let left = self.active.take();
        self.leave(left)
    }

    fn leave(&mut self, active: Option<Active>) -> io::Result<()> {
        let Some(active) = active else {
            return Ok(());
        };
        if active.synced_bytes < active.bytes
            && let Err(error) = active.file.sync()
        {
            self.suspect.get_or_insert((active.number, active.synced_bytes));
            return Err(error);
        }
        self.catalog.note(Note::segment(SegmentNote {
            number: active.number,
            is_removed: false,
            known_bytes: active.bytes,
        }));
        Ok(())
    }

    fn roll(&mut self, index: &RwLock<Index>) -> io::Result<()> {
        let number = self.next_number;
        let segment = Segment::new(&self.folder, number, self.disk.clone());
        let file = self.disk.create(&segment.path)?;
        // Whatever happens now, the name is taken.
        self.next_number += 1;
        let mut header = Vec::new();
        let meta = header_meta(FORMAT_VERSION, &self.store_id);
        let head = Head {
            kind: Kind::Header,
            is_last: true,
            batch: self.next_batch,
            meta_bytes: len(&meta)?,
            body_bytes: 0,
            body_check: body_check(&[], 0),
            synced_bytes: 0,
        };
        let place = Place {
            file: number,
            offset: 0,
        };
        head.write(&meta, place, &mut header);
        let made = file
            .write_at(&header, 0)
            .and_then(|()| self.disk.sync_folder(&self.folder));
        if let Err(error) = made {
            // An empty segment does no harm, and the disk may be too full even to remove it.
            let _ = self.disk.remove(&segment.path);
            return Err(error);
        }
        let bytes = header.len() as u64;
        write(index).add_segment(segment, bytes, false);
        self.catalog.note(Note::segment(SegmentNote {
            number,
            is_removed: false,
            known_bytes: 0,
        }));
        let before = self.active.replace(Active {
            number,
            file: Arc::new(file),
            bytes,
            synced_bytes: 0,
        });
        self.leave(before)
    }

    /// Makes every batch that was written before durable, and then the catalog.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if let Some(active) = &mut self.active
            && active.synced_bytes < active.bytes
        {
            if let Err(error) = active.file.sync() {
                self.suspect.get_or_insert((active.number, active.synced_bytes));
                return Err(error);
            }
            active.synced_bytes = active.bytes;
        }
        self.catalog.sync();
        Ok(())
    }

    /// Tells the catalog how long the active segment is for certain.
    pub(crate) fn note_known(&mut self) {
        if let Some(active) = &self.active {
            self.catalog.note(Note::segment(SegmentNote {
                number: active.number,
                is_removed: false,
                known_bytes: active.synced_bytes,
            }));
        }
    }

    /// After a failed sync: from where on what was written has to be written again, elsewhere.
    pub(crate) fn suspect(&self) -> Option<(u32, u64)> {
        self.suspect
    }

    /// Leaves the segment whose sync failed alone, so that writing it again goes to another.
    pub(crate) fn abandon_suspect(&mut self) {
        if let Some((number, _)) = self.suspect
            && self.active_number() == Some(number)
        {
            self.active = None;
        }
    }

    /// All that was suspect is durable elsewhere.
    pub(crate) fn clear_suspect(&mut self) {
        self.suspect = None;
    }
}

fn len(bytes: &[u8]) -> io::Result<u32> {
    u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

fn write_batch(active: &Active, batch: u64, drafts: &[Draft]) -> io::Result<(u64, Vec<Placed>)> {
    let mut placed = Vec::with_capacity(drafts.len());
    let mut buffer = Vec::with_capacity(4096);
    let mut written = active.bytes;
    for (number, draft) in drafts.iter().enumerate() {
        let at = written + buffer.len() as u64;
        let body_bytes = len(&draft.small)?
            .checked_add(len(&draft.text)?)
            .ok_or(io::ErrorKind::FileTooLarge)?;
        let head = Head {
            kind: draft.kind,
            is_last: number + 1 == drafts.len(),
            batch,
            meta_bytes: len(&draft.meta)?,
            body_bytes,
            body_check: body_check(&[&draft.small, &draft.text], draft.seed),
            // Segments are shorter than 4 GiB; less would only say less.
            synced_bytes: u32::try_from(active.synced_bytes).unwrap_or(0),
        };
        let place = Place {
            file: active.number,
            offset: at,
        };
        head.write(&draft.meta, place, &mut buffer);
        buffer.extend_from_slice(&draft.small);
        if draft.text.len() < DIRECT_WRITE_BYTES {
            buffer.extend_from_slice(&draft.text);
        } else {
            active.file.write_at(&buffer, written)?;
            written += buffer.len() as u64;
            buffer.clear();
            active.file.write_at(&draft.text, written)?;
            written += draft.text.len() as u64;
        }
        placed.push(Placed {
            segment: active.number,
            offset: u32::try_from(at).map_err(|_| io::ErrorKind::FileTooLarge)?,
            meta_bytes: head.meta_bytes,
            body_bytes,
            body_check: head.body_check,
            batch,
        });
    }
    if !buffer.is_empty() {
        active.file.write_at(&buffer, written)?;
    }
    Ok((written + buffer.len() as u64, placed))
}

/// Writes the table of contents behind a segment's last batch; then it is sealed. Returns its length.
pub(crate) fn seal(disk: &Disk, segment: &Segment, bytes: u64, batch: u64, table: &[u8]) -> io::Result<u64> {
    let file = disk.open(&segment.path)?;
    // Behind the end there may be a batch that was never finished.
    file.set_len(bytes)?;
    let mut content = Vec::with_capacity(table.len() + 200);
    let head = Head {
        kind: Kind::Footer,
        is_last: true,
        batch,
        meta_bytes: 0,
        body_bytes: len(table)?,
        body_check: body_check(&[table], 0),
        synced_bytes: u32::try_from(bytes).unwrap_or(0),
    };
    let place = |offset| Place {
        file: segment.number,
        offset,
    };
    head.write(&[], place(bytes), &mut content);
    content.extend_from_slice(table);
    let end = Head {
        kind: Kind::End,
        is_last: true,
        batch,
        meta_bytes: 8,
        body_bytes: 0,
        body_check: body_check(&[], 0),
        synced_bytes: u32::try_from(bytes).unwrap_or(0),
    };
    let end_at = place(bytes + content.len() as u64);
    end.write(&bytes.to_le_bytes(), end_at, &mut content);
    debug_assert_eq!(end_at.offset + segment::END_BYTES, bytes + content.len() as u64);
    file.write_at(&content, bytes)?;
    file.sync()?;
    Ok(bytes + content.len() as u64)
}

/// Segments that are full but have no table of contents yet, with their lengths.
pub(crate) fn unsealed(index: &RwLock<Index>, active: Option<u32>) -> Vec<(Arc<Segment>, u64)> {
    let index = read(index);
    index
        .segments
        .values()
        .filter(|state| !state.is_sealed && Some(state.segment.number) != active)
        .map(|state| (Arc::clone(&state.segment), state.bytes))
        .collect()
}
