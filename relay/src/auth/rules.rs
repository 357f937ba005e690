//! The one table of who may call what. What is not in it is refused.

use http::Method;

use super::{CALLBACK, Role};

/// Where a login by the provider begins.
pub const LOGIN: &str = "/api/login/oidc";

/// What a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Everybody, also without a token.
    Open,
    /// The same, but not from web pages of others: it changes who the browser is.
    OpenToOwnPages,
    /// Somebody whose role covers this one; the scope narrows what they see.
    Needs(Role),
    /// The same, and no scope: what it tells is about the whole relay.
    NeedsWithoutScope(Role),
}

/// Every gRPC method that the relay serves.
pub const GRPC: &[(&str, Rule)] = &[
    ("/millstream.v1.IngestService/Push", Rule::Needs(Role::Agent)),
    ("/millstream.v1.AgentService/Attach", Rule::Needs(Role::Agent)),
    (
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        Rule::Needs(Role::Agent),
    ),
    ("/millstream.v1.LogService/Tail", Rule::Needs(Role::Viewer)),
    ("/millstream.v1.LogService/Read", Rule::Needs(Role::Viewer)),
    ("/millstream.v1.LogService/Search", Rule::Needs(Role::Viewer)),
    ("/millstream.v1.LogService/Histogram", Rule::Needs(Role::Viewer)),
    ("/millstream.v1.LogService/ListStreams", Rule::Needs(Role::Viewer)),
    ("/millstream.v1.LogService/ListRuns", Rule::Needs(Role::Viewer)),
    ("/millstream.v1.LogService/ListAgents", Rule::Needs(Role::Viewer)),
    ("/millstream.v1.LogService/Watch", Rule::Needs(Role::Viewer)),
    ("/millstream.v1.ControlService/Start", Rule::Needs(Role::Operator)),
    ("/millstream.v1.ControlService/Stop", Rule::Needs(Role::Operator)),
    (
        "/millstream.v1.ControlService/Restart",
        Rule::Needs(Role::Operator),
    ),
    (
        "/millstream.v1.ControlService/SetCommand",
        Rule::Needs(Role::Operator),
    ),
    // Load balancers and supervisors ask without a token; the answer is one word.
    ("/grpc.health.v1.Health/Check", Rule::Open),
    ("/grpc.health.v1.Health/Watch", Rule::Open),
    (
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        Rule::Needs(Role::Viewer),
    ),
    (
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        Rule::Needs(Role::Viewer),
    ),
];

/// The rule of a gRPC method; `None`: there is no such method.
#[must_use]
pub fn of_grpc(path: &str) -> Option<Rule> {
    GRPC.iter()
        .find(|(known, _)| *known == path)
        .map(|(_, rule)| *rule)
}

/// The rule of a plain HTTP request; `None`: there is no such path, or not with this method.
#[must_use]
pub fn of_http(method: &Method, path: &str) -> Option<Rule> {
    let reads = method == Method::GET || method == Method::HEAD;
    match path {
        "/healthz" | "/readyz" if reads => Some(Rule::Open),
        "/metrics" if reads => Some(Rule::NeedsWithoutScope(Role::Viewer)),
        // Who is logged in; logging in and out.
        "/api/session" if reads => Some(Rule::Open),
        "/api/session" if method == Method::POST || method == Method::DELETE => Some(Rule::OpenToOwnPages),
        // Logging in by a provider, which sends the browser back from its own site: who comes back is known by what
        // they bring, not by where they come from.
        LOGIN if method == Method::POST => Some(Rule::OpenToOwnPages),
        CALLBACK if method == Method::GET => Some(Rule::Open),
        // Addresses of the place's own code browsers.
        "/api/settings" if reads => Some(Rule::Needs(Role::Viewer)),
        _ if !path.starts_with("/api/") => {
            // The web client's files: the same for everybody, and needed to log in.
            reads.then_some(Rule::Open)
        }
        _ if reads && path.starts_with("/api/streams/") && path.ends_with("/raw") => {
            Some(Rule::Needs(Role::Viewer))
        }
        _ => None,
    }
}
