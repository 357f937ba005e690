//! Opening files that can be followed, and saying in words why one cannot.

use std::fs::File;
use std::io;
use std::path::Path;

use tracing::{info, warn};

/// Opens a file that can be followed. Without blocking: opening a FIFO would wait for its writer.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        let cure = "is a directory; name the files in it, for example with /*.log at the end";
        return Err(io::Error::new(io::ErrorKind::IsADirectory, cure));
    }
    if !metadata.is_file() {
        let cure = "is no regular file; send what comes through a pipe with `millstream-agent pipe`";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, cure));
    }
    let mut magic = [0; 4];
    let known = std::os::unix::fs::FileExt::read_at(&file, &mut magic, 0)?;
    if matches!(
        &magic[..known],
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd] | [0xfd, b'7', b'z', b'X']
    ) {
        let cure = "is compressed; exclude rotated and compressed files (exclude = [\"*.gz\"])";
        return Err(io::Error::new(io::ErrorKind::InvalidData, cure));
    }
    Ok(file)
}

/// Says once that a file cannot be opened, and once that it can again.
#[derive(Default)]
pub(super) struct OpenComplaint {
    said: Option<io::ErrorKind>,
}

impl OpenComplaint {
    pub(super) fn say(&mut self, path: &Path, error: &io::Error) {
        if self.said == Some(error.kind()) {
            return;
        }
        self.said = Some(error.kind());
        let path = path.display();
        match error.kind() {
            io::ErrorKind::NotFound => info!("{path} does not exist; waiting for it"),
            io::ErrorKind::PermissionDenied => warn!(
                "cannot read {path}: permission denied; let the agent's user read it (trying again until it works)"
            ),
            _ => warn!("cannot follow {path}: {error} (trying again until it works)"),
        }
    }

    pub(super) fn over(&mut self, path: &Path) {
        if self.said.take().is_some() {
            info!("{} can be read now", path.display());
        }
    }
}
