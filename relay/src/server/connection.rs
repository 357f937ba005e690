//! Connections as they come in: TCP, with TLS around it when the relay has a certificate.
//!
//! A connection is handed on once its caller has said which protocol it speaks: who says nothing costs next to nothing,
//! holds up nobody, and is the first to go when there are too many. After that a connection ends when its caller lets
//! the relay wait too long with a write, or when its [`Line`] is cut.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::doors::{Doors, Line};
use super::tls::{self, Tls};
use super::turned_away::TurnedAway;
use crate::limits::{Bucket, Limits};

/// How long a connection above a limit may stay to be told so.
const TOLD_TIME: Duration = Duration::from_secs(5);

/// Wait after the system could not accept (most of all when it is out of file descriptors).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Connections that are taken in a second in the long run, and at once. A rush of callers (a network that comes back, or
/// somebody who means no good) waits in the system's line meanwhile, and so those who are served already do not wait for
/// the rush; nor do they when as many handshakes run out of time together, some seconds later.
const TAKEN_PER_SECOND: f64 = 2000.0;
const TAKEN_AT_ONCE: f64 = 32.0;

/// What the system takes for a connection and cannot send yet (TCP_NOTSENT_LOWAT, see tcp(7)). More would make no answer
/// faster: what is on its way does not count. But it would hold megabytes for every reader that does not read, and copying
/// them would keep others waiting.
const UNSENT_BYTES: u32 = 128 << 10;

/// First byte of every TLS connection: the content type of a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// What every HTTP/2 connection begins with (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes that may come on a connection without a call. With HTTP/1.1 that is the head of a request; with HTTP/2 all that
/// the windows allow may be there before the relay looks at the call that it belongs to.
const HTTP1_IDLE_BYTES: u64 = 64 << 10;
const HTTP2_IDLE_BYTES: u64 = 16 << 20;

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    io: Io,
    /// What was read to learn the protocol.
    head: Bytes,
    peer: Peer,
    max_idle_bytes: u64,
    /// Set when it is above a limit.
    told_until: Option<Pin<Box<Sleep>>>,
    write_timeout: Duration,
    /// Present while a write waits for the caller.
    stalled: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Who is at the other end, as far as the connection tells; in the extensions of each of its requests.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: Option<SocketAddr>,
    /// Host names of the certificate that it showed, verified; empty without one.
    pub(crate) host_names: Arc<[String]>,
    pub(crate) line: Arc<Line>,
}

/// Accepts for ever. `tls`: every connection speaks TLS.
pub(super) fn incoming(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    doors: Arc<Doors>,
    limits: &Limits,
) -> impl Stream<Item = io::Result<Connection>> + Send + use<> {
    let reception = Reception {
        listener,
        tls,
        doors,
        handshake_timeout: limits.handshake_timeout,
        write_timeout: limits.write_timeout,
        greetings: JoinSet::new(),
        silent: VecDeque::new(),
        turned_away: TurnedAway::default(),
        taken: Bucket::new(TAKEN_PER_SECOND, TAKEN_AT_ONCE, Instant::now()),
    };
    futures_util::stream::unfold(reception, |mut reception| async {
        let connection = reception.next().await;
        Some((Ok(connection), reception))
    })
}

struct Reception {
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    doors: Arc<Doors>,
    handshake_timeout: Duration,
    write_timeout: Duration,
    /// Connections that have not said yet what they speak; the doors bound how many there are.
    greetings: JoinSet<Option<Connection>>,
    /// The same, oldest first, with some that are done already.
    silent: VecDeque<AbortHandle>,
    turned_away: TurnedAway,
    /// How many were taken lately.
    taken: Bucket,
}

impl Reception {
    async fn next(&mut self) -> Connection {
        loop {
            let pause = self.taken.in_debt(Instant::now());
            tokio::select! {
                Some(done) = self.greetings.join_next() => {
                    if let Ok(Some(connection)) = done {
                        return connection;
                    }
                }
                () = self.turned_away.close_next() => {}
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
                accepted = self.listener.accept(), if pause.is_none() => match accepted {
                    Ok((stream, address)) => self.greet(stream, address),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_RETRY).await;
                    }
                }
            }
        }
    }

    fn greet(&mut self, stream: TcpStream, address: SocketAddr) {
        while self.silent.front().is_some_and(AbortHandle::is_finished) {
            self.silent.pop_front();
        }
        let silent = &mut self.silent;
        let make_room = || loop {
            match silent.pop_front() {
                Some(oldest) if oldest.is_finished() => {}
                Some(oldest) => {
                    oldest.abort();
                    return true;
                }
                None => return false,
            }
        };
        let Some(place) = self.doors.enter(address.ip(), make_room) else {
            self.turned_away.put(stream);
            return;
        };
        self.taken.take(1.0, Instant::now());
        // Both fail on a connection that is gone again, which its first read tells.
        let _ = stream.set_nodelay(true);
        let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES);
        let acceptor = self.tls.as_ref().map(|tls| TlsAcceptor::from(tls.config()));
        let time = self.handshake_timeout;
        let write_timeout = self.write_timeout;
        let greeting = self.greetings.spawn(async move {
            let line = Line::new(place);
            let told_until = line
                .refused()
                .map(|_| Box::pin(tokio::time::sleep(TOLD_TIME.min(time))));
            let opened = tokio::time::timeout(time, open(stream, acceptor)).await;
            let (io, head, host_names) = opened.ok()??;
            Some(Connection {
                max_idle_bytes: if head == HTTP2_PREFACE[..] {
                    HTTP2_IDLE_BYTES
                } else {
                    HTTP1_IDLE_BYTES
                },
                io,
                head,
                peer: Peer {
                    address: Some(address),
                    host_names: host_names.into(),
                    line,
                },
                told_until,
                write_timeout,
                stalled: None,
            })
        });
        self.silent.push_back(greeting);
    }
}

/// The connection with its first bytes, and the names of its certificate.
async fn open(stream: TcpStream, acceptor: Option<TlsAcceptor>) -> Option<(Io, Bytes, Vec<String>)> {
    let mut io = match acceptor {
        None => Io::Plain(stream),
        Some(acceptor) => Io::Tls(Box::new(handshake(acceptor, stream).await?)),
    };
    let host_names = match &io {
        Io::Plain(_) => Vec::new(),
        Io::Tls(stream) => {
            let certificate = stream
                .get_ref()
                .1
                .peer_certificates()
                .and_then(|chain| chain.first());
            certificate.map(tls::host_names).unwrap_or_default()
        }
    };
    let mut head = [0; HTTP2_PREFACE.len()];
    let mut length = 0;
    // One byte that does not fit tells that it is HTTP/1.1, for which the server has a limit of its own.
    while length < head.len() && head[..length] == HTTP2_PREFACE[..length] {
        match io.read(&mut head[length..]).await.ok()? {
            0 => return None,
            bytes => length += bytes,
        }
    }
    Some((io, Bytes::copy_from_slice(&head[..length]), host_names))
}

async fn handshake(acceptor: TlsAcceptor, mut stream: TcpStream) -> Option<TlsStream<TcpStream>> {
    let mut first = [0];
    if stream.peek(&mut first).await.ok()? == 1 && first[0].is_ascii_uppercase() && first[0] != TLS_HANDSHAKE
    {
        refuse_plain(&mut stream).await;
        return None;
    }
    match acceptor.accept(stream).await {
        Ok(stream) => Some(stream),
        Err(error) => {
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
    }
}

/// Somebody wrote http:// where https:// is spoken: say so in a way that a person finds.
async fn refuse_plain(stream: &mut TcpStream) {
    let words = "this port speaks TLS: use https://\n";
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{words}",
        words.len()
    );
    // Whether they read it is their affair.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl Connection {
    /// A write's outcome; one that waits too long is an error.
    fn unless_stalled<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let write_timeout = self.write_timeout;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(write_timeout)));
        std::task::ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the other end takes nothing (limits.write_timeout_secs)",
        )))
    }

    /// Whether it has to end now.
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        let told = self.told_until.as_mut();
        self.peer.line.is_cut(context.waker())
            || told.is_some_and(|until| until.as_mut().poll(context).is_ready())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_over(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buffer.filled().len();
        if this.head.is_empty() {
            std::task::ready!(Pin::new(&mut this.io).poll_read(context, buffer))?;
        } else {
            let bytes = this.head.len().min(buffer.remaining());
            buffer.put_slice(&this.head[..bytes]);
            this.head.advance(bytes);
        }
        let came = buffer.filled().len() - before;
        if !this.peer.line.came(came, this.max_idle_bytes) {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "too much was sent without a call",
            )));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(context, bytes);
        this.unless_stalled(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(context, slices);
        this.unless_stalled(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.io).poll_flush(context);
        this.unless_stalled(context, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.io).poll_shutdown(context);
        this.unless_stalled(context, shut)
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures_util::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn a_rush_of_callers_is_taken_in_at_a_pace_and_nobody_is_left_out() {
        const CALLERS: u32 = 400;
        let listener = crate::server::listen::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let limits = Limits::default();
        let doors = Doors::new(&limits, Arc::default());
        let mut callers = Vec::new();
        for _ in 0..CALLERS {
            // The system takes them until the relay does.
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
            callers.push(stream);
        }
        let begin = Instant::now();
        let taken = incoming(listener, None, doors, &limits).take(callers.len());
        let connections: Vec<_> = taken.collect().await;
        assert!(connections.iter().all(Result::is_ok));
        let least = (f64::from(CALLERS) - TAKEN_AT_ONCE - 1.0) / TAKEN_PER_SECOND;
        let time = begin.elapsed().as_secs_f64();
        assert!(time >= least, "{time} s");
    }
}
