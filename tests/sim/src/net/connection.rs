//! One connection: two pipes in opposite directions, and an [`End`] for each host to read and write at.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use tonic::transport::server::Connected;

use super::{Death, Link};
use crate::dice::Dice;
use crate::trace::Trace;

/// Bytes that may be on the way in one direction; then the writer waits. As the buffers of sockets do, it makes
/// a slow reader slow the writer.
const PIPE_BYTES: usize = 64 << 10;

/// What is on the way.
#[derive(Debug)]
enum Segment {
    Data(Bytes),
    /// The sender writes no more.
    End,
    /// The connection is gone.
    Reset,
}

/// One direction: who writes at index `i` writes into pipe `i`.
#[derive(Debug)]
struct Pipe {
    link: Link,
    segments: VecDeque<(Instant, Segment)>,
    bytes: usize,
    /// When the newest segment arrives.
    last_at: Instant,
    /// Reset the connection after so many bytes more.
    cut_after: Option<u64>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// The state of one host's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Open,
    /// Nobody holds it any more; the host answers what comes with a reset.
    Closed,
    /// The host is gone without a word.
    Dark,
    /// The connection is known to be gone.
    Reset,
}

#[derive(Debug)]
struct State {
    pipes: [Pipe; 2],
    lives: [Life; 2],
}

#[derive(Debug)]
pub(super) struct Connection {
    number: u64,
    hosts: [String; 2],
    dice: Dice,
    trace: Trace,
    state: Mutex<State>,
}

impl Connection {
    pub(super) fn new(number: u64, ways: [(&str, Link); 2], dice: Dice, trace: Trace) -> Arc<Self> {
        let now = Instant::now();
        let pipe = |link| Pipe {
            link,
            segments: VecDeque::new(),
            bytes: 0,
            last_at: now,
            cut_after: None,
            reader: None,
            writer: None,
        };
        Arc::new(Self {
            number,
            hosts: ways.map(|(host, _)| host.to_owned()),
            dice,
            trace,
            state: Mutex::new(State {
                pipes: ways.map(|(_, link)| pipe(link)),
                lives: [Life::Open; 2],
            }),
        })
    }

    pub(super) fn ends(connection: &Arc<Self>) -> [End; 2] {
        [0, 1].map(|side| End {
            connection: Arc::clone(connection),
            side,
            timer: None,
        })
    }

    pub(super) fn is_over(&self) -> bool {
        let over = |life: &Life| matches!(life, Life::Closed | Life::Reset);
        self.lock().lives.iter().all(over)
    }

    pub(super) fn is_between(&self, a: &str, b: &str) -> bool {
        let [one, other] = &self.hosts;
        (one == a && other == b) || (one == b && other == a)
    }

    pub(super) fn reset(&self) {
        let mut state = self.lock();
        state.lives = [Life::Reset; 2];
        state.wake();
    }

    pub(super) fn set_link(&self, from: &str, to: &str, link: Link) {
        let mut state = self.lock();
        for side in 0..2 {
            if self.hosts[side] == from && self.hosts[1 - side] == to {
                state.pipes[side].link = link;
            }
        }
        state.wake();
    }

    /// True when there is such a connection, made by the host.
    pub(super) fn cut_after(&self, from: &str, bytes: u64, is_answer: bool) -> bool {
        let mut state = self.lock();
        let is_its = self.hosts[0] == from && state.lives == [Life::Open; 2];
        if is_its {
            state.pipes[usize::from(is_answer)].cut_after = Some(bytes);
        }
        is_its
    }

    pub(super) fn died(&self, host: &str, death: Death) {
        let mut state = self.lock();
        for side in 0..2 {
            if self.hosts[side] != host || state.lives[side] == Life::Reset {
                continue;
            }
            match death {
                Death::Killed => {
                    state.lives[side] = Life::Reset;
                    let latency = state.pipes[side].link.latency;
                    state.pipes[side].push(Segment::Reset, latency);
                }
                Death::PowerCut => {
                    state.lives[side] = Life::Dark;
                    // What it had sent is on the way; what it had not is gone with it.
                    state.pipes[1 - side].segments.clear();
                }
            }
        }
        state.wake();
    }

    /// A host that lost its power runs again and does not know the connection.
    pub(super) fn came_back(&self, host: &str) {
        let mut state = self.lock();
        for side in 0..2 {
            if self.hosts[side] == host && state.lives[side] == Life::Dark {
                state.lives[side] = Life::Closed;
                if state.pipes[1 - side].bytes > 0 {
                    // What was sent meanwhile is sent again, and answered now.
                    let latency = state.pipes[side].link.latency;
                    state.pipes[side].push(Segment::Reset, latency);
                }
            }
        }
        state.wake();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake(&mut self) {
        for pipe in &mut self.pipes {
            for waker in [pipe.reader.take(), pipe.writer.take()].into_iter().flatten() {
                waker.wake();
            }
        }
    }
}

impl Pipe {
    fn push(&mut self, segment: Segment, delay: Duration) {
        self.last_at = self.last_at.max(Instant::now() + delay);
        self.segments.push_back((self.last_at, segment));
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

fn is_reset() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionReset,
        "connection reset by the simulation",
    )
}

/// A host's end of a connection.
#[derive(Debug)]
pub(crate) struct End {
    connection: Arc<Connection>,
    side: usize,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Connected for End {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (side, connection) = (this.side, &this.connection);
        let mut state = connection.lock();
        if state.lives[side] != Life::Open {
            return Poll::Ready(Err(is_reset()));
        }
        let pipe = &mut state.pipes[1 - side];
        let arrival = pipe.segments.front().map(|(at, _)| *at);
        match arrival.filter(|_| !pipe.link.is_blocked) {
            Some(at) if at > Instant::now() => {
                let timer = this
                    .timer
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
                if timer.deadline() != at {
                    timer.as_mut().reset(at);
                }
                pipe.reader = Some(context.waker().clone());
                match timer.as_mut().poll(context) {
                    // Within the clock's resolution.
                    Poll::Ready(()) => context.waker().wake_by_ref(),
                    Poll::Pending => {}
                }
                Poll::Pending
            }
            Some(_) => match pipe.segments.pop_front() {
                Some((at, Segment::Data(mut data))) => {
                    let taken = data.len().min(buffer.remaining());
                    buffer.put_slice(&data[..taken]);
                    data.advance(taken);
                    if !data.is_empty() {
                        pipe.segments.push_front((at, Segment::Data(data)));
                    }
                    pipe.bytes -= taken;
                    if let Some(writer) = pipe.writer.take() {
                        writer.wake();
                    }
                    Poll::Ready(Ok(()))
                }
                Some((at, Segment::End)) => {
                    pipe.segments.push_front((at, Segment::End));
                    Poll::Ready(Ok(()))
                }
                Some((_, Segment::Reset)) | None => {
                    state.lives[side] = Life::Reset;
                    state.wake();
                    Poll::Ready(Err(is_reset()))
                }
            },
            None => {
                pipe.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let (side, connection) = (self.side, &self.connection);
        let mut state = connection.lock();
        if state.lives[side] != Life::Open {
            return Poll::Ready(Err(is_reset()));
        }
        let peer = state.lives[1 - side];
        let pipe = &mut state.pipes[side];
        let mut taken = buffer.len().min(PIPE_BYTES.saturating_sub(pipe.bytes));
        if taken == 0 {
            pipe.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        // Now and then only a part, as a full socket does.
        if connection.dice.one_in(8) {
            taken = connection.dice.size(1..taken + 1);
        }
        if let Some(left) = pipe.cut_after {
            taken = taken.min(usize::try_from(left).unwrap_or(usize::MAX).max(1));
        }
        connection
            .trace
            .count(b'w', [connection.number, side as u64, taken as u64]);
        pipe.bytes += taken;
        if peer == Life::Dark {
            return Poll::Ready(Ok(taken));
        }
        let mut delay = pipe.link.latency;
        if let Some(rate) = pipe.link.bytes_per_ms {
            delay += Duration::from_millis(taken as u64 / rate);
        }
        if peer != Life::Open {
            // The other host resets what comes for an end that it does not have; this one hears of it later.
            let back = state.pipes[1 - side].link.latency;
            if !state.pipes[side].link.is_blocked {
                state.pipes[1 - side].push(Segment::Reset, delay + back);
            }
            return Poll::Ready(Ok(taken));
        }
        pipe.push(Segment::Data(Bytes::copy_from_slice(&buffer[..taken])), delay);
        if let Some(left) = pipe.cut_after {
            pipe.cut_after = Some(left.saturating_sub(taken as u64));
            if left <= taken as u64 {
                connection
                    .trace
                    .event(format_args!("connection {}: cut", connection.number));
                pipe.push(Segment::Reset, delay);
                state.lives[side] = Life::Reset;
                state.wake();
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.connection.lock();
        let pipe = &mut state.pipes[self.side];
        let latency = pipe.link.latency;
        pipe.push(Segment::End, latency);
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut state = self.connection.lock();
        if state.lives[self.side] == Life::Open {
            state.lives[self.side] = Life::Closed;
            let pipe = &mut state.pipes[self.side];
            let latency = pipe.link.latency;
            pipe.push(Segment::End, latency);
        }
    }
}
