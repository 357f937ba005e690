//! A small relay for tests: a `LogService` over lines in memory, behind a proxy that can cut connections
//! in the middle of anything. It can also repeat lines, skip lines, and fall silent. [`service`] answers
//! the calls; what is known and what is broken is here.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test fails where its relay cannot work")]

mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use millstream_client::{OpenBlock, v1};
use millstream_proto::block::{BlockBuilder, Compressor};
use millstream_proto::v1::log_service_server::LogServiceServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tonic::{Request, Status};

/// Capture time of line 0; each line is a second later.
pub(crate) const FIRST_LINE_UNIX_US: i64 = 1_764_000_000_000_000;

/// What a busy relay asks its callers to wait.
pub(crate) const BUSY_WAIT: Duration = Duration::from_millis(700);

#[derive(Clone, Debug)]
pub(crate) struct FakeLine {
    pub(crate) text: Vec<u8>,
    pub(crate) channel: v1::Channel,
    pub(crate) partial: bool,
}

impl From<&str> for FakeLine {
    fn from(text: &str) -> Self {
        Self::from(text.as_bytes())
    }
}

impl From<&[u8]> for FakeLine {
    fn from(text: &[u8]) -> Self {
        Self {
            text: text.to_vec(),
            channel: v1::Channel::Stdout,
            partial: false,
        }
    }
}

#[derive(Clone, Debug, Default)]
struct FakeStream {
    labels: BTreeMap<String, String>,
    lines: Vec<FakeLine>,
    end: Option<v1::StreamEnd>,
}

/// How the relay misbehaves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// Each connection is cut after a random number of bytes towards the client, up to this many.
    pub(crate) cut_within_bytes: Option<u64>,
    /// Sends this many lines again that the caller said it has.
    pub(crate) repeat_lines: u64,
    /// Leaves out this line of every stream, without a word.
    pub(crate) skip_sequence: Option<u64>,
    /// Accepts calls and says nothing, for this many calls.
    pub(crate) silent_calls: u32,
    /// Ends this many calls after their first heartbeat.
    pub(crate) hang_ups: u32,
    /// Refuses this many calls after those, as a relay whose limit is reached: come again after [`BUSY_WAIT`].
    pub(crate) busy_calls: u32,
    /// Announces this gap instead of the lines below it.
    pub(crate) gap_below: u64,
}

#[derive(Debug)]
struct State {
    streams: BTreeMap<u64, FakeStream>,
    faults: Faults,
    tail_requests: Vec<v1::TailRequest>,
    tokens: BTreeSet<String>,
    cuts: u32,
    store: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct FakeRelay {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
    stop: CancellationToken,
    tasks: TaskTracker,
    address: SocketAddr,
}

impl FakeRelay {
    /// Starts the relay on a port of its own.
    pub(crate) async fn start() -> Self {
        let relay_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay_address = relay_listener.local_addr().unwrap();
        let fake = Self {
            state: Arc::new(Mutex::new(State {
                streams: BTreeMap::new(),
                faults: Faults::default(),
                tail_requests: Vec::new(),
                tokens: BTreeSet::new(),
                cuts: 0,
                store: 1,
            })),
            changed: watch::channel(0).0,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            address: proxy_listener.local_addr().unwrap(),
        };
        let stop = fake.stop.clone();
        let service = LogServiceServer::new(fake.clone());
        fake.tasks.spawn(async move {
            let incoming = TcpListenerStream::new(relay_listener);
            let serving = Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming);
            tokio::select! { () = stop.cancelled() => {}, result = serving => result.unwrap() }
        });
        let proxy = fake.clone();
        fake.tasks.spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = proxy.stop.cancelled() => return,
                    accepted = proxy_listener.accept() => accepted.unwrap().0,
                };
                let forwarder = proxy.clone();
                proxy
                    .tasks
                    .spawn(async move { forwarder.forward(accepted, relay_address).await });
            }
        });
        fake
    }

    /// Passes bytes between one client and the relay, until the cut.
    async fn forward(&self, mut client: TcpStream, relay_address: SocketAddr) {
        client.set_nodelay(true).unwrap();
        let Ok(mut relay) = TcpStream::connect(relay_address).await else {
            return;
        };
        relay.set_nodelay(true).unwrap();
        let limit = self.state().faults.cut_within_bytes;
        let mut left = limit.map_or(u64::MAX, |limit| fastrand::u64(0..=limit));
        let (mut from_client, mut from_relay) = ([0; 4096], [0; 4096]);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                count = client.read(&mut from_client) => match count {
                    Ok(0) | Err(_) => return,
                    Ok(count) => if relay.write_all(&from_client[..count]).await.is_err() { return },
                },
                count = relay.read(&mut from_relay) => {
                    let Ok(count @ 1..) = count else { return };
                    let passed = count.min(usize::try_from(left).unwrap_or(usize::MAX));
                    left -= passed as u64;
                    if client.write_all(&from_relay[..passed]).await.is_err() { return }
                    if left == 0 {
                        self.state().cuts += 1;
                        return;
                    }
                },
            }
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn add_stream(&self, stream_id: u64, host: &str, source: &str) {
        let labels = [("host", host), ("source", source), ("agent", "a1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        self.state().streams.insert(
            stream_id,
            FakeStream {
                labels,
                ..FakeStream::default()
            },
        );
        self.changed.send_modify(|version| *version += 1);
    }

    pub(crate) fn push(&self, stream_id: u64, lines: impl IntoIterator<Item = impl Into<FakeLine>>) {
        let lines = lines.into_iter().map(Into::into);
        self.state()
            .streams
            .get_mut(&stream_id)
            .unwrap()
            .lines
            .extend(lines);
        self.changed.send_modify(|version| *version += 1);
    }

    pub(crate) fn end_stream(&self, stream_id: u64, exit_code: i32) {
        let end = v1::StreamEnd {
            reason: v1::EndReason::Exited.into(),
            exit_code: Some(exit_code),
            ..v1::StreamEnd::default()
        };
        self.state().streams.get_mut(&stream_id).unwrap().end = Some(end);
        self.changed.send_modify(|version| *version += 1);
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// From now on cursors of before belong to another store.
    pub(crate) fn replace_store(&self) {
        self.state().store += 1;
    }

    pub(crate) fn cuts(&self) -> u32 {
        self.state().cuts
    }

    pub(crate) fn tail_requests(&self) -> Vec<v1::TailRequest> {
        self.state().tail_requests.clone()
    }

    /// The values of `authorization` that calls came with.
    pub(crate) fn tokens(&self) -> BTreeSet<String> {
        self.state().tokens.clone()
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn note<T>(&self, request: &Request<T>) {
        if let Some(token) = request.metadata().get("authorization") {
            self.state().tokens.insert(token.to_str().unwrap().to_owned());
        }
    }
}

impl State {
    fn describe(&self, stream_id: u64) -> v1::Stream {
        let stream = &self.streams[&stream_id];
        let lines = stream.lines.len() as u64;
        let state = if stream.end.is_some() {
            v1::StreamState::Ended
        } else {
            v1::StreamState::Live
        };
        v1::Stream {
            stream_id,
            agent_id: "a1".to_owned(),
            instance: format!("run-{stream_id}"),
            labels: stream.labels.clone(),
            state: state.into(),
            first_sequence: 0,
            next_sequence: lines,
            text_bytes: stream.lines.iter().map(|line| line.text.len() as u64 + 1).sum(),
            created_unix_us: FIRST_LINE_UNIX_US,
            last_line_unix_us: line_time(lines),
            run: None,
            end: stream.end.clone(),
        }
    }

    /// Streams that match `name=value` exactly, or all; anything else is a bad selector.
    fn select(&self, selector: &str) -> Result<Vec<u64>, Status> {
        let Some((name, value)) = selector.split_once('=') else {
            if selector.is_empty() {
                return Ok(self.streams.keys().copied().collect());
            }
            return Err(Status::invalid_argument(format!(
                "selector `{selector}`: expected a label at position {}",
                selector.len()
            )));
        };
        let matches = |id: &&u64| {
            self.streams[*id]
                .labels
                .get(name)
                .is_some_and(|label| label == value)
        };
        Ok(self.streams.keys().filter(matches).copied().collect())
    }

    fn block(&self, stream_id: u64, from: u64, to: u64, filter: Option<&v1::Filter>) -> Option<v1::Block> {
        let mut builder = BlockBuilder::new();
        for sequence in from..to {
            let line = &self.streams[&stream_id].lines[usize::try_from(sequence).unwrap()];
            assert!(builder.push_line(&line.text, line_time(sequence), line.channel, line.partial));
        }
        let block = builder.finish(from)?;
        let filter = filter.filter(|filter| !filter.regex.is_empty());
        match filter {
            None => Some(Compressor::new(1).compress(block)),
            // A literal is enough for tests.
            Some(filter) => OpenBlock::open(&block)
                .unwrap()
                .filter(|line| contains(line.text, filter.regex.as_bytes()) != filter.invert)
                .pop(),
        }
    }
}

pub(crate) fn line_time(sequence: u64) -> i64 {
    FIRST_LINE_UNIX_US + i64::try_from(sequence).unwrap() * 1_000_000
}

fn contains(text: &[u8], needle: &[u8]) -> bool {
    text.windows(needle.len()).any(|window| window == needle)
}

fn encode_cursor(store: u64, positions: &BTreeMap<u64, u64>) -> Bytes {
    let positions: Vec<_> = positions
        .iter()
        .map(|(id, next)| format!("{id}:{next}"))
        .collect();
    Bytes::from(format!("{store};{}", positions.join(",")))
}

fn decode_cursor(store: u64, cursor: &[u8]) -> Result<BTreeMap<u64, u64>, Status> {
    let text = std::str::from_utf8(cursor).unwrap();
    let (from, positions) = text.split_once(';').unwrap();
    if from != store.to_string() {
        return Err(Status::failed_precondition("the cursor belongs to another store"));
    }
    let pairs = positions.split(',').filter_map(|pair| pair.split_once(':'));
    Ok(pairs
        .map(|(id, next)| (id.parse().unwrap(), next.parse().unwrap()))
        .collect())
}
