//! Which file is this? A path says little: logs are renamed, replaced and truncated under it.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{SystemTime, UNIX_EPOCH};

use xxhash_rust::xxh3::xxh3_64;

/// How much of a file's beginning is looked at, bytes.
const FINGERPRINT_BYTES: u16 = 1024;

/// Hash of the first bytes of a file, and how many those are. It tells apart files that got the same inode
/// one after the other, and a file that was truncated and written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Fingerprint {
    pub(super) bytes: u16,
    pub(super) hash: u64,
}

impl Fingerprint {
    /// Of at most `limit` bytes, and of fewer when the file is shorter.
    pub(super) fn of(file: &File, limit: u16) -> io::Result<Self> {
        let mut start = [0; FINGERPRINT_BYTES as usize];
        let wanted = usize::from(limit.min(FINGERPRINT_BYTES));
        let mut filled = 0;
        while filled < wanted {
            match file.read_at(&mut start[filled..wanted], filled as u64) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let bytes = u16::try_from(filled).expect("filled is at most FINGERPRINT_BYTES");
        Ok(Self {
            bytes,
            hash: xxh3_64(&start[..filled]),
        })
    }

    /// More of the file may be fingerprinted than is.
    pub(super) fn can_grow(self) -> bool {
        self.bytes < FINGERPRINT_BYTES
    }

    /// The file still begins with these bytes.
    pub(super) fn still_holds(self, file: &File) -> io::Result<bool> {
        Ok(Self::of(file, self.bytes)? == self)
    }
}

/// How many bytes before a position are remembered.
pub(super) const TRAIL_BYTES: usize = 64;

/// Hash of the bytes just before a position. It tells that a file was rewritten in place, where its beginning
/// and its size say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Trail {
    pub(super) bytes: u8,
    pub(super) hash: u64,
}

impl Trail {
    /// Of the end of the text that ends at the position.
    pub(super) fn of(text: &[u8]) -> Self {
        let end = &text[text.len().saturating_sub(TRAIL_BYTES)..];
        Self {
            bytes: u8::try_from(end.len()).expect("TRAIL_BYTES fit"),
            hash: xxh3_64(end),
        }
    }

    /// The bytes before `offset` are still these. False also when the file is shorter.
    pub(super) fn still_holds(self, file: &File, offset: u64) -> io::Result<bool> {
        let mut bytes = [0; TRAIL_BYTES];
        let wanted = &mut bytes[..usize::from(self.bytes).min(TRAIL_BYTES)];
        let Some(from) = offset.checked_sub(wanted.len() as u64) else {
            return Ok(false);
        };
        match file.read_exact_at(wanted, from) {
            Ok(()) => Ok(xxh3_64(wanted) == self.hash || wanted.is_empty()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A file whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// When it was created, nanoseconds since the Unix epoch; 0 where the file system does not say.
    pub(super) born_unix_ns: i64,
    /// Last write to it that was seen, nanoseconds since the Unix epoch. No part of what the file is.
    pub(super) written_unix_ns: i64,
    pub(super) fingerprint: Fingerprint,
}

impl Identity {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let fingerprint = Fingerprint::of(file, FINGERPRINT_BYTES)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            born_unix_ns: born_unix_ns(&metadata),
            written_unix_ns: modified_unix_ns(&metadata),
            fingerprint,
        })
    }

    /// Of a file that is only told apart, not read.
    pub(super) fn without_content(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            born_unix_ns: born_unix_ns(metadata),
            written_unix_ns: modified_unix_ns(metadata),
            fingerprint: Fingerprint::default(),
        }
    }

    /// The open file is the one that this identity was taken of, perhaps longer by now.
    pub(super) fn matches(&self, file: &File) -> io::Result<bool> {
        let metadata = file.metadata()?;
        Ok(self.is_of(&metadata) && self.fingerprint.still_holds(file)?)
    }

    /// The same file, whatever was done to its content. Inodes are given again, hence the birth.
    pub(super) fn is_of(&self, metadata: &Metadata) -> bool {
        (self.device, self.inode, self.born_unix_ns)
            == (metadata.dev(), metadata.ino(), born_unix_ns(metadata))
    }

    /// The same file as another identity, whatever was done to its content.
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode, self.born_unix_ns) == (other.device, other.inode, other.born_unix_ns)
    }
}

/// Creation time of a file, 0 where it is not known.
pub(super) fn born_unix_ns(metadata: &Metadata) -> i64 {
    metadata.created().map_or(0, unix_ns)
}

/// Time of the last write to a file.
pub(super) fn modified_unix_ns(metadata: &Metadata) -> i64 {
    metadata.modified().map_or(0, unix_ns)
}

fn unix_ns(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
