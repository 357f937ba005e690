//! `/api/login/oidc`: the way to the login provider and back.
//!
//! The login page asks where to go, so that it can say why not, and goes there. The provider sends the browser back
//! to the callback, which always leads on to a page of the web client: that, and not the provider's page, then makes
//! the requests that carry the session's `SameSite=Strict` cookie.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::connection::Peer;
use super::http_routes::error;
use super::session::{refuse, with_cookies};
use crate::auth::{Authority, Callback};

/// What the login page sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    /// The view to lead back to, such as `/streams/7#L12`.
    to: String,
}

pub(super) async fn begin(
    State(authority): State<Arc<Authority>>,
    peer: Option<Extension<Peer>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let is_json = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let Some(begin) = serde_json::from_slice::<Begin>(&body).ok().filter(|_| is_json) else {
        return error(
            StatusCode::BAD_REQUEST,
            "send {\"to\": \"/\"} with the content type application/json",
        );
    };
    let peer = peer.as_ref().map(|Extension(peer)| peer);
    match authority.begin_login(&begin.to, &uri, &headers, peer).await {
        Ok(begun) => {
            let json = serde_json::json!({ "url": begun.url }).to_string();
            let head = [
                (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
                (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
                (
                    header::X_CONTENT_TYPE_OPTIONS,
                    HeaderValue::from_static("nosniff"),
                ),
            ];
            with_cookies((head, json).into_response(), &begun.cookies)
        }
        Err(refusal) => refuse(&refusal),
    }
}

pub(super) async fn come_back(
    State(authority): State<Arc<Authority>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    callback: Result<Query<Callback>, QueryRejection>,
) -> Response {
    // What is no answer of a provider has no state either, and is refused for that.
    let callback = callback.map_or_else(|_| Callback::default(), |Query(callback)| callback);
    let peer = peer.as_ref().map(|Extension(peer)| peer);
    let Some(finished) = authority.finish_login(callback, &headers, peer).await else {
        return error(StatusCode::NOT_FOUND, "this relay knows no login provider");
    };
    let to = HeaderValue::from_str(finished.to.as_str()).expect("its own paths are ASCII");
    let head = [
        (header::LOCATION, to),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // The address holds the code.
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    with_cookies((StatusCode::SEE_OTHER, head).into_response(), &finished.cookies)
}
