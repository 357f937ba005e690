//! Logging in with a browser, and what the audit says about it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod edge_support;

use std::time::Instant;

use edge_support::{Answer, Edge, FRIEND, SOON};
use millstream_relay::auth::Role;

const JSON: &str = "content-type: application/json\r\n";
const LIST: &str = "/millstream.v1.LogService/ListStreams";

async fn log_in(edge: &Edge, token: &str) -> Answer {
    let body = serde_json::json!({ "token": token }).to_string();
    edge.send(
        "POST",
        "/api/session",
        &format!("{JSON}{}", edge.own_page()),
        body.as_bytes(),
    )
    .await
}

/// The header with which the browser comes back.
fn cookie_of(answer: &Answer) -> String {
    let cookie = answer
        .headers
        .get("set-cookie")
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    format!("cookie: other=1; {cookie}\r\n")
}

/// The gRPC status of a call from the page; empty: admitted.
async fn call(edge: &Edge, headers: &str) -> String {
    let headers = format!("content-type: application/grpc-web+proto\r\n{headers}");
    let answer = edge.send("POST", LIST, &headers, &[0; 5]).await;
    answer.headers.get("grpc-status").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_becomes_a_session_that_ends_with_a_logout() {
    let edge = Edge::asking().await;
    let token = edge.token(Role::Viewer, "").await;
    let answer = log_in(&edge, &token).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let set = answer.headers.get("set-cookie");
    for words in ["HttpOnly", "Secure", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(set.contains(words), "{set}");
    }
    assert!(
        !set.contains(&token) && !answer.text().contains(&token),
        "the token is not kept in the browser"
    );

    let cookie = cookie_of(&answer);
    let page = edge.own_page();
    assert_eq!(call(&edge, &format!("{page}{cookie}")).await, "");
    let session = edge.send("GET", "/api/session", &cookie, b"").await.text();
    assert!(
        session.contains("\"login_needed\":false") && session.contains("viewer"),
        "{session}"
    );
    assert_eq!(edge.send("GET", "/metrics", &cookie, b"").await.status, 200);

    let out = edge
        .send("DELETE", "/api/session", &format!("{page}{cookie}"), b"")
        .await;
    assert_eq!(out.status, 200);
    assert!(out.headers.get("set-cookie").contains("Max-Age=0"));
    assert_eq!(call(&edge, &format!("{page}{cookie}")).await, "16");
    // The token itself still works.
    assert_eq!(
        call(&edge, &format!("authorization: Bearer {token}\r\n")).await,
        ""
    );
    edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_token_and_cuts_what_runs() {
    let edge = Edge::asking().await;
    let token = edge.token(Role::Viewer, "").await;
    let cookie = cookie_of(&log_in(&edge, &token).await);
    let headers = format!(
        "content-type: application/grpc-web+proto\r\n{}{cookie}",
        edge.own_page()
    );
    let mut watch = edge
        .open("POST", "/millstream.v1.LogService/Watch", &headers, &[0; 5])
        .await;
    assert_eq!(watch.status, 200);
    assert!(watch.chunk().await.is_some());
    edge.tokens().revoke("viewer-0").unwrap();
    let mut last = Vec::new();
    while let Some(chunk) = watch.chunk().await {
        last = chunk;
    }
    let last = String::from_utf8_lossy(&last).into_owned();
    assert!(last.contains("grpc-status:16"), "{last}");
    assert_eq!(call(&edge, &format!("{}{cookie}", edge.own_page())).await, "16");
    edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_cannot_be_used_or_begun_by_pages_of_others() {
    let edge = Edge::asking().await;
    let token = edge.token(Role::Viewer, "").await;
    let cookie = cookie_of(&log_in(&edge, &token).await);
    for foreign in [
        "origin: https://evil.example\r\n",
        "origin: null\r\n",
        "sec-fetch-site: cross-site\r\n",
        "sec-fetch-site: same-site\r\n",
    ] {
        assert_eq!(call(&edge, &format!("{foreign}{cookie}")).await, "7", "{foreign}");
        let headers = format!("{foreign}{cookie}");
        assert_eq!(edge.send("GET", "/metrics", &headers, b"").await.status, 403);
        for method in ["POST", "DELETE"] {
            let headers = format!("{JSON}{foreign}{cookie}");
            let body = serde_json::json!({ "token": token }).to_string();
            let answer = edge.send(method, "/api/session", &headers, body.as_bytes()).await;
            assert_eq!(answer.status, 403, "{method} {foreign}");
            assert_eq!(answer.headers.get("set-cookie"), "");
        }
    }
    // Not even told who is logged in.
    let told = edge
        .send(
            "GET",
            "/api/session",
            &format!("origin: https://evil.example\r\n{cookie}"),
            b"",
        )
        .await;
    assert!(!told.text().contains("viewer"), "{}", told.text());
    // A cookie without a browser around it.
    assert_eq!(call(&edge, &cookie).await, "7");
    // A page that may call brings a token of its own.
    let friend = format!("origin: {FRIEND}\r\nsec-fetch-site: cross-site\r\n");
    assert_eq!(
        call(&edge, &format!("{friend}authorization: Bearer {token}\r\n")).await,
        ""
    );
    edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_cannot_be_is_refused_in_words() {
    let edge = Edge::asking().await;
    let agent = edge.token(Role::Agent, "host=a").await;
    let page = edge.own_page();
    for (headers, body, status, words) in [
        (JSON, "{\"token\":\"mst_wrong\"}".to_owned(), 401, "not valid"),
        (JSON, "{\"token\":\"\"}".to_owned(), 401, "not valid"),
        (JSON, format!("{{\"token\":\"{agent}\"}}"), 403, "role viewer"),
        (JSON, "{\"tokens\":1}".to_owned(), 400, "application/json"),
        (JSON, "x".to_owned(), 400, "application/json"),
        (
            "content-type: text/plain\r\n",
            format!("{{\"token\":\"{agent}\"}}"),
            400,
            "application/json",
        ),
    ] {
        let answer = edge
            .send(
                "POST",
                "/api/session",
                &format!("{headers}{page}"),
                body.as_bytes(),
            )
            .await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        assert!(answer.text().contains(words), "{body}: {}", answer.text());
        assert_eq!(answer.headers.get("set-cookie"), "");
        assert!(!answer.text().contains(&agent));
    }
    let large = vec![b'x'; 10_000];
    assert_eq!(
        edge.send("POST", "/api/session", &format!("{JSON}{page}"), &large)
            .await
            .status,
        413
    );
    edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_says_who_did_what_and_only_admins_read_it() {
    let edge = Edge::asking().await;
    let admin = edge.token(Role::Admin, "").await;
    let viewer = edge.token(Role::Viewer, "").await;
    let page = edge.own_page();
    let cookie = cookie_of(&log_in(&edge, &viewer).await);
    log_in(&edge, "mst_wrong").await;
    edge.send("DELETE", "/api/session", &format!("{page}{cookie}"), b"")
        .await;
    let bearer = format!("authorization: Bearer {viewer}\r\ncontent-type: application/grpc-web+proto\r\n");
    edge.send("POST", "/millstream.v1.ControlService/Start", &bearer, &[0; 5])
        .await;
    let operator = edge.token(Role::Operator, "").await;
    let bearer = format!("authorization: Bearer {operator}\r\ncontent-type: application/grpc-web+proto\r\n");
    edge.send("POST", "/millstream.v1.ControlService/Stop", &bearer, &[0; 5])
        .await;
    edge.tokens().revoke("viewer-1").unwrap();

    let audit = edge.audit_with(&admin, "token-revoked").await;
    let events: Vec<serde_json::Value> = audit
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let find = |event: &str| -> Vec<&serde_json::Value> {
        events.iter().filter(|found| found["event"] == event).collect()
    };
    assert!(
        find("started")[0]["configuration"]
            .as_str()
            .unwrap()
            .contains("needs a token")
    );
    assert!(find("token-created").iter().any(|event| event["role"] == "admin"));
    assert!(find("login")[0]["who"].as_str().unwrap().contains("viewer-1"));
    assert!(
        find("login")[0]["from"]
            .as_str()
            .unwrap()
            .starts_with("127.0.0.1:")
    );
    assert_eq!(find("logout").len(), 1);
    let refused = find("refused");
    assert!(
        refused.iter().any(|event| event["call"] == "POST /api/session"),
        "{audit}"
    );
    assert!(
        refused.iter().any(|event| {
            event["call"].as_str().unwrap().ends_with("ControlService/Start")
                && event["who"].as_str().unwrap().contains("viewer-1")
        }),
        "{audit}"
    );
    let control = find("control");
    assert_eq!(control.len(), 1, "{audit}");
    assert!(control[0]["who"].as_str().unwrap().contains("operator"));
    assert!(
        control[0]["call"]
            .as_str()
            .unwrap()
            .ends_with("ControlService/Stop")
    );
    for secret in [&admin, &viewer, &operator, &"mst_wrong".to_owned()] {
        assert!(!audit.contains(secret.as_str()), "a secret is in the audit");
    }

    // For everybody else, and for an admin with a scope, it does not exist.
    let narrow = edge.token(Role::Admin, "team=web").await;
    for token in [&operator, &narrow] {
        let headers = format!("authorization: Bearer {token}\r\n");
        assert_eq!(
            edge.send("GET", "/api/streams/1/raw", &headers, b"").await.status,
            404
        );
    }
    edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_refusals_is_a_number_in_the_audit() {
    let edge = Edge::asking().await;
    let admin = edge.token(Role::Admin, "").await;
    for _ in 0..200 {
        assert_eq!(
            edge.send("GET", "/metrics", "authorization: Bearer mst_wrong\r\n", b"")
                .await
                .status,
            401
        );
    }
    let audit = edge.audit_with(&admin, "\"event\":\"more\"").await;
    let mut one_by_one = 0;
    let mut as_number = 0;
    let begin = Instant::now();
    while one_by_one + as_number < 200 {
        let audit = edge.audit_with(&admin, "more").await;
        let events: Vec<serde_json::Value> = audit
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        one_by_one = events
            .iter()
            .filter(|event| event["call"] == "GET /metrics")
            .count() as u64;
        as_number = events.iter().filter_map(|event| event["refused"].as_u64()).sum();
        assert!(begin.elapsed() < SOON, "{one_by_one} and {as_number}\n{audit}");
    }
    assert_eq!(one_by_one + as_number, 200, "{audit}");
    edge.relay.stop().await;
}
