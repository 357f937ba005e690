//! Limits of `[limits]`, on a real port: who reaches one is told which and for how long, and others do not notice.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod edge_support;
mod support;

use std::time::{Duration, Instant};

use edge_support::{Edge, SOON};
use millstream_proto::retry;
use millstream_proto::v1::log_service_client::LogServiceClient;
use millstream_proto::v1::{self, push_response};
use millstream_relay::auth::Role;
use millstream_relay::config::{LimitSettings, Settings};
use support::{Agent, LogClient, lines};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Status};

async fn edge(limits: LimitSettings) -> Edge {
    Edge::start_with(Settings {
        limits,
        ..Settings::default()
    })
    .await
}

fn assert_told(status: &Status, key: &str) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(
        status.message().contains(&format!("limits.{key} = ")),
        "{status:?}"
    );
    let wait = retry::delay(status).expect("it says when to come again");
    assert!(
        wait > Duration::ZERO && wait < Duration::from_secs(60),
        "{wait:?}"
    );
}

fn everything() -> v1::TailRequest {
    v1::TailRequest {
        follow: true,
        ..v1::TailRequest::default()
    }
}

type WithToken = tonic::service::interceptor::InterceptedService<Channel, Bearer>;

#[derive(Clone)]
struct Bearer(MetadataValue<tonic::metadata::Ascii>);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

async fn log_with(edge: &Edge, token: &str) -> LogServiceClient<WithToken> {
    let bearer = Bearer(format!("Bearer {token}").parse().unwrap());
    LogServiceClient::with_interceptor(edge.channel().await, bearer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_with_too_many_subscriptions_is_told_and_others_are_served() {
    let edge = Edge::start_with(Settings {
        auth: Some(true),
        limits: LimitSettings {
            max_subscriptions_per_caller: Some(2),
            ..LimitSettings::default()
        },
        ..Settings::default()
    })
    .await;
    let greedy = edge.token(Role::Viewer, "").await;
    let modest = edge.token(Role::Viewer, "").await;
    // From two connections: it is about who somebody is, not by which way they come.
    let mut first = log_with(&edge, &greedy).await;
    let mut second = log_with(&edge, &greedy).await;
    let held = first.tail(everything()).await.unwrap();
    let _watch = second.watch(v1::WatchRequest::default()).await.unwrap();
    assert_told(
        &second.tail(everything()).await.unwrap_err(),
        "max_subscriptions_per_caller",
    );
    log_with(&edge, &modest).await.tail(everything()).await.unwrap();
    assert!(edge.relay_metric("limits_reached_total") >= 1);
    drop(held);
    // What is given back can be had again.
    let begin = Instant::now();
    while let Err(status) = second.tail(everything()).await {
        assert_told(&status, "max_subscriptions_per_caller");
        assert!(begin.elapsed() < SOON);
    }
}

/// Two streams of several blocks, some 30 MB.
async fn store(edge: &Edge) {
    let mut agent = Agent::connect(edge.channel().await, "a").await.unwrap();
    agent.open(1, "/one").await;
    agent.open(2, "/two").await;
    for first in (0..400_000).step_by(20_000) {
        for handle in [1, 2] {
            agent.push(handle, lines("x", first, 20_000), b"").await;
            agent.acked(handle, first + 20_000).await;
        }
    }
}

fn search(substring: &str) -> v1::SearchRequest {
    v1::SearchRequest {
        filter: Some(v1::Filter {
            substring: substring.to_owned(),
            ..v1::Filter::default()
        }),
        max_hits: 1_000_000,
        ..v1::SearchRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_has_only_so_many_searches_open() {
    let edge = edge(LimitSettings {
        max_searches_per_caller: Some(1),
        ..LimitSettings::default()
    })
    .await;
    store(&edge).await;
    let mut log = LogClient::new(edge.channel().await);
    // It finds every line and nobody takes them, so it stays open.
    let held = log.search(search("checking")).await.unwrap();
    let status = log.search(search("nothing")).await.unwrap_err();
    assert_told(&status, "max_searches_per_caller");
    drop(held);
    let begin = Instant::now();
    while let Err(status) = log.search(search("nothing")).await {
        assert_told(&status, "max_searches_per_caller");
        assert!(begin.elapsed() < SOON);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_costs_too_much_ends_with_words_after_what_it_found() {
    let edge = edge(LimitSettings {
        max_search_text_bytes: Some(1),
        ..LimitSettings::default()
    })
    .await;
    store(&edge).await;
    let mut log = LogClient::new(edge.channel().await);
    let mut found = log.search(search("checking")).await.unwrap().into_inner();
    let mut hits = 0;
    let status = loop {
        match tokio::time::timeout(SOON, found.message()).await.unwrap() {
            Ok(Some(response)) => {
                hits += usize::from(matches!(
                    response.message,
                    Some(v1::search_response::Message::Hits(_))
                ));
            }
            Ok(None) => panic!("the search came to its end although it cost too much"),
            Err(status) => break status,
        }
    };
    assert_told(&status, "max_search_text_bytes");
    assert!(hits > 0, "what was found before is not lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_too_fast_is_told_to_wait_and_loses_nothing() {
    let edge = edge(LimitSettings {
        max_agent_lines_per_second: Some(1000),
        ..LimitSettings::default()
    })
    .await;
    let mut agent = Agent::connect(edge.channel().await, "a").await.unwrap();
    agent.open(1, "/log").await;
    let mut other = Agent::connect(edge.channel().await, "b").await.unwrap();
    other.open(1, "/log").await;
    let begin = Instant::now();
    for first in (0..5000).step_by(500) {
        agent.push(1, lines("x", first, 500), b"").await;
    }
    other.push(1, lines("y", 0, 500), b"").await;
    other.acked(1, 500).await;
    let (mut waits, mut acked) = (Vec::new(), 0);
    while acked < 5000 {
        match agent.receive().await.unwrap() {
            push_response::Message::Ack(ack) => acked = ack.streams[0].next_sequence,
            push_response::Message::Throttle(throttle) => waits.push(throttle),
            other => panic!("nothing is refused: {other:?}"),
        }
    }
    // Two seconds of it may come at once, and the last block is taken before it is waited for.
    assert!(
        begin.elapsed() >= Duration::from_millis(2400),
        "{:?}",
        begin.elapsed()
    );
    assert!(!waits.is_empty());
    for wait in waits {
        assert!(
            wait.wait_ms > 0 && wait.reason.contains("limits.max_agent_lines_per_second = 1000"),
            "{wait:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_above_the_limit_is_told_in_words_and_closed() {
    let edge = edge(LimitSettings {
        max_connections_per_address: Some(1),
        ..LimitSettings::default()
    })
    .await;
    let mut held = LogClient::new(edge.channel().await);
    held.list_agents(v1::ListAgentsRequest::default()).await.unwrap();
    let answer = edge.get("/healthz").await;
    assert_eq!((answer.status, answer.headers.get("retry-after")), (429, "10"));
    assert!(
        answer.text().contains("limits.max_connections_per_address = 1"),
        "{}",
        answer.text()
    );
    let mut refused = LogClient::new(edge.channel().await);
    let status = refused
        .list_agents(v1::ListAgentsRequest::default())
        .await
        .unwrap_err();
    assert_told(&status, "max_connections_per_address");
    held.list_agents(v1::ListAgentsRequest::default()).await.unwrap();
}

/// Whether the relay closes a connection on which this was sent.
async fn is_closed(connection: &mut TcpStream) -> bool {
    let mut bytes = [0; 4096];
    let closed = async { while !matches!(connection.read(&mut bytes).await, Ok(0) | Err(_)) {} };
    tokio::time::timeout(SOON, closed).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_silent_make_room_for_those_who_speak_and_are_closed() {
    let edge = edge(LimitSettings {
        max_connections: Some(3),
        handshake_timeout_secs: Some(2),
        ..LimitSettings::default()
    })
    .await;
    let connect = || TcpStream::connect(edge.address());
    let mut silent = [
        connect().await.unwrap(),
        connect().await.unwrap(),
        connect().await.unwrap(),
    ];
    assert_eq!(
        edge.get("/healthz").await.status,
        200,
        "one of the silent ones had to go"
    );
    for connection in &mut silent {
        assert!(is_closed(connection).await);
    }
    // Half of what HTTP/2 begins with is silence too.
    let mut half = connect().await.unwrap();
    half.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    assert!(is_closed(&mut half).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_dribbles_is_closed_and_so_is_a_head_without_end() {
    let edge = edge(LimitSettings {
        request_timeout_secs: Some(1),
        ..LimitSettings::default()
    })
    .await;
    let mut slow = TcpStream::connect(edge.address()).await.unwrap();
    let head = b"POST /millstream.v1.LogService/Tail HTTP/1.1\r\nhost: 127.0.0.1\r\n\
        content-type: application/grpc-web+proto\r\ncontent-length: 1000\r\n\r\nx";
    slow.write_all(head).await.unwrap();
    let mut answer = [0; 1024];
    let read = tokio::time::timeout(SOON, slow.read(&mut answer))
        .await
        .unwrap()
        .unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]);
    assert!(answer.contains("grpc-status: 4"), "DEADLINE_EXCEEDED: {answer}");
    let mut endless = TcpStream::connect(edge.address()).await.unwrap();
    endless.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
    let flood = async {
        let chunk = [b'y'; 4096];
        while endless.write_all(&chunk).await.is_ok() {}
    };
    tokio::time::timeout(SOON, flood)
        .await
        .expect("a head has an end, or its connection has");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_is_closed() {
    let edge = edge(LimitSettings {
        write_timeout_secs: Some(1),
        ..LimitSettings::default()
    })
    .await;
    let mut agent = Agent::connect(edge.channel().await, "a").await.unwrap();
    let opened = agent.open(1, "/log").await;
    for first in (0..400_000).step_by(20_000) {
        agent.push(1, lines("x", first, 20_000), b"").await;
        agent.acked(1, first + 20_000).await;
    }
    let mut stuck = TcpStream::connect(edge.address()).await.unwrap();
    let request = format!(
        "GET /api/streams/{}/raw HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
        opened.stream_id
    );
    stuck.write_all(request.as_bytes()).await.unwrap();
    let begin = Instant::now();
    while edge.relay_metric("connections") < 2 {
        assert!(begin.elapsed() < SOON, "it is not there");
        tokio::task::yield_now().await;
    }
    // The agent's connection is one; the other goes although nothing of it is read.
    while edge.relay_metric("connections") > 1 {
        assert!(begin.elapsed() < SOON, "it is still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut all = Vec::new();
    let read = tokio::time::timeout(SOON, stuck.read_to_end(&mut all))
        .await
        .unwrap();
    assert!(read.is_err() || all.len() < 18_000_000, "it was cut off");
}
