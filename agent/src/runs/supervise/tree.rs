//! All processes of a run: signalled, stopped, reaped.

use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions};

use super::super::descendants::{self, Facts};
use super::notices::Notices;
use crate::sources::process::{self, INTERRUPT_WAIT, TERMINATE_WAIT};

/// How often a stopping run is looked at.
const STOP_TICK: Duration = Duration::from_millis(20);

/// The stop ladder over the whole tree: returns when no process of it is left.
/// Each step is told to `notices`.
pub(super) async fn stop(group: Option<Pid>, notices: Option<Notices>) -> io::Result<()> {
    for (rung, name, wait) in [
        (Signal::INT, "SIGINT", INTERRUPT_WAIT),
        (Signal::TERM, "SIGTERM", TERMINATE_WAIT),
        (Signal::KILL, "SIGKILL", STOP_TICK),
    ] {
        let living = living()?.len();
        let then = match rung {
            Signal::KILL => String::new(),
            _ => format!("; {:.1} s to end", wait.as_secs_f64()),
        };
        if let Some(notices) = &notices {
            notices.say(format!("run-stopping: {name} to {living} processes{then}"));
        }
        signal_tree(group, rung)?;
        let until = Instant::now() + wait;
        while Instant::now() < until {
            if is_gone()? {
                return Ok(());
            }
            tokio::time::sleep(STOP_TICK).await;
        }
    }
    // What was born between a look and its signal is found by the next look.
    while !is_gone()? {
        signal_tree(group, Signal::KILL)?;
        tokio::time::sleep(STOP_TICK).await;
    }
    Ok(())
}

/// No process of the run is left.
pub(super) fn is_gone() -> io::Result<bool> {
    Ok(living()?.is_empty())
}

fn living() -> io::Result<Vec<Facts>> {
    let mut all = descendants::all()?;
    all.retain(|facts| !facts.zombie);
    Ok(all)
}

/// Signals the command's group, while it is surely ours.
pub(super) fn signal_group(group: Option<Pid>, signal: Signal) -> io::Result<()> {
    if living()?.iter().any(|facts| is_in(facts, group)) {
        process::signal_group(group, signal);
    }
    Ok(())
}

fn signal_tree(group: Option<Pid>, signal: Signal) -> io::Result<()> {
    signal_group(group, signal)?;
    // Then those that left the group, one by one.
    for facts in living()?.iter().filter(|facts| !is_in(facts, group)) {
        match rustix::process::kill_process(facts.pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn is_in(facts: &Facts, group: Option<Pid>) -> bool {
    group.is_some_and(|group| group.as_raw_nonzero().get() == facts.group)
}

/// Takes the exit status of processes that the command left behind; the command's own is for its waiter.
pub(super) fn reap_orphans(command: Option<Pid>) -> io::Result<()> {
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
