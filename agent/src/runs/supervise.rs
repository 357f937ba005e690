//! The process that holds one run: reads the command's output into the spool, climbs the stop ladder when it
//! gets SIGTERM, and writes how the command ended. It knows nothing of relays or lines, and it needs no agent.
//!
//! It is in a session of its own, so that nothing meant for the agent reaches it, and a child subreaper, so that
//! no process of the run can leave it. When the spool is full it stops reading: the command's pipe blocks.

use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use inotify::{Inotify, WatchMask};
use millstream_proto::v1::Channel;
use rustix::process::{Pid, Signal, WaitOptions};
use tokio::signal::unix::{SignalKind, signal};

use super::{CHILD, ChildProcess, Description, END, End, LOCK, descendants, read_whole, write_whole};
use crate::outbox::now_unix_us;
use crate::sources::process::{
    self, CHUNK_BYTES, INTERRUPT_WAIT, ORPHAN_WAIT, Running, TERMINATE_WAIT, read_some, sleep_until,
};
use crate::spool::record::Record;
use crate::spool::writer::{Appended, SpoolWriter};

/// How often a full disk is tried again.
const DISK_RETRY: Duration = Duration::from_secs(1);

/// How often a stopping run is looked at.
const STOP_TICK: Duration = Duration::from_millis(20);

const OUTPUT_LEFT_OPEN: &[u8] =
    b"output-left-open: the command exited but a process that it started keeps its \
                              output open; what that one writes from here on is not read\n";

/// Holds the run in `directory` to its end.
///
/// # Errors
/// When the directory or the spool cannot be used.
pub async fn run(directory: &Path) -> io::Result<()> {
    // Standard input holds the lock, see `Runs::start`; the command gets an empty one.
    rustix::process::setsid()?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut children = signal(SignalKind::child())?;
    let pid = rustix::process::getpid().as_raw_nonzero();
    std::fs::OpenOptions::new()
        .write(true)
        .open(directory.join(LOCK))?
        .write_all(format!("{pid}\n").as_bytes())?;
    let description: Description = read_whole(directory, super::DESCRIPTION)?
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no run.json"))?;
    let mut running = match process::spawn(&description.command) {
        Ok(running) => running,
        Err(error) => {
            let message = process::explain_spawn_error(&description.command, &error);
            return write_whole(directory, END, &end(None, Some(message)));
        }
    };
    let group = running.group;
    if let Some(group) = group {
        write_whole(directory, CHILD, &ChildProcess::of(group)?)?;
    }
    let mut spool = Spool {
        directory: directory.to_path_buf(),
        writer: SpoolWriter::new(directory.to_path_buf(), description.spool_max_bytes),
    };
    let mut pump = pin!(pump(&mut running, &mut spool));
    let mut ladder = None;
    let (mut stopped, mut status) = (false, None);
    // A stop is over only when the whole tree is gone, also where the command went first.
    let status = loop {
        if let Some(status) = status
            && (ladder.is_none() || stopped)
        {
            break status;
        }
        tokio::select! {
            _ = terminate.recv(), if ladder.is_none() => ladder = Some(Box::pin(stop(group))),
            result = climb(&mut ladder), if !stopped => {
                result?;
                stopped = true;
            }
            ended = &mut pump, if status.is_none() => status = Some(ended?),
            _ = children.recv() => reap_orphans(group)?,
        }
    };
    write_whole(directory, END, &end(Some(status), None))
}

fn end(status: Option<ExitStatus>, start_failed: Option<String>) -> End {
    End {
        exit_code: status.and_then(|status| status.code()),
        signal: status.and_then(|status| status.signal()),
        start_failed,
        end_unix_us: now_unix_us(),
    }
}

async fn climb(ladder: &mut Option<Pin<Box<impl Future<Output = io::Result<()>>>>>) -> io::Result<()> {
    match ladder {
        Some(ladder) => ladder.as_mut().await,
        None => std::future::pending().await,
    }
}

/// The stop ladder over the whole tree: returns when no process of it is left.
async fn stop(group: Option<Pid>) -> io::Result<()> {
    for (rung, wait) in [
        (Signal::INT, INTERRUPT_WAIT),
        (Signal::TERM, TERMINATE_WAIT),
        (Signal::KILL, STOP_TICK),
    ] {
        signal_tree(group, rung)?;
        let until = Instant::now() + wait;
        while Instant::now() < until {
            if living()?.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(STOP_TICK).await;
        }
    }
    // What was born between a look and its signal is found by the next look.
    while !living()?.is_empty() {
        signal_tree(group, Signal::KILL)?;
        tokio::time::sleep(STOP_TICK).await;
    }
    Ok(())
}

fn living() -> io::Result<Vec<descendants::Facts>> {
    let mut all = descendants::all()?;
    all.retain(|facts| !facts.zombie);
    Ok(all)
}

fn signal_tree(group: Option<Pid>, signal: Signal) -> io::Result<()> {
    let group_id = group.map(|group| group.as_raw_nonzero().get());
    let living = living()?;
    let in_group = |facts: &descendants::Facts| Some(facts.group) == group_id;
    // The group at once, while it is surely ours; then those that left it, one by one.
    if living.iter().any(in_group) {
        process::signal_group(group, signal);
    }
    for facts in living.iter().filter(|facts| !in_group(facts)) {
        match rustix::process::kill_process(facts.pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Takes the exit status of processes that the command left behind; the command's own is for its waiter.
fn reap_orphans(command: Option<Pid>) -> io::Result<()> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    for facts in descendants::all()? {
        if facts.zombie && facts.parent == own && Some(facts.pid) != command {
            match rustix::process::waitpid(Some(facts.pid), WaitOptions::NOHANG) {
                Ok(_) | Err(rustix::io::Errno::CHILD) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

struct Spool {
    directory: PathBuf,
    writer: SpoolWriter,
}

impl Spool {
    /// Appends a chunk, waiting while there is no room.
    async fn append(&mut self, channel: Channel, bytes: &[u8]) -> io::Result<()> {
        let record = Record {
            channel,
            time_unix_us: now_unix_us(),
            bytes,
        };
        loop {
            match self.writer.append(&record)? {
                Appended::Written => return Ok(()),
                Appended::DiskFull => tokio::time::sleep(DISK_RETRY).await,
                Appended::Full => {
                    let inotify = Inotify::init()?;
                    inotify.watches().add(&self.directory, WatchMask::DELETE)?;
                    let mut deleted = inotify.into_event_stream([0; 1024])?;
                    // One may have been deleted before the watch began.
                    if self.writer.append(&record)? == Appended::Written {
                        return Ok(());
                    }
                    deleted.next().await.transpose()?;
                }
            }
        }
    }
}

/// Takes output until it ends, and the exit status.
async fn pump(running: &mut Running, spool: &mut Spool) -> io::Result<ExitStatus> {
    let (mut stdout_buffer, mut stderr_buffer) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    let mut exited: Option<(ExitStatus, Instant)> = None;
    let mut last_output = Instant::now();
    while running.stdout.is_some() || running.stderr.is_some() {
        let orphaned = exited.map(|(_, at)| at.max(last_output) + ORPHAN_WAIT);
        let (channel, read) = tokio::select! {
            read = read_some(&mut running.stdout, &mut stdout_buffer) => (Channel::Stdout, read),
            read = read_some(&mut running.stderr, &mut stderr_buffer) => (Channel::Stderr, read),
            status = running.child.wait(), if exited.is_none() => {
                exited = Some((status?, Instant::now()));
                continue;
            }
            () = sleep_until(orphaned), if orphaned.is_some() => {
                spool.append(Channel::Notice, OUTPUT_LEFT_OPEN).await?;
                break;
            }
        };
        let (source, buffer) = if channel == Channel::Stderr {
            (&mut running.stderr, &stderr_buffer)
        } else {
            (&mut running.stdout, &stdout_buffer)
        };
        if read == 0 {
            *source = None;
            continue;
        }
        spool.append(channel, &buffer[..read]).await?;
        last_output = Instant::now();
    }
    match exited {
        Some((status, _)) => Ok(status),
        None => running.child.wait().await,
    }
}
