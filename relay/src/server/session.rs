//! `/api/session`: what the web client has to know before anything else, and logging in and out.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tonic::Code;

use super::connection::Peer;
use super::http_routes::error;
use crate::auth::{Access, Authority, from};

/// Who the browser is to the relay.
#[derive(Debug, Serialize)]
struct Session {
    /// Nothing can be seen without logging in.
    login_needed: bool,
    /// Who is logged in; absent when nobody is, or nobody is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<User>,
    /// What protects this relay less than it could, a sentence each, for everybody who looks at it.
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct User {
    name: String,
    role: &'static str,
    /// Selector; empty: every stream.
    scope: String,
}

/// A login is a token in a little JSON.
pub(super) const MAX_BODY_BYTES: usize = 4096;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    token: String,
}

pub(super) async fn show(
    State(authority): State<Arc<Authority>>,
    access: Option<Extension<Arc<Access>>>,
) -> Response {
    answer(&authority, access.as_ref().map(|Extension(access)| &**access))
}

pub(super) async fn log_in(
    State(authority): State<Arc<Authority>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    // A form, which a page of somebody else could send, has another type.
    let is_json = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let login = serde_json::from_slice::<Login>(&body).ok().filter(|_| is_json);
    let Some(login) = login else {
        return error(
            StatusCode::BAD_REQUEST,
            "send {\"token\": \"…\"} with the content type application/json",
        );
    };
    match authority.log_in(
        login.token.trim(),
        from(peer.and_then(|Extension(peer)| peer.address)),
    ) {
        Ok((access, cookie)) => with_cookie(answer(&authority, Some(&access)), &cookie),
        Err(refusal) => {
            let status = match refusal.code {
                Code::Unauthenticated => StatusCode::UNAUTHORIZED,
                Code::PermissionDenied => StatusCode::FORBIDDEN,
                Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
                _ => StatusCode::BAD_REQUEST,
            };
            error(status, &refusal.message)
        }
    }
}

pub(super) async fn log_out(
    State(authority): State<Arc<Authority>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Response {
    let cookie = authority.log_out(&headers, from(peer.and_then(|Extension(peer)| peer.address)));
    with_cookie(answer(&authority, None), &cookie)
}

fn with_cookie(mut response: Response, cookie: &str) -> Response {
    let cookie = HeaderValue::from_str(cookie).expect("base64 and fixed words");
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    response
}

fn answer(authority: &Authority, access: Option<&Access>) -> Response {
    let user = access.and_then(|access| {
        Some(User {
            name: access.who().to_owned(),
            role: access.role()?.name(),
            scope: access.scope().to_owned(),
        })
    });
    let session = Session {
        login_needed: authority.asks() && user.is_none(),
        user,
        warnings: authority.warnings().to_vec(),
    };
    let json = serde_json::to_string(&session).expect("it has nothing but text");
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
    ];
    (headers, json).into_response()
}
