//! Who may call what: every role, every method, from the one table.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod edge_support;

use std::collections::BTreeSet;

use edge_support::Edge;
use millstream_relay::auth::{CALLBACK, Role, Rule, rules};
use prost::Message as _;

/// What the guard answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Admitted,
    Unauthenticated,
    Denied,
    Unknown,
}

/// Makes the call through gRPC-Web with an empty message, and looks at the head of the answer: a call that is
/// refused has its status there.
async fn grpc(edge: &Edge, path: &str, token: Option<&str>) -> Verdict {
    let bearer = token.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"));
    let headers = format!("content-type: application/grpc-web+proto\r\n{bearer}");
    let answer = edge.open("POST", path, &headers, &[0; 5]).await;
    assert_eq!(answer.status, 200, "{path}");
    match answer.headers.get("grpc-status") {
        "16" => Verdict::Unauthenticated,
        "7" => Verdict::Denied,
        "12" if !answer.headers.get("grpc-message").contains("relay%20version") => Verdict::Unknown,
        _ => Verdict::Admitted,
    }
}

async fn http(edge: &Edge, method: &str, path: &str, token: Option<&str>) -> Verdict {
    let bearer = token.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"));
    let answer = edge.open(method, path, &bearer, b"").await;
    match answer.status {
        401 => Verdict::Unauthenticated,
        403 => Verdict::Denied,
        404 | 405 => Verdict::Unknown,
        _ => Verdict::Admitted,
    }
}

/// What the rule says about a caller; `None`: one without a token.
fn expected(rule: Rule, role: Option<Role>) -> Verdict {
    match (rule, role) {
        (Rule::Open, _) => Verdict::Admitted,
        (Rule::Needs(_) | Rule::NeedsWithoutScope(_), None) => Verdict::Unauthenticated,
        (Rule::Needs(needed) | Rule::NeedsWithoutScope(needed), Some(role)) if role.covers(needed) => {
            Verdict::Admitted
        }
        _ => Verdict::Denied,
    }
}

/// A relay that asks, and a token of each role.
async fn relay_with_tokens() -> (Edge, Vec<(Option<Role>, Option<String>)>) {
    let edge = Edge::asking().await;
    let mut callers = vec![(None, None), (None, Some("mst_wrong".to_owned()))];
    for role in Role::ALL {
        let token = edge.token(role, "").await;
        callers.push((Some(role), Some(token)));
    }
    (edge, callers)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_may_call_what_the_table_says_and_nothing_else() {
    let (edge, callers) = relay_with_tokens().await;
    for (path, rule) in rules::GRPC {
        for (role, token) in &callers {
            let verdict = grpc(&edge, path, token.as_deref()).await;
            assert_eq!(verdict, expected(*rule, *role), "{path} as {role:?}");
        }
    }
    let admin = callers.last().unwrap().1.as_deref();
    for path in [
        "/millstream.v1.LogService/Delete",
        "/millstream.v1.LogService/tail",
        "/millstream.v1.LogService/Tail/",
        "//millstream.v1.LogService/Tail",
        "/metrics",
        "/api/streams/1/raw",
        "/",
    ] {
        assert_eq!(grpc(&edge, path, admin).await, Verdict::Unknown, "{path}");
    }
    edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_may_get_the_paths_that_the_table_says() {
    let (edge, callers) = relay_with_tokens().await;
    // A stream that does not exist is told from one that may not be asked for.
    for (path, rule) in [
        ("/healthz", Rule::Open),
        ("/readyz", Rule::Open),
        ("/", Rule::Open),
        ("/api/session", Rule::Open),
        ("/api/settings", Rule::Needs(Role::Viewer)),
        ("/metrics", Rule::NeedsWithoutScope(Role::Viewer)),
        ("/api/streams/x/raw", Rule::Needs(Role::Viewer)),
    ] {
        assert_eq!(rules::of_http(&http::Method::GET, path), Some(rule), "{path}");
        for (role, token) in &callers {
            let verdict = http(&edge, "GET", path, token.as_deref()).await;
            assert_eq!(verdict, expected(rule, *role), "{path} as {role:?}");
        }
    }
    // The way to a login provider and back; `auth_oidc` walks it.
    for (method, path, rule) in [
        ("POST", rules::LOGIN, Some(Rule::OpenToOwnPages)),
        ("GET", rules::LOGIN, None),
        ("GET", CALLBACK, Some(Rule::Open)),
        ("HEAD", CALLBACK, None),
        ("POST", CALLBACK, None),
    ] {
        assert_eq!(
            rules::of_http(&method.parse().unwrap(), path),
            rule,
            "{method} {path}"
        );
    }
    let admin = callers.last().unwrap().1.as_deref();
    for (method, path) in [
        ("GET", "/api/login"),
        ("GET", "/api/"),
        ("GET", "/api/anything"),
        ("GET", "/api/streams/1"),
        ("POST", "/metrics"),
        ("DELETE", "/api/streams/1/raw"),
        ("PUT", "/"),
    ] {
        assert_eq!(
            http(&edge, method, path, admin).await,
            Verdict::Unknown,
            "{method} {path}"
        );
    }
    edge.relay.stop().await;
}

#[test]
fn every_method_of_every_service_is_in_the_table_and_the_table_has_no_other() {
    let mut methods = BTreeSet::new();
    for set in [
        millstream_proto::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ] {
        for file in prost_types::FileDescriptorSet::decode(set).unwrap().file {
            for service in &file.service {
                for method in &service.method {
                    methods.insert(format!(
                        "/{}.{}/{}",
                        file.package(),
                        service.name(),
                        method.name()
                    ));
                }
            }
        }
    }
    let table: BTreeSet<_> = rules::GRPC.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(methods, table);
    assert_eq!(table.len(), rules::GRPC.len(), "no method twice");
    // What no table says is refused.
    assert_eq!(rules::of_grpc("/millstream.v1.LogService/New"), None);
}
