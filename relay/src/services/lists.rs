//! Lists, a page at a time.
//!
//! A page token names the last entry of the page before, so that entries which come or go between two
//! pages neither repeat nor hide others.

use millstream_proto::v1;
use tonic::Status;

use super::status::ToStatus;
use crate::auth::Access;
use crate::core::CoreParts;

const DEFAULT_PAGE: u32 = 200;
const MAX_PAGE: u32 = 1000;

/// A page must stay below the 4 MiB of a message, however many labels its streams have.
const PAGE_BYTES: usize = 3 << 20;

pub(super) fn streams(
    parts: &CoreParts,
    access: &Access,
    request: &v1::ListStreamsRequest,
) -> Result<v1::ListStreamsResponse, Status> {
    let (streams, next_page_token) = page(
        parts,
        access,
        &request.selector,
        request.page_size,
        &request.page_token,
        |_| true,
    )?;
    Ok(v1::ListStreamsResponse {
        streams,
        next_page_token,
    })
}

pub(super) fn runs(
    parts: &CoreParts,
    access: &Access,
    request: &v1::ListRunsRequest,
) -> Result<v1::ListRunsResponse, Status> {
    let (runs, next_page_token) = page(
        parts,
        access,
        &request.selector,
        request.page_size,
        &request.page_token,
        |stream| stream.run.is_some(),
    )?;
    Ok(v1::ListRunsResponse {
        runs,
        next_page_token,
    })
}

fn page(
    parts: &CoreParts,
    access: &Access,
    selector: &str,
    page_size: u32,
    page_token: &str,
    wanted: impl Fn(&v1::Stream) -> bool,
) -> Result<(Vec<v1::Stream>, String), Status> {
    let selector = access.selector(selector).map_err(|error| error.to_status())?;
    let before = match page_token {
        "" => u64::MAX,
        token => token.parse().map_err(|_| bad_token())?,
    };
    let limit = page_limit(page_size);
    let mut found = Vec::new();
    let mut bytes = 0;
    for handle in parts.registry.newest_first(before) {
        if !selector.matches(&handle.labels) {
            continue;
        }
        let stream = handle.to_proto();
        if !wanted(&stream) {
            continue;
        }
        bytes += prost::Message::encoded_len(&stream) + 8;
        if found.len() == limit || (bytes > PAGE_BYTES && !found.is_empty()) {
            let token = found
                .last()
                .map_or_else(String::new, |last: &v1::Stream| last.stream_id.to_string());
            return Ok((found, token));
        }
        found.push(stream);
    }
    Ok((found, String::new()))
}

/// An agent exists for the caller when its own labels are within their scope, or a stream of it is.
pub(super) fn agents(
    parts: &CoreParts,
    access: &Access,
    request: &v1::ListAgentsRequest,
) -> Result<v1::ListAgentsResponse, Status> {
    let mut agents = parts.agents.changed_after(None);
    if !access.sees_everything() {
        let by_stream = parts.registry.agents_with(|labels| access.sees(labels));
        agents.retain(|agent| access.sees_agent(agent) || by_stream.contains(&agent.agent_id));
    }
    if !request.page_token.is_empty() {
        let (host, agent_id) = request.page_token.split_once('/').ok_or_else(bad_token)?;
        agents.retain(|agent| (agent.host.as_str(), agent.agent_id.as_str()) > (host, agent_id));
    }
    for agent in &mut agents {
        access.hide_sources(agent);
    }
    let mut bytes = 0;
    let fitting = agents.iter().take_while(|agent| {
        bytes += prost::Message::encoded_len(*agent) + 8;
        bytes <= PAGE_BYTES
    });
    // One alone is far below the limit of a message.
    let length = fitting.count().clamp(1, page_limit(request.page_size));
    let next_page_token = if length < agents.len() {
        agents.truncate(length);
        let last = &agents[length - 1];
        format!("{}/{}", last.host, last.agent_id)
    } else {
        String::new()
    };
    Ok(v1::ListAgentsResponse {
        agents,
        next_page_token,
    })
}

fn page_limit(page_size: u32) -> usize {
    let size = if page_size == 0 {
        DEFAULT_PAGE
    } else {
        page_size.min(MAX_PAGE)
    };
    size as usize
}

fn bad_token() -> Status {
    Status::invalid_argument("page_token is not one that this relay gave; leave it empty for the first page")
}
