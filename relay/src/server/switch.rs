//! Which of the two sides a request is for.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::{Request, Response, header};
use tonic::body::Body;
use tonic::service::Routes;
use tonic_web::GrpcWebService;
use tower::Service;

use super::http_side::HttpSide;
use crate::auth::Guard;

/// gRPC by content type, everything else is HTTP.
#[derive(Clone, Debug)]
pub(super) struct Switch {
    grpc: GrpcWebService<Guard<Routes>>,
    http: HttpSide,
}

impl Switch {
    pub(super) fn new(grpc: GrpcWebService<Guard<Routes>>, http: HttpSide) -> Self {
        Self { grpc, http }
    }
}

impl Service<Request<Body>> for Switch {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // Both sides are routers, which are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let is_grpc = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|content_type| content_type.as_bytes().starts_with(b"application/grpc"));
        if is_grpc {
            return Box::pin(self.grpc.call(request));
        }
        self.http.0.call(request)
    }
}
