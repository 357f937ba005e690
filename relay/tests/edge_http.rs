//! Plain HTTP: probes, metrics, raw download, pages, and which web pages may call.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod edge_support;
mod support;

use edge_support::{Edge, FRIEND};
use millstream_proto::block::BlockBuilder;
use millstream_proto::v1::Channel;
use support::{Agent, lines};

#[tokio::test(flavor = "multi_thread")]
async fn probes_say_that_the_relay_lives_and_is_ready() {
    let edge = Edge::start().await;
    assert_eq!(edge.get("/healthz").await.status, 200);
    let ready = edge.get("/readyz").await;
    assert_eq!((ready.status, ready.text().as_str()), (200, "ready\n"));
    edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_what_was_committed() {
    let edge = Edge::start().await;
    let mut agent = Agent::connect(edge.channel().await, "a").await.unwrap();
    agent.open(1, "/log").await;
    agent.push(1, lines("x", 0, 3), b"").await;
    agent.acked(1, 3).await;
    let answer = edge.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .headers
            .get("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    let text = answer.text();
    for line in [
        "# TYPE millstream_lines_total counter",
        "millstream_lines_total 3",
        "# TYPE millstream_sessions gauge",
        "millstream_sessions 1",
        "millstream_streams 1",
    ] {
        assert!(
            text.lines().any(|known| known == line),
            "{line} is not in\n{text}"
        );
    }
}

/// A stream with everything that could be changed on its way; its id.
async fn awkward_stream(edge: &Edge) -> u64 {
    let mut agent = Agent::connect(edge.channel().await, "a").await.unwrap();
    let opened = agent.open(1, "/log").await;
    let mut builder = BlockBuilder::new();
    for (text, channel, partial) in [
        (&b"one\r"[..], Channel::Stdout, false),
        (b"\xff\xfe\0 not UTF-8", Channel::Stderr, false),
        (b"", Channel::Stdout, false),
        (b"file-truncated: our own words", Channel::Notice, false),
        (b"first half, ", Channel::Stdout, true),
        (b"second half", Channel::Stdout, false),
        (b"no newline at the end", Channel::Stdout, true),
    ] {
        assert!(builder.push_line(text, 1, channel, partial));
    }
    agent.push(1, builder.finish(0).unwrap(), b"").await;
    agent.acked(1, 7).await;
    opened.stream_id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_has_the_bytes_as_they_were_produced_and_is_never_taken_for_a_page() {
    let edge = Edge::start().await;
    let id = awkward_stream(&edge).await;
    let all = edge.get(&format!("/api/streams/{id}/raw")).await;
    assert_eq!(all.status, 200);
    assert_eq!(
        all.body,
        b"one\r\n\xff\xfe\0 not UTF-8\n\nfirst half, second half\nno newline at the end"
    );
    assert_eq!(all.headers.get("content-type"), "application/octet-stream");
    assert_eq!(all.headers.get("x-content-type-options"), "nosniff");
    assert_eq!(
        all.headers.get("content-disposition"),
        format!("attachment; filename=\"stream-{id}.log\"")
    );
    for (query, body) in [
        ("from=1&to=3", &b"\xff\xfe\0 not UTF-8\n\n"[..]),
        ("from=5", b"second half\nno newline at the end"),
        ("from=0&to=1000", &all.body),
        ("from=4&to=2", b""),
        ("from=1000", b""),
    ] {
        let part = edge.get(&format!("/api/streams/{id}/raw?{query}")).await;
        assert_eq!((part.status, part.body.as_slice()), (200, body), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_of_many_blocks_is_complete() {
    let edge = Edge::start().await;
    let mut agent = Agent::connect(edge.channel().await, "a").await.unwrap();
    let id = agent.open(1, "/log").await.stream_id;
    let mut expected = Vec::new();
    for number in 0..200 {
        let block = lines("many", number * 100, 100);
        expected.extend_from_slice(&block.text);
        agent.push(1, block, b"").await;
    }
    agent.acked(1, 20_000).await;
    let answer = edge.get(&format!("/api/streams/{id}/raw")).await;
    assert!(
        answer.body == expected,
        "{} of {} bytes",
        answer.body.len(),
        expected.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_cannot_be_is_refused_in_json_that_says_why() {
    let edge = Edge::start().await;
    let id = awkward_stream(&edge).await;
    for (path, status, word) in [
        ("/api/streams/4711/raw".to_owned(), 404, "4711"),
        ("/api/streams/abc/raw".to_owned(), 400, "number"),
        (format!("/api/streams/{id}/raw?from=x"), 400, "from"),
        (format!("/api/streams/{id}/raw?form=1"), 400, "form"),
        ("/api/nothing".to_owned(), 404, "/api/streams/{id}/raw"),
        ("/api/".to_owned(), 404, "/api/streams/{id}/raw"),
    ] {
        let answer = edge.get(&path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert_eq!(answer.headers.get("content-type"), "application/json", "{path}");
        let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let error = json["error"].as_str().unwrap();
        assert!(error.contains(word), "{path}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_view_is_the_page_and_an_unknown_file_is_not_found() {
    let edge = Edge::start().await;
    let page = edge.get("/").await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("<!doctype html>"), "{}", page.text());
    assert_eq!(page.headers.get("content-type"), "text/html; charset=utf-8");
    assert_eq!(page.headers.get("cache-control"), "no-cache");
    let policy = page.headers.get("content-security-policy");
    for rule in [
        "default-src 'none'",
        "script-src 'self'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.headers.get("x-content-type-options"), "nosniff");
    assert_eq!(page.headers.get("referrer-policy"), "no-referrer");

    assert_eq!(edge.get("/streams/7").await.body, page.body);
    assert_eq!(edge.get("/assets/none-1234.js").await.status, 404);
    assert_eq!(edge.get("/../Cargo.toml").await.status, 404);

    let tag = format!("if-none-match: {}\r\n", page.headers.get("etag"));
    let again = edge.send("GET", "/", &tag, b"").await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(edge.send("POST", "/", "", b"x").await.status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_pages_of_configured_origins_may_call() {
    let edge = Edge::start().await;
    let preflight = async |origin: &str| {
        let headers = format!(
            "origin: {origin}\r\naccess-control-request-method: POST\r\n\
             access-control-request-headers: content-type,grpc-timeout,x-grpc-web,x-user-agent\r\n"
        );
        edge.send("OPTIONS", "/millstream.v1.LogService/Tail", &headers, b"")
            .await
    };
    let friend = preflight(FRIEND).await;
    assert_eq!(friend.headers.get("access-control-allow-origin"), FRIEND);
    let allowed = friend.headers.get("access-control-allow-headers");
    for header in ["content-type", "grpc-timeout", "x-grpc-web", "x-user-agent"] {
        assert!(allowed.contains(header), "{allowed}");
    }
    assert!(
        friend
            .headers
            .get("access-control-allow-methods")
            .contains("POST")
    );
    for stranger in [
        "https://evil.example",
        "https://ci.example.com.evil.example",
        "null",
    ] {
        let answer = preflight(stranger).await;
        assert_eq!(
            answer.headers.get("access-control-allow-origin"),
            "",
            "{stranger}"
        );
    }

    let called = edge
        .send("GET", "/healthz", &format!("origin: {FRIEND}\r\n"), b"")
        .await;
    assert_eq!(called.headers.get("access-control-allow-origin"), FRIEND);
    let exposed = called.headers.get("access-control-expose-headers");
    assert!(
        exposed.contains("grpc-status") && exposed.contains("grpc-message"),
        "{exposed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_web_client_is_told_where_sources_are_shown() {
    let edge = Edge::start().await;
    let answer = edge.get("/api/settings").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers.get("content-type"), "application/json");
    assert_eq!(answer.text(), r#"{"link_templates":[]}"#);
    edge.relay.stop().await;
}
