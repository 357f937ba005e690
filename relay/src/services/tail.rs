//! `Tail` on the wire: frames that were encoded once go out as they are.
//!
//! The generated server would encode every message for every subscriber. This service stands in front of
//! it and answers `Tail` itself with a body whose data frames are the shared bytes; every other call
//! goes on to the generated server. gRPC-Web works the same: its layer passes data frames through and
//! turns the trailers into its own.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt, future::BoxFuture};
use http::HeaderMap;
use http_body::Frame;
use http_body_util::{BodyExt, Limited};
use millstream_proto::v1;
use millstream_proto::v1::log_service_server::{LogServiceServer, SERVICE_NAME};
use prost::Message;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use super::log::LogApi;
use super::status::ToStatus;
use crate::auth::Access;
use crate::core::CoreParts;
use crate::search::TurnKind;
use crate::subscription::{Plan, Subscription};

const TAIL_PATH: &str = "/millstream.v1.LogService/Tail";

/// A request of `Tail` with a cursor over a great many streams is the largest; no message is larger.
const MAX_REQUEST_BYTES: usize = millstream_proto::limits::MAX_MESSAGE_BYTES + 5;

/// `LogService`.
#[derive(Clone, Debug)]
pub(crate) struct TailService {
    parts: Arc<CoreParts>,
    rest: LogServiceServer<LogApi>,
}

impl TailService {
    pub(crate) fn new(parts: Arc<CoreParts>) -> Self {
        let rest = LogServiceServer::new(LogApi {
            parts: Arc::clone(&parts),
        });
        Self { parts, rest }
    }
}

impl tonic::server::NamedService for TailService {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<http::Request<Body>> for TailService {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.rest, context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != TAIL_PATH {
            return self.rest.call(request);
        }
        let parts = Arc::clone(&self.parts);
        Box::pin(async move {
            Ok(match tail(&parts, request).await {
                Ok(response) => response,
                Err(status) => status.into_http(),
            })
        })
    }
}

async fn tail(parts: &CoreParts, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
    let access = Access::in_extensions(request.extensions())?;
    let request = read_request(request).await?;
    let stream_ids = request.stream_ids.clone();
    let has_regex = request
        .filter
        .as_ref()
        .is_some_and(|filter| !filter.regex.is_empty());
    let store_id = parts.store.store_id();
    let plan = if has_regex {
        // Compiling an expression of a stranger's takes some milliseconds, which no other call should wait for.
        let (store_id, access) = (store_id.to_owned(), Arc::clone(&access));
        let planned = parts
            .search_pool
            .run(TurnKind::Filter, move || Plan::new(request, &store_id, &access));
        planned.await.map_err(|error| error.to_status())?
    } else {
        Plan::new(request, store_id, &access)
    };
    let plan = plan.map_err(|error| error.to_status())?;
    // Ids are the relay's own, so one that it does not know can never appear. Looked at after the cursor: a
    // reader of another store has to learn that it is another one.
    for stream_id in stream_ids {
        parts.visible(&access, stream_id)?;
    }
    let subscription = Subscription::new(parts.sources(), plan);
    let frames = futures_util::stream::unfold(subscription, |mut subscription| async move {
        subscription.next_frame().await.map(|frame| (frame, subscription))
    });
    let frames = frames.map(|frame| frame.map_err(|error| error.to_status()));
    let body = Body::new(FrameBody {
        frames: Some(Box::pin(frames)),
    });
    let mut response = http::Response::new(body);
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/grpc"),
    );
    Ok(response)
}

/// The one message of the request.
async fn read_request(request: http::Request<Body>) -> Result<v1::TailRequest, Status> {
    let body = Limited::new(request.into_body(), MAX_REQUEST_BYTES)
        .collect()
        .await
        .map_err(|error| match error.downcast::<Status>() {
            // It did not arrive in time, or there is no room for it.
            Ok(status) => *status,
            Err(error) => Status::resource_exhausted(format!(
                "the request could not be read, or has more than 4 MiB: {error}"
            )),
        })?;
    let mut bytes = body.to_bytes();
    if bytes.len() < 5 {
        return Err(Status::invalid_argument("the call has no request message"));
    }
    if bytes.get_u8() != 0 {
        return Err(Status::unimplemented(
            "compressed requests are not supported by Tail; send it as it is",
        ));
    }
    if bytes.get_u32() as usize != bytes.remaining() {
        return Err(Status::invalid_argument("Tail takes exactly one request message"));
    }
    v1::TailRequest::decode(bytes)
        .map_err(|error| Status::invalid_argument(format!("the request does not decode: {error}")))
}

type Frames = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// Data frames, then trailers with the status.
struct FrameBody {
    /// `None` once the trailers were sent.
    frames: Option<Frames>,
}

impl http_body::Body for FrameBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(frames) = &mut self.frames else {
            return Poll::Ready(None);
        };
        let status = match std::task::ready!(frames.poll_next_unpin(context)) {
            Some(Ok(frame)) => return Poll::Ready(Some(Ok(Frame::data(frame)))),
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.frames = None;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(
            status
                .add_header(&mut trailers)
                .map(|()| Frame::trailers(trailers)),
        ))
    }
}
