//! The virtual network: hosts by name, connections between them, and what goes wrong with both.
//!
//! Nothing arrives before its latency is over, nothing overtakes, and a link that is blocked keeps what is on the
//! way until it is free again, as TCP does. [`connection`] is one connection; this file knows which there are.

mod connection;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use connection::Connection;
pub(crate) use connection::End;

use crate::dice::Dice;
use crate::trace::Trace;

/// Longest virtual time that a dialler waits for an answer; the dialler's own limit is shorter.
const UNANSWERED: Duration = Duration::from_secs(120);

/// How a host stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// Its kernel closes its connections.
    Killed,
    /// Nothing is heard of it; after it is back it resets connections that it does not know.
    PowerCut,
}

/// What a link does, in one direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) latency: Duration,
    /// `None`: as fast as you like.
    pub(crate) bytes_per_ms: Option<u64>,
    /// Nothing passes.
    pub(crate) is_blocked: bool,
    /// But connections are made all the same, as by a kernel whose process hangs.
    pub(crate) still_connects: bool,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(1),
            bytes_per_ms: None,
            is_blocked: false,
            still_connects: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    Up,
    /// Refuses.
    Down,
    /// Says nothing.
    Dark,
}

/// The network. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Net {
    state: Arc<Mutex<State>>,
    /// Something changed that a dialler may wait for.
    changed: Arc<Notify>,
    dice: Dice,
    trace: Trace,
}

#[derive(Debug, Default)]
struct State {
    hosts: BTreeMap<String, Host>,
    listeners: BTreeMap<String, mpsc::UnboundedSender<io::Result<End>>>,
    links: BTreeMap<(String, String), Link>,
    connections: Vec<Arc<Connection>>,
    made: u64,
    /// The next connections from these hosts are reset after so many bytes.
    cuts: BTreeMap<String, u64>,
}

impl Net {
    pub(crate) fn new(dice: Dice, trace: Trace) -> Self {
        Self {
            state: Arc::default(),
            changed: Arc::default(),
            dice,
            trace,
        }
    }

    /// Makes the host reachable; connections to it come out of the receiver. The channel is unbounded because
    /// the diallers are few.
    pub(crate) fn listen(&self, host: &str) -> mpsc::UnboundedReceiver<io::Result<End>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.lock().listeners.insert(host.to_owned(), sender);
        self.up(host);
        receiver
    }

    /// Takes no new connections.
    pub(crate) fn stop_listening(&self, host: &str) {
        self.lock().listeners.remove(host);
    }

    /// The host runs (again).
    pub(crate) fn up(&self, host: &str) {
        let mut state = self.lock();
        state.hosts.insert(host.to_owned(), Host::Up);
        for connection in &state.connections {
            connection.came_back(host);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    pub(crate) fn down(&self, host: &str, death: Death) {
        let mut state = self.lock();
        let now = match death {
            Death::Killed => Host::Down,
            Death::PowerCut => Host::Dark,
        };
        state.hosts.insert(host.to_owned(), now);
        state.listeners.remove(host);
        for connection in &state.connections {
            connection.died(host, death);
        }
    }

    /// Sets one direction of a link, also for connections that exist.
    pub(crate) fn set_link(&self, from: &str, to: &str, link: Link) {
        let mut state = self.lock();
        state.links.insert((from.to_owned(), to.to_owned()), link);
        for connection in &state.connections {
            connection.set_link(from, to, link);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    pub(crate) fn link(&self, from: &str, to: &str) -> Link {
        let links = &self.lock().links;
        links
            .get(&(from.to_owned(), to.to_owned()))
            .copied()
            .unwrap_or_default()
    }

    /// Resets the connections between two hosts.
    pub(crate) fn reset(&self, a: &str, b: &str) {
        for connection in &self.lock().connections {
            if connection.is_between(a, b) {
                connection.reset();
            }
        }
    }

    /// Resets the connections that a host made after `bytes` more bytes in one of their directions; without one,
    /// the next that it makes.
    pub(crate) fn reset_after(&self, from: &str, bytes: u64, is_answer: bool) {
        let mut state = self.lock();
        let mut any = false;
        for connection in &state.connections {
            any |= connection.cut_after(from, bytes, is_answer);
        }
        if !any {
            state.cuts.insert(from.to_owned(), bytes);
        }
    }

    /// Connects `from` to the host of the name.
    ///
    /// # Errors
    /// It refuses, or does not answer.
    pub(crate) async fn dial(&self, from: &str, to: &str) -> io::Result<End> {
        let round_trip = self.link(from, to).latency + self.link(to, from).latency;
        tokio::time::sleep(round_trip).await;
        let answered = async {
            loop {
                // Before the look, so that a change between is not missed.
                let changed = self.changed.notified();
                if let Some(answer) = self.try_dial(from, to) {
                    return answer;
                }
                changed.await;
            }
        };
        let unanswered = || io::Error::new(io::ErrorKind::TimedOut, format!("{to} does not answer"));
        tokio::time::timeout(UNANSWERED, answered)
            .await
            .unwrap_or_else(|_| Err(unanswered()))
    }

    fn try_dial(&self, from: &str, to: &str) -> Option<io::Result<End>> {
        let (there, back) = (self.link(from, to), self.link(to, from));
        if [there, back]
            .iter()
            .any(|link| link.is_blocked && !link.still_connects)
        {
            return None;
        }
        let mut state = self.lock();
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, format!("{to} refuses"));
        match state.hosts.get(to) {
            Some(Host::Up) => {}
            Some(Host::Dark) => return None,
            Some(Host::Down) | None => return Some(Err(refused())),
        }
        let Some(listener) = state.listeners.get(to).cloned() else {
            return Some(Err(refused()));
        };
        state.made += 1;
        let number = state.made;
        let connection = Connection::new(
            number,
            [(from, there), (to, back)],
            self.dice.fork(),
            self.trace.clone(),
        );
        if let Some(bytes) = state.cuts.remove(from) {
            connection.cut_after(from, bytes, false);
        }
        state.connections.retain(|connection| !connection.is_over());
        state.connections.push(Arc::clone(&connection));
        drop(state);
        let [ours, theirs] = Connection::ends(&connection);
        self.trace
            .event(format_args!("connection {number}: {from} to {to}"));
        Some(match listener.send(Ok(theirs)) {
            Ok(()) => Ok(ours),
            Err(_) => Err(refused()),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
