//! One path followed for ever: reads what is new, notices rotation, truncation and deletion, and after a
//! restart finds the place where the relay's store ends. One task a path; it sleeps while nothing happens.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::{info, warn};

use super::FileSettings;
use super::checkpoint::Checkpoint;
use super::identity::Identity;
use super::reader::FileReader;
use crate::backoff::Backoff;
use crate::outbox::{Opened, StreamWriter, WriteError};
use crate::sources::Start;

/// How often a file that lost its name is looked at; nothing else tells of writes to it.
const NAMELESS_TICK: Duration = Duration::from_millis(100);

pub(super) struct Follower {
    pub(super) path: PathBuf,
    pub(super) writer: StreamWriter,
    pub(super) wake: Arc<Notify>,
    pub(super) settings: Arc<FileSettings>,
    /// It was there when the source started.
    pub(super) present_at_start: bool,
}

/// Why the reading of one file is over.
enum Finished {
    /// Another file has the path.
    Replaced,
    /// It is deleted and read to its end.
    Gone,
}

impl Follower {
    /// Runs until the relay refuses the stream; the caller cancels by dropping.
    pub(super) async fn run(self) {
        let path = self.path.display();
        let mut opened = self.writer.opened().await;
        loop {
            let position = match opened {
                Ok(position) => position,
                Err(WriteError::Rewound(position)) => {
                    warn!(
                        "{path}: the relay's store ends at s{}; reading again from there",
                        position.next_sequence
                    );
                    position
                }
                Err(WriteError::Refused(reason)) => {
                    warn!("{path} is not followed any more: the relay refuses its stream: {reason}");
                    return;
                }
            };
            opened = Err(self.follow(&position).await);
        }
    }

    async fn follow(&self, position: &Opened) -> WriteError {
        let mut reader = match self.resume(position).await {
            Ok(reader) => reader,
            Err(error) => return error,
        };
        loop {
            let finished = match self.read_for_ever(&mut reader).await {
                Ok(finished) => finished,
                Err(error) => return error,
            };
            match finished {
                Finished::Replaced => {
                    info!("{} was rotated; going on with the new file", self.path.display());
                }
                Finished::Gone => info!("{} was deleted; waiting for a new file", self.path.display()),
            }
            reader = match self.open_when_possible().await {
                Ok(file) => reader.next_file(file),
                Err(error) => return error,
            };
        }
    }

    /// Finds the place to go on from.
    async fn resume(&self, position: &Opened) -> Result<FileReader, WriteError> {
        let checkpoint = match Checkpoint::decode(&position.checkpoint) {
            Ok(Some(checkpoint)) => checkpoint,
            Ok(None) => return self.begin(position.next_sequence).await,
            Err(error) => {
                let text = format!(
                    "checkpoint-unreadable: {error}; reading {} from its start, lines may be repeated",
                    self.path.display()
                );
                self.writer.notice(&text, None).await?;
                return self.begin(1).await;
            }
        };
        let mut complaint = OpenComplaint::default();
        let mut backoff = retry_backoff();
        loop {
            match open_regular(&self.path) {
                Ok(file) if checkpoint.identity.matches(&file).unwrap_or(false) => {
                    return self.reader_at(file, &checkpoint).await;
                }
                Ok(file) => {
                    if let Some(rotated) = find_rotated(&self.path, &checkpoint) {
                        info!(
                            "{} was rotated while the agent was away; finishing the old file",
                            self.path.display()
                        );
                        return self.reader_at(rotated, &checkpoint).await;
                    }
                    return self.start_over(file, &checkpoint).await;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if let Some(rotated) = find_rotated(&self.path, &checkpoint) {
                        return self.reader_at(rotated, &checkpoint).await;
                    }
                    complaint.say(&self.path, &error);
                }
                Err(error) => complaint.say(&self.path, &error),
            }
            self.wait_for_path(&mut backoff).await?;
        }
    }

    /// The file that the checkpoint names cannot be found: says so, and reads the current one.
    async fn start_over(&self, file: File, checkpoint: &Checkpoint) -> Result<FileReader, WriteError> {
        let path = self.path.display();
        let same_inode = file
            .metadata()
            .is_ok_and(|metadata| checkpoint.identity.same_inode(&metadata));
        let text = if same_inode {
            format!("file-truncated: {path} was truncated and written anew; reading from its start")
        } else {
            format!(
                "file-replaced: {path} is another file than before and the old one, read up to byte {}, cannot be \
                 found; reading the new one from its start",
                checkpoint.offset
            )
        };
        let mut reader = FileReader::new(file, 0);
        reader.line_continues = checkpoint.line_continues;
        self.writer.notice(&text, reader.checkpoint()).await?;
        Ok(reader)
    }

    async fn reader_at(&self, file: File, checkpoint: &Checkpoint) -> Result<FileReader, WriteError> {
        let mut reader = FileReader::new(file, checkpoint.offset);
        reader.line_continues = checkpoint.line_continues;
        if reader.size() < checkpoint.offset {
            self.restart_generation(&mut reader).await?;
        }
        Ok(reader)
    }

    /// No checkpoint: a stream without a line, or one whose store lost its checkpoint.
    async fn begin(&self, next_sequence: u64) -> Result<FileReader, WriteError> {
        let at_end = self.settings.start == Start::End && self.present_at_start && next_sequence == 0;
        if at_end && let Ok(file) = open_regular(&self.path) {
            let size = file.metadata().map_or(0, |metadata| metadata.len());
            let reader = FileReader::new(file, size);
            if size > 0 {
                let path = self.path.display();
                let text =
                    format!("file-start: {path} is read from byte {size}, where it ended at first sight");
                self.writer.notice(&text, reader.checkpoint()).await?;
            }
            return Ok(reader);
        }
        let file = self.open_when_possible().await?;
        Ok(FileReader::new(file, 0))
    }

    /// Reads what is there and what comes, until the file is over.
    async fn read_for_ever(&self, reader: &mut FileReader) -> Result<Finished, WriteError> {
        // Since when the path names another file or none, and nothing was read.
        let mut nameless_since: Option<Instant> = None;
        let mut complained = false;
        loop {
            if reader.was_truncated() {
                self.restart_generation(reader).await?;
            }
            let before = Instant::now();
            let progress = match reader.read_available(&self.writer).await? {
                Ok(progress) => progress,
                Err(error) => {
                    if !complained {
                        warn!("cannot read {}: {error}; trying again", self.path.display());
                        complained = true;
                    }
                    false
                }
            };
            if progress {
                nameless_since = nameless_since.map(|_| before);
            }
            let name = std::fs::metadata(&self.path).ok();
            match self.look_at_name(reader, name.as_ref()) {
                Name::Ours => nameless_since = None,
                Name::Lost => {
                    nameless_since.get_or_insert(before);
                }
                Name::Other | Name::Deleted if nameless_since.is_none() => nameless_since = Some(before),
                ended @ (Name::Other | Name::Deleted) => {
                    let quiet =
                        nameless_since.is_some_and(|since| since.elapsed() >= self.settings.rotate_wait);
                    if quiet && !progress {
                        reader.send_open_line(&self.writer).await?;
                        let replaced = matches!(ended, Name::Other);
                        return Ok(if replaced {
                            Finished::Replaced
                        } else {
                            Finished::Gone
                        });
                    }
                }
            }
            self.wait_for_change(reader, nameless_since.is_some()).await?;
        }
    }

    fn look_at_name(&self, reader: &FileReader, name: Option<&Metadata>) -> Name {
        match name {
            Some(metadata) if reader.identity.same_inode(metadata) => Name::Ours,
            Some(metadata) if metadata.is_file() => Name::Other,
            _ if reader.is_deleted() => Name::Deleted,
            _ => Name::Lost,
        }
    }

    async fn wait_for_change(&self, reader: &mut FileReader, nameless: bool) -> Result<(), WriteError> {
        reader.rest();
        let open_line_due = reader.open_line_due();
        tokio::select! {
            () = self.wake.notified() => {}
            error = self.writer.disturbed() => return Err(error),
            () = tokio::time::sleep(NAMELESS_TICK), if nameless => {}
            () = sleep_until(open_line_due), if open_line_due.is_some() => {
                reader.send_open_line(&self.writer).await?;
            }
        }
        Ok(())
    }

    /// The file was cut: says so and reads it from its start.
    async fn restart_generation(&self, reader: &mut FileReader) -> Result<(), WriteError> {
        reader.send_open_line(&self.writer).await?;
        let (was, size) = (reader.offset(), reader.size());
        reader.rewind();
        let path = self.path.display();
        let text = if size < was {
            format!("file-truncated: {path} shrank from {was} to {size} bytes; reading from its start")
        } else {
            format!("file-truncated: {path} was truncated and written anew; reading from its start")
        };
        self.writer.notice(&text, reader.checkpoint()).await
    }

    async fn open_when_possible(&self) -> Result<File, WriteError> {
        let mut complaint = OpenComplaint::default();
        let mut backoff = retry_backoff();
        loop {
            match open_regular(&self.path) {
                Ok(file) => {
                    complaint.over(&self.path);
                    return Ok(file);
                }
                Err(error) => complaint.say(&self.path, &error),
            }
            self.wait_for_path(&mut backoff).await?;
        }
    }

    async fn wait_for_path(&self, backoff: &mut Backoff) -> Result<(), WriteError> {
        tokio::select! {
            () = self.wake.notified() => Ok(()),
            () = tokio::time::sleep(backoff.next_wait()) => Ok(()),
            error = self.writer.disturbed() => Err(error),
        }
    }
}

/// What the path names now.
enum Name {
    Ours,
    /// Another file.
    Other,
    /// Nothing (or no file), and the open file has no name left at all.
    Deleted,
    /// Nothing, but the open file was only renamed: whoever writes it may go on.
    Lost,
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at.into()).await;
    }
}

fn retry_backoff() -> Backoff {
    Backoff::new(Duration::from_millis(250), Duration::from_secs(10))
}

/// Opens a file that can be followed. Without blocking: opening a FIFO would wait for its writer.
fn open_regular(path: &Path) -> io::Result<File> {
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

/// Looks in the path's directory for the file that the checkpoint names, under whatever name.
fn find_rotated(path: &Path, checkpoint: &Checkpoint) -> Option<File> {
    // Where a symbolic link points, its target's directory is where rotation happens.
    let canonical = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let mut directories: Vec<&Path> = [path.parent(), canonical.parent()]
        .into_iter()
        .flatten()
        .collect();
    directories.dedup();
    directories.into_iter().find_map(|directory| {
        std::fs::read_dir(directory)
            .ok()?
            .filter_map(Result::ok)
            .find_map(|entry| {
                let metadata = entry.metadata().ok()?;
                if !metadata.is_file() || !checkpoint.identity.same_inode(&metadata) {
                    return None;
                }
                let file = open_regular(&entry.path()).ok()?;
                let found = checkpoint.identity.matches(&file).ok()? && metadata.size() >= checkpoint.offset;
                found.then_some(file)
            })
    })
}

/// Says once that a file cannot be opened, and once that it can again.
#[derive(Default)]
struct OpenComplaint {
    said: Option<io::ErrorKind>,
}

impl OpenComplaint {
    fn say(&mut self, path: &Path, error: &io::Error) {
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

    fn over(&mut self, path: &Path) {
        if self.said.take().is_some() {
            info!("{} can be read now", path.display());
        }
    }
}

/// For the reader: identity of a file that was just opened, or one that never matches when it cannot be had.
pub(super) fn identity_or_unknown(file: &File) -> Identity {
    Identity::of(file).unwrap_or(Identity {
        device: 0,
        inode: 0,
        fingerprint: super::identity::Fingerprint::default(),
    })
}
