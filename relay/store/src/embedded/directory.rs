//! The data directory: who may use it, and what is in it. Knows nothing of keys and values.
//!
//! | name | what |
//! |---|---|
//! | `store.lock` | locked by the process that uses the directory, with its process id |
//! | `store.format` | format version and store id; written last when a store is created |
//! | `engine/` | the engine's files |
//! | `damaged/` | files of the engine as they were before damage was cut out of them; may be removed |
//! | `engine.new/` | an engine that is being created; removed when that was interrupted |

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use crate::StoreError;

/// Raised when a store of this version cannot be read by older relays.
const FORMAT_VERSION: u32 = 1;

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

    pub(crate) fn engine(&self) -> PathBuf {
        self.path.join("engine")
    }

    /// Where damaged files are kept for those who want to look at them.
    pub(crate) fn damaged(&self) -> PathBuf {
        self.path.join("damaged")
    }

    /// Id of the store in the directory; a new one is created when there is none. `create_engine` gets
    /// the path at which to make an empty engine, which it has closed again when it returns.
    pub(crate) fn open_or_create(
        &self,
        create_engine: impl FnOnce(&Path) -> Result<(), StoreError>,
    ) -> Result<String, StoreError> {
        let format = self.path.join("store.format");
        match fs::read_to_string(&format) {
            Ok(text) => {
                let store_id = parse_format(&self.path, &text)?;
                if !self.engine().is_dir() {
                    return Err(StoreError::Damaged {
                        place: self.path.display().to_string(),
                        cause: "the folder `engine` is missing; restore it from a backup".to_owned(),
                    });
                }
                Ok(store_id)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create(&format, create_engine),
            Err(error) => Err(unusable(&self.path, "store.format cannot be read", &error)),
        }
    }

    fn create(
        &self,
        format: &Path,
        create_engine: impl FnOnce(&Path) -> Result<(), StoreError>,
    ) -> Result<String, StoreError> {
        let failed = |error: io::Error| unusable(&self.path, "a store cannot be created in it", &error);
        // An engine without a format file was complete when it was renamed and never used.
        if !self.engine().is_dir() {
            let unfinished = self.path.join("engine.new");
            match fs::remove_dir_all(&unfinished) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
            create_engine(&unfinished)?;
            fs::rename(&unfinished, self.engine()).map_err(failed)?;
        }
        let store_id = random_id().map_err(failed)?;
        let unfinished = self.path.join("store.format.new");
        let mut file = File::create(&unfinished).map_err(failed)?;
        write!(file, "format = {FORMAT_VERSION}\nstore_id = {store_id}\n")
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&unfinished, format))
            .and_then(|()| File::open(&self.path)?.sync_all())
            .map_err(failed)?;
        Ok(store_id)
    }
}

/// 128 random bits in hexadecimal.
fn random_id() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

fn parse_format(path: &Path, text: &str) -> Result<String, StoreError> {
    let field = |name: &str| {
        text.lines()
            .filter_map(|line| line.split_once('='))
            .find_map(|(key, value)| (key.trim() == name).then(|| value.trim()))
    };
    let version = field("format").and_then(|version| version.parse::<u32>().ok());
    match (version, field("store_id")) {
        (Some(version), _) if version > FORMAT_VERSION => Err(refuse(
            path,
            &format!("its store has format version {version}, this relay reads up to {FORMAT_VERSION}"),
            "start the newer relay that wrote it, or choose another directory with --data-dir",
        )),
        (Some(_), Some(store_id)) if !store_id.is_empty() => Ok(store_id.to_owned()),
        _ => Err(StoreError::Damaged {
            place: path.join("store.format").display().to_string(),
            cause: "it does not hold `format = NUMBER` and `store_id = ID`; restore it from a backup"
                .to_owned(),
        }),
    }
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
