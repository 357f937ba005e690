//! `GET /api/streams/{id}/raw?from=&to=`: bytes exactly as they were produced.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use serde::Deserialize;

use super::http_routes::error;
use crate::Core;
use crate::auth::Access;

/// Range of sequences; the end is not part of it and is the head when it is left out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Range {
    #[serde(default)]
    from: u64,
    to: Option<u64>,
}

pub(super) async fn download(
    State(core): State<Core>,
    Extension(access): Extension<Arc<Access>>,
    id: Result<Path<u64>, PathRejection>,
    range: Result<Query<Range>, QueryRejection>,
) -> Response {
    let Ok(Path(id)) = id else {
        return error(
            StatusCode::BAD_REQUEST,
            "the stream id in the path must be a number",
        );
    };
    let range = match range {
        Ok(Query(range)) => range,
        Err(rejection) => {
            let message = format!(
                "{}; from and to are sequences, such as ?from=0&to=100",
                rejection.body_text()
            );
            return error(StatusCode::BAD_REQUEST, &message);
        }
    };
    let Some(stream) = core.stream(&access, id) else {
        return error(
            StatusCode::NOT_FOUND,
            &format!("there is no stream {id}; `millstream ls streams` lists them"),
        );
    };
    let to = range.to.unwrap_or(stream.next_sequence).min(stream.next_sequence);
    let mut chunks = Box::pin(core.raw(id, range.from.min(to)..to).fuse());
    // Damage further on cuts the download off, which its reader sees; here there can still be words.
    let first = match chunks.next().await {
        Some(Err(damage)) => return error(StatusCode::INTERNAL_SERVER_ERROR, &damage.to_string()),
        first => first,
    };
    let chunks = futures_util::stream::iter(first).chain(chunks);
    // The name is made of a number alone: nothing that a host says becomes a file name.
    let disposition = format!("attachment; filename=\"stream-{id}.log\"");
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (
            header::CONTENT_DISPOSITION,
            HeaderValue::from_str(&disposition).expect("the text is ASCII without control characters"),
        ),
    ];
    (headers, Body::from_stream(chunks)).into_response()
}
