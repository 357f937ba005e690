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
use crate::auth::{Access, Authority, Refusal, from};

/// Who the browser is to the relay.
#[derive(Debug, Serialize)]
struct Session {
    /// Nothing can be seen without logging in.
    login_needed: bool,
    /// Who is logged in; absent when nobody is, or nobody is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<User>,
    /// What people call the provider by which they can log in; absent when they need a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    /// Why the browser's last login failed, or why it is not let in without one; a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// What protects this relay less than it could, a sentence each, for everybody who looks at it.
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct User {
    name: String,
    role: &'static str,
    /// Selector; empty: every stream.
    scope: String,
    /// There is a session here that can be ended.
    can_log_out: bool,
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
    request: http::request::Parts,
) -> Response {
    let Some(Extension(access)) = access else {
        return answer(&authority, None, authority.login_problem(&request));
    };
    let can_log_out = authority.is_session(&request.headers, &access);
    answer(&authority, user(&access, can_log_out), None)
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
        Ok((access, cookies)) => with_cookies(answer(&authority, user(&access, true), None), &cookies),
        Err(refusal) => refuse(&refusal),
    }
}

pub(super) fn refuse(refusal: &Refusal) -> Response {
    let status = match refusal.code {
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    };
    error(status, &refusal.message)
}

pub(super) async fn log_out(
    State(authority): State<Arc<Authority>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Response {
    let cookies = authority.log_out(&headers, from(peer.and_then(|Extension(peer)| peer.address)));
    with_cookies(answer(&authority, None, None), &cookies)
}

pub(super) fn with_cookies(mut response: Response, cookies: &[String]) -> Response {
    for cookie in cookies {
        let cookie = HeaderValue::from_str(cookie).expect("base64 and fixed words");
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// `None`: nobody is asked who they are.
fn user(access: &Access, can_log_out: bool) -> Option<User> {
    Some(User {
        name: access.who().to_owned(),
        role: access.role()?.name(),
        scope: access.scope().to_owned(),
        can_log_out,
    })
}

fn answer(authority: &Authority, user: Option<User>, problem: Option<String>) -> Response {
    let session = Session {
        login_needed: authority.asks() && user.is_none(),
        user,
        provider: authority.provider_name().map(str::to_owned),
        problem,
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
