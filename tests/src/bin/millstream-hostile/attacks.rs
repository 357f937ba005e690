//! The attacks: one attacker each, again and again.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use millstream_proto::block::{BlockBuilder, Compressor};
use millstream_proto::v1::ingest_service_client::IngestServiceClient;
use millstream_proto::v1::log_service_client::LogServiceClient;
use millstream_proto::v1::{
    Channel, Filter, Hello, OpenStream, PushBlock, PushRequest, ReadRequest, SearchRequest, TailRequest,
    push_request, tail_request,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tonic::{Code, Status};

use super::Tally;
use super::frames::{self, frame};

const TAIL: &str = "/millstream.v1.LogService/Tail";
const PUSH: &str = "/millstream.v1.IngestService/Push";

/// Before it comes again after it was refused or closed, so that a loop of refusals is no attack of its own.
const AGAIN: Duration = Duration::from_millis(200);

/// Just small enough to be taken, and follows a great many states for every byte of text that has an `a` now and then.
const SLOW: &str = "[^!]{200}$|(.*[aeo]){12}!";
/// Has more states than an expression may have.
const TOO_LARGE: &str = "[^ ]*[aeiou][^!]{600}$|(.*[aeo]){12}!";

/// Attackers come from several addresses, as they would if they were many.
async fn connect(target: SocketAddr, number: u32) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    let host = u8::try_from(2 + number % 8).ok()?;
    socket.bind((Ipv4Addr::new(127, 0, 0, host), 0).into()).ok()?;
    socket.connect(target).await.ok()
}

async fn dial(target: SocketAddr) -> Option<tonic::transport::Channel> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{target}")).ok()?;
    endpoint.connect().await.ok()
}

/// Reads until the other end closes, at most for a while.
async fn drain(stream: &mut TcpStream, time: Duration) -> bool {
    let mut bytes = [0; 4096];
    let closed = async { while !matches!(stream.read(&mut bytes).await, Ok(0) | Err(_)) {} };
    tokio::time::timeout(time, closed).await.is_ok()
}

pub(crate) async fn silent(target: SocketAddr, number: u32, tally: Arc<Tally>) {
    loop {
        if let Some(mut stream) = connect(target, number).await {
            Tally::count(&tally.opened);
            let mut byte = [0];
            // Nothing is sent; the relay has nothing to say either, and ends it.
            let _ = stream.read(&mut byte).await;
            Tally::count(&tally.closed);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

pub(crate) async fn dribble(target: SocketAddr, number: u32, tally: Arc<Tally>) {
    // What is sent at once, and what follows byte by byte.
    let call = |path: &str| {
        let mut bytes = frames::greeting();
        let headers = frames::call_headers(path, &[]);
        bytes.extend(frame(frames::HEADERS, frames::END_HEADERS, 1, &headers));
        // The begin of a message of almost 4 MiB.
        bytes.extend(frame(frames::DATA, 0, 1, &[0, 0, 0x3f, 0xff, 0xff]));
        bytes
    };
    let (begin, byte) = match number % 3 {
        0 => (
            b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nx-endless: ".to_vec(),
            b"x".to_vec(),
        ),
        1 => (call(TAIL), frame(frames::DATA, 0, 1, b"x")),
        _ => (call(PUSH), frame(frames::DATA, 0, 1, b"x")),
    };
    loop {
        if let Some(stream) = connect(target, number).await {
            Tally::count(&tally.opened);
            let (mut reading, mut writing) = stream.into_split();
            let write = async {
                let mut next = &begin;
                while writing.write_all(next).await.is_ok() {
                    Tally::count(&tally.done);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    next = &byte;
                }
            };
            let read = async {
                let mut answer = Vec::new();
                while !frames::is_answered(&answer) {
                    if matches!(reading.read_buf(&mut answer).await, Ok(0) | Err(_)) {
                        return false;
                    }
                }
                true
            };
            let is_refused = tokio::select! {
                () = write => false,
                is_refused = read => is_refused,
            };
            Tally::count(if is_refused { &tally.refused } else { &tally.closed });
        }
        tokio::time::sleep(AGAIN).await;
    }
}

pub(crate) async fn reset(target: SocketAddr, number: u32, tally: Arc<Tally>) {
    let headers = frames::call_headers(TAIL, &[]);
    let request = frames::message(&TailRequest {
        follow: true,
        ..TailRequest::default()
    });
    loop {
        if let Some(mut stream) = connect(target, number).await {
            Tally::count(&tally.opened);
            let mut alive = stream.write_all(&frames::greeting()).await.is_ok();
            let mut call = 1_u32;
            let mut answer = vec![0; 64 << 10];
            while alive && call < 1_000_000 {
                let mut bytes = Vec::new();
                for _ in 0..64 {
                    bytes.extend(frame(frames::HEADERS, frames::END_HEADERS, call, &headers));
                    bytes.extend(frame(frames::DATA, frames::END_STREAM, call, &request));
                    bytes.extend(frame(frames::RST_STREAM, 0, call, &frames::CANCEL));
                    call += 2;
                    Tally::count(&tally.done);
                }
                alive = stream.write_all(&bytes).await.is_ok();
                // What it answers is read, so that it never waits for that.
                match stream.try_read(&mut answer) {
                    Ok(0) => alive = false,
                    Ok(_) => {}
                    Err(error) => alive &= error.kind() == std::io::ErrorKind::WouldBlock,
                }
            }
            Tally::count(&tally.closed);
        } else {
            tokio::time::sleep(AGAIN).await;
        }
    }
}

pub(crate) async fn stuck(target: SocketAddr, number: u32, tally: Arc<Tally>) {
    let headers = frames::call_headers(TAIL, &[]);
    let request = frames::message(&TailRequest {
        start: Some(tail_request::Start::FromBeginning(true)),
        follow: true,
        codecs: vec![0, 1],
        ..TailRequest::default()
    });
    loop {
        if let Some(mut stream) = connect(target, number).await {
            Tally::count(&tally.opened);
            let mut bytes = frames::greeting();
            for call in (1..41).step_by(2) {
                bytes.extend(frame(frames::HEADERS, frames::END_HEADERS, call, &headers));
                bytes.extend(frame(frames::DATA, frames::END_STREAM, call, &request));
                Tally::count(&tally.done);
            }
            if stream.write_all(&bytes).await.is_ok() {
                // The system's buffers fill, and then the relay's. Its end shows when something is written.
                while stream
                    .write_all(&frame(frames::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]))
                    .await
                    .is_ok()
                {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            Tally::count(&tally.closed);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

pub(crate) async fn regex(target: SocketAddr, number: u32, tally: Arc<Tally>) {
    let filter = Filter {
        regex: if number.is_multiple_of(2) { TOO_LARGE } else { SLOW }.to_owned(),
        ..Filter::default()
    };
    loop {
        let outcome = explode(target, number, filter.clone(), &tally).await;
        if outcome.is_err_and(|status| status.code() == Code::ResourceExhausted) {
            Tally::count(&tally.refused);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn explode(target: SocketAddr, number: u32, filter: Filter, tally: &Tally) -> Result<(), Status> {
    let channel = dial(target)
        .await
        .ok_or_else(|| Status::unavailable("it does not answer"))?;
    let mut client = LogServiceClient::new(channel).max_decoding_message_size(8 << 20);
    Tally::count(&tally.opened);
    let filter = Some(filter);
    match number % 3 {
        0 => {
            let request = SearchRequest {
                filter,
                ..SearchRequest::default()
            };
            let mut found = client.search(request).await?.into_inner();
            while found.message().await?.is_some() {
                Tally::count(&tally.done);
            }
        }
        1 => {
            let request = TailRequest {
                start: Some(tail_request::Start::FromBeginning(true)),
                follow: true,
                filter,
                codecs: vec![0, 1],
                ..TailRequest::default()
            };
            let mut lines = client.tail(request).await?.into_inner();
            while lines.message().await?.is_some() {
                Tally::count(&tally.done);
            }
        }
        _ => {
            let mut from = 0;
            loop {
                let request = ReadRequest {
                    stream_id: 1,
                    from: Some(millstream_proto::v1::read_request::From::FromSequence(from)),
                    filter: filter.clone(),
                    codecs: vec![0, 1],
                    ..ReadRequest::default()
                };
                let page = client.read(request).await?.into_inner();
                Tally::count(&tally.done);
                from = if page.next_sequence > from {
                    page.next_sequence
                } else {
                    0
                };
            }
        }
    }
    Ok(())
}

pub(crate) async fn bombs(target: SocketAddr, number: u32, tally: Arc<Tally>) {
    loop {
        match number % 3 {
            0 => overfull(target, number, &tally).await,
            1 => endless_headers(target, number, &tally).await,
            _ => false_sizes(target, number, &tally).await,
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Blocks of zeros that unpack to a megabyte and say that they have ten bytes, or the other way round.
async fn overfull(target: SocketAddr, number: u32, tally: &Tally) {
    let mut builder = BlockBuilder::new();
    builder.push_line(&vec![b'0'; 1 << 19], 1, Channel::Stdout, false);
    let Some(block) = builder.finish(0) else { return };
    let packed = Compressor::new(3).compress(block);
    let Some(channel) = dial(target).await else {
        return;
    };
    let mut client = IngestServiceClient::new(channel);
    Tally::count(&tally.opened);
    let hello = Hello {
        protocol_version: millstream_proto::PROTOCOL_VERSION,
        agent_id: format!("bomber-{number}"),
        host: "bombs".to_owned(),
        ..Hello::default()
    };
    let open = OpenStream {
        handle: 1,
        source: "bombs".to_owned(),
        instance: "1".to_owned(),
        ..OpenStream::default()
    };
    let (requests, receiver) = tokio::sync::mpsc::channel(16);
    let send = async {
        let begin = [
            push_request::Message::Hello(hello),
            push_request::Message::OpenStream(open),
        ];
        for message in begin {
            let _ = requests
                .send(PushRequest {
                    message: Some(message),
                })
                .await;
        }
        for text_bytes in [10_u32, u32::MAX, 1 << 20, 0].into_iter().cycle() {
            let mut block = packed.clone();
            block.text_bytes = text_bytes;
            let push = PushBlock {
                handle: 1,
                block: Some(block),
                ..PushBlock::default()
            };
            let message = Some(push_request::Message::Block(push));
            if requests.send(PushRequest { message }).await.is_err() {
                return;
            }
            Tally::count(&tally.done);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let receive = async {
        let Ok(answers) = client
            .push(tokio_stream::wrappers::ReceiverStream::new(receiver))
            .await
        else {
            return;
        };
        let mut answers = answers.into_inner();
        while let Ok(Some(answer)) = answers.message().await {
            if matches!(
                answer.message,
                Some(millstream_proto::v1::push_response::Message::Refusal(_))
            ) {
                Tally::count(&tally.refused);
            }
        }
    };
    tokio::join!(send, receive);
    Tally::count(&tally.closed);
}

/// A list of headers that goes on for ever, in CONTINUATION frames.
async fn endless_headers(target: SocketAddr, number: u32, tally: &Tally) {
    let Some(mut stream) = connect(target, number).await else {
        return;
    };
    Tally::count(&tally.opened);
    let mut bytes = frames::greeting();
    bytes.extend(frame(frames::HEADERS, 0, 1, &frames::call_headers(TAIL, &[])));
    let more = frames::call_headers("/", &[("x-more", &"y".repeat(8000))]);
    let more = frame(frames::CONTINUATION, 0, 1, &more);
    let mut alive = stream.write_all(&bytes).await.is_ok();
    while alive {
        alive = stream.write_all(&more).await.is_ok();
        Tally::count(&tally.done);
    }
    Tally::count(&tally.closed);
}

/// Messages that say that they have 4 GiB, or that they are compressed.
async fn false_sizes(target: SocketAddr, number: u32, tally: &Tally) {
    let Some(mut stream) = connect(target, number).await else {
        return;
    };
    Tally::count(&tally.opened);
    let mut bytes = frames::greeting();
    for (call, prefix) in (1..)
        .step_by(2)
        .zip([[0, 0xff, 0xff, 0xff, 0xff], [1, 0, 0x3f, 0xff, 0xff]])
    {
        let headers = frames::call_headers(PUSH, &[("grpc-encoding", "gzip")]);
        bytes.extend(frame(frames::HEADERS, frames::END_HEADERS, call, &headers));
        bytes.extend(frame(frames::DATA, 0, call, &prefix));
        bytes.extend(frame(frames::DATA, 0, call, &vec![0; 16 << 10]));
        Tally::count(&tally.done);
    }
    if stream.write_all(&bytes).await.is_ok() {
        drain(&mut stream, Duration::from_secs(2)).await;
    }
    Tally::count(&tally.closed);
}
