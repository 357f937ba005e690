//! Pages, lists and the watch.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use futures_util::StreamExt;
use millstream_proto::block::OpenBlock;
use millstream_proto::v1::{self, read_request::From, watch_response::Message};
use support::{Relay, SOON, lines, text};

async fn pages(relay: &Relay, request: v1::ReadRequest, to: u64) -> Vec<(u64, String)> {
    let mut client = relay.log().await;
    let mut request = request;
    let mut lines = Vec::new();
    loop {
        let page = client.read(request.clone()).await.unwrap().into_inner();
        for block in &page.blocks {
            if request.codecs.is_empty() {
                assert_eq!(block.codec(), v1::Codec::None);
            }
            let open = OpenBlock::open(block).unwrap();
            lines.extend(
                open.lines()
                    .map(|line| (line.sequence, String::from_utf8_lossy(line.text).into_owned())),
            );
        }
        if page.next_sequence >= to {
            return lines;
        }
        request.from = Some(From::FromSequence(page.next_sequence));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_any_range_and_size_add_up_to_the_stream() {
    let relay = Relay::start().await;
    let mut agent = relay.agent("a").await;
    agent.open(1, "/log").await;
    for number in 0..50 {
        agent.push(1, lines("x", number * 20, 20), b"").await;
    }
    agent.acked(1, 1000).await;
    let all: Vec<(u64, String)> = (0..1000).map(|number| (number, text("x", number))).collect();
    for (from, to, max_lines, expected) in [
        (From::FromSequence(0), 0, 0, &all[..]),
        (From::FromSequence(5), 995, 7, &all[5..995]),
        (From::FromSequence(990), 2000, 100, &all[990..]),
        (From::FromUnixUs(500_000), 0, 33, &all[500..]),
        (From::FromSequence(1000), 0, 10, &[]),
    ] {
        for codecs in [vec![], vec![v1::Codec::Zstd.into()]] {
            let request = v1::ReadRequest {
                stream_id: 1,
                from: Some(from),
                to_sequence: to,
                max_lines,
                codecs,
                ..v1::ReadRequest::default()
            };
            let end = if to == 0 { 1000 } else { to.min(1000) };
            assert_eq!(pages(&relay, request, end).await, expected);
        }
    }
    for range in [0..20, 0..1, 15..45, 0..0, 990..1000] {
        let chunks = relay.core.raw(1, range.clone()).map(Result::unwrap);
        let raw: Vec<u8> = chunks.collect::<Vec<_>>().await.concat();
        let expected: String = range.clone().map(|number| text("x", number) + "\n").collect();
        assert_eq!(String::from_utf8(raw).unwrap(), expected, "{range:?}");
    }
    let filter = Some(v1::Filter {
        substring: "99 ".to_owned(),
        ..v1::Filter::default()
    });
    let request = v1::ReadRequest {
        stream_id: 1,
        filter,
        max_lines: 3,
        ..v1::ReadRequest::default()
    };
    let sequences: Vec<u64> = pages(&relay, request, 1000)
        .await
        .into_iter()
        .map(|(sequence, _)| sequence)
        .collect();
    assert_eq!(sequences, [99, 199, 299, 399, 499, 599, 699, 799, 899, 999]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_stream_says_how_to_find_the_known_ones() {
    let relay = Relay::start().await;
    let request = v1::ReadRequest {
        stream_id: 42,
        ..v1::ReadRequest::default()
    };
    let status = relay.log().await.read(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound);
    assert!(status.message().contains("no stream 42") && status.message().contains("ls streams"));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages_that_neither_repeat_nor_miss() {
    let relay = Relay::start().await;
    let mut agents = Vec::new();
    for number in 0..7_u32 {
        let mut agent = relay.agent(&format!("agent-{number}")).await;
        for handle in 0..3 {
            agent.open(handle, &format!("/log-{handle}")).await;
        }
        agents.push(agent);
    }
    let mut client = relay.log().await;
    let mut ids = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListStreamsRequest {
            selector: "path!=/log-1".to_owned(),
            page_size: 4,
            page_token,
        };
        let page = client.list_streams(request).await.unwrap().into_inner();
        ids.extend(page.streams.iter().map(|stream| stream.stream_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let expected: Vec<u64> = (1..=21).rev().filter(|id| id % 3 != 2).collect();
    assert_eq!(ids, expected);
    let mut hosts = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = client
            .list_agents(v1::ListAgentsRequest {
                page_size: 2,
                page_token,
            })
            .await
            .unwrap()
            .into_inner();
        hosts.extend(page.agents.into_iter().map(|agent| agent.host));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(hosts.len(), 7);
    assert!(hosts.is_sorted());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_what_is_there_and_then_every_change() {
    let relay = Relay::start().await;
    let mut agent = relay.agent("a").await;
    agent.open(1, "/one").await;
    let mut watch = relay
        .log()
        .await
        .watch(v1::WatchRequest::default())
        .await
        .unwrap()
        .into_inner();
    let mut next = async || {
        let response = tokio::time::timeout(SOON, watch.next())
            .await
            .expect("a change soon");
        response.unwrap().unwrap().message.unwrap()
    };
    let mut snapshot = Vec::new();
    loop {
        match next().await {
            Message::SnapshotDone(_) => break,
            message => snapshot.push(message),
        }
    }
    assert!(
        matches!(&snapshot[..], [Message::Agent(agent), Message::Stream(stream)]
        if agent.host == "host-a" && stream.stream_id == 1)
    );
    agent.push(1, lines("x", 0, 5), b"").await;
    loop {
        if let Message::Stream(stream) = next().await
            && stream.next_sequence == 5
        {
            assert_eq!(stream.state(), v1::StreamState::Live);
            break;
        }
    }
    agent.open(2, "/two").await;
    loop {
        if let Message::Stream(stream) = next().await
            && stream.stream_id == 2
        {
            break;
        }
    }
    drop(agent);
    let (mut away, mut agent_away) = (0, false);
    while away < 2 || !agent_away {
        match next().await {
            Message::Stream(stream) if stream.state() == v1::StreamState::Away => away += 1,
            Message::Agent(agent) if agent.state() == v1::AgentState::Away => agent_away = true,
            _ => {}
        }
    }
}
