//! A small relay for tests: keeps lines in memory, enforces sequences as the real one does, and misbehaves
//! on request.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses a part of it, and a test that cannot go on fails"
)]

pub mod agent;
pub mod stage;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use millstream_proto::block::{self, OpenBlock};
use millstream_proto::v1::{self, push_request::Message as Incoming, push_response::Message as Outgoing};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// How long a test waits for a condition before it fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a stream holds.
#[derive(Debug, Clone, Default)]
pub struct StoredStream {
    pub open: v1::OpenStream,
    pub agent_id: String,
    pub lines: Vec<StoredLine>,
    pub checkpoint: Bytes,
    pub end: Option<v1::StreamEnd>,
    /// How often it was opened.
    pub opens: usize,
    /// Blocks accepted, and how many of them were compressed.
    pub blocks: usize,
    pub compressed_blocks: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLine {
    pub channel: v1::Channel,
    pub partial: bool,
    pub text: Vec<u8>,
}

impl StoredStream {
    /// Text as produced, notices left out.
    pub fn raw(&self) -> Vec<u8> {
        let mut raw = Vec::new();
        for line in self
            .lines
            .iter()
            .filter(|line| line.channel != v1::Channel::Notice)
        {
            raw.extend_from_slice(&line.text);
            if !line.partial {
                raw.push(b'\n');
            }
        }
        raw
    }

    pub fn notices(&self) -> Vec<String> {
        let notices = self
            .lines
            .iter()
            .filter(|line| line.channel == v1::Channel::Notice);
        notices
            .map(|line| String::from_utf8_lossy(&line.text).into_owned())
            .collect()
    }
}

/// How to misbehave.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Drop the connection after so many more messages.
    pub drop_after: Option<usize>,
    /// Store, but do not acknowledge.
    pub silent: bool,
    /// Refuse the next block as malformed.
    pub malformed_once: bool,
    /// Forget the next block, so that the one after it is a gap.
    pub lose_block_once: bool,
    /// Ask to wait so long, once.
    pub throttle_ms: Option<u32>,
    /// Refuse to open streams.
    pub refuse_open: Option<v1::RefusalReason>,
    pub max_unacked_bytes: Option<u64>,
}

#[derive(Debug, Default)]
struct State {
    streams: BTreeMap<(String, String, String), StoredStream>,
    faults: Faults,
    sessions: usize,
    hellos: Vec<v1::Hello>,
    fences: HashMap<String, CancellationToken>,
}

/// The relay's store and switchboard; it survives [`FakeRelay::stop`].
#[derive(Clone)]
pub struct FakeRelay {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
}

/// The relay listening.
pub struct Listening {
    pub address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Listening {
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts every connection.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

impl FakeRelay {
    pub fn new() -> Self {
        Self {
            state: Arc::default(),
            changed: Arc::new(watch::channel(0).0),
        }
    }

    pub async fn listen(&self) -> Listening {
        self.listen_on("127.0.0.1:0".parse().unwrap()).await
    }

    /// Listens again where it did before.
    pub async fn listen_on(&self, address: SocketAddr) -> Listening {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(64).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let service = Ingest {
            relay: self.clone(),
            stop: stop.clone(),
        };
        let server = tonic::transport::Server::builder()
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20)
            .add_service(
                v1::ingest_service_server::IngestServiceServer::new(service)
                    .max_decoding_message_size(4 << 20),
            );
        let stopped = stop.clone();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            tokio::select! {
                result = server.serve_with_incoming(TcpListenerStream::new(listener)) => result.unwrap(),
                () = stopped.cancelled() => {}
            }
        });
        #[allow(clippy::disallowed_methods, reason = "the handle is awaited by `stop`")]
        let task = tokio::spawn(async move { while tasks.join_next().await.is_some() {} });
        Listening { address, stop, task }
    }

    pub fn set_faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.lock().faults);
    }

    pub fn faults(&self) -> Faults {
        self.lock().faults.clone()
    }

    pub fn streams(&self) -> Vec<StoredStream> {
        self.lock().streams.values().cloned().collect()
    }

    pub fn stream(&self, instance: &str) -> Option<StoredStream> {
        self.streams()
            .into_iter()
            .find(|stream| stream.open.instance == instance)
    }

    /// Of all streams together.
    pub fn lines(&self) -> usize {
        self.lock()
            .streams
            .values()
            .map(|stream| stream.lines.len())
            .sum()
    }

    pub fn sessions(&self) -> usize {
        self.lock().sessions
    }

    pub fn hellos(&self) -> Vec<v1::Hello> {
        self.lock().hellos.clone()
    }

    /// Loses everything that was stored.
    pub fn wipe(&self) {
        self.lock().streams.clear();
    }

    /// Waits until the state meets a condition.
    pub async fn until<T>(&self, what: &str, mut condition: impl FnMut(&Self) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Some(value) = condition(self) {
                    return value;
                }
                changed.changed().await.unwrap();
            }
        });
        match waited.await {
            Ok(value) => value,
            Err(_) => panic!("waited in vain for {what}; {}", self.summary()),
        }
    }

    pub async fn until_raw(&self, instance: &str, expected: &[u8]) -> StoredStream {
        self.until(&format!("{} bytes of {instance}", expected.len()), |relay| {
            relay.stream(instance).filter(|stream| stream.raw() == expected)
        })
        .await
    }

    fn summary(&self) -> String {
        let describe = |stream: StoredStream| {
            let raw = stream.raw();
            let tail = String::from_utf8_lossy(&raw[raw.len().saturating_sub(200)..]).into_owned();
            format!(
                "\n{} {}: {} lines, {} bytes, notices {:?}, end {:?}, last {tail:?}",
                stream.open.source,
                stream.open.instance,
                stream.lines.len(),
                raw.len(),
                stream.notices(),
                stream.end
            )
        };
        format!(
            "{} sessions{}",
            self.sessions(),
            self.streams().into_iter().map(describe).collect::<String>()
        )
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn tell(&self) {
        self.changed.send_modify(|version| *version += 1);
    }
}

struct Ingest {
    relay: FakeRelay,
    stop: CancellationToken,
}

#[tonic::async_trait]
impl v1::ingest_service_server::IngestService for Ingest {
    type PushStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::PushResponse, Status>> + Send>>;

    async fn push(
        &self,
        request: Request<Streaming<v1::PushRequest>>,
    ) -> Result<Response<Self::PushStream>, Status> {
        // Bound: a test's agent reads at once; when it does not, the session waits as the real one would.
        let (answers, receiver) = mpsc::channel(1024);
        let (relay, stop) = (self.relay.clone(), self.stop.clone());
        #[allow(
            clippy::disallowed_methods,
            reason = "it ends with the call or with the relay's stop"
        )]
        tokio::spawn(async move {
            let mut session = Session {
                relay,
                answers: answers.clone(),
                agent_id: String::new(),
                handles: HashMap::new(),
            };
            let result = tokio::select! {
                result = session.run(request.into_inner()) => result,
                () = stop.cancelled() => Err(Status::unavailable("the relay is stopping")),
            };
            if let Err(status) = result {
                let _ = answers.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

struct Session {
    relay: FakeRelay,
    answers: mpsc::Sender<Result<v1::PushResponse, Status>>,
    agent_id: String,
    handles: HashMap<u32, (String, String, String)>,
}

impl Session {
    async fn run(&mut self, mut requests: Streaming<v1::PushRequest>) -> Result<(), Status> {
        let fence = CancellationToken::new();
        while let Some(request) = tokio::select! {
            request = requests.message() => request?,
            () = fence.cancelled() => return Err(Status::aborted("a later session took over")),
        } {
            let message = request
                .message
                .ok_or_else(|| Status::invalid_argument("empty message"))?;
            let answers = self.handle(message, &fence)?;
            self.relay.tell();
            for answer in answers {
                let answer = v1::PushResponse {
                    message: Some(answer),
                };
                if self.answers.send(Ok(answer)).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn handle(&mut self, message: Incoming, fence: &CancellationToken) -> Result<Vec<Outgoing>, Status> {
        let store = Arc::clone(&self.relay.state);
        let mut state = store.lock().unwrap();
        // Under the lock that the later session's Hello was handled under: nothing of this one counts now.
        if fence.is_cancelled() {
            return Err(Status::aborted("a later session took over"));
        }
        if let Some(left) = &mut state.faults.drop_after {
            if *left == 0 {
                state.faults.drop_after = None;
                return Err(Status::unavailable("dropped by the test"));
            }
            *left -= 1;
        }
        if let Some(wait_ms) = state.faults.throttle_ms.take() {
            return self.apply(&mut state, message, fence).map(|mut answers| {
                answers.push(Outgoing::Throttle(v1::Throttle {
                    wait_ms,
                    reason: "disk full".to_owned(),
                }));
                answers
            });
        }
        self.apply(&mut state, message, fence)
    }

    fn apply(
        &mut self,
        state: &mut State,
        message: Incoming,
        fence: &CancellationToken,
    ) -> Result<Vec<Outgoing>, Status> {
        match message {
            Incoming::Hello(hello) => {
                state.sessions += 1;
                self.agent_id.clone_from(&hello.agent_id);
                if let Some(older) = state.fences.insert(hello.agent_id.clone(), fence.clone()) {
                    older.cancel();
                }
                state.hellos.push(hello);
                let welcome = v1::Welcome {
                    protocol_version: 1,
                    relay_version: "test".to_owned(),
                    store_id: "store".to_owned(),
                    epoch: state.sessions as u64,
                    max_unacked_bytes: state.faults.max_unacked_bytes.unwrap_or(8 << 20),
                    codecs: vec![v1::Codec::None.into(), v1::Codec::Zstd.into()],
                };
                Ok(vec![Outgoing::Welcome(welcome)])
            }
            Incoming::OpenStream(open) => Ok(vec![self.open(state, open)]),
            Incoming::Block(push) => self.push(state, &push),
            Incoming::EndStream(end) => self.end(state, end),
        }
    }

    fn open(&mut self, state: &mut State, open: v1::OpenStream) -> Outgoing {
        if let Some(reason) = state.faults.refuse_open {
            return refusal(open.handle, reason, "the test refuses", 0);
        }
        let key = (self.agent_id.clone(), open.source.clone(), open.instance.clone());
        self.handles.insert(open.handle, key.clone());
        let handle = open.handle;
        let stream = state.streams.entry(key).or_default();
        stream.open = open;
        stream.opens += 1;
        stream.agent_id.clone_from(&self.agent_id);
        Outgoing::StreamOpened(v1::StreamOpened {
            handle,
            stream_id: 1,
            next_sequence: stream.lines.len() as u64,
            checkpoint: stream.checkpoint.clone(),
            ended: stream.end.is_some(),
        })
    }

    fn push(&self, state: &mut State, push: &v1::PushBlock) -> Result<Vec<Outgoing>, Status> {
        let handle = push.handle;
        let key = self
            .handles
            .get(&handle)
            .ok_or_else(|| Status::invalid_argument("handle is not open"))?;
        let block = push
            .block
            .as_ref()
            .ok_or_else(|| Status::invalid_argument("no block"))?;
        let faults = &mut state.faults;
        let (malformed, lose) = (
            std::mem::take(&mut faults.malformed_once),
            std::mem::take(&mut faults.lose_block_once),
        );
        let silent = faults.silent;
        let stream = state
            .streams
            .get_mut(key)
            .ok_or_else(|| Status::invalid_argument("store was wiped"))?;
        let next = stream.lines.len() as u64;
        if malformed {
            return Ok(vec![refusal(
                handle,
                v1::RefusalReason::Malformed,
                "the test finds it malformed",
                next,
            )]);
        }
        if lose {
            return Ok(Vec::new());
        }
        block::validate(block).map_err(|error| Status::invalid_argument(error.to_string()))?;
        if block.first_sequence > next {
            return Ok(vec![refusal(
                handle,
                v1::RefusalReason::Gap,
                "a block is missing",
                next,
            )]);
        }
        if stream.end.is_some() {
            return Ok(vec![refusal(
                handle,
                v1::RefusalReason::Ended,
                "the stream ended",
                next,
            )]);
        }
        let opened = OpenBlock::open(block).map_err(|error| Status::invalid_argument(error.to_string()))?;
        for line in opened.lines().filter(|line| line.sequence >= next) {
            stream.lines.push(StoredLine {
                channel: line.channel,
                partial: line.partial,
                text: line.text.to_vec(),
            });
        }
        stream.blocks += 1;
        stream.compressed_blocks += usize::from(block.codec() == v1::Codec::Zstd);
        if opened.next_sequence() > next && !push.checkpoint.is_empty() {
            stream.checkpoint = push.checkpoint.clone();
        }
        let next_sequence = stream.lines.len() as u64;
        let ack = v1::StreamAck {
            handle,
            next_sequence,
            ended: false,
        };
        Ok(if silent {
            Vec::new()
        } else {
            vec![Outgoing::Ack(v1::Ack { streams: vec![ack] })]
        })
    }

    fn end(&self, state: &mut State, end: v1::EndStream) -> Result<Vec<Outgoing>, Status> {
        let key = self
            .handles
            .get(&end.handle)
            .ok_or_else(|| Status::invalid_argument("handle is not open"))?;
        let silent = state.faults.silent;
        let stream = state
            .streams
            .get_mut(key)
            .ok_or_else(|| Status::invalid_argument("store was wiped"))?;
        let next_sequence = stream.lines.len() as u64;
        if end.next_sequence != next_sequence {
            return Ok(vec![refusal(
                end.handle,
                v1::RefusalReason::Gap,
                "lines before the end are missing",
                next_sequence,
            )]);
        }
        stream.end = end.end;
        let ack = v1::StreamAck {
            handle: end.handle,
            next_sequence,
            ended: true,
        };
        Ok(if silent {
            Vec::new()
        } else {
            vec![Outgoing::Ack(v1::Ack { streams: vec![ack] })]
        })
    }
}

fn refusal(handle: u32, reason: v1::RefusalReason, message: &str, next_sequence: u64) -> Outgoing {
    Outgoing::Refusal(v1::Refusal {
        handle,
        reason: reason.into(),
        message: message.to_owned(),
        next_sequence,
    })
}
