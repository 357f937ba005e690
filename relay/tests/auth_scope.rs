//! What a scope hides: each way to read, from somebody who may see a stream and from somebody who may not; and
//! what an agent's token lets it send.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod edge_support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use edge_support::{Edge, SOON};
use millstream_proto::block::BlockBuilder;
use millstream_proto::v1::ingest_service_client::IngestServiceClient;
use millstream_proto::v1::log_service_client::LogServiceClient;
use millstream_proto::v1::{self, push_request, push_response, tail_response, watch_response};
use millstream_relay::auth::Role;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

/// Adds a token to each call.
#[derive(Clone)]
struct Bearer(MetadataValue<Ascii>);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

async fn with_token(edge: &Edge, token: &str) -> InterceptedService<Channel, Bearer> {
    let bearer = Bearer(format!("Bearer {token}").parse().unwrap());
    InterceptedService::new(edge.channel().await, bearer)
}

/// An agent made of bare messages.
struct Agent {
    to_relay: mpsc::Sender<v1::PushRequest>,
    from_relay: Streaming<v1::PushResponse>,
}

impl Agent {
    async fn connect(
        edge: &Edge,
        token: &str,
        agent_id: &str,
        host: &str,
        team: &str,
    ) -> Result<Self, Status> {
        let (to_relay, requests) = mpsc::channel(16);
        let hello = v1::Hello {
            protocol_version: 1,
            agent_id: agent_id.to_owned(),
            host: host.to_owned(),
            labels: [("team".to_owned(), team.to_owned())].into(),
            agent_version: "test".to_owned(),
        };
        let mut agent = Self {
            from_relay: {
                send(&to_relay, push_request::Message::Hello(hello)).await;
                let mut client = IngestServiceClient::new(with_token(edge, token).await);
                client.push(ReceiverStream::new(requests)).await?.into_inner()
            },
            to_relay,
        };
        match agent.receive().await? {
            push_response::Message::Welcome(_) => Ok(agent),
            other => panic!("Welcome expected, not {other:?}"),
        }
    }

    async fn receive(&mut self) -> Result<push_response::Message, Status> {
        let message = tokio::time::timeout(SOON, self.from_relay.message()).await;
        Ok(message.expect("an answer soon")?.unwrap().message.unwrap())
    }

    /// Opens a stream; `Err`: it is refused.
    async fn open(&mut self, source: &str, instance: &str) -> Result<v1::StreamOpened, v1::Refusal> {
        let open = v1::OpenStream {
            handle: 1,
            source: source.to_owned(),
            instance: instance.to_owned(),
            run: Some(v1::Run {
                run_id: instance.to_owned(),
                ..v1::Run::default()
            }),
            ..v1::OpenStream::default()
        };
        send(&self.to_relay, push_request::Message::OpenStream(open)).await;
        match self.receive().await.unwrap() {
            push_response::Message::StreamOpened(opened) => Ok(opened),
            push_response::Message::Refusal(refusal) => Err(refusal),
            other => panic!("an answer to OpenStream expected, not {other:?}"),
        }
    }

    /// One line, acknowledged.
    async fn line(&mut self, text: &str) {
        let mut builder = BlockBuilder::new();
        assert!(builder.push_line(text.as_bytes(), 1_000_000, v1::Channel::Stdout, false));
        let block = v1::PushBlock {
            handle: 1,
            block: builder.finish(0),
            checkpoint: Vec::new().into(),
        };
        send(&self.to_relay, push_request::Message::Block(block)).await;
        match self.receive().await.unwrap() {
            push_response::Message::Ack(_) => {}
            other => panic!("Ack expected, not {other:?}"),
        }
    }
}

async fn send(to_relay: &mpsc::Sender<v1::PushRequest>, message: push_request::Message) {
    let message = Some(message);
    to_relay.send(v1::PushRequest { message }).await.unwrap();
}

/// A relay with one stream of the team `web` and one of the team `core`; their ids.
struct TwoTeams {
    edge: Edge,
    web: u64,
    core: u64,
    /// Their agents stay connected.
    _agents: Vec<Agent>,
}

impl TwoTeams {
    async fn start() -> Self {
        let edge = Edge::asking().await;
        let mut ids = Vec::new();
        let mut agents = Vec::new();
        for team in ["web", "core"] {
            let token = edge.token(Role::Agent, &format!("host={team}-1")).await;
            let (agent_id, host) = (format!("a-{team}"), format!("{team}-1"));
            let agent = Agent::connect(&edge, &token, &agent_id, &host, team);
            let mut agent = agent.await.unwrap();
            let opened = agent.open("cargo", &format!("{team}-run")).await.unwrap();
            agent.line(&format!("a line of {team}")).await;
            ids.push(opened.stream_id);
            agents.push(agent);
        }
        Self {
            edge,
            web: ids[0],
            core: ids[1],
            _agents: agents,
        }
    }
}

/// Everything that somebody gets to see, call by call.
struct Eyes<'a> {
    edge: &'a Edge,
    token: String,
    log: LogServiceClient<InterceptedService<Channel, Bearer>>,
}

impl<'a> Eyes<'a> {
    async fn of(edge: &'a Edge, role: Role, scope: &str) -> Self {
        let token = edge.token(role, scope).await;
        let log = LogServiceClient::new(with_token(edge, &token).await);
        Self { edge, token, log }
    }

    async fn streams(&mut self) -> BTreeSet<u64> {
        let request = v1::ListStreamsRequest::default();
        let response = self.log.list_streams(request).await.unwrap().into_inner();
        response.streams.iter().map(|stream| stream.stream_id).collect()
    }

    async fn runs(&mut self) -> BTreeSet<u64> {
        let request = v1::ListRunsRequest::default();
        let response = self.log.list_runs(request).await.unwrap().into_inner();
        response.runs.iter().map(|stream| stream.stream_id).collect()
    }

    async fn agents(&mut self) -> BTreeSet<String> {
        let request = v1::ListAgentsRequest::default();
        let response = self.log.list_agents(request).await.unwrap().into_inner();
        response.agents.into_iter().map(|agent| agent.agent_id).collect()
    }

    /// Streams and agents of the first lists of `Watch`.
    async fn watch(&mut self) -> (BTreeSet<u64>, BTreeSet<String>) {
        let request = v1::WatchRequest::default();
        let mut changes = self.log.watch(request).await.unwrap().into_inner();
        let (mut streams, mut agents) = (BTreeSet::new(), BTreeSet::new());
        loop {
            match next(&mut changes).await.unwrap().message.unwrap() {
                watch_response::Message::Stream(stream) => drop(streams.insert(stream.stream_id)),
                watch_response::Message::Agent(agent) => drop(agents.insert(agent.agent_id)),
                watch_response::Message::SnapshotDone(_) => return (streams, agents),
                _ => {}
            }
        }
    }

    /// Streams that a subscription of everything delivers.
    async fn tail(&mut self, stream_ids: Vec<u64>) -> Result<BTreeSet<u64>, Status> {
        let request = v1::TailRequest {
            stream_ids,
            start: Some(v1::tail_request::Start::FromBeginning(true)),
            ..v1::TailRequest::default()
        };
        let mut responses = self.log.tail(request).await?.into_inner();
        let mut seen = BTreeSet::new();
        while let Some(response) = next(&mut responses).await {
            match response.message.unwrap() {
                tail_response::Message::Stream(stream) => drop(seen.insert(stream.stream_id)),
                tail_response::Message::Block(block) => assert!(seen.contains(&block.stream_id)),
                _ => {}
            }
        }
        Ok(seen)
    }

    /// Streams in which a search of everything finds lines.
    async fn search(&mut self, stream_ids: Vec<u64>) -> Result<BTreeSet<u64>, Status> {
        let request = v1::SearchRequest {
            stream_ids,
            ..v1::SearchRequest::default()
        };
        let mut responses = self.log.search(request).await?.into_inner();
        let mut seen = BTreeSet::new();
        while let Some(response) = next(&mut responses).await {
            if let Some(v1::search_response::Message::Hits(hits)) = response.message {
                seen.insert(hits.stream_id);
            }
        }
        Ok(seen)
    }

    /// Lines that a histogram counts.
    async fn histogram(&mut self, stream_ids: Vec<u64>) -> Result<u64, Status> {
        let request = v1::HistogramRequest {
            stream_ids,
            ..v1::HistogramRequest::default()
        };
        let response = self.log.histogram(request).await?.into_inner();
        Ok(response.buckets.iter().map(|bucket| bucket.lines).sum())
    }

    async fn read(&mut self, stream_id: u64) -> Result<v1::ReadResponse, Status> {
        let request = v1::ReadRequest {
            stream_id,
            ..v1::ReadRequest::default()
        };
        Ok(self.log.read(request).await?.into_inner())
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let headers = format!("authorization: Bearer {}\r\n", self.token);
        let answer = self.edge.send("GET", path, &headers, b"").await;
        (answer.status, answer.text())
    }

    async fn raw(&self, stream_id: u64) -> (u16, String) {
        self.get(&format!("/api/streams/{stream_id}/raw")).await
    }
}

async fn next<T>(stream: &mut Streaming<T>) -> Option<T> {
    tokio::time::timeout(SOON, stream.message())
        .await
        .expect("a message soon")
        .unwrap()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A number that no stream has.
const NO_STREAM: u64 = 999_999;

#[tokio::test(flavor = "multi_thread")]
async fn every_reading_call_of_every_role_shows_what_is_in_the_scope_and_nothing_else() {
    let teams = TwoTeams::start().await;
    let (web, core) = (teams.web, teams.core);
    for role in [Role::Viewer, Role::Operator, Role::Admin] {
        for scope in [
            "team=web",
            "host=web-*",
            "source=cargo,run=web-run",
            "agent=a-web",
        ] {
            let mut eyes = Eyes::of(&teams.edge, role, scope).await;
            let case = format!("{role} {scope}");
            assert_eq!(eyes.streams().await, [web].into(), "{case}");
            assert_eq!(eyes.runs().await, [web].into(), "{case}");
            assert_eq!(eyes.agents().await, names(&["a-web"]), "{case}");
            assert_eq!(eyes.watch().await, ([web].into(), names(&["a-web"])), "{case}");
            assert_eq!(eyes.tail(vec![]).await.unwrap(), [web].into(), "{case}");
            assert_eq!(eyes.tail(vec![web]).await.unwrap(), [web].into(), "{case}");
            assert_eq!(eyes.read(web).await.unwrap().blocks.len(), 1, "{case}");
            assert_eq!(eyes.search(vec![]).await.unwrap(), [web].into(), "{case}");
            assert_eq!(eyes.search(vec![web]).await.unwrap(), [web].into(), "{case}");
            assert_eq!(eyes.histogram(vec![]).await.unwrap(), 1, "{case}");
            assert_eq!(eyes.raw(web).await, (200, "a line of web\n".to_owned()), "{case}");

            // As if it did not exist, to the letter.
            let hidden = eyes.tail(vec![core]).await.unwrap_err();
            let absent = eyes.tail(vec![NO_STREAM]).await.unwrap_err();
            assert_same_refusal(&hidden, &absent, core);
            let hidden = eyes.read(core).await.unwrap_err();
            let absent = eyes.read(NO_STREAM).await.unwrap_err();
            assert_same_refusal(&hidden, &absent, core);
            let hidden = eyes.search(vec![core]).await.unwrap_err();
            let absent = eyes.search(vec![NO_STREAM]).await.unwrap_err();
            assert_same_refusal(&hidden, &absent, core);
            let hidden = eyes.histogram(vec![core]).await.unwrap_err();
            let absent = eyes.histogram(vec![NO_STREAM]).await.unwrap_err();
            assert_same_refusal(&hidden, &absent, core);
            let (status, words) = eyes.raw(core).await;
            let (absent_status, absent_words) = eyes.raw(NO_STREAM).await;
            assert_eq!((status, absent_status), (404, 404), "{case}");
            assert_eq!(
                words,
                absent_words.replace(&NO_STREAM.to_string(), &core.to_string())
            );

            assert_eq!(eyes.get("/metrics").await.0, 403, "{case}");
        }
        let mut eyes = Eyes::of(&teams.edge, role, "").await;
        assert!(eyes.streams().await.is_superset(&[web, core].into()), "{role}");
        assert!(
            eyes.agents().await.is_superset(&names(&["a-core", "a-web"])),
            "{role}"
        );
        assert_eq!(eyes.raw(core).await.0, 200, "{role}");
        assert_eq!(eyes.get("/metrics").await.0, 200, "{role}");
    }
    teams.edge.relay.stop().await;
}

fn assert_same_refusal(hidden: &Status, absent: &Status, stream_id: u64) {
    assert_eq!((hidden.code(), absent.code()), (Code::NotFound, Code::NotFound));
    let words = absent
        .message()
        .replace(&NO_STREAM.to_string(), &stream_id.to_string());
    assert_eq!(hidden.message(), words);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_one_scope_is_refused_in_another() {
    let teams = TwoTeams::start().await;
    let mut narrow = Eyes::of(&teams.edge, Role::Viewer, "team=web").await;
    let follow = v1::TailRequest {
        start: Some(v1::tail_request::Start::FromBeginning(true)),
        follow: true,
        ..v1::TailRequest::default()
    };
    let mut responses = narrow.log.tail(follow).await.unwrap().into_inner();
    let cursor = loop {
        if let Some(tail_response::Message::CaughtUp(caught_up)) = next(&mut responses).await.unwrap().message
        {
            break caught_up.cursor;
        }
    };
    let resume = v1::TailRequest {
        start: Some(v1::tail_request::Start::Cursor(cursor)),
        ..v1::TailRequest::default()
    };
    let mut wide = Eyes::of(&teams.edge, Role::Viewer, "").await;
    let error = wide.log.tail(resume.clone()).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("somebody who may see others"), "{error}");
    narrow.log.tail(resume).await.unwrap();
    teams.edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_token_sends_for_its_own_host_and_sources_only() {
    let teams = TwoTeams::start().await;
    let edge = &teams.edge;
    let token = edge.token(Role::Agent, "host=web-1,source in (cargo,npm)").await;
    let connect =
        async |agent_id: &str, host: &str| Agent::connect(edge, &token, agent_id, host, "web").await;

    for (agent_id, host) in [
        // Another host; another host's agent, with and without that host's name.
        ("a-new", "web-2"),
        ("a-core", "core-1"),
        ("a-core", "web-1"),
    ] {
        let error = connect(agent_id, host).await.err().unwrap();
        assert_eq!(error.code(), Code::PermissionDenied, "{agent_id} {host}");
        assert!(error.message().contains("token create"), "{error}");
    }
    let mut agent = connect("a-other", "web-1").await.unwrap();
    let refusal = agent.open("make", "x").await.unwrap_err();
    assert_eq!(refusal.reason(), v1::RefusalReason::NotAllowed);
    assert!(
        refusal.message.contains("source in (cargo,npm)"),
        "{}",
        refusal.message
    );
    agent.open("npm", "x").await.unwrap();
    agent.line("allowed").await;
    // Asked for again and again, it is in the audit once.
    for _ in 0..3 {
        agent.open("make", "x").await.unwrap_err();
    }
    agent.open("make", "y").await.unwrap_err();

    // It can read nothing.
    let mut log = LogServiceClient::new(with_token(edge, &token).await);
    let error = log
        .list_streams(v1::ListStreamsRequest::default())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
    // And who reads can send nothing.
    let viewer = edge.token(Role::Admin, "").await;
    let error = Agent::connect(edge, &viewer, "a-9", "web-1", "web")
        .await
        .err()
        .unwrap();
    assert_eq!(error.code(), Code::PermissionDenied);
    let mut log = LogServiceClient::new(with_token(edge, &viewer).await);
    let audit = v1::ListStreamsRequest {
        selector: "source=audit".to_owned(),
        ..v1::ListStreamsRequest::default()
    };
    let audit = log.list_streams(audit).await.unwrap().into_inner().streams;
    let path = format!("/api/streams/{}/raw", audit[0].stream_id);
    let headers = format!("authorization: Bearer {viewer}\r\n");
    let begin = Instant::now();
    let audit = loop {
        let audit = edge.send("GET", &path, &headers, b"").await.text();
        if audit.contains("may not send source make, y") {
            break audit;
        }
        assert!(begin.elapsed() < CUT_LIMIT, "{audit}");
    };
    assert_eq!(
        audit
            .matches("agent a-other of host web-1 may not send source make, x")
            .count(),
        1,
        "{audit}"
    );
    assert!(audit.contains("\"who\":\"token agent-"), "{audit}");
    teams.edge.relay.stop().await;
}

/// The relay promises that a revocation ends what runs within seconds.
const CUT_LIMIT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_ends_subscriptions_watches_and_sessions_that_run() {
    let edge = Edge::asking().await;
    let agent_token = edge.token(Role::Agent, "host=h").await;
    let viewer_token = edge.token(Role::Viewer, "").await;
    let mut agent = Agent::connect(&edge, &agent_token, "a", "h", "web")
        .await
        .unwrap();
    agent.open("cargo", "x").await.unwrap();
    let mut log = LogServiceClient::new(with_token(&edge, &viewer_token).await);
    let follow = v1::TailRequest {
        follow: true,
        ..v1::TailRequest::default()
    };
    let mut tail = log.tail(follow).await.unwrap().into_inner();
    let mut watch = log.watch(v1::WatchRequest::default()).await.unwrap().into_inner();

    for token in edge.tokens().read().unwrap() {
        edge.tokens().revoke(&token.id).unwrap();
    }
    let ends = async {
        let tail = async {
            while tail.message().await?.is_some() {}
            Ok::<_, Status>(())
        };
        let watch = async {
            while watch.message().await?.is_some() {}
            Ok::<_, Status>(())
        };
        let push = async {
            while agent.from_relay.message().await?.is_some() {}
            Ok::<_, Status>(())
        };
        tokio::join!(tail, watch, push)
    };
    let (tail, watch, push) = tokio::time::timeout(CUT_LIMIT, ends).await.unwrap();
    for end in [tail, watch, push] {
        let status = end.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        assert!(status.message().contains("revoked"), "{status}");
    }
    // The agent is away: its session is over, not only silent.
    let token = edge.token(Role::Viewer, "").await;
    let mut log = LogServiceClient::new(with_token(&edge, &token).await);
    let begin = Instant::now();
    loop {
        let agents = log
            .list_agents(v1::ListAgentsRequest::default())
            .await
            .unwrap()
            .into_inner()
            .agents;
        if agents[0].state() == v1::AgentState::Away {
            break;
        }
        assert!(begin.elapsed() < SOON);
    }
    edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_ends_what_runs() {
    let edge = Edge::asking().await;
    let new = millstream_relay::auth::NewToken {
        name: "short".to_owned(),
        role: Role::Viewer,
        scope: String::new(),
        lifetime_secs: Some(4),
    };
    let (_, token) = edge.tokens().create(new).unwrap();
    let mut log = LogServiceClient::new(with_token(&edge, &token).await);
    let follow = v1::TailRequest {
        follow: true,
        ..v1::TailRequest::default()
    };
    // The relay looks at the file twice a second.
    let mut tail = loop {
        match log.tail(follow.clone()).await {
            Ok(tail) => break tail.into_inner(),
            Err(error) => assert_eq!(error.code(), Code::Unauthenticated),
        }
    };
    let end = async {
        while tail.message().await?.is_some() {}
        Ok::<_, Status>(())
    };
    let status = tokio::time::timeout(SOON, end).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("expired"), "{status}");
    assert_eq!(log.tail(follow).await.unwrap_err().code(), Code::Unauthenticated);
    edge.relay.stop().await;
}
