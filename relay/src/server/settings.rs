//! `/api/settings`: what the configuration says to the web client.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use crate::config::LinkTemplate;

pub(super) async fn show(State(templates): State<Arc<[LinkTemplate]>>) -> Response {
    let templates: Vec<&str> = templates.iter().map(LinkTemplate::as_str).collect();
    let json = serde_json::json!({ "link_templates": templates }).to_string();
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
    ];
    (headers, json).into_response()
}
