//! Connections as they come in: TCP, with TLS around it when the relay has a certificate.
//!
//! A handshake takes as long as the caller likes, up to a limit; others are accepted meanwhile.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::tls::{self, Tls};

/// A caller that has not finished its handshake by then is cut off.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// Handshakes at a time; further connections wait in the system's queue.
const MAX_HANDSHAKES: usize = 1024;

/// Wait after the system could not accept (most of all when it is out of file descriptors).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// First byte of every TLS connection: the content type of a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// One connection.
#[derive(Debug)]
pub(super) enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Who is at the other end, as far as the connection tells; in the extensions of each of its requests.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: Option<SocketAddr>,
    /// Host names of the certificate that it showed, verified; empty without one.
    pub(crate) host_names: Arc<[String]>,
}

/// Accepts for ever. `tls`: every connection speaks TLS.
pub(super) fn incoming(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
) -> impl Stream<Item = io::Result<Connection>> + Send {
    let handshakes: JoinSet<Option<Connection>> = JoinSet::new();
    futures_util::stream::unfold(
        (listener, tls, handshakes),
        |(listener, tls, mut handshakes)| async {
            let connection = loop {
                tokio::select! {
                    Some(done) = handshakes.join_next() => {
                        if let Ok(Some(connection)) = done {
                            break connection;
                        }
                    }
                    accepted = listener.accept(), if handshakes.len() < MAX_HANDSHAKES => {
                        let stream = match accepted {
                            Ok((stream, _)) => stream,
                            Err(error) => {
                                tracing::warn!(%error, "cannot accept a connection");
                                tokio::time::sleep(ACCEPT_RETRY).await;
                                continue;
                            }
                        };
                        // Fails on a connection that is gone again, which its first read tells.
                        let _ = stream.set_nodelay(true);
                        match &tls {
                            None => break Connection::Plain(stream),
                            Some(tls) => {
                                let acceptor = TlsAcceptor::from(tls.config());
                                handshakes.spawn(async move {
                                    let shaken = tokio::time::timeout(HANDSHAKE_LIMIT, handshake(acceptor, stream));
                                    shaken.await.ok().flatten()
                                });
                            }
                        }
                    }
                }
            };
            Some((Ok(connection), (listener, tls, handshakes)))
        },
    )
}

async fn handshake(acceptor: TlsAcceptor, mut stream: TcpStream) -> Option<Connection> {
    let mut first = [0];
    if stream.peek(&mut first).await.ok()? == 1 && first[0].is_ascii_uppercase() && first[0] != TLS_HANDSHAKE
    {
        refuse_plain(&mut stream).await;
        return None;
    }
    match acceptor.accept(stream).await {
        Ok(stream) => Some(Connection::Tls(Box::new(stream))),
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
        let (stream, host_names) = match self {
            Self::Plain(stream) => (stream, Vec::new()),
            Self::Tls(stream) => {
                let (stream, session) = stream.get_ref();
                let certificate = session.peer_certificates().and_then(|chain| chain.first());
                (stream, certificate.map(tls::host_names).unwrap_or_default())
            }
        };
        Peer {
            address: stream.peer_addr().ok(),
            host_names: host_names.into(),
        }
    }
}

impl AsyncRead for Connection {
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

impl AsyncWrite for Connection {
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
