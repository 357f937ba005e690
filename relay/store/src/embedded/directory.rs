//! The data directory: who may use it, and what is in it. Knows nothing of keys and values.
//!
//! | name | what |
//! |---|---|
//! | `store.lock` | locked by the process that uses the directory, with its process id |
//! | `store.format` | format version and store id; written last when a store is created |
//! | `log/` | the segments, `NUMBER.seg` |
//! | `catalog` | a second copy of what is small and precious |
//! | `damaged/` | damaged files as they were; may be removed |

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::disk::Disk;
use crate::StoreError;

/// Raised when a store of this version cannot be read by older relays.
pub(crate) const FORMAT_VERSION: u32 = 2;

/// What `store.format` says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Format {
    StoreId(String),
    Missing,
    /// It is not what was written.
    Damaged,
}

/// A data directory that this process has locked until the value is dropped.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    path: PathBuf,
    /// Dropping it unlocks.
    _lock: File,
}

impl DataDirectory {
    /// Creates the directory when it is missing and locks it.
    pub(crate) fn lock(path: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => refuse(
                path,
                "it is, or leads through, a file",
                "choose a directory with --data-dir",
            ),
            _ => unusable(path, "cannot be created", &error),
        })?;
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path.join("store.lock"))
            .map_err(|error| unusable(path, "cannot be written to", &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(path, &mut lock)),
            Err(TryLockError::Error(error)) => return Err(unusable(path, "cannot be locked", &error)),
        }
        match write_holder(&mut lock) {
            // Its readers need no room. That the next one is not told who is in the way is a small price.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
            written => written.map_err(|error| unusable(path, "cannot be written to", &error))?,
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    pub(crate) fn catalog(&self) -> PathBuf {
        self.path.join("catalog")
    }

    pub(crate) fn format(&self) -> PathBuf {
        self.path.join("store.format")
    }

    /// An error of the system while the directory was used.
    pub(crate) fn unusable(&self, what: &str, error: &io::Error) -> StoreError {
        unusable(&self.path, what, error)
    }

    /// Where damaged files are kept for those who want to look at them.
    pub(crate) fn damaged(&self) -> PathBuf {
        self.path.join("damaged")
    }

    /// Reads `store.format`.
    ///
    /// # Errors
    /// The store is one of another version, or the file cannot be read.
    pub(crate) fn read_format(&self) -> Result<Format, StoreError> {
        if self.path.join("engine").is_dir() {
            return Err(refuse(
                &self.path,
                &format!("its store has format version 1, this relay reads version {FORMAT_VERSION}"),
                "start the older relay that wrote it, or choose another directory with --data-dir",
            ));
        }
        match fs::read(self.format()) {
            Ok(text) => parse_format(&self.path, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Format::Missing),
            Err(error) => Err(unusable(&self.path, "store.format cannot be read", &error)),
        }
    }

    pub(crate) fn write_format(&self, disk: &Disk, store_id: &str) -> io::Result<()> {
        disk.replace(&self.format(), format_text(FORMAT_VERSION, store_id).as_bytes())
            .map(drop)
    }
}

/// The whole file, with a checksum of its own.
pub(crate) fn format_text(version: u32, store_id: &str) -> String {
    let text = format!("format = {version}\nstore_id = {store_id}\n");
    let check = xxh3_64(text.as_bytes());
    format!("{text}check = {check:016x}\n")
}

/// 128 random bits in hexadecimal.
pub(crate) fn random_id() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

fn parse_format(path: &Path, text: &[u8]) -> Result<Format, StoreError> {
    let Ok(text) = std::str::from_utf8(text) else {
        return Ok(Format::Damaged);
    };
    let field = |name: &str| {
        text.lines()
            .filter_map(|line| line.split_once('='))
            .find_map(|(key, value)| (key.trim() == name).then(|| value.trim()))
    };
    let version = field("format").and_then(|version| version.parse::<u32>().ok());
    let (Some(version), Some(store_id)) = (version, field("store_id")) else {
        return Ok(Format::Damaged);
    };
    // So that a damaged digit is not taken for another version.
    if text != format_text(version, store_id) {
        return Ok(Format::Damaged);
    }
    if version != FORMAT_VERSION {
        return Err(refuse(
            path,
            &format!("its store has format version {version}, this relay reads version {FORMAT_VERSION}"),
            "start the relay of the version that wrote it, or choose another directory with --data-dir",
        ));
    }
    Ok(Format::StoreId(store_id.to_owned()))
}

/// So that the next one can be told who is in the way.
fn write_holder(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    write!(lock, "process {}", std::process::id())
}

fn in_use(path: &Path, lock: &mut File) -> StoreError {
    let mut holder = String::new();
    let known = lock.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
    let holder = if known { holder.trim() } else { "another process" };
    refuse(
        path,
        &format!("it is in use by another relay ({holder})"),
        "stop that one first, or choose another directory with --data-dir",
    )
}

fn unusable(path: &Path, what: &str, error: &io::Error) -> StoreError {
    let cure = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "give the relay's user the right to write there, or choose another directory with --data-dir"
        }
        io::ErrorKind::StorageFull => "free some space on its disk",
        io::ErrorKind::ReadOnlyFilesystem => "choose a directory on a writable disk with --data-dir",
        _ => "check the path and its disk, or choose another directory with --data-dir",
    };
    refuse(path, &format!("{what}: {error}"), cure)
}

fn refuse(path: &Path, cause: &str, cure: &str) -> StoreError {
    StoreError::Directory {
        path: path.display().to_string(),
        cause: cause.to_owned(),
        cure: cure.to_owned(),
    }
}
