//! One execution of a command, held to its end.

use std::io;
use std::pin::{Pin, pin};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use millstream_proto::v1::Channel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::super::notes::Notes;
use super::super::{CHILD, ChildProcess, Cost, RunLimits, write_whole};
use super::control::{Order, Orders};
use super::notices::{self, Notices};
use super::spool::Spool;
use super::tree;
use super::usage::{self, Usage};
use crate::sources::process::{
    self, CHUNK_BYTES, CommandSpec, ORPHAN_WAIT, PtySize, Running, read_some, sleep_until,
};

const OUTPUT_LEFT_OPEN: &[u8] =
    b"output-left-open: the command exited but a process that it started keeps its \
                                  output open; what that one writes from here on is not read\n";

type Ladder = Option<Pin<Box<dyn Future<Output = io::Result<()>>>>>;

/// One execution.
pub(super) struct Hold<'a> {
    pub(super) command: &'a CommandSpec,
    /// Stands before the output; empty: nothing.
    pub(super) notice: &'a str,
    pub(super) limits: &'a RunLimits,
    /// Each step of a stop stands in the stream.
    pub(super) tells_steps: bool,
}

/// How it went.
pub(super) struct Held {
    pub(super) status: ExitStatus,
    /// Why it was stopped; empty when it was not.
    pub(super) stop_reason: String,
    pub(super) cost: Cost,
}

impl Hold<'_> {
    /// Runs the command with its output in the spool. The inner error: it does not start.
    ///
    /// # Errors
    /// When the spool cannot be written or the system gives no facts on processes.
    pub(super) async fn hold(self, spool: &mut Spool, orders: &mut Orders) -> io::Result<io::Result<Held>> {
        let mut children = signal(SignalKind::child())?;
        let mut running = match process::spawn(self.command) {
            Ok(running) => running,
            Err(error) => return Ok(Err(error)),
        };
        let group = running.group;
        if let Some(group) = group {
            write_whole(spool.directory(), CHILD, &ChildProcess::of(group)?)?;
        }
        if !self.notice.is_empty() {
            let notice = notices::line(self.notice);
            spool
                .append(Channel::Notice, &notice, std::future::pending())
                .await?;
        }
        let mut notes = Notes::of(spool.directory());
        let (notices, mut said) = Notices::new();
        let steps = self.tells_steps.then(|| notices.clone());
        let mut usage = Usage::default();
        let mut stop_reason = String::new();
        let time_limit = self.limits.time.map(|limit| Instant::now() + limit);
        let mut keyboard = Keyboard::new(self.command, &mut running)?;
        let mut ladder: Ladder = None;
        let (mut stopped, mut status) = (false, None);
        let status = {
            let mut pump = pin!(pump(&mut running, spool, &mut said, self.limits.quiet));
            loop {
                if let Some(status) = status {
                    // A stop is over only when the whole tree is gone, also where the command went first.
                    if ladder.is_none() && orders.is_asked() && !tree::is_gone()? {
                        ladder = Some(Box::pin(tree::stop(group, steps.clone())));
                    }
                    if ladder.is_none() || stopped {
                        break status;
                    }
                }
                tokio::select! {
                    order = orders.next() => {
                        if matches!(order, Order::Notes | Order::Stop) {
                            for note in notes.take()? {
                                notices.say(note.text);
                                stop_reason = note.stop_reason.unwrap_or(stop_reason);
                            }
                        }
                        match order {
                            Order::Stop if ladder.is_none() => {
                                ladder = Some(Box::pin(tree::stop(group, steps.clone())));
                            }
                            Order::Signal(signal) => tree::signal_group(group, signal)?,
                            Order::Resize(size) => keyboard.resize(size),
                            Order::Stop | Order::Alone | Order::Notes => {}
                        }
                    }
                    () = sleep_until(time_limit), if time_limit.is_some() && ladder.is_none() && status.is_none() => {
                        let limit = notices::spoken(self.limits.time.unwrap_or_default());
                        stop_reason = format!("stopped: it ran longer than its time limit of {limit}");
                        notices.say(format!("run-stopping: the time limit of {limit} is over"));
                        ladder = Some(Box::pin(tree::stop(group, steps.clone())));
                    }
                    result = climb(&mut ladder), if !stopped => {
                        result?;
                        stopped = true;
                    }
                    ended = &mut pump, if status.is_none() => status = Some(ended?),
                    _ = children.recv() => tree::reap_orphans(group)?,
                    () = keyboard.copy() => {}
                    () = usage.watch() => {}
                }
            }
        };
        // What was said while nobody wrote any more.
        for note in notes.take()? {
            notices.say(note.text);
        }
        while let Ok(notice) = said.try_recv() {
            let notice = notices::line(&notice);
            spool
                .append(Channel::Notice, &notice, std::future::ready(()))
                .await?;
        }
        tree::reap_orphans(group)?;
        let cost = Cost {
            peak_memory_bytes: usage.peak_memory_bytes(),
            cpu_time_us: usage::cpu_time_us(),
        };
        Ok(Ok(Held {
            status,
            stop_reason,
            cost,
        }))
    }
}

async fn climb(ladder: &mut Ladder) -> io::Result<()> {
    match ladder {
        Some(ladder) => ladder.as_mut().await,
        None => std::future::pending().await,
    }
}

/// Takes output until it ends, and the exit status; writes notices where they are said, and that nothing was
/// written for the time `quiet`.
async fn pump(
    running: &mut Running,
    spool: &mut Spool,
    said: &mut mpsc::Receiver<String>,
    quiet: Option<Duration>,
) -> io::Result<ExitStatus> {
    let (mut stdout_buffer, mut stderr_buffer) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    let mut exit = Exit::default();
    let mut last_output = Instant::now();
    let mut next_quiet = quiet;
    while running.stdout.is_some() || running.stderr.is_some() {
        let orphaned = exit.seen.map(|(_, at)| at.max(last_output) + ORPHAN_WAIT);
        let quiet_at = next_quiet.map(|wait| last_output + wait);
        let (channel, read) = tokio::select! {
            read = read_some(&mut running.stdout, &mut stdout_buffer) => (Channel::Stdout, read),
            read = read_some(&mut running.stderr, &mut stderr_buffer) => (Channel::Stderr, read),
            () = exit.wait(&mut running.child), if exit.seen.is_none() => continue,
            () = sleep_until(orphaned), if orphaned.is_some() => {
                spool.append(Channel::Notice, OUTPUT_LEFT_OPEN, std::future::ready(())).await?;
                break;
            }
            Some(notice) = said.recv() => {
                let notice = notices::line(&notice);
                spool.append(Channel::Notice, &notice, exit.wait(&mut running.child)).await?;
                continue;
            }
            () = sleep_until(quiet_at), if quiet_at.is_some() && exit.seen.is_none() => {
                let waited = notices::spoken(last_output.elapsed());
                let notice = notices::line(&format!("no-output: nothing was written for {waited}"));
                spool.append(Channel::Notice, &notice, exit.wait(&mut running.child)).await?;
                next_quiet = next_quiet.map(|wait| wait * 2);
                continue;
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
        spool
            .append(channel, &buffer[..read], exit.wait(&mut running.child))
            .await?;
        last_output = Instant::now();
        next_quiet = quiet;
    }
    match exit.seen {
        Some((status, _)) => Ok(status),
        None => running.child.wait().await,
    }
}

/// The command's exit, seen once.
#[derive(Default)]
struct Exit {
    seen: Option<(ExitStatus, Instant)>,
}

impl Exit {
    /// Returns when it has exited. Safe to drop and call again.
    async fn wait(&mut self, child: &mut Child) {
        if self.seen.is_none() {
            match child.wait().await {
                Ok(status) => self.seen = Some((status, Instant::now())),
                // Who asks for the status at the end gets it.
                Err(_) => std::future::pending().await,
            }
        }
    }
}

/// What is typed at a wrapper comes through standard input, as it is, and goes to the command's pty.
struct Keyboard {
    input: Option<pipe::Receiver>,
    pty: Option<pty_process::OwnedWritePty>,
    /// Read and not written yet.
    waiting: Vec<u8>,
}

impl Keyboard {
    /// Takes standard input away from this process: the command has it, or this one reads it.
    fn new(command: &CommandSpec, running: &mut Running) -> io::Result<Self> {
        // Closing it would hang the command up.
        let pty = running.pty_input.take();
        let typed = pty.is_some() && command.inherit_stdin;
        let input = typed
            .then(|| {
                let input = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
                pipe::Receiver::from_owned_fd(input)
            })
            .transpose()?;
        let nothing = std::fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdin(&nothing)?;
        Ok(Self {
            input,
            pty,
            waiting: Vec::new(),
        })
    }

    fn resize(&self, size: PtySize) {
        if let Some(pty) = &self.pty
            && let Err(error) = pty.resize(pty_process::Size::new(size.rows, size.columns))
        {
            eprintln!("cannot pass on the terminal's size: {error}");
        }
    }

    /// Copies one piece of input; for ever pending when there is none. Safe to drop and call again: what was
    /// read stays until it is written.
    async fn copy(&mut self) {
        let (Some(input), Some(pty)) = (&mut self.input, &mut self.pty) else {
            return std::future::pending().await;
        };
        if self.waiting.is_empty() {
            let mut piece = [0; 4096];
            let read = input.read(&mut piece).await.unwrap_or(0);
            self.waiting.extend_from_slice(&piece[..read]);
            if read == 0 {
                // The wrapper is gone. The command may go on; nobody types any more.
                self.input = None;
                return;
            }
        }
        match pty.write(&self.waiting).await {
            Ok(written) => {
                self.waiting.drain(..written);
            }
            // The command does not read any more.
            Err(_) => self.input = None,
        }
    }
}
