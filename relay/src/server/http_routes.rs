//! Plain HTTP: what browsers, probes and scripts ask for.

use std::sync::Arc;

use axum::Extension;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::{login, metrics, raw_download, session, settings, web_client};
use crate::Core;
use crate::auth::{Access, Authority, CALLBACK, Role, Rule, rules};
use crate::config::LinkTemplate;

pub(super) fn router(core: Core, authority: Arc<Authority>, links: Arc<[LinkTemplate]>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(render_metrics))
        .route(
            "/api/session",
            get(session::show)
                .post(session::log_in)
                .delete(session::log_out)
                .layer(axum::extract::DefaultBodyLimit::max(session::MAX_BODY_BYTES))
                .with_state(Arc::clone(&authority)),
        )
        .route(
            rules::LOGIN,
            post(login::begin)
                .layer(axum::extract::DefaultBodyLimit::max(session::MAX_BODY_BYTES))
                .with_state(Arc::clone(&authority)),
        )
        .route(CALLBACK, get(login::come_back).with_state(authority))
        .route("/api/settings", get(settings::show).with_state(links))
        .route("/api/streams/{id}/raw", get(raw_download::download))
        .fallback(get(web_client::file))
        .with_state(core)
}

/// Everybody learns whether; why, with its paths and stream ids, is for those who may see all streams.
async fn ready(State(core): State<Core>, access: Option<Extension<Arc<Access>>>) -> Response {
    let is_told =
        access.is_some_and(|Extension(access)| access.check(Rule::NeedsWithoutScope(Role::Viewer)).is_ok());
    match core.is_healthy() {
        Ok(()) if !is_told => "ready\n".into_response(),
        // Damage does not keep the relay from its work; the words are for the one who looks.
        Ok(()) => core
            .damage()
            .into_iter()
            .fold("ready\n".to_owned(), |text, damage| text + &damage + "\n")
            .into_response(),
        Err(why) => {
            let why = if is_told {
                &why
            } else {
                "not ready; a viewer's token is told why"
            };
            (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
        }
    }
}

async fn render_metrics(State(core): State<Core>) -> Response {
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, text)], metrics::render(&core)).into_response()
}

/// An error as JSON, which no browser takes for a page.
pub(super) fn error(status: StatusCode, message: &str) -> Response {
    let body = serde_json::json!({ "error": message }).to_string();
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
    ];
    (status, headers, body + "\n").into_response()
}
