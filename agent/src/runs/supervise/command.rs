//! One execution of a command, held to its end.

use std::io;
use std::pin::{Pin, pin};
use std::process::ExitStatus;
use std::time::Instant;

use millstream_proto::v1::Channel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};

use super::super::{CHILD, ChildProcess, write_whole};
use super::control::{Order, Orders};
use super::spool::Spool;
use super::tree;
use crate::sources::process::{
    self, CHUNK_BYTES, CommandSpec, ORPHAN_WAIT, PtySize, Running, read_some, sleep_until,
};

const OUTPUT_LEFT_OPEN: &[u8] =
    b"output-left-open: the command exited but a process that it started keeps its \
                                  output open; what that one writes from here on is not read\n";

type Ladder = Option<Pin<Box<dyn Future<Output = io::Result<()>>>>>;

/// Runs a command with its output in the spool, behind `notice`. The inner error: it does not start.
///
/// # Errors
/// When the spool cannot be written or the system gives no facts on processes.
pub(super) async fn hold(
    command: &CommandSpec,
    notice: Option<&[u8]>,
    spool: &mut Spool,
    orders: &mut Orders,
) -> io::Result<io::Result<ExitStatus>> {
    let mut children = signal(SignalKind::child())?;
    let mut running = match process::spawn(command) {
        Ok(running) => running,
        Err(error) => return Ok(Err(error)),
    };
    let group = running.group;
    if let Some(group) = group {
        write_whole(spool.directory(), CHILD, &ChildProcess::of(group)?)?;
    }
    if let Some(notice) = notice {
        spool
            .append(Channel::Notice, notice, std::future::pending())
            .await?;
    }
    let mut keyboard = Keyboard::new(command, &mut running)?;
    let mut pump = pin!(pump(&mut running, spool));
    let mut ladder: Ladder = None;
    let (mut stopped, mut status) = (false, None);
    loop {
        if let Some(status) = status {
            // A stop is over only when the whole tree is gone, also where the command went first.
            if ladder.is_none() && orders.is_asked() && !tree::is_gone()? {
                ladder = Some(Box::pin(tree::stop(group)));
            }
            if ladder.is_none() || stopped {
                return Ok(Ok(status));
            }
        }
        tokio::select! {
            order = orders.next() => match order {
                Order::Stop if ladder.is_none() => ladder = Some(Box::pin(tree::stop(group))),
                Order::Signal(signal) => tree::signal_group(group, signal)?,
                Order::Resize(size) => keyboard.resize(size),
                Order::Stop | Order::Alone => {}
            },
            result = climb(&mut ladder), if !stopped => {
                result?;
                stopped = true;
            }
            ended = &mut pump, if status.is_none() => status = Some(ended?),
            _ = children.recv() => tree::reap_orphans(group)?,
            () = keyboard.copy() => {}
        }
    }
}

async fn climb(ladder: &mut Ladder) -> io::Result<()> {
    match ladder {
        Some(ladder) => ladder.as_mut().await,
        None => std::future::pending().await,
    }
}

/// Takes output until it ends, and the exit status.
async fn pump(running: &mut Running, spool: &mut Spool) -> io::Result<ExitStatus> {
    let (mut stdout_buffer, mut stderr_buffer) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    let mut exit = Exit::default();
    let mut last_output = Instant::now();
    while running.stdout.is_some() || running.stderr.is_some() {
        let orphaned = exit.seen.map(|(_, at)| at.max(last_output) + ORPHAN_WAIT);
        let (channel, read) = tokio::select! {
            read = read_some(&mut running.stdout, &mut stdout_buffer) => (Channel::Stdout, read),
            read = read_some(&mut running.stderr, &mut stderr_buffer) => (Channel::Stderr, read),
            () = exit.wait(&mut running.child), if exit.seen.is_none() => continue,
            () = sleep_until(orphaned), if orphaned.is_some() => {
                spool.append(Channel::Notice, OUTPUT_LEFT_OPEN, std::future::ready(())).await?;
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
        spool
            .append(channel, &buffer[..read], exit.wait(&mut running.child))
            .await?;
        last_output = Instant::now();
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
