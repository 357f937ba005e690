//! `/api/session`: what the web client has to know before anything else.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::auth::{Access, Authority};

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

pub(super) async fn show(
    State(authority): State<Arc<Authority>>,
    access: Option<Extension<Arc<Access>>>,
) -> Response {
    let user = access.and_then(|Extension(access)| {
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
