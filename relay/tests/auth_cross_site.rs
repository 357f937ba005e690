//! Pages of others, and names that were made to point here: what a browser could be made to send.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod edge_support;

use edge_support::{Edge, FRIEND};
use millstream_relay::config::Settings;

const LIST: &str = "/millstream.v1.LogService/ListStreams";
const GRPC_WEB: &str = "content-type: application/grpc-web+proto\r\n";

/// The gRPC status of a gRPC-Web call with these headers; empty: admitted.
async fn call(edge: &Edge, headers: &str) -> String {
    let answer = edge
        .send("POST", LIST, &format!("{GRPC_WEB}{headers}"), &[0; 5])
        .await;
    answer.headers.get("grpc-status").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_somebody_else_cannot_use_a_relay_that_asks_nobody() {
    let edge = Edge::start().await;
    let own = edge.address();
    for admitted in [
        String::new(),
        format!("origin: http://{own}\r\nsec-fetch-site: same-origin\r\n"),
        format!("origin: {FRIEND}\r\nsec-fetch-site: cross-site\r\n"),
    ] {
        assert_eq!(call(&edge, &admitted).await, "", "{admitted}");
    }
    for refused in [
        "origin: https://evil.example\r\n",
        "origin: null\r\n",
        "origin: http://127.0.0.1:1\r\nsec-fetch-site: same-site\r\n",
        "sec-fetch-site: cross-site\r\n",
    ] {
        assert_eq!(call(&edge, refused).await, "7", "{refused}");
        for path in ["/metrics", "/api/streams/1/raw"] {
            assert_eq!(
                edge.send("GET", path, refused, b"").await.status,
                403,
                "{path} {refused}"
            );
        }
    }
    // A link from elsewhere opens the page.
    let link = "sec-fetch-site: cross-site\r\nsec-fetch-mode: navigate\r\n";
    assert_eq!(edge.send("GET", "/streams/1", link, b"").await.status, 200);
    edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_made_to_point_here_is_not_answered_where_nobody_is_asked() {
    let edge = Edge::start().await;
    let by_name = async |edge: &Edge, name: &str| {
        let request = format!("GET /metrics HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n");
        edge.speak(&request).await
    };
    assert!(by_name(&edge, "localhost:7171").await.starts_with("HTTP/1.1 200"));
    let refused = by_name(&edge, "evil.example:7171").await;
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    assert!(refused.contains("public_url"), "{refused}");
    edge.relay.stop().await;

    let behind_proxy = Edge::start_with(Settings {
        public_url: Some("https://logs.example.com".to_owned()),
        ..Settings::default()
    })
    .await;
    assert!(
        by_name(&behind_proxy, "logs.example.com")
            .await
            .starts_with("HTTP/1.1 200")
    );
    let page = "origin: https://logs.example.com\r\nsec-fetch-site: same-origin\r\n";
    assert_eq!(call(&behind_proxy, page).await, "");
    assert!(
        by_name(&behind_proxy, "evil.example")
            .await
            .starts_with("HTTP/1.1 403")
    );
    behind_proxy.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_says_who_one_is_and_what_is_given_up() {
    let edge = Edge::start_with(Settings {
        auth: Some(true),
        ..Settings::default()
    })
    .await;
    let session = async |headers: &str| -> serde_json::Value {
        let answer = edge.send("GET", "/api/session", headers, b"").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers.get("cache-control"), "no-store");
        serde_json::from_slice(&answer.body).unwrap()
    };
    let nobody = session("").await;
    assert_eq!(nobody["login_needed"], true);
    assert!(nobody.get("user").is_none());
    let token = edge
        .token(millstream_relay::auth::Role::Operator, "team=web")
        .await;
    let somebody = session(&format!("authorization: Bearer {token}\r\n")).await;
    assert_eq!(somebody["login_needed"], false);
    assert_eq!(somebody["user"]["role"], "operator");
    assert_eq!(somebody["user"]["scope"], "team=web");
    assert!(!somebody.to_string().contains(&token));
    edge.relay.stop().await;
}
