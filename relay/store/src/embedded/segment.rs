//! A segment: one file of the log. It begins with a header, then come batches of records. A sealed one ends with a
//! table of contents and is never changed again.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::disk::Disk;
use super::layout::frame::{self, HEADER_BYTES, Head, Kind, Place};

/// Bytes of the last record of a sealed segment: its meta is the offset of the table of contents.
pub(crate) const END_BYTES: u64 = HEADER_BYTES as u64 + 8;

/// Readers hold it while they read; the file is removed when the last one lets go of one that is doomed.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: u32,
    pub(crate) path: PathBuf,
    disk: Disk,
    is_doomed: AtomicBool,
    /// A copy of it is among the damaged files.
    pub(crate) is_set_aside: AtomicBool,
}

impl Segment {
    pub(crate) fn new(folder: &Path, number: u32, disk: Disk) -> Arc<Self> {
        Arc::new(Self {
            number,
            path: path_of(folder, number),
            disk,
            is_doomed: AtomicBool::new(false),
            is_set_aside: AtomicBool::new(false),
        })
    }

    /// Nothing in it is needed any more.
    pub(crate) fn doom(&self) {
        self.is_doomed.store(true, Ordering::Relaxed);
    }

    /// Opened for each use: a store may have more segments than a process may have open files.
    pub(crate) fn open(&self) -> io::Result<File> {
        File::open(&self.path)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if self.is_doomed.load(Ordering::Relaxed)
            && let Err(error) = self.disk.remove(&self.path)
        {
            // The next start finds that it holds nothing, and tries again.
            tracing::warn!(%error, "{}: cannot be removed", self.path.display());
        }
    }
}

pub(crate) fn path_of(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:08}.seg"))
}

/// The number in a segment's name; `None` for other files.
pub(crate) fn number_of(path: &Path) -> Option<u32> {
    if path.extension()? != "seg" {
        return None;
    }
    path.file_stem()?.to_str()?.parse().ok()
}

pub(crate) fn read_at(file: &File, offset: u64, bytes: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; bytes];
    file.read_exact_at(&mut buffer, offset)?;
    Ok(buffer.into())
}

/// The whole file; zeros where the disk cannot read it any more.
pub(crate) fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    const PAGE_BYTES: usize = 4096;
    match std::fs::read(path) {
        Err(error) if is_damage(&error) && error.kind() != io::ErrorKind::NotFound => {}
        read => return read,
    }
    let file = File::open(path)?;
    // Not so long that it could not be held in memory: it is a segment, or a catalog.
    let mut content = vec![0; usize::try_from(file.metadata()?.len()).unwrap_or(0)];
    for (number, page) in content.chunks_mut(PAGE_BYTES).enumerate() {
        if file.read_exact_at(page, (number * PAGE_BYTES) as u64).is_err() {
            page.fill(0);
        }
    }
    Ok(content)
}

/// Whether a failed read says that what was written is not there any more: the file is gone or ends before, or the
/// disk has lost it. Others may go away by themselves.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    const EIO: i32 = rustix::io::Errno::IO.raw_os_error();
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData
    ) || error.raw_os_error() == Some(EIO)
}

/// A record whose header and meta are sound, without its body.
pub(crate) fn read_head(file: &File, place: Place) -> io::Result<Option<(Head, Bytes)>> {
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, place.offset)?;
    let Some(head) = frame::parse_header(&header) else {
        return Ok(None);
    };
    let meta = read_at(file, place.offset + HEADER_BYTES as u64, head.meta_bytes as usize)?;
    Ok(frame::is_head_sound(&header, &meta, place).then_some((head, meta)))
}

/// The table of contents of a sealed segment; `None` when it has none that is sound, or is damaged at its begin.
pub(crate) fn read_footer(file: &File, number: u32) -> io::Result<Option<Bytes>> {
    let found = try_footer(file, number);
    match found {
        // Shorter than what it should hold, or not to be read.
        Err(error) if is_damage(&error) => Ok(None),
        found => found,
    }
}

fn try_footer(file: &File, number: u32) -> io::Result<Option<Bytes>> {
    let place = |offset| Place { file: number, offset };
    let Some(end_at) = file.metadata()?.len().checked_sub(END_BYTES) else {
        return Ok(None);
    };
    let of_kind = |found: Option<(Head, Bytes)>, kind| found.filter(|(head, _)| head.kind == kind);
    let Some((_, meta)) = of_kind(read_head(file, place(end_at))?, Kind::End) else {
        return Ok(None);
    };
    let Some(footer_at) = meta.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else {
        return Ok(None);
    };
    if of_kind(read_head(file, place(0))?, Kind::Header).is_none() {
        return Ok(None);
    }
    let Some((head, meta)) = of_kind(read_head(file, place(footer_at))?, Kind::Footer) else {
        return Ok(None);
    };
    let body_at = footer_at + (HEADER_BYTES + meta.len()) as u64;
    let body = read_at(file, body_at, head.body_bytes as usize)?;
    Ok((frame::body_check(&[&body], 0) == head.body_check).then_some(body))
}
