//! Plain HTTP: what browsers, probes and scripts ask for.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::{metrics, raw_download, web_client};
use crate::Core;

pub(super) fn router(core: Core) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(render_metrics))
        .route("/api/streams/{id}/raw", get(raw_download::download))
        .route("/api/", get(no_such_api))
        .route("/api/{*rest}", get(no_such_api))
        .fallback(get(web_client::file))
        .with_state(core)
}

async fn ready(State(core): State<Core>) -> Response {
    match core.is_healthy() {
        // Damage does not keep the relay from its work; the words are for the one who looks.
        Ok(()) => core
            .damage()
            .into_iter()
            .fold("ready\n".to_owned(), |text, damage| text + &damage + "\n")
            .into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn render_metrics(State(core): State<Core>) -> Response {
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, text)], metrics::render(&core)).into_response()
}

async fn no_such_api() -> Response {
    error(
        StatusCode::NOT_FOUND,
        "there is no such path; there is GET /api/streams/{id}/raw?from=&to=",
    )
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
