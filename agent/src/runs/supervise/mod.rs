//! The process that holds one run: reads the command's output (or standard input) into the spool, climbs the
//! stop ladder when it gets SIGTERM, and writes how it ended. It knows nothing of relays or lines, and it needs
//! no agent.
//!
//! It is in a session of its own, so that nothing meant for the agent reaches it, and a child subreaper, so that
//! no process of the run can leave it. [`command`] holds one execution, [`tree`] stops all that belongs to it,
//! [`spool`] waits where there is no room, [`usage`] sees what it costs, [`notices`]
//! is what it has to say in the stream itself, [`control`] is how a wrapper passes on signals and keys.

mod command;
mod control;
mod notices;
mod spool;
mod tree;
mod usage;

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;

pub use control::Control;

use super::{
    CHILD, DESCRIPTION, Description, END, End, How, Kept, PID, RunLimits, Work, read_whole, write_whole,
};
use crate::backoff::Backoff;
use crate::sources::process::{self, CHUNK_BYTES, CommandSpec};
use command::Hold;
use control::{Order, Orders};
use millstream_proto::v1::Channel;
use spool::Spool;

/// Waits before a kept command is executed again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// One that ran this long ended for a new reason.
const STEADY: Duration = Duration::from_secs(60);

/// Holds the run in `directory` to its end. `controlled`: standard output is a [`Control`].
///
/// # Errors
/// When the directory or the spool cannot be used.
pub async fn run(directory: &Path, controlled: bool) -> io::Result<()> {
    // Standard error holds the lock, see `RunDir::start_supervisor`; nothing inherits it.
    rustix::process::setsid()?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let mut orders = Orders::new(controlled)?;
    let pid = rustix::process::getpid().as_raw_nonzero();
    std::fs::write(directory.join(PID), format!("{pid}\n"))?;
    let description: Description = read_whole(directory, DESCRIPTION)?
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no run.json"))?;
    let mut spool = Spool::open(directory, description.spool)?;
    let end = match &description.work {
        Work::Command(command) => run_once(command, &description, &mut spool, &mut orders).await?,
        Work::Input => End::now(take_input(&mut spool, &mut orders).await?),
        Work::Kept(kept) => End::now(keep(kept, &mut spool, &mut orders).await?),
    };
    write_whole(directory, END, &end)
}

async fn run_once(
    command: &CommandSpec,
    description: &Description,
    spool: &mut Spool,
    orders: &mut Orders,
) -> io::Result<End> {
    use std::os::unix::process::ExitStatusExt;
    let began = Instant::now();
    let hold = Hold {
        command,
        notice: &said_at_start(command, description),
        limits: &description.limits,
        tells_steps: true,
    };
    let held = match hold.hold(spool, orders).await? {
        Ok(held) => held,
        Err(error) => {
            return Ok(End::now(How::StartFailed {
                message: process::explain_spawn_error(command, &error),
                not_found: error.kind() == io::ErrorKind::NotFound,
            }));
        }
    };
    let how = How::Exited {
        code: held.status.code(),
        signal: held.status.signal(),
    };
    let notice = format!(
        "run-ended: {} after {}{}",
        held.status,
        notices::spoken(began.elapsed()),
        notices::spoken_cost(held.cost)
    );
    let notice = notices::line(&notice);
    spool
        .append(Channel::Notice, &notice, std::future::ready(()))
        .await?;
    Ok(End {
        message: held.stop_reason,
        cost: held.cost,
        ..End::now(how)
    })
}

/// What runs, where, by whom and why.
fn said_at_start(command: &CommandSpec, description: &Description) -> String {
    let Description {
        cwd,
        started_by,
        reason,
        ..
    } = description;
    let why = if reason.is_empty() {
        String::new()
    } else {
        format!(" ({reason})")
    };
    format!("run-started: {:?} in {cwd}, by {started_by}{why}", command.argv)
}

async fn take_input(spool: &mut Spool, orders: &mut Orders) -> io::Result<How> {
    let mut input = tokio::io::stdin();
    let mut buffer = vec![0; CHUNK_BYTES];
    while !orders.is_stopping() && !orders.is_asked() {
        let read = tokio::select! {
            read = input.read(&mut buffer) => read,
            order = orders.next() => {
                // Whoever uses the terminal next types for somebody else.
                if order == Order::Alone && io::stdin().is_terminal() {
                    break;
                }
                continue;
            }
        };
        match read {
            Ok(0) => return Ok(How::EndOfInput),
            Ok(read) => {
                let over = orders.stop_asked();
                spool.append(Channel::Stdout, &buffer[..read], over).await?;
            }
            Err(error) => {
                let message = format!("standard input cannot be read: {error}");
                return Ok(How::InputFailed { message });
            }
        }
    }
    Ok(How::Stopped)
}

/// Executes a command again and again until it is told to stop.
async fn keep(kept: &Kept, spool: &mut Spool, orders: &mut Orders) -> io::Result<How> {
    let mut backoff = Backoff::new(AGAIN.0, AGAIN.1);
    let is_first = !spool.directory().join(CHILD).exists();
    let mut first = kept.first.as_ref().filter(|_| is_first);
    let mut complaint = String::new();
    loop {
        let began = Instant::now();
        let (command, notice) = match first.take() {
            Some(first) => (first, None),
            None => (&kept.again, Some(&kept.notice)),
        };
        let hold = Hold {
            command,
            notice: notice.map_or("", String::as_str),
            limits: &RunLimits::default(),
            tells_steps: false,
        };
        let words = match hold.hold(spool, orders).await? {
            Ok(held) => format!("{} ended ({}); starting it again\n", command.argv[0], held.status),
            Err(error) => {
                first = notice.is_none().then_some(command);
                format!(
                    "{}; trying again\n",
                    process::explain_spawn_error(command, &error)
                )
            }
        };
        if orders.is_stopping() {
            return Ok(How::Stopped);
        }
        if words != complaint {
            spool
                .append(Channel::Stderr, words.as_bytes(), std::future::pending())
                .await?;
            complaint = words;
        }
        if began.elapsed() >= STEADY {
            backoff.reset();
            complaint.clear();
        }
        tokio::select! {
            () = orders.stop_asked() => return Ok(How::Stopped),
            () = tokio::time::sleep(backoff.next_wait()) => {}
        }
    }
}
