//! A relay core on a real socket, and an agent and readers to try it with.

#![allow(dead_code, reason = "each test file uses a part of this")]
#![allow(
    clippy::unwrap_used,
    reason = "a test helper that cannot go on fails the test"
)]

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use millstream_proto::block::{BlockBuilder, OpenBlock};
use millstream_proto::v1::{self, push_request, push_response, tail_response};
use millstream_relay::auth::admit_everybody;
use millstream_relay::{Core, CoreOptions};
use millstream_store::LogStore;
use millstream_store::memory::MemoryStore;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Channel, Server};
use tonic::{Status, Streaming};

pub(crate) type LogClient = v1::log_service_client::LogServiceClient<Channel>;
pub(crate) type IngestClient = v1::ingest_service_client::IngestServiceClient<Channel>;

/// Longest wait for something that has to happen.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Relay {
    pub(crate) core: Core,
    pub(crate) store: Arc<dyn LogStore>,
    pub(crate) url: String,
    server: tokio::task::JoinSet<()>,
}

impl Relay {
    pub(crate) async fn start() -> Self {
        Self::with(Arc::new(MemoryStore::new()), CoreOptions::default()).await
    }

    pub(crate) async fn with(store: Arc<dyn LogStore>, options: CoreOptions) -> Self {
        let core = Core::start(Arc::clone(&store), options).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = core.routes();
        let mut server = tokio::task::JoinSet::new();
        server.spawn(async move {
            let incoming = TcpListenerStream::new(listener)
                .inspect(|connection| connection.as_ref().unwrap().set_nodelay(true).unwrap());
            Server::builder()
                .layer(admit_everybody())
                .initial_stream_window_size(4 << 20)
                .initial_connection_window_size(8 << 20)
                .add_routes(routes)
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
        Self {
            core,
            store,
            url,
            server,
        }
    }

    pub(crate) async fn channel(&self) -> Channel {
        Channel::from_shared(self.url.clone())
            .unwrap()
            .connect()
            .await
            .unwrap()
    }

    pub(crate) async fn log(&self) -> LogClient {
        LogClient::new(self.channel().await)
    }

    pub(crate) async fn agent(&self, agent_id: &str) -> Agent {
        Agent::connect(self.channel().await, agent_id).await.unwrap()
    }

    pub(crate) async fn tail(&self, request: v1::TailRequest) -> Streaming<v1::TailResponse> {
        self.log().await.tail(request).await.unwrap().into_inner()
    }
}

/// An agent made of bare messages.
pub(crate) struct Agent {
    pub(crate) to_relay: mpsc::Sender<v1::PushRequest>,
    pub(crate) from_relay: Streaming<v1::PushResponse>,
    pub(crate) welcome: v1::Welcome,
}

pub(crate) fn hello(agent_id: &str) -> v1::Hello {
    v1::Hello {
        protocol_version: 1,
        agent_id: agent_id.to_owned(),
        host: format!("host-{agent_id}"),
        labels: [("team".to_owned(), "core".to_owned())].into(),
        agent_version: "test".to_owned(),
    }
}

impl Agent {
    pub(crate) async fn connect(channel: Channel, agent_id: &str) -> Result<Self, Status> {
        Self::connect_with(channel, hello(agent_id)).await
    }

    pub(crate) async fn connect_with(channel: Channel, hello: v1::Hello) -> Result<Self, Status> {
        let (to_relay, requests) = mpsc::channel(64);
        let first = v1::PushRequest {
            message: Some(push_request::Message::Hello(hello)),
        };
        to_relay.send(first).await.unwrap();
        let mut client = IngestClient::new(channel);
        let mut from_relay = client.push(ReceiverStream::new(requests)).await?.into_inner();
        match from_relay.message().await?.unwrap().message.unwrap() {
            push_response::Message::Welcome(welcome) => Ok(Self {
                to_relay,
                from_relay,
                welcome,
            }),
            other => panic!("Welcome expected, not {other:?}"),
        }
    }

    pub(crate) async fn send(&self, message: push_request::Message) {
        self.to_relay
            .send(v1::PushRequest {
                message: Some(message),
            })
            .await
            .unwrap();
    }

    pub(crate) async fn receive(&mut self) -> Result<push_response::Message, Status> {
        let message = tokio::time::timeout(SOON, self.from_relay.message())
            .await
            .expect("an answer soon");
        Ok(message?.expect("the session is open").message.unwrap())
    }

    pub(crate) async fn open(&mut self, handle: u32, instance: &str) -> v1::StreamOpened {
        self.open_as(v1::OpenStream {
            handle,
            source: "app".to_owned(),
            instance: instance.to_owned(),
            path: instance.to_owned(),
            ..v1::OpenStream::default()
        })
        .await
    }

    pub(crate) async fn open_as(&mut self, open: v1::OpenStream) -> v1::StreamOpened {
        self.send(push_request::Message::OpenStream(open)).await;
        loop {
            match self.receive().await.unwrap() {
                push_response::Message::StreamOpened(opened) => return opened,
                push_response::Message::Ack(_) => {}
                other => panic!("StreamOpened expected, not {other:?}"),
            }
        }
    }

    pub(crate) async fn push(&self, handle: u32, block: v1::Block, checkpoint: &[u8]) {
        let checkpoint = checkpoint.to_vec().into();
        self.send(push_request::Message::Block(v1::PushBlock {
            handle,
            block: Some(block),
            checkpoint,
        }))
        .await;
    }

    pub(crate) async fn try_push(&self, handle: u32, block: v1::Block) {
        let push = v1::PushBlock {
            handle,
            block: Some(block),
            checkpoint: bytes::Bytes::new(),
        };
        let message = Some(push_request::Message::Block(push));
        let _ = self.to_relay.send(v1::PushRequest { message }).await;
    }

    pub(crate) async fn end(&self, handle: u32, next_sequence: u64) {
        let end = v1::StreamEnd {
            reason: v1::EndReason::Exited.into(),
            exit_code: Some(101),
            ..v1::StreamEnd::default()
        };
        self.send(push_request::Message::EndStream(v1::EndStream {
            handle,
            next_sequence,
            end: Some(end),
        }))
        .await;
    }

    /// Waits until everything below the sequence is acknowledged.
    pub(crate) async fn acked(&mut self, handle: u32, next_sequence: u64) -> v1::StreamAck {
        loop {
            match self.receive().await.unwrap() {
                push_response::Message::Ack(ack) => {
                    let reached = ack
                        .streams
                        .into_iter()
                        .find(|stream| stream.handle == handle && stream.next_sequence >= next_sequence);
                    if let Some(reached) = reached {
                        return reached;
                    }
                }
                other => panic!("Ack expected, not {other:?}"),
            }
        }
    }

    pub(crate) async fn refused(&mut self) -> v1::Refusal {
        loop {
            match self.receive().await.unwrap() {
                push_response::Message::Refusal(refusal) => return refusal,
                push_response::Message::Ack(_) => {}
                other => panic!("Refusal expected, not {other:?}"),
            }
        }
    }
}

/// Lines `first..first + count` of a stream, recognisable.
pub(crate) fn lines(name: &str, first: u64, count: u64) -> v1::Block {
    let mut builder = BlockBuilder::new();
    for sequence in first..first + count {
        let time = i64::try_from(sequence).unwrap() * 1000;
        assert!(builder.push_line(text(name, sequence).as_bytes(), time, v1::Channel::Stdout, false));
    }
    builder.finish(first).unwrap()
}

pub(crate) fn text(name: &str, sequence: u64) -> String {
    format!("{name} {sequence} checking for gcc... gcc")
}

/// What a reader collected of each stream.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) lines: std::collections::BTreeMap<u64, Vec<(u64, String)>>,
    pub(crate) announced: std::collections::BTreeMap<u64, v1::Stream>,
    pub(crate) ended: std::collections::BTreeMap<u64, v1::StreamEnded>,
    pub(crate) gaps: Vec<v1::Gap>,
    pub(crate) caught_up: Option<v1::CaughtUp>,
    pub(crate) heartbeats: Vec<v1::Heartbeat>,
}

impl Seen {
    pub(crate) fn take(&mut self, response: v1::TailResponse) {
        match response.message.expect("a response has a message") {
            tail_response::Message::Stream(stream) => {
                assert!(
                    self.announced.insert(stream.stream_id, stream).is_none(),
                    "announced once"
                );
            }
            tail_response::Message::Block(block) => {
                assert!(
                    self.announced.contains_key(&block.stream_id),
                    "announced before its first block"
                );
                let open = OpenBlock::open(&block.block.unwrap()).unwrap();
                let lines = self.lines.entry(block.stream_id).or_default();
                lines.extend(
                    open.lines()
                        .map(|line| (line.sequence, String::from_utf8_lossy(line.text).into_owned())),
                );
            }
            tail_response::Message::Gap(gap) => self.gaps.push(gap),
            tail_response::Message::CaughtUp(caught_up) => {
                assert!(self.caught_up.replace(caught_up).is_none(), "sent once");
            }
            tail_response::Message::Heartbeat(heartbeat) => self.heartbeats.push(heartbeat),
            tail_response::Message::StreamEnded(ended) => {
                assert!(self.ended.insert(ended.stream_id, ended).is_none(), "ended once");
            }
        }
    }

    /// Number of lines of all streams.
    pub(crate) fn count(&self) -> usize {
        self.lines.values().map(Vec::len).sum()
    }

    /// Checks that the lines of the stream are these, dense and with their text.
    pub(crate) fn assert_dense(&self, stream_id: u64, name: &str, range: std::ops::Range<u64>) {
        let lines = self.lines.get(&stream_id).map_or(&[][..], Vec::as_slice);
        assert_eq!(
            lines.len() as u64,
            range.end - range.start,
            "number of lines of {name}"
        );
        for (sequence, (got, got_text)) in range.zip(lines) {
            assert_eq!(
                (*got, got_text.as_str()),
                (sequence, text(name, sequence).as_str())
            );
        }
    }
}

/// Reads until the condition holds.
pub(crate) async fn read_until(
    stream: &mut Streaming<v1::TailResponse>,
    seen: &mut Seen,
    mut is_enough: impl FnMut(&Seen) -> bool,
) {
    while !is_enough(seen) {
        let message = tokio::time::timeout(SOON, stream.message()).await;
        let message = message.unwrap_or_else(|_| panic!("nothing came; so far {} lines", seen.count()));
        seen.take(message.unwrap().expect("the call is open"));
    }
}

/// Reads to the end of the call.
pub(crate) async fn read_all(mut stream: Streaming<v1::TailResponse>) -> Seen {
    let mut seen = Seen::default();
    while let Some(response) = tokio::time::timeout(SOON, stream.message())
        .await
        .unwrap()
        .unwrap()
    {
        seen.take(response);
    }
    seen
}

pub(crate) fn from_beginning(follow: bool) -> v1::TailRequest {
    v1::TailRequest {
        start: Some(v1::tail_request::Start::FromBeginning(true)),
        follow,
        codecs: vec![v1::Codec::None.into(), v1::Codec::Zstd.into()],
        ..v1::TailRequest::default()
    }
}
