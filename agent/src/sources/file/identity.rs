//! Which file is this? A path says little: logs are renamed, replaced and truncated under it.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

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

/// A file whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) fingerprint: Fingerprint,
}

impl Identity {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let fingerprint = Fingerprint::of(file, FINGERPRINT_BYTES)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            fingerprint,
        })
    }

    /// The open file is the one that this identity was taken of, perhaps longer by now.
    pub(super) fn matches(&self, file: &File) -> io::Result<bool> {
        let metadata = file.metadata()?;
        Ok(self.same_inode(&metadata) && self.fingerprint.still_holds(file)?)
    }

    pub(super) fn same_inode(&self, metadata: &std::fs::Metadata) -> bool {
        (self.device, self.inode) == (metadata.dev(), metadata.ino())
    }
}
