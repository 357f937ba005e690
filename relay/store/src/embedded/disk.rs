//! Every change of a file goes through here, so that tests can record it, let it fail, or stop in the middle
//! of it. Reading does not: damage is made in the files themselves.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A change that is about to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskChange<'a> {
    /// A new, empty file.
    Create {
        path: &'a Path,
    },
    /// Bytes at a place of a file.
    Write {
        path: &'a Path,
        offset: u64,
        bytes: &'a [u8],
    },
    /// A file is cut off, or made longer by zeros.
    SetLen {
        path: &'a Path,
        bytes: u64,
    },
    /// What was written to the file is made durable.
    Sync {
        path: &'a Path,
    },
    /// Names in the folder are made durable.
    SyncFolder {
        path: &'a Path,
    },
    Rename {
        from: &'a Path,
        to: &'a Path,
    },
    /// A second name for a file.
    Link {
        from: &'a Path,
        to: &'a Path,
    },
    Remove {
        path: &'a Path,
    },
    CreateFolder {
        path: &'a Path,
    },
}

/// Makes a change fail.
#[derive(Debug)]
pub struct DiskFault {
    /// Of a [`DiskChange::Write`]: so many bytes are written before it fails.
    pub written_bytes: usize,
    pub error: io::Error,
}

type Hook = dyn Fn(&DiskChange<'_>) -> Result<(), DiskFault> + Send + Sync;

/// The file system; tests put themselves in between.
#[derive(Clone, Default)]
pub struct Disk(Option<Arc<Hook>>);

impl Disk {
    /// Asks `hook` before every change.
    pub fn watched(hook: impl Fn(&DiskChange<'_>) -> Result<(), DiskFault> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hook)))
    }

    fn before(&self, change: &DiskChange<'_>) -> Result<(), DiskFault> {
        self.0.as_ref().map_or(Ok(()), |hook| hook(change))
    }

    fn ask(&self, change: &DiskChange<'_>) -> io::Result<()> {
        self.before(change).map_err(|fault| fault.error)
    }

    /// A new file; one of that name must not exist.
    pub(crate) fn create(&self, path: &Path) -> io::Result<DiskFile> {
        self.ask(&DiskChange::Create { path })?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        Ok(self.file(path, file))
    }

    pub(crate) fn open(&self, path: &Path) -> io::Result<DiskFile> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(self.file(path, file))
    }

    fn file(&self, path: &Path, file: File) -> DiskFile {
        DiskFile {
            disk: self.clone(),
            path: path.to_owned(),
            file,
        }
    }

    /// A file that appears whole and durable, in the place of one that may be there.
    pub(crate) fn replace(&self, path: &Path, content: &[u8]) -> io::Result<DiskFile> {
        let unfinished = path.with_extension("new");
        self.remove_if_there(&unfinished)?;
        let mut file = self.create(&unfinished)?;
        file.write_at(content, 0)?;
        file.sync()?;
        self.rename(&unfinished, path)?;
        path.clone_into(&mut file.path);
        Ok(file)
    }

    /// Makes the new name durable too.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.ask(&DiskChange::Rename { from, to })?;
        fs::rename(from, to)?;
        to.parent().map_or(Ok(()), |folder| self.sync_folder(folder))
    }

    pub(crate) fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.ask(&DiskChange::Link { from, to })?;
        fs::hard_link(from, to)
    }

    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        self.ask(&DiskChange::Remove { path })?;
        fs::remove_file(path)
    }

    fn remove_if_there(&self, path: &Path) -> io::Result<()> {
        if path.try_exists()? {
            self.remove(path)
        } else {
            Ok(())
        }
    }

    pub(crate) fn create_folder(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        self.ask(&DiskChange::CreateFolder { path })?;
        fs::create_dir_all(path)
    }

    pub(crate) fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.ask(&DiskChange::SyncFolder { path })?;
        File::open(path)?.sync_all()
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Disk")
    }
}

/// An open file.
#[derive(Debug)]
pub(crate) struct DiskFile {
    disk: Disk,
    path: PathBuf,
    file: File,
}

impl DiskFile {
    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let change = DiskChange::Write {
            path: &self.path,
            offset,
            bytes,
        };
        match self.disk.before(&change) {
            Ok(()) => self.file.write_all_at(bytes, offset),
            Err(fault) => {
                let written = fault.written_bytes.min(bytes.len());
                self.file.write_all_at(&bytes[..written], offset)?;
                Err(fault.error)
            }
        }
    }

    pub(crate) fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.disk.ask(&DiskChange::SetLen {
            path: &self.path,
            bytes,
        })?;
        self.file.set_len(bytes)
    }

    /// `fdatasync`, which brings the file's size along when it matters.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.disk.ask(&DiskChange::Sync { path: &self.path })?;
        self.file.sync_data()
    }
}
