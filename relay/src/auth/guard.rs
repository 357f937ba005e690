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
use super::audit::{self, Audit, Event, Trail};
use super::authority::Authority;
use super::cut::{CutBody, CutEnd};
use super::{Role, Rule, rules};
use crate::server::Peer;

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
        let report = Report::of(&self.authority, &parts);
        let admitted = side.rule(&parts).and_then(|rule| {
            let access = decide(&self.authority, rule, &parts)?;
            if let (Rule::Needs(Role::Operator | Role::Admin), Some(access)) = (rule, &access) {
                report.control(access);
                parts.extensions.insert(report.trail());
            }
            Ok(access)
        });
        let access = match admitted {
            Ok(access) => access,
            Err(refusal) => {
                report.refused(&refusal);
                return Box::pin(std::future::ready(Ok(side.refuse(&refusal))));
            }
        };
        let Some(access) = access else {
            return Box::pin(self.inner.call(Request::from_parts(parts, body)));
        };
        let call = access.begin();
        let who = access.who().to_owned();
        parts.extensions.insert(access);
        let answer = self.inner.call(Request::from_parts(parts, body));
        Box::pin(async move {
            match call.guard(answer).await {
                Ok(answer) => {
                    let answer = answer?;
                    // A service that looks further than the table said no, before it sent anything.
                    if let Some(status) = Status::from_header_map(answer.headers())
                        && status.code() == Code::PermissionDenied
                    {
                        report.refused(&Refusal {
                            who: Some(who),
                            ..Refusal::new(status.code(), status.message())
                        });
                    }
                    Ok(answer.map(|body| Body::new(CutBody::new(body, call, side.cut_end()))))
                }
                Err(status) => Ok(side.refuse(&Refusal::new(status.code(), status.message()))),
            }
        })
    }
}

/// What the audit needs of a request.
struct Report {
    audit: Audit,
    from: String,
    call: String,
}

impl Report {
    fn of(authority: &Authority, parts: &http::request::Parts) -> Self {
        Self {
            audit: authority.audit().clone(),
            from: audit::from(parts.extensions.get::<Peer>().and_then(|peer| peer.address)),
            call: audit::shortened(&format!("{} {}", parts.method, parts.uri.path())),
        }
    }

    fn control(&self, access: &super::Access) {
        self.audit.tell(Event::Control {
            who: access.who().to_owned(),
            from: self.from.clone(),
            call: self.call.clone(),
        });
    }

    fn trail(&self) -> Trail {
        Trail {
            audit: self.audit.clone(),
            from: self.from.clone(),
        }
    }

    /// What does not exist is no refusal.
    fn refused(&self, refusal: &Refusal) {
        if matches!(refusal.code, Code::Unauthenticated | Code::PermissionDenied) {
            self.audit.tell(Event::Refused {
                who: refusal
                    .who
                    .clone()
                    .unwrap_or_else(|| "somebody unknown".to_owned()),
                from: self.from.clone(),
                call: self.call.clone(),
                why: audit::shortened(&refusal.message),
            });
        }
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
    if rule == Rule::OpenToOwnPages {
        // Logging out ends every call of the session, and must not end its own answer.
        return Ok(None);
    }
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
            Refusal::new(
                if is_other_method {
                    Code::Unimplemented
                } else {
                    refusal.0
                },
                refusal.1,
            )
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
