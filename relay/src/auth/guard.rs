//! The layer in front of everything that the relay serves.
//!
//! Each of the two sides of the port has one: gRPC behind the gRPC-Web layer, so that a refusal is a gRPC status
//! in either, and plain HTTP. A request that it lets through carries its [`super::Access`], and its answer
//! ends when that access does.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::Service;

use super::access::Refusal;
use super::authority::Authority;
use super::cut::{CutBody, CutEnd};
use super::{Rule, rules};

/// Which side of the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Grpc,
    Http,
}

/// A service behind the authority.
#[derive(Clone, Debug)]
pub(crate) struct Guard<S> {
    authority: Arc<Authority>,
    side: Side,
    inner: S,
}

impl<S> Guard<S> {
    pub(crate) fn new(authority: Arc<Authority>, side: Side, inner: S) -> Self {
        Self {
            authority,
            side,
            inner,
        }
    }
}

impl<S> Service<Request<Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let side = self.side;
        let (mut parts, body) = request.into_parts();
        let admitted = side
            .rule(&parts)
            .and_then(|rule| decide(&self.authority, rule, &parts));
        let access = match admitted {
            Ok(access) => access,
            Err(refusal) => return Box::pin(std::future::ready(Ok(side.refuse(&refusal)))),
        };
        let Some(access) = access else {
            return Box::pin(self.inner.call(Request::from_parts(parts, body)));
        };
        let call = access.begin();
        parts.extensions.insert(access);
        let answer = self.inner.call(Request::from_parts(parts, body));
        Box::pin(async move {
            match call.guard(answer).await {
                Ok(answer) => Ok(answer?.map(|body| Body::new(CutBody::new(body, call, side.cut_end())))),
                Err(status) => Ok(side.refuse(&Refusal {
                    code: status.code(),
                    message: status.message().to_owned(),
                })),
            }
        })
    }
}

/// `Ok(None)`: the call is for everybody, and the caller did not say who they are, or not truly.
fn decide(
    authority: &Authority,
    rule: Rule,
    parts: &http::request::Parts,
) -> Result<Option<Arc<super::Access>>, Refusal> {
    if rule == Rule::Open {
        return Ok(match authority.check_site(parts) {
            Ok(()) => authority.identify(parts).unwrap_or(None),
            Err(_foreign) => None,
        });
    }
    authority.check_site(parts)?;
    authority.admit(rule, parts).map(Some)
}

impl Side {
    fn rule(self, parts: &http::request::Parts) -> Result<Rule, Refusal> {
        let path = parts.uri.path();
        let (rule, refusal) = match self {
            Self::Grpc => (
                rules::of_grpc(path),
                (
                    Code::Unimplemented,
                    "there is no such method; reflection lists them",
                ),
            ),
            Self::Http => (
                rules::of_http(&parts.method, path),
                (
                    Code::NotFound,
                    "there is no such path for this method; there is GET /api/streams/{id}/raw?from=&to=",
                ),
            ),
        };
        rule.ok_or_else(|| {
            let is_other_method = self == Self::Http && rules::of_http(&Method::GET, path).is_some();
            Refusal {
                code: if is_other_method {
                    Code::Unimplemented
                } else {
                    refusal.0
                },
                message: refusal.1.to_owned(),
            }
        })
    }

    fn cut_end(self) -> CutEnd {
        match self {
            Self::Grpc => CutEnd::GrpcStatus,
            Self::Http => CutEnd::Error,
        }
    }

    fn refuse(self, refusal: &Refusal) -> Response<Body> {
        match self {
            Self::Grpc => Status::new(refusal.code, refusal.message.as_str()).into_http(),
            Self::Http => refuse_http(refusal),
        }
    }
}

/// An error as JSON, which no browser takes for a page.
fn refuse_http(refusal: &Refusal) -> Response<Body> {
    let status = match refusal.code {
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Unimplemented => StatusCode::METHOD_NOT_ALLOWED,
        _ => StatusCode::FORBIDDEN,
    };
    let body = serde_json::json!({ "error": refusal.message }).to_string() + "\n";
    let mut response = Response::new(Body::new(http_body_util::Full::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
