//! People whom a reverse proxy names in a header.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod edge_support;

use std::time::Instant;

use edge_support::{Edge, FRIEND, SOON};
use millstream_relay::auth::Role;
use serde_json::{Value, json};

const LIST: &str = "/millstream.v1.LogService/ListStreams";

const PEOPLE: &str = "[[people]]\nclaims = { groups = \"ops\" }\nrole = \"operator\"\n\
                      [[people]]\nclaims = { user = [\"ann\", \"bob\"] }\nrole = \"viewer\"\nscope = \"team=web\"\n";

const ANN: &str = "x-forwarded-user: ann\r\n";

/// A relay that believes a proxy at this address; tests come from 127.0.0.1.
async fn relay_behind(address: &str) -> Edge {
    Edge::start_with_file(&format!(
        "[trusted_proxy]\naddresses = [\"{address}\"]\nuser_header = \"x-forwarded-user\"\n\
         groups_header = \"x-forwarded-groups\"\n{PEOPLE}"
    ))
    .await
}

async fn session(edge: &Edge, headers: &str) -> Value {
    let answer = edge.send("GET", "/api/session", headers, b"").await;
    serde_json::from_slice(&answer.body).unwrap()
}

/// The gRPC status of a call; empty: admitted.
async fn call(edge: &Edge, method: &str, headers: &str) -> String {
    let headers = format!("content-type: application/grpc-web+proto\r\n{headers}");
    let answer = edge.send("POST", method, &headers, &[0; 5]).await;
    answer.headers.get("grpc-status").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_the_proxy_names_may_what_the_first_rule_says() {
    let edge = relay_behind("127.0.0.0/8").await;
    let page = edge.own_page();
    let told = session(&edge, &format!("{page}{ANN}")).await;
    assert_eq!(told["login_needed"], false);
    assert_eq!(
        told["user"],
        json!({ "name": "ann (by the proxy)", "role": "viewer", "scope": "team=web", "can_log_out": false })
    );
    assert_eq!(call(&edge, LIST, &format!("{page}{ANN}")).await, "");
    let metrics = edge.send("GET", "/metrics", ANN, b"").await;
    assert_eq!(metrics.status, 403, "the scope holds");
    let start = "/millstream.v1.ControlService/Start";
    assert_eq!(call(&edge, start, &format!("{page}{ANN}")).await, "7");

    let ops = format!("{page}x-forwarded-user: carol\r\nx-forwarded-groups: dev, ops\r\n");
    assert_eq!(session(&edge, &ops).await["user"]["role"], "operator");
    assert_eq!(edge.send("GET", "/metrics", &ops, b"").await.status, 200);

    // Nobody, and somebody for whom there is no rule.
    assert_eq!(session(&edge, &page).await["login_needed"], true);
    assert_eq!(call(&edge, LIST, &page).await, "16");
    let dave = format!("{page}x-forwarded-user: dave\r\n");
    let told = session(&edge, &dave).await;
    assert_eq!(told["login_needed"], true);
    assert!(told["problem"].as_str().unwrap().contains("dave"), "{told}");
    assert_eq!(call(&edge, LIST, &dave).await, "7");

    // A program's own token counts more.
    let viewer = edge.token(Role::Viewer, "").await;
    let both = format!("{dave}authorization: Bearer {viewer}\r\n");
    assert_eq!(call(&edge, LIST, &both).await, "");
    edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_is_doubtful_lets_in_nobody() {
    let edge = relay_behind("127.0.0.1").await;
    let admin = edge.token(Role::Admin, "").await;
    let page = edge.own_page();
    for doubtful in [
        format!("{ANN}{ANN}"),
        format!("{ANN}x-forwarded-user: root\r\n"),
        "x-forwarded-user: root, ann\r\n".to_owned(),
        "x-forwarded-user: \r\n".to_owned(),
        format!("{ANN}x-forwarded-groups: ops\r\nx-forwarded-groups: dev\r\n"),
    ] {
        let headers = format!("{page}{doubtful}");
        assert_eq!(call(&edge, LIST, &headers).await, "7", "{doubtful}");
        assert_eq!(session(&edge, &headers).await["login_needed"], true);
    }
    edge.audit_with(&admin, "must replace what its callers send")
        .await;
    edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_others_cannot_use_what_the_proxy_adds() {
    let edge = relay_behind("127.0.0.1").await;
    for foreign in [
        "origin: https://evil.example\r\n".to_owned(),
        "origin: null\r\n".to_owned(),
        "sec-fetch-site: cross-site\r\n".to_owned(),
        "sec-fetch-site: same-site\r\n".to_owned(),
        // It may call with a token of its own, which the proxy's header is not.
        format!("origin: {FRIEND}\r\nsec-fetch-site: cross-site\r\n"),
        // A POST of no browser.
        String::new(),
    ] {
        let headers = format!("{foreign}{ANN}");
        assert_eq!(call(&edge, LIST, &headers).await, "7", "{foreign}");
        if !foreign.is_empty() {
            assert_eq!(
                edge.send("GET", "/metrics", &headers, b"").await.status,
                403,
                "{foreign}"
            );
            let told = session(&edge, &headers).await.to_string();
            assert!(!told.contains("ann"), "{foreign}: {told}");
        }
    }
    edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_of_anybody_else_counts_for_nothing_and_stands_in_the_audit() {
    let edge = relay_behind("10.0.0.5").await;
    let admin = edge.token(Role::Admin, "").await;
    let headers = format!("{}{ANN}x-forwarded-groups: ops\r\n", edge.own_page());
    assert_eq!(call(&edge, LIST, &headers).await, "16");
    let told = session(&edge, &headers).await;
    assert_eq!(told["login_needed"], true);
    assert_eq!(
        told["problem"],
        Value::Null,
        "it is as if it were not there: {told}"
    );
    // Who has a token is not held up by it.
    let viewer = edge.token(Role::Viewer, "").await;
    let both = format!("{headers}authorization: Bearer {viewer}\r\n");
    assert_eq!(call(&edge, LIST, &both).await, "");
    let audit = edge.audit_with(&admin, "header-ignored").await;
    assert!(
        audit.contains("\"header\":\"x-forwarded-user\"") && audit.contains("\"from\":\"127.0.0.1:"),
        "{audit}"
    );

    // A flood of it is a number.
    for _ in 0..100 {
        edge.send("GET", "/metrics", ANN, b"").await;
    }
    let begin = Instant::now();
    loop {
        let audit = edge.audit_with(&admin, "header-ignored").await;
        let events: Vec<Value> = audit
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let one_by_one = events
            .iter()
            .filter(|event| event["event"] == "header-ignored" && event["call"] == "GET /metrics")
            .count() as u64;
        let as_number: u64 = events
            .iter()
            .filter_map(|event| event["headers_ignored"].as_u64())
            .sum();
        if one_by_one + as_number == 100 {
            break;
        }
        assert!(begin.elapsed() < SOON, "{one_by_one} and {as_number} in\n{audit}");
    }
    edge.relay.stop().await;
}
