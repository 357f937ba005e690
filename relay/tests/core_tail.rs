//! What a reader may rely on: history into live with no gap or repeat, however slow it is, wherever it
//! begins.

mod support;

use std::time::Duration;

use millstream_proto::v1::{self, tail_request::Start};
use millstream_relay::CoreOptions;
use support::{Relay, Seen, from_beginning, lines, read_all, read_until, text};

/// A stream of 1000 lines in blocks of 10.
async fn thousand(relay: &Relay) -> support::Agent {
    let mut agent = relay.agent("a").await;
    agent.open(1, "/log").await;
    for number in 0..100 {
        agent.push(1, lines("x", number * 10, 10), b"").await;
    }
    agent.acked(1, 1000).await;
    agent
}

#[tokio::test(flavor = "multi_thread")]
async fn history_goes_over_into_live_without_gap_or_repeat_under_load() {
    let relay = Relay::start().await;
    let mut agents = tokio::task::JoinSet::new();
    for number in 0..4 {
        let name = format!("agent-{number}");
        let mut agent = relay.agent(&name).await;
        agents.spawn(async move {
            agent.open(1, "/log").await;
            for block in 0..300_u64 {
                agent.push(1, lines(&name, block * 7, 7), b"").await;
            }
            agent.acked(1, 2100).await;
            agent.end(1, 2100).await;
            while !agent.acked(1, 2100).await.ended {}
        });
    }
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut stream = relay.tail(from_beginning(true)).await;
        readers.spawn(async move {
            let mut seen = Seen::default();
            // A reader that comes late finds streams that ended within its history, before CaughtUp.
            read_until(&mut stream, &mut seen, |seen| {
                seen.ended.len() == 4 && seen.caught_up.is_some()
            })
            .await;
            for (stream_id, stream) in &seen.announced {
                seen.assert_dense(*stream_id, &stream.agent_id, 0..2100);
            }
            assert!(seen.caught_up.is_some() && seen.gaps.is_empty());
        });
    }
    while let Some(result) = agents.join_next().await {
        result.unwrap();
    }
    while let Some(result) = readers.join_next().await {
        result.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_start_begins_where_it_says() {
    let relay = Relay::start().await;
    let agent = thousand(&relay).await;
    for (start, first) in [
        (Start::FromBeginning(true), 0),
        (Start::LastLines(7), 993),
        (Start::LastLines(0), 1000),
        (Start::LastLines(5000), 0),
        (Start::SinceUnixUs(995_000), 995),
        (Start::SinceUnixUs(994_001), 995),
        (Start::SinceUnixUs(5_000_000), 1000),
        (Start::FromNow(true), 1000),
    ] {
        let request = v1::TailRequest {
            start: Some(start.clone()),
            ..from_beginning(false)
        };
        let seen = read_all(relay.tail(request.clone()).await).await;
        seen.assert_dense(1, "x", first..1000);
        assert!(seen.caught_up.is_some(), "{start:?}");
        // The same with codec none, and into live.
        let request = v1::TailRequest {
            codecs: vec![],
            follow: true,
            ..request
        };
        let mut stream = relay.tail(request).await;
        let mut live = Seen::default();
        read_until(&mut stream, &mut live, |seen| seen.caught_up.is_some()).await;
        live.assert_dense(1, "x", first..1000);
    }
    drop(agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_appears_later_is_delivered_from_its_first_line() {
    let relay = Relay::start().await;
    let mut stream = relay
        .tail(v1::TailRequest {
            selector: "host=host-b*".to_owned(),
            ..from_beginning(true)
        })
        .await;
    let mut seen = Seen::default();
    read_until(&mut stream, &mut seen, |seen| seen.caught_up.is_some()).await;
    for agent_id in ["a", "b1", "b2"] {
        let mut agent = relay.agent(agent_id).await;
        agent.open(1, "/log").await;
        agent.push(1, lines(agent_id, 0, 50), b"").await;
        agent.acked(1, 50).await;
    }
    read_until(&mut stream, &mut seen, |seen| seen.count() == 100).await;
    seen.assert_dense(2, "b1", 0..50);
    seen.assert_dense(3, "b2", 0..50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_or_positions_go_on_exactly_where_the_reader_stood() {
    let options = CoreOptions {
        heartbeat: Duration::from_millis(20),
        ..CoreOptions::default()
    };
    let relay = Relay::with(
        std::sync::Arc::new(millstream_store::memory::MemoryStore::new()),
        options,
    )
    .await;
    let mut agent = thousand(&relay).await;
    let mut stream = relay.tail(from_beginning(true)).await;
    let mut seen = Seen::default();
    read_until(&mut stream, &mut seen, |seen| seen.caught_up.is_some()).await;
    let cursor = seen.caught_up.clone().unwrap().cursor;
    drop(stream);
    agent.push(1, lines("x", 1000, 20), b"").await;
    agent.acked(1, 1020).await;
    agent.open(2, "/other").await;
    agent.push(2, lines("y", 0, 5), b"").await;
    agent.acked(2, 5).await;
    let request = v1::TailRequest {
        start: Some(Start::Cursor(cursor.clone())),
        ..from_beginning(true)
    };
    let mut stream = relay.tail(request.clone()).await;
    let mut seen = Seen::default();
    read_until(&mut stream, &mut seen, |seen| seen.count() == 25).await;
    // One that was sent after the lines, not the first of the call.
    let before = seen.heartbeats.len();
    read_until(&mut stream, &mut seen, |seen| seen.heartbeats.len() > before).await;
    seen.assert_dense(1, "x", 1000..1020);
    seen.assert_dense(2, "y", 0..5);
    let before = seen.heartbeats.len();
    read_until(&mut stream, &mut seen, |seen| seen.heartbeats.len() > before).await;
    let cursor = seen.heartbeats.last().unwrap().cursor.clone();
    let positions = vec![v1::Position {
        stream_id: 1,
        next_sequence: 1010,
    }];
    let request = v1::TailRequest {
        start: Some(Start::Cursor(cursor)),
        positions,
        follow: false,
        ..request
    };
    let seen = read_all(relay.tail(request).await).await;
    seen.assert_dense(1, "x", 1010..1020);
    assert_eq!(seen.count(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_message_has_a_cursor_so_that_an_early_disconnect_costs_no_stream_its_beginning() {
    let relay = Relay::start().await;
    let mut agent = thousand(&relay).await;
    for (start, first) in [
        (Start::FromNow(true), 1000),
        (Start::LastLines(5), 995),
        (Start::FromBeginning(true), 0),
    ] {
        let request = v1::TailRequest {
            start: Some(start),
            ..from_beginning(true)
        };
        let mut stream = relay.tail(request.clone()).await;
        let mut seen = Seen::default();
        read_until(&mut stream, &mut seen, |seen| !seen.heartbeats.is_empty()).await;
        assert!(
            seen.announced.is_empty() && seen.caught_up.is_none(),
            "nothing is before it"
        );
        drop(stream);
        // While the reader is away a stream appears and writes.
        let handle = 100 + u32::try_from(first).unwrap();
        let opened = agent.open(handle, &format!("/new-{first}")).await;
        agent.push(handle, lines("new", 0, 10), b"").await;
        agent.acked(handle, 10).await;
        let request = v1::TailRequest {
            start: Some(Start::Cursor(seen.heartbeats[0].cursor.clone())),
            follow: false,
            ..request
        };
        let seen = read_all(relay.tail(request).await).await;
        seen.assert_dense(1, "x", first..1000);
        seen.assert_dense(opened.stream_id, "new", 0..10);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_cut_off_at_once_misses_no_stream_that_appears_meanwhile() {
    let relay = Relay::start().await;
    let mut agent = thousand(&relay).await;
    let now = v1::TailRequest {
        start: Some(Start::FromNow(true)),
        ..from_beginning(true)
    };
    let mut stream = relay.tail(now.clone()).await;
    let mut seen = Seen::default();
    read_until(&mut stream, &mut seen, |seen| !seen.heartbeats.is_empty()).await;
    assert!(seen.caught_up.is_none(), "the cursor comes first");
    drop(stream);
    agent.open(2, "/other").await;
    agent.push(2, lines("y", 0, 5), b"").await;
    agent.acked(2, 5).await;
    let request = v1::TailRequest {
        start: Some(Start::Cursor(seen.heartbeats[0].cursor.clone())),
        ..now
    };
    let mut stream = relay.tail(request).await;
    let mut seen = Seen::default();
    read_until(&mut stream, &mut seen, |seen| seen.caught_up.is_some()).await;
    seen.assert_dense(2, "y", 0..5);
    assert_eq!(seen.count(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_say_what_is_wrong() {
    let relay = Relay::start().await;
    let other = Relay::start().await;
    let cursor = read_all(other.tail(from_beginning(false)).await)
        .await
        .caught_up
        .unwrap()
        .cursor;
    let bad = [
        (
            v1::TailRequest {
                batch_interval_ms: 1_001,
                ..from_beginning(true)
            },
            tonic::Code::InvalidArgument,
            "batch_interval_ms is 1001; at most 1000",
        ),
        (
            v1::TailRequest {
                selector: "host~x".to_owned(),
                ..from_beginning(true)
            },
            tonic::Code::InvalidArgument,
            "position 4",
        ),
        (
            v1::TailRequest {
                start: Some(Start::Cursor(cursor)),
                ..from_beginning(true)
            },
            tonic::Code::FailedPrecondition,
            "another store",
        ),
        (
            v1::TailRequest {
                start: Some(Start::Cursor(b"junk"[..].into())),
                ..from_beginning(true)
            },
            tonic::Code::InvalidArgument,
            "cursor",
        ),
        (
            v1::TailRequest {
                filter: Some(v1::Filter {
                    regex: "(".to_owned(),
                    ..v1::Filter::default()
                }),
                ..from_beginning(true)
            },
            tonic::Code::InvalidArgument,
            "regular expression",
        ),
    ];
    let bad = bad.into_iter().chain([(
        v1::TailRequest {
            stream_ids: vec![1, 77],
            ..from_beginning(true)
        },
        tonic::Code::NotFound,
        "no stream 1",
    )]);
    for (request, code, words) in bad {
        let status = relay.log().await.tail(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{}", status.message());
        assert!(status.message().contains(words), "{}", status.message());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_reading_for_a_while_misses_nothing_and_holds_nobody_up() {
    // Memory for a few blocks only, so that the slow reader must fall back to the store.
    let options = CoreOptions {
        ring_bytes_per_stream: 4096,
        ..CoreOptions::default()
    };
    let relay = Relay::with(
        std::sync::Arc::new(millstream_store::memory::MemoryStore::new()),
        options,
    )
    .await;
    let mut agent = relay.agent("a").await;
    agent.open(1, "/log").await;
    let mut slow = relay.tail(from_beginning(true)).await;
    let mut slow_seen = Seen::default();
    read_until(&mut slow, &mut slow_seen, |seen| seen.caught_up.is_some()).await;
    let mut fast = relay.tail(from_beginning(true)).await;
    let mut fast_seen = Seen::default();
    for number in 0..200 {
        agent.push(1, lines("x", number * 1000, 1000), b"").await;
    }
    agent.acked(1, 200_000).await;
    read_until(&mut fast, &mut fast_seen, |seen| seen.count() == 200_000).await;
    fast_seen.assert_dense(1, "x", 0..200_000);
    read_until(&mut slow, &mut slow_seen, |seen| seen.count() == 200_000).await;
    slow_seen.assert_dense(1, "x", 0..200_000);
    assert!(relay.core.metrics().store_frames_total.get() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_keeps_sequences_and_selects_lines() {
    let relay = Relay::start().await;
    let _agent = thousand(&relay).await;
    let filter = v1::Filter {
        regex: " [0-9]*77 ".to_owned(),
        ..v1::Filter::default()
    };
    let request = v1::TailRequest {
        filter: Some(filter),
        ..from_beginning(false)
    };
    let seen = read_all(relay.tail(request).await).await;
    let expected: Vec<(u64, String)> = (0..1000)
        .filter(|number| number % 100 == 77)
        .map(|number| (number, text("x", number)))
        .collect();
    assert_eq!(seen.lines[&1], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_relay_makes_durable_what_it_took_and_tells_everybody() {
    let relay = Relay::start().await;
    let mut agent = thousand(&relay).await;
    let mut stream = relay.tail(from_beginning(true)).await;
    let mut seen = Seen::default();
    read_until(&mut stream, &mut seen, |seen| seen.caught_up.is_some()).await;
    tokio::time::timeout(support::SOON, relay.core.shutdown())
        .await
        .unwrap();
    let status = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a status is expected"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let status = loop {
        if let Err(status) = agent.receive().await {
            break status;
        }
    };
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert_eq!(relay.store.load_streams().unwrap()[0].next_sequence, 1000);
}
