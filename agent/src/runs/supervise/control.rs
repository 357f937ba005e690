//! What a supervisor is told: SIGTERM by anybody who wants the run to stop, and by a wrapper, through a socket,
//! the signals that the wrapper got and the size of its terminal. The socket's end says that the wrapper is gone.
//! SIGUSR1 says that there are notes for the stream.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;

use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};

use crate::sources::process::PtySize;

/// Kind and two numbers.
const MESSAGE_BYTES: usize = 5;
const SIGNAL: u8 = b's';
const SIZE: u8 = b'w';

/// The wrapper's end.
#[derive(Debug)]
pub struct Control {
    socket: StdStream,
}

impl Control {
    /// The end for the wrapper, and the one for the supervisor's standard output.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (here, there) = StdStream::pair()?;
        here.set_nonblocking(true)?;
        Ok((Self { socket: here }, there.into()))
    }

    /// Passes on a signal to the command's group.
    pub fn signal(&self, signal: Signal) {
        let number = u16::try_from(signal.as_raw()).unwrap_or_default();
        self.send(SIGNAL, number, 0);
    }

    /// Passes on the size of the terminal.
    pub fn resize(&self, size: PtySize) {
        self.send(SIZE, size.rows, size.columns);
    }

    fn send(&self, kind: u8, one: u16, two: u16) {
        use std::io::Write;
        let mut message = [kind; MESSAGE_BYTES];
        message[1..3].copy_from_slice(&one.to_le_bytes());
        message[3..].copy_from_slice(&two.to_le_bytes());
        // Five bytes fit into the socket unless thousands wait there already; a supervisor that is gone needs
        // none.
        if let Err(error) = (&self.socket).write_all(&message) {
            tracing::debug!("the supervisor does not take orders: {error}");
        }
    }
}

/// One thing that a supervisor is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Climb the stop ladder.
    Stop,
    /// Pass this on to the command.
    Signal(Signal),
    Resize(PtySize),
    /// The wrapper is gone.
    Alone,
    /// There are notes for the stream.
    Notes,
}

pub(super) struct Orders {
    terminate: tokio::signal::unix::Signal,
    notes: tokio::signal::unix::Signal,
    control: Option<UnixStream>,
    /// A message that has come in part.
    message: Vec<u8>,
    /// Told to stop at some time.
    stopping: bool,
    /// Passed on a signal that asks to stop.
    asked: bool,
}

impl Orders {
    pub(super) fn new(controlled: bool) -> io::Result<Self> {
        let mut control = None;
        if controlled {
            let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
            let socket = StdStream::from(socket);
            socket.set_nonblocking(true)?;
            control = Some(UnixStream::from_std(socket)?);
        }
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            notes: signal(SignalKind::user_defined1())?,
            control,
            message: Vec::new(),
            stopping: false,
            asked: false,
        })
    }

    /// Told to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// The command was asked to stop by a signal that was passed on.
    pub(super) fn is_asked(&self) -> bool {
        self.asked
    }

    /// The next order. Safe to drop and call again.
    pub(super) async fn next(&mut self) -> Order {
        let order = tokio::select! {
            _ = self.terminate.recv() => Order::Stop,
            _ = self.notes.recv() => Order::Notes,
            order = next_message(&mut self.control, &mut self.message) => order,
        };
        match order {
            // Who was asked to stop and is killed then meant the command, too.
            Order::Alone if self.asked => {
                self.stopping = true;
                return Order::Stop;
            }
            Order::Stop => self.stopping = true,
            Order::Signal(_) => self.asked = true,
            Order::Resize(_) | Order::Alone | Order::Notes => {}
        }
        order
    }

    /// Waits for an order that asks to stop; others are lost meanwhile.
    pub(super) async fn stop_asked(&mut self) {
        while !self.stopping && !self.asked {
            self.next().await;
        }
    }
}

async fn next_message(control: &mut Option<UnixStream>, message: &mut Vec<u8>) -> Order {
    loop {
        let Some(socket) = control else {
            return std::future::pending().await;
        };
        let mut rest = [0; MESSAGE_BYTES];
        let read = socket.read(&mut rest[message.len()..]).await.unwrap_or(0);
        if read == 0 {
            *control = None;
            return Order::Alone;
        }
        let at = message.len();
        message.extend_from_slice(&rest[at..at + read]);
        if message.len() < MESSAGE_BYTES {
            continue;
        }
        let one = u16::from_le_bytes([message[1], message[2]]);
        let two = u16::from_le_bytes([message[3], message[4]]);
        let kind = message[0];
        message.clear();
        match kind {
            SIGNAL => {
                if let Some(signal) = Signal::from_named_raw(i32::from(one)) {
                    return Order::Signal(signal);
                }
            }
            SIZE => {
                return Order::Resize(PtySize {
                    rows: one,
                    columns: two,
                });
            }
            _ => {}
        }
    }
}
