//! gRPC through the whole server: the standard services, gRPC-Web byte by byte, and what a stop looks like.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod edge_support;
mod support;

use edge_support::{Edge, FRIEND, OpenAnswer, SOON};
use futures_util::StreamExt;
use millstream_proto::block::OpenBlock;
use millstream_proto::v1::{self, tail_response};
use prost::Message;
use support::{Agent, from_beginning, lines, text};
use tonic::Code;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use tonic_reflection::pb::{v1 as reflection, v1alpha as old_reflection};

const GRPC_WEB: &str = "content-type: application/grpc-web+proto\r\nx-grpc-web: 1\r\n";

/// Flag of the frame that holds the trailers
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md>).
const TRAILERS: u8 = 0x80;

fn framed(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap();
    [&[0][..], &length.to_be_bytes(), &message].concat()
}

/// One gRPC-Web call over HTTP/1.1.
struct WebCall {
    answer: OpenAnswer,
    received: Vec<u8>,
}

impl WebCall {
    async fn start(edge: &Edge, method: &str, request: &impl Message) -> Self {
        let headers = format!("{GRPC_WEB}origin: {FRIEND}\r\n");
        let answer = edge.open("POST", method, &headers, &framed(request)).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers.get("content-type"), "application/grpc-web+proto");
        assert_eq!(answer.headers.get("access-control-allow-origin"), FRIEND);
        Self {
            answer,
            received: Vec::new(),
        }
    }

    /// The next frame as soon as its last byte is there: flag and content. `None` at the end.
    async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((head, rest)) = self.received.split_first_chunk::<5>() {
                let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                if rest.len() >= length {
                    let frame = (head[0], rest[..length].to_vec());
                    self.received.drain(..5 + length);
                    return Some(frame);
                }
            }
            let Some(chunk) = self.answer.chunk().await else {
                assert!(self.received.is_empty(), "the body ends within a frame");
                return None;
            };
            self.received.extend_from_slice(&chunk);
        }
    }

    async fn message<M: Message + Default>(&mut self) -> M {
        let (flag, content) = self.frame().await.expect("the call is open");
        assert_eq!(flag, 0, "{}", String::from_utf8_lossy(&content));
        M::decode(content.as_slice()).unwrap()
    }

    /// Code and message of the call's end, from trailers or, when there was no message, from headers.
    async fn status(&mut self) -> (Code, String) {
        let trailers = match self.frame().await {
            Some((flag, content)) => {
                assert_eq!(flag, TRAILERS);
                assert!(self.frame().await.is_none(), "trailers are last");
                String::from_utf8(content).unwrap()
            }
            None => format!(
                "grpc-status:{}\r\ngrpc-message:{}\r\n",
                self.answer.headers.get("grpc-status"),
                self.answer.headers.get("grpc-message")
            ),
        };
        let value = |name: &str| {
            trailers
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find_map(|(known, value)| (known == name).then(|| value.trim().to_owned()))
                .unwrap_or_default()
        };
        let code: i32 = value("grpc-status").parse().expect("a call ends with a status");
        (Code::from(code), value("grpc-message"))
    }

    /// Lines of the next block, whatever comes before it.
    async fn lines(&mut self) -> Vec<String> {
        loop {
            let response: v1::TailResponse = self.message().await;
            if let Some(tail_response::Message::Block(block)) = response.message {
                let open = OpenBlock::open(&block.block.unwrap()).unwrap();
                return open
                    .lines()
                    .map(|line| String::from_utf8_lossy(line.text).into_owned())
                    .collect();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_web_over_http_1_answers_a_call_with_message_and_trailers() {
    let edge = Edge::start().await;
    let mut agent = Agent::connect(edge.channel().await, "a").await.unwrap();
    agent.open(1, "/log").await;
    let request = v1::ListStreamsRequest::default();
    let mut call = WebCall::start(&edge, "/millstream.v1.LogService/ListStreams", &request).await;
    let list: v1::ListStreamsResponse = call.message().await;
    assert_eq!(list.streams.len(), 1);
    assert_eq!(list.streams[0].instance, "/log");
    assert_eq!(call.status().await.0, Code::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_web_over_http_1_delivers_each_message_while_the_call_is_open() {
    let edge = Edge::start().await;
    let mut agent = Agent::connect(edge.channel().await, "a").await.unwrap();
    agent.open(1, "/log").await;
    agent.push(1, lines("x", 0, 1), b"").await;
    agent.acked(1, 1).await;
    let mut call = WebCall::start(&edge, "/millstream.v1.LogService/Tail", &from_beginning(true)).await;
    assert_eq!(call.lines().await, [text("x", 0)]);
    // Each line is produced only after the one before has arrived.
    for sequence in 1..5 {
        agent.push(1, lines("x", sequence, 1), b"").await;
        assert_eq!(call.lines().await, [text("x", sequence)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_over_grpc_web_sends_hits_and_progress_and_ends_when_the_page_goes_away() {
    let edge = Edge::start().await;
    let mut agent = Agent::connect(edge.channel().await, "a").await.unwrap();
    agent.open(1, "/log").await;
    agent.push(1, lines("x", 0, 100), b"").await;
    // More than any socket takes, so that the search waits for its reader.
    let mut next = 100;
    for _ in 0..40 {
        let mut builder = millstream_proto::block::BlockBuilder::new();
        for _ in 0..500 {
            assert!(builder.push_line(&[b'y'; 1000], 0, v1::Channel::Stdout, false));
        }
        agent.push(1, builder.finish(next).unwrap(), b"").await;
        next += 500;
        agent.acked(1, next).await;
    }
    let search = "/millstream.v1.LogService/Search";
    let few = v1::SearchRequest {
        filter: Some(v1::Filter {
            regex: "^x .*[05] checking".to_owned(),
            ..v1::Filter::default()
        }),
        order: v1::SearchOrder::OldestFirst.into(),
        ..v1::SearchRequest::default()
    };
    let mut call = WebCall::start(&edge, search, &few).await;
    let (mut found, mut is_done) = (Vec::new(), false);
    while !is_done {
        let response: v1::SearchResponse = call.message().await;
        match response.message.unwrap() {
            v1::search_response::Message::Hits(hits) => {
                let open = OpenBlock::open(&hits.block.unwrap()).unwrap();
                found.extend(open.lines().map(|line| line.sequence));
            }
            v1::search_response::Message::Progress(progress) => is_done = progress.done,
            _ => {}
        }
    }
    assert_eq!(found, (0..100).step_by(5).collect::<Vec<_>>());
    assert_eq!(call.status().await.0, Code::Ok);

    let searches = async || {
        let metrics = edge.get("/metrics").await.text();
        let value = metrics
            .lines()
            .find_map(|line| line.strip_prefix("millstream_searches "));
        value.unwrap().parse::<u64>().unwrap()
    };
    let many = v1::SearchRequest {
        max_hits: 1_000_000,
        ..v1::SearchRequest::default()
    };
    let mut call = WebCall::start(&edge, search, &many).await;
    call.frame().await.unwrap();
    assert_eq!(searches().await, 1);
    drop(call);
    tokio::time::timeout(SOON, async { while searches().await > 0 {} })
        .await
        .expect("a search whose reader is gone ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_web_ends_a_stream_with_a_trailers_frame_and_tells_errors() {
    let edge = Edge::start().await;
    let mut agent = Agent::connect(edge.channel().await, "a").await.unwrap();
    agent.open(1, "/log").await;
    agent.push(1, lines("x", 0, 2), b"").await;
    agent.acked(1, 2).await;
    let tail = "/millstream.v1.LogService/Tail";
    let mut call = WebCall::start(&edge, tail, &from_beginning(false)).await;
    assert_eq!(call.lines().await.len(), 2);
    let end = loop {
        let (flag, content) = call.frame().await.expect("trailers come before the end");
        if flag == TRAILERS {
            break String::from_utf8(content).unwrap();
        }
    };
    assert!(end.contains("grpc-status:0"), "{end}");

    let bad = v1::TailRequest {
        selector: "host~x".to_owned(),
        ..from_beginning(false)
    };
    let (code, message) = WebCall::start(&edge, tail, &bad).await.status().await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(message.contains("position"), "{message}");

    let nobody = v1::ReadRequest {
        stream_id: 4711,
        ..v1::ReadRequest::default()
    };
    let read = "/millstream.v1.LogService/Read";
    let (code, message) = WebCall::start(&edge, read, &nobody).await.status().await;
    assert_eq!(code, Code::NotFound);
    assert!(message.contains("4711"), "{message}");

    let unknown = "/millstream.v1.NoService/Do";
    let (code, _) = WebCall::start(&edge, unknown, &nobody).await.status().await;
    assert_eq!(code, Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_or_method_that_does_not_exist_is_unimplemented() {
    let edge = Edge::start().await;
    for path in ["/millstream.v1.NoService/Do", "/millstream.v1.LogService/Nothing"] {
        let mut client = tonic::client::Grpc::new(edge.channel().await);
        client.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static(path);
        let codec = tonic_prost::ProstCodec::<v1::ReadRequest, v1::ReadResponse>::default();
        let error = client
            .unary(
                tonic::Request::new(v1::ReadRequest::default()),
                path.clone(),
                codec,
            )
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::Unimplemented, "{path}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_every_service_in_both_versions() {
    const SERVICES: [&str; 4] = [
        "millstream.v1.IngestService",
        "millstream.v1.LogService",
        "grpc.health.v1.Health",
        "opentelemetry.proto.collector.logs.v1.LogsService",
    ];
    let edge = Edge::start().await;
    let request = reflection::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            reflection::server_reflection_request::MessageRequest::ListServices(String::new()),
        ),
    };
    let mut client = reflection::server_reflection_client::ServerReflectionClient::new(edge.channel().await);
    let answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap();
    let answer = answers.into_inner().next().await.unwrap().unwrap();
    let Some(reflection::server_reflection_response::MessageResponse::ListServicesResponse(list)) =
        answer.message_response
    else {
        panic!("a list expected, not {answer:?}");
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for service in SERVICES {
        assert!(
            names.iter().any(|name| name == service),
            "{service} is not in {names:?}"
        );
    }

    let request = old_reflection::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            old_reflection::server_reflection_request::MessageRequest::FileContainingSymbol(
                "millstream.v1.LogService".to_owned(),
            ),
        ),
    };
    let mut client =
        old_reflection::server_reflection_client::ServerReflectionClient::new(edge.channel().await);
    let answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap();
    let answer = answers.into_inner().next().await.unwrap().unwrap();
    assert!(
        matches!(
            answer.message_response,
            Some(old_reflection::server_reflection_response::MessageResponse::FileDescriptorResponse(_))
        ),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_said_to_health_watchers_ends_every_call_and_waits_for_nobody_in_vain() {
    let edge = Edge::start().await;
    let channel = edge.channel().await;
    let mut agent = Agent::connect(channel.clone(), "a").await.unwrap();
    agent.open(1, "/log").await;
    let mut tail = v1::log_service_client::LogServiceClient::new(channel.clone())
        .tail(from_beginning(true))
        .await
        .unwrap()
        .into_inner();
    let mut health = HealthClient::new(channel);
    let log_service = HealthCheckRequest {
        service: "millstream.v1.LogService".to_owned(),
    };
    let checked = health.check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(checked.into_inner().status(), ServingStatus::Serving);
    let mut watch = health.watch(log_service).await.unwrap().into_inner();
    assert_eq!(
        watch.next().await.unwrap().unwrap().status(),
        ServingStatus::Serving
    );

    let began = tokio::time::Instant::now();
    let stopping = edge.relay.stop();
    let watching = async {
        let said = watch.next().await.unwrap().unwrap().status();
        assert_eq!(said, ServingStatus::NotServing);
        while watch.next().await.is_some() {}
        let error = loop {
            if let Err(error) = tail.message().await {
                break error;
            }
        };
        assert_eq!(error.code(), Code::Unavailable, "{error}");
    };
    tokio::time::timeout(SOON, async { tokio::join!(stopping, watching) })
        .await
        .expect("the relay stops");
    assert!(
        began.elapsed() < millstream_relay::server::STOP_LIMIT / 2,
        "it took {:?}",
        began.elapsed()
    );
}
