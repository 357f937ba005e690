//! A whole relay on a port of its own, and HTTP/1.1 written by hand, so that no library's opinion stands
//! between what the relay sends and what a test sees.

#![allow(dead_code, reason = "each test file uses a part of this")]
#![allow(
    clippy::unwrap_used,
    reason = "a test helper that cannot go on fails the test"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use millstream_relay::auth::{NewToken, Role, TokenFile};
use millstream_relay::config::{Config, Settings};
use millstream_relay::server::Relay;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tonic::transport::Channel;

/// Longest wait for something that has to happen.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The origin that the relay under test is configured to allow.
pub(crate) const FRIEND: &str = "https://ci.example.com";

/// What `main` starts, on a free port.
pub(crate) struct Edge {
    pub(crate) relay: Relay,
    data: tempfile::TempDir,
}

impl Edge {
    pub(crate) async fn start() -> Self {
        Self::start_with(Settings::default()).await
    }

    /// A relay that asks for tokens.
    pub(crate) async fn asking() -> Self {
        Self::start_with(Settings {
            auth: Some(true),
            ..Settings::default()
        })
        .await
    }

    pub(crate) async fn start_with(settings: Settings) -> Self {
        Self::start_from(settings, tempfile::tempdir().unwrap(), None).await
    }

    /// A relay with this `relay.toml`.
    pub(crate) async fn start_with_file(text: &str) -> Self {
        let data = tempfile::tempdir().unwrap();
        let file = data.path().join("relay.toml");
        std::fs::write(&file, text).unwrap();
        Self::start_from(Settings::default(), data, Some(&file)).await
    }

    async fn start_from(settings: Settings, data: tempfile::TempDir, file: Option<&Path>) -> Self {
        let settings = Settings {
            listen: Some("127.0.0.1:0".to_owned()),
            data_dir: Some(data.path().join("relay")),
            cors_origins: Some(vec![FRIEND.to_owned()]),
            ..settings
        };
        let relay = Relay::start(Config::load(settings, file).unwrap()).await.unwrap();
        Self { relay, data }
    }

    pub(crate) fn tokens(&self) -> TokenFile {
        TokenFile::in_data_dir(&self.data.path().join("relay"))
    }

    /// A new token, named `ROLE-N`, once the relay knows it.
    pub(crate) async fn token(&self, role: Role, scope: &str) -> String {
        let token = self.new_token(role, scope);
        let begin = std::time::Instant::now();
        let headers = format!("authorization: Bearer {token}\r\n");
        while !self
            .send("GET", "/api/session", &headers, b"")
            .await
            .text()
            .contains("\"user\"")
        {
            assert!(begin.elapsed() < SOON, "the relay does not learn of the token");
        }
        token
    }

    /// The same at a relay with TLS.
    pub(crate) async fn tls_token(&self, ca: &Path, role: Role) -> String {
        let token = self.new_token(role, "");
        let route = millstream_dial::Route {
            address: self.relay.url().parse().unwrap(),
            credentials: millstream_dial::Credentials {
                trust: millstream_dial::Trust {
                    ca: Some(ca.to_owned()),
                    ..Default::default()
                },
                token: millstream_dial::TokenSource::text(&token),
                insecure_no_tls: false,
            },
        };
        let channel = route.endpoint().unwrap().connect().await.unwrap();
        let bearer = route.bearer().unwrap();
        let mut log =
            millstream_proto::v1::log_service_client::LogServiceClient::with_interceptor(channel, bearer);
        let begin = std::time::Instant::now();
        while let Err(status) = log
            .list_streams(millstream_proto::v1::ListStreamsRequest::default())
            .await
        {
            assert_eq!(status.code(), tonic::Code::Unauthenticated);
            assert!(begin.elapsed() < SOON, "the relay does not learn of the token");
        }
        token
    }

    fn new_token(&self, role: Role, scope: &str) -> String {
        let name = format!("{role}-{}", self.tokens().read().unwrap().len());
        let new = NewToken {
            name,
            role,
            scope: scope.to_owned(),
            lifetime_secs: None,
        };
        self.tokens().create(new).unwrap().1
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.relay.address()
    }

    /// Headers that a browser sends from the relay's own page.
    pub(crate) fn own_page(&self) -> String {
        format!(
            "origin: http://{}\r\nsec-fetch-site: same-origin\r\n",
            self.address()
        )
    }

    /// The audit as an admin downloads it, once it says this.
    pub(crate) async fn audit_with(&self, admin: &str, words: &str) -> String {
        let begin = std::time::Instant::now();
        let headers = format!("authorization: Bearer {admin}\r\n");
        loop {
            let text = self.send("GET", "/api/streams/1/raw", &headers, b"").await.text();
            if text.contains(words) {
                return text;
            }
            assert!(begin.elapsed() < SOON, "{words:?} is not in\n{text}");
        }
    }

    pub(crate) async fn channel(&self) -> Channel {
        let url = format!("http://{}", self.address());
        Channel::from_shared(url).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", b"").await
    }

    /// One request; `headers` are whole lines, each with its end.
    pub(crate) async fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let mut open = self.open(method, path, headers, body).await;
        let mut content = Vec::new();
        while let Some(chunk) = open.chunk().await {
            content.extend_from_slice(&chunk);
        }
        Answer {
            status: open.status,
            headers: open.headers,
            body: content,
        }
    }

    /// One number of the relay's metrics, read from within: no call and no connection is needed for it.
    pub(crate) fn relay_metric(&self, name: &str) -> u64 {
        let metrics = self.relay.metrics().snapshot();
        let found = metrics.into_iter().find(|(known, ..)| *known == name);
        found.unwrap().3
    }

    /// Sends these very bytes and returns all that comes until the relay closes the connection.
    pub(crate) async fn speak(&self, request: &str) -> String {
        let mut connection = TcpStream::connect(self.address()).await.unwrap();
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = connection.read_to_string(&mut answer);
        tokio::time::timeout(SOON, read).await.unwrap().unwrap();
        answer
    }

    /// Sends a request and reads the head of its answer only.
    pub(crate) async fn open(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> OpenAnswer {
        let mut connection = TcpStream::connect(self.address()).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
            self.address(),
            body.len()
        );
        connection.write_all(head.as_bytes()).await.unwrap();
        connection.write_all(body).await.unwrap();
        OpenAnswer::read(connection).await
    }
}

#[derive(Debug)]
pub(crate) struct Headers(Vec<(String, String)>);

impl Headers {
    /// The value of a header; empty when it was not sent.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map_or("", |(_, value)| value)
    }

    /// All values of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let found = self.0.iter().filter(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).collect()
    }

    /// The `name=value` of the cookie that was set under this name; `None`: it was not, or was taken away.
    pub(crate) fn cookie(&self, name: &str) -> Option<&str> {
        let set = self.all("set-cookie").into_iter().find_map(|cookie| {
            let pair = cookie.split(';').next()?;
            (pair.split('=').next() == Some(name)).then_some((pair, cookie))
        });
        set.filter(|(_, cookie)| !cookie.contains("Max-Age=0"))
            .map(|(pair, _)| pair)
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// An answer whose body is still coming.
pub(crate) struct OpenAnswer {
    pub(crate) status: u16,
    pub(crate) headers: Headers,
    /// Of a body that is not in chunks.
    left: Option<usize>,
    connection: BufReader<TcpStream>,
}

impl OpenAnswer {
    async fn read(connection: TcpStream) -> Self {
        let mut connection = BufReader::new(connection);
        let status = line(&mut connection).await;
        let status = status.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let header = line(&mut connection).await;
            let Some((name, value)) = header.split_once(':') else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let headers = Headers(headers);
        let is_chunked = headers.get("transfer-encoding") == "chunked";
        let left = (!is_chunked).then(|| headers.get("content-length").parse().unwrap_or(0));
        Self {
            status,
            headers,
            left,
            connection,
        }
    }

    /// What the relay sent as one chunk; `None` at the end of the body. Fails when nothing comes or the
    /// body breaks off.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let bytes = match self.left.take() {
            Some(bytes) => {
                self.left = Some(0);
                bytes
            }
            None => usize::from_str_radix(&line(&mut self.connection).await, 16).unwrap(),
        };
        let mut chunk = vec![0; bytes];
        let read = self.connection.read_exact(&mut chunk);
        tokio::time::timeout(SOON, read).await.unwrap().unwrap();
        if self.left.is_none() {
            assert_eq!(line(&mut self.connection).await, "");
        }
        (bytes > 0).then_some(chunk)
    }
}

async fn line(connection: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    let read = connection.read_line(&mut line);
    tokio::time::timeout(SOON, read)
        .await
        .expect("the relay answers soon")
        .unwrap();
    line.trim_end().to_owned()
}
