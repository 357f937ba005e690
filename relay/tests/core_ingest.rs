//! What an agent may rely on: trimmed replays, refused gaps, fencing, acknowledgements that mean durable.

mod support;

use millstream_proto::v1::{self, push_request};
use support::{Agent, Relay, from_beginning, hello, lines, read_all};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_reconnecting_agent_learns_where_its_stream_stands_and_its_checkpoint() {
    let relay = Relay::start().await;
    let mut agent = relay.agent("a").await;
    let opened = agent.open(1, "/log").await;
    assert_eq!(
        (opened.stream_id, opened.next_sequence, opened.checkpoint.len()),
        (1, 0, 0)
    );
    agent.push(1, lines("x", 0, 10), b"ten").await;
    agent.push(1, lines("x", 10, 5), b"").await;
    agent.acked(1, 15).await;
    drop(agent);
    let mut agent = relay.agent("a").await;
    assert_eq!(agent.welcome.epoch, 2);
    let opened = agent.open(7, "/log").await;
    assert_eq!(
        (opened.stream_id, opened.next_sequence, &opened.checkpoint[..]),
        (1, 15, &b"ten"[..])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_trimmed_and_a_gap_is_refused() {
    let relay = Relay::start().await;
    let mut agent = relay.agent("a").await;
    agent.open(1, "/log").await;
    agent.push(1, lines("x", 0, 10), b"").await;
    agent.push(1, lines("x", 2, 5), b"").await;
    agent.push(1, lines("x", 5, 10), b"").await;
    agent.acked(1, 15).await;
    agent.push(1, lines("x", 16, 1), b"").await;
    let refusal = agent.refused().await;
    assert_eq!(
        (refusal.reason(), refusal.next_sequence),
        (v1::RefusalReason::Gap, 15)
    );
    agent.push(1, lines("x", 15, 1), b"").await;
    agent.acked(1, 16).await;
    let seen = read_all(relay.tail(from_beginning(false)).await).await;
    seen.assert_dense(1, "x", 0..16);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_session_fences_the_earlier_one() {
    let relay = Relay::start().await;
    let mut old = relay.agent("a").await;
    old.open(1, "/log").await;
    old.push(1, lines("x", 0, 3), b"").await;
    old.acked(1, 3).await;
    let mut new = relay.agent("a").await;
    assert_eq!(new.open(1, "/log").await.next_sequence, 3);
    // The old session may be gone already; then nothing can be sent.
    old.try_push(1, lines("stale", 3, 3)).await;
    let status = old.receive().await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
    new.push(1, lines("x", 3, 2), b"").await;
    new.acked(1, 5).await;
    read_all(relay.tail(from_beginning(false)).await)
        .await
        .assert_dense(1, "x", 0..5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_stream_takes_nothing_more_and_says_so() {
    let relay = Relay::start().await;
    let mut agent = relay.agent("a").await;
    agent.open(1, "/log").await;
    agent.push(1, lines("x", 0, 3), b"").await;
    agent.end(1, 9).await;
    let refusal = agent.refused().await;
    assert_eq!(
        (refusal.reason(), refusal.next_sequence),
        (v1::RefusalReason::Gap, 3)
    );
    agent.end(1, 3).await;
    while !agent.acked(1, 3).await.ended {}
    agent.push(1, lines("x", 3, 1), b"").await;
    assert_eq!(agent.refused().await.reason(), v1::RefusalReason::Ended);
    assert!(agent.open(2, "/log").await.ended);
    let seen = read_all(relay.tail(from_beginning(false)).await).await;
    seen.assert_dense(1, "x", 0..3);
    assert_eq!(seen.ended[&1].end.as_ref().unwrap().exit_code, Some(101));
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_blocks_and_labels_are_refused_and_the_session_goes_on() {
    let relay = Relay::start().await;
    let mut agent = relay.agent("a").await;
    agent.open(1, "/log").await;
    let mut block = lines("x", 0, 3);
    block.line_count = 4;
    agent.push(1, block, b"").await;
    let refusal = agent.refused().await;
    assert_eq!(refusal.reason(), v1::RefusalReason::Malformed);
    assert!(refusal.message.contains("4 lines"), "{}", refusal.message);
    agent
        .send(push_request::Message::OpenStream(v1::OpenStream {
            handle: 2,
            source: "app".to_owned(),
            instance: "i".to_owned(),
            labels: [("host".to_owned(), "other".to_owned())].into(),
            ..v1::OpenStream::default()
        }))
        .await;
    assert_eq!(agent.refused().await.reason(), v1::RefusalReason::BadLabel);
    agent.push(1, lines("x", 0, 3), b"").await;
    agent.acked(1, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn protocol_errors_end_the_call_with_a_message() {
    let relay = Relay::start().await;
    let newer = v1::Hello {
        protocol_version: 2,
        ..hello("a")
    };
    let status = Agent::connect_with(relay.channel().await, newer)
        .await
        .err()
        .unwrap();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("version 2"), "{}", status.message());

    let mut agent = relay.agent("a").await;
    agent.push(9, lines("x", 0, 1), b"").await;
    let status = agent.receive().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("handle 9"), "{}", status.message());

    let mut agent = relay.agent("b").await;
    agent.open(1, "/log").await;
    agent.push(1, lines("x", 0, 1), &vec![0; 5 << 20]).await;
    let status = loop {
        if let Err(status) = agent.receive().await {
            break status;
        }
    };
    assert_eq!(status.code(), Code::OutOfRange);
}
