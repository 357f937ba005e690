//! Who tells the followers that something changed: one inotify instance for a source, on directories.
//!
//! Directories are watched rather than files, so that one watch serves all files of a directory and a
//! rotation is seen as what it is. Where inotify does not work (network file systems, limits reached), the
//! caller polls.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use inotify::{EventMask, EventStream, Inotify, WatchDescriptor, WatchMask};

/// Room for many events with long names.
const EVENT_BUFFER_BYTES: usize = 4096;

/// One change.
#[derive(Debug)]
pub(in crate::sources) enum Change {
    /// Something happened to this name.
    Entry(PathBuf),
    /// A name appeared or went, so globs may expand differently.
    Layout(PathBuf),
    /// Events were lost; anything may have happened.
    Overflow,
}

#[derive(Debug)]
pub(in crate::sources) struct DirectoryWatcher {
    events: EventStream<Vec<u8>>,
    directories: HashMap<WatchDescriptor, PathBuf>,
    watched: BTreeSet<PathBuf>,
}

impl DirectoryWatcher {
    pub(in crate::sources) fn new() -> io::Result<Self> {
        let events = Inotify::init()?.into_event_stream(vec![0; EVENT_BUFFER_BYTES])?;
        Ok(Self {
            events,
            directories: HashMap::new(),
            watched: BTreeSet::new(),
        })
    }

    /// Watches these directories too. One that does not exist yet is tried again with the next call.
    ///
    /// # Errors
    /// When a limit of the kernel is reached.
    pub(in crate::sources) fn watch<'a>(
        &mut self,
        directories: impl IntoIterator<Item = &'a PathBuf>,
    ) -> io::Result<()> {
        let mask = WatchMask::MODIFY
            | WatchMask::ATTRIB
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVE
            | WatchMask::ONLYDIR;
        for directory in directories {
            if self.watched.contains(directory) {
                continue;
            }
            match self.events.watches().add(directory, mask) {
                Ok(descriptor) => {
                    self.directories.insert(descriptor, directory.clone());
                    self.watched.insert(directory.clone());
                }
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOSPC.raw_os_error()) => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// The next change. Safe to drop and call again.
    ///
    /// # Errors
    /// When inotify itself fails.
    pub(in crate::sources) async fn next(&mut self) -> io::Result<Change> {
        loop {
            let Some(event) = self.events.next().await else {
                return Err(io::Error::other("inotify ended"));
            };
            let event = event?;
            if event.mask.contains(EventMask::Q_OVERFLOW) {
                return Ok(Change::Overflow);
            }
            if event.mask.contains(EventMask::IGNORED) {
                if let Some(directory) = self.directories.remove(&event.wd) {
                    self.watched.remove(&directory);
                }
                return Ok(Change::Overflow);
            }
            let Some(directory) = self.directories.get(&event.wd) else {
                continue;
            };
            let path = join(directory, event.name);
            let layout = EventMask::CREATE | EventMask::DELETE | EventMask::MOVED_FROM | EventMask::MOVED_TO;
            return Ok(if event.mask.intersects(layout) {
                Change::Layout(path)
            } else {
                Change::Entry(path)
            });
        }
    }
}

fn join(directory: &Path, name: Option<OsString>) -> PathBuf {
    name.map_or_else(|| directory.to_path_buf(), |name| directory.join(name))
}

/// File systems on which inotify does not see every change: other hosts or layers write past it.
pub(in crate::sources) fn needs_polling(directory: &Path) -> bool {
    const NFS: i64 = 0x6969;
    const SMB: i64 = 0x517B;
    const SMB2: i64 = 0xFE53_4D42;
    const CIFS: i64 = 0xFF53_4D42;
    const FUSE: i64 = 0x6573_5546;
    const OVERLAY: i64 = 0x794C_7630;
    const NINE_P: i64 = 0x0102_1997;
    const CEPH: i64 = 0x00C3_6400;
    rustix::fs::statfs(directory).is_ok_and(|stat| {
        #[allow(
            clippy::useless_conversion,
            reason = "the field's type differs between architectures"
        )]
        let magic = i64::from(stat.f_type);
        [NFS, SMB, SMB2, CIFS, FUSE, OVERLAY, NINE_P, CEPH].contains(&magic)
    })
}
