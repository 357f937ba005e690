//! The supervisor's spool: where there is no room it waits, and with it the process whose output this is.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use inotify::{EventStream, Inotify, WatchMask};
use millstream_proto::v1::Channel;

use crate::outbox::now_unix_us;
use crate::spool::Bound;
use crate::spool::record::Record;
use crate::spool::writer::{Appended, SpoolWriter};

/// How often a full disk is tried again.
const DISK_RETRY: Duration = Duration::from_secs(1);

/// What a process that is over may have left in its pipes: a pipe holds at most this much, unless root made it
/// larger.
const LEFT_IN_PIPES_BYTES: u64 = 1 << 20;

pub(super) struct Spool {
    directory: PathBuf,
    writer: SpoolWriter,
    /// Tells of deleted segments, from the first time on that the spool was full.
    deleted: Option<EventStream<[u8; 1024]>>,
}

impl Spool {
    pub(super) fn open(directory: &Path, bound: Bound) -> io::Result<Self> {
        Ok(Self {
            directory: directory.to_path_buf(),
            writer: SpoolWriter::open(directory.to_path_buf(), bound)?,
            deleted: None,
        })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Appends a chunk, waiting while there is no room. `over`: the process that it came from is; it may go
    /// a little beyond the bound then, rather than keep the end from being written.
    pub(super) async fn append(
        &mut self,
        channel: Channel,
        bytes: &[u8],
        over: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let mut over = pin!(over);
        let (mut rest, mut beyond) = (bytes, 0);
        while !rest.is_empty() {
            let record = Record {
                channel,
                time_unix_us: now_unix_us(),
                bytes: rest,
            };
            match self.writer.append(&record, beyond)? {
                Appended::Written(written) => rest = &rest[written..],
                Appended::DiskFull => tokio::time::sleep(DISK_RETRY).await,
                Appended::Full => tokio::select! {
                    room = self.room() => room?,
                    () = &mut over, if beyond == 0 => beyond = LEFT_IN_PIPES_BYTES,
                },
            }
        }
        Ok(())
    }

    /// Waits until it may be worth trying again.
    async fn room(&mut self) -> io::Result<()> {
        let Some(deleted) = &mut self.deleted else {
            let inotify = Inotify::init()?;
            inotify.watches().add(&self.directory, WatchMask::DELETE)?;
            self.deleted = Some(inotify.into_event_stream([0; 1024])?);
            // One may have been deleted before the watch began.
            return Ok(());
        };
        deleted.next().await.transpose().map(drop)
    }
}
