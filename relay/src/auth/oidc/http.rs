//! The few requests that the relay makes itself, to the login provider: one connection each, bounded in time and
//! size, TLS by the system's authorities or the one that was named. No redirects are followed.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use openidconnect::{HttpRequest, HttpResponse};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// A provider that has not answered by then is taken for one that is down.
const LIMIT: Duration = Duration::from_secs(10);

/// Longest answer: a key set and a discovery document have a few KiB.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("{0} is no URL that can be asked")]
    Url(String),
    #[error("{0} is not https:// and not on this machine")]
    Plain(String),
    #[error("{0} cannot be reached: {1}")]
    Connect(String, std::io::Error),
    #[error("{0} did not answer: {1}")]
    Answer(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("{0} did not answer within {limit} s", limit = LIMIT.as_secs())]
    TooSlow(String),
}

/// Makes requests. Clones share the authorities.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    tls: Arc<ClientConfig>,
}

impl Http {
    pub(crate) fn new(tls: ClientConfig) -> Self {
        Self { tls: Arc::new(tls) }
    }

    pub(crate) async fn send(self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        // Without its query, which may hold secrets.
        let whom = format!(
            "{}://{}{}",
            request.uri().scheme_str().unwrap_or_default(),
            request.uri().authority().map_or("", http::uri::Authority::as_str),
            request.uri().path()
        );
        match tokio::time::timeout(LIMIT, self.exchange(request, &whom)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(HttpError::TooSlow(whom)),
        }
    }

    async fn exchange(self, request: HttpRequest, whom: &str) -> Result<HttpResponse, HttpError> {
        let bad_url = || HttpError::Url(whom.to_owned());
        let host = request.uri().host().ok_or_else(bad_url)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_tls = request.uri().scheme_str() == Some("https");
        if !is_tls && !is_this_machine(&host) {
            return Err(HttpError::Plain(whom.to_owned()));
        }
        let port = request.uri().port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let connect = |cause| HttpError::Connect(whom.to_owned(), cause);
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(connect)?;
        if !is_tls {
            return talk(stream, request, whom).await;
        }
        let name = ServerName::try_from(host).map_err(|_| bad_url())?;
        let stream = TlsConnector::from(self.tls).connect(name, stream).await;
        talk(stream.map_err(connect)?, request, whom).await
    }
}

async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: HttpRequest,
    whom: &str,
) -> Result<HttpResponse, HttpError> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| HttpError::Answer(whom.to_owned(), error);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(error.into()))?;
    let answer = async {
        let answer = sender.send_request(with_host(request)).await?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?;
        Ok(http::Response::from_parts(parts, body.to_bytes().to_vec()))
    };
    // The connection is driven by the same task, and is gone with it.
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        closed = &mut connection => match closed {
            // All that the answer needs has been read.
            Ok(()) => answer.await,
            Err(error) => Err(error.into()),
        },
    }
    .map_err(failed)
}

/// The request as HTTP/1.1 has it: the path in its first line, the host in a header.
fn with_host(request: HttpRequest) -> http::Request<Full<bytes::Bytes>> {
    let (mut parts, body) = request.into_parts();
    let host = parts.uri.authority().map_or("", http::uri::Authority::as_str);
    if let Ok(host) = HeaderValue::from_str(host) {
        parts.headers.insert(header::HOST, host);
    }
    parts
        .headers
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    let path = parts
        .uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    parts.uri = path.parse().unwrap_or_else(|_| Uri::from_static("/"));
    http::Request::from_parts(parts, Full::from(body))
}

/// Whether what is sent to the host stays on this machine.
pub(crate) fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use millstream_dial::Trust;
    use rustls::ServerConfig;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::certs::{self, Purpose};

    /// Answers every request with these bytes.
    async fn server(answer: impl Into<Vec<u8>>, tls: Option<TlsAcceptor>) -> (u16, JoinSet<()>) {
        let answer = answer.into();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                match &tls {
                    None => reply(stream, &answer).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            reply(stream, &answer).await;
                        }
                    }
                }
            }
        });
        (port, task)
    }

    async fn reply(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &[u8]) {
        // The request is short and comes at once.
        let mut request = [0; 4096];
        if stream.read(&mut request).await.is_ok() {
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
        }
    }

    async fn get(trust: Trust, url: &str) -> Result<HttpResponse, HttpError> {
        let http = Http::new(trust.client_config().unwrap());
        http.send(http::Request::get(url).body(Vec::new()).unwrap()).await
    }

    fn by(ca: PathBuf) -> Trust {
        Trust {
            ca: Some(ca),
            ..Trust::default()
        }
    }

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

    #[tokio::test]
    async fn a_provider_is_believed_by_its_authority_and_under_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let (own, other) = (dir.path().join("own"), dir.path().join("other"));
        let ca = certs::init(&own).unwrap().cert;
        let other_ca = certs::init(&other).unwrap().cert;
        let made = certs::issue(&own, &["localhost".to_owned()], Purpose::Relay).unwrap();
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&made.cert).unwrap().collect();
        let key = PrivateKeyDer::from_pem_file(&made.key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.unwrap(), key)
            .unwrap();
        let (port, _task) = server(OK, Some(TlsAcceptor::from(Arc::new(config)))).await;
        let url = format!("https://localhost:{port}/x");
        assert_eq!(get(by(ca.clone()), &url).await.unwrap().body(), b"hi");
        for (ca, url) in [(other_ca, url), (ca, format!("https://127.0.0.1:{port}/x"))] {
            let error = get(by(ca), &url).await.unwrap_err();
            assert!(matches!(error, HttpError::Connect(..)), "{error}");
        }
    }

    #[tokio::test]
    async fn what_is_asked_stays_in_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let trust = by(certs::init(dir.path()).unwrap().cert);
        let ask = async |url: String| get(trust.clone(), &url).await;

        let elsewhere = "HTTP/1.1 302 Found\r\nlocation: http://evil.example/\r\ncontent-length: 0\r\n\r\n";
        let (port, _task) = server(elsewhere, None).await;
        let answer = ask(format!("http://127.0.0.1:{port}/x?secret=1")).await.unwrap();
        assert_eq!(answer.status(), 302, "it is not followed");

        let large = vec![b'x'; MAX_ANSWER_BYTES + 1];
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", large.len());
        let (port, _task) = server([head.as_bytes(), &large].concat(), None).await;
        let error = ask(format!("http://localhost:{port}/x?secret=1"))
            .await
            .unwrap_err();
        assert!(matches!(error, HttpError::Answer(..)), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");

        let (port, _task) = server("nonsense\r\n\r\n", None).await;
        let error = ask(format!("http://127.0.0.1:{port}/")).await;
        assert!(error.is_err());

        for url in ["http://192.0.2.1/x", "http://localhost.evil.example/x"] {
            let error = ask(url.to_owned()).await.unwrap_err();
            assert!(matches!(error, HttpError::Plain(_)), "{error}");
        }
    }
}
