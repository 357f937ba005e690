//! What tells the follower of a run's directory that there is more: its files, and the end of its supervisor.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use futures_util::StreamExt;
use inotify::{EventStream, Inotify, WatchMask};
use rustix::process::{Pid, PidfdFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::RunDir;

/// A supervisor that holds its lock writes its process id within moments.
const PID_TICK: Duration = Duration::from_millis(20);

pub(super) struct Watch {
    events: EventStream<Vec<u8>>,
    /// `None` when there is no living supervisor.
    supervisor: Option<AsyncFd<OwnedFd>>,
}

impl Watch {
    pub(super) async fn new(run: &RunDir) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let mask = WatchMask::CREATE | WatchMask::MODIFY | WatchMask::MOVED_TO;
        inotify.watches().add(&run.path, mask)?;
        Ok(Self {
            events: inotify.into_event_stream(vec![0; 4096])?,
            supervisor: supervisor_handle(run).await?,
        })
    }

    pub(super) fn is_supervised(&self) -> bool {
        self.supervisor.is_some()
    }

    /// Waits until something was written, or the supervisor is gone. Safe to drop and call again.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        tokio::select! {
            event = self.events.next() => event.transpose().map(drop),
            () = ended(&self.supervisor) => {
                self.supervisor = None;
                Ok(())
            }
        }
    }

    /// Waits until the supervisor is gone.
    pub(super) async fn gone(&mut self) {
        if self.supervisor.is_some() {
            ended(&self.supervisor).await;
            self.supervisor = None;
        }
    }
}

/// Pending when there is none.
async fn ended(supervisor: &Option<AsyncFd<OwnedFd>>) {
    match supervisor {
        Some(handle) => {
            // An error means as much as readiness: look what is there.
            let _ = handle.readable().await;
        }
        None => std::future::pending().await,
    }
}

/// Process id of the run's supervisor; `None` when it does not live.
pub(super) async fn supervisor_of(run: &RunDir) -> io::Result<Option<Pid>> {
    while run.is_supervised()? {
        if let Some(pid) = run.supervisor() {
            return Ok(Some(pid));
        }
        tokio::time::sleep(PID_TICK).await;
    }
    Ok(None)
}

#[expect(
    deprecated,
    reason = "it is unsound for types whose descriptor may change; an OwnedFd's does not"
)]
/// Readable once the run's supervisor has ended; `None` when it has already.
async fn supervisor_handle(run: &RunDir) -> io::Result<Option<AsyncFd<OwnedFd>>> {
    let Some(pid) = supervisor_of(run).await? else {
        return Ok(None);
    };
    match rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK) {
        // Still the holder of the lock after the number was turned into a handle: it is the same process.
        Ok(handle) if run.is_supervised()? => Ok(Some(AsyncFd::with_interest(handle, Interest::READABLE)?)),
        Ok(_) | Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
