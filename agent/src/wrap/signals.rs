//! The signals that a wrapper gets.

use std::io;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

pub(super) enum Received {
    /// The command is asked to stop, by this signal.
    Stop(Signal),
    /// The terminal has another size.
    Resized,
}

pub(super) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
    resized: tokio::signal::unix::Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            resized: signal(SignalKind::window_change())?,
        })
    }

    /// The next one. Safe to drop and call again.
    pub(super) async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.interrupt.recv() => Received::Stop(Signal::INT),
            _ = self.terminate.recv() => Received::Stop(Signal::TERM),
            _ = self.hang_up.recv() => Received::Stop(Signal::HUP),
            _ = self.quit.recv() => Received::Stop(Signal::QUIT),
            _ = self.resized.recv() => Received::Resized,
        }
    }

    pub(super) async fn asked_to_stop(&mut self) {
        while matches!(self.next().await, Received::Resized) {}
    }
}
