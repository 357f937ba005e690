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
use crate::limits::{ArrivingBody, CallKind, CountedBody, Ledger, LimitReached, OpenCall, caller};
use crate::server::{OnLine, Peer};

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
    ledger: Arc<Ledger>,
    side: Side,
    inner: S,
}

impl<S> Guard<S> {
    pub(crate) fn new(authority: Arc<Authority>, ledger: Arc<Ledger>, side: Side, inner: S) -> Self {
        Self {
            authority,
            ledger,
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
        let peer = parts.extensions.get::<Peer>();
        let address = peer.and_then(|peer| peer.address).map(|address| address.ip());
        let mut on_line = peer.map(|peer| peer.line.begin());
        // What is answered here is answered to its end.
        let answer_at_once = |on_line: &mut Option<OnLine>, answer: Response<Body>| -> Self::Future {
            if let Some(on_line) = on_line {
                on_line.complete();
            }
            Box::pin(std::future::ready(Ok(answer)))
        };
        if let Some(reached) = peer.and_then(|peer| peer.line.refused()) {
            return answer_at_once(&mut on_line, side.refuse_limit(reached));
        }
        let report = Arc::new(Report::of(&self.authority, &parts));
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
                return answer_at_once(&mut on_line, side.refuse(&refusal));
            }
        };
        let permit = self
            .ledger
            .begin(side.kind(&parts), &caller(access.as_deref(), address));
        let permit = match permit {
            Ok(permit) => permit,
            Err(reached) => return answer_at_once(&mut on_line, side.refuse_limit(&reached)),
        };
        let open = OpenCall { permit, on_line };
        let arrival = self.ledger.arrival(parts.uri.path());
        let body = Body::new(ArrivingBody::new(body, arrival, self.ledger.held()));
        let Some(access) = access else {
            let answer = self.inner.call(Request::from_parts(parts, body));
            return Box::pin(async move {
                let answer = answer.await?;
                Ok(answer.map(|body| Body::new(CountedBody::new(body, open))))
            });
        };
        let call = access.begin();
        let who = access.who().to_owned();
        parts.extensions.insert(access);
        parts.extensions.insert(Arc::clone(&report));
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
                    Ok(answer.map(|body| {
                        let body = Body::new(CutBody::new(body, call, side.cut_end()));
                        Body::new(CountedBody::new(body, open))
                    }))
                }
                Err(status) => Ok(side.refuse(&Refusal::new(status.code(), status.message()))),
            }
        })
    }
}

/// What the audit needs of a request; in the extensions of each that is let through, for services that refuse
/// something in the midst of a call.
#[derive(Debug)]
pub(crate) struct Report {
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

    /// The caller was let in and wanted something in the midst of the call that they may not.
    pub(crate) fn refused_within(&self, access: &super::Access, why: &str) {
        self.refused(&Refusal {
            who: Some(access.who().to_owned()),
            ..Refusal::new(Code::PermissionDenied, why)
        });
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

    fn kind(self, parts: &http::request::Parts) -> CallKind {
        match self {
            Self::Grpc => CallKind::of_grpc(parts.uri.path()),
            Self::Http => CallKind::Request,
        }
    }

    fn refuse_limit(self, reached: &LimitReached) -> Response<Body> {
        match self {
            Self::Grpc => reached.to_status().into_http(),
            Self::Http => {
                let mut response = json_error(StatusCode::TOO_MANY_REQUESTS, &reached.to_string());
                let seconds = millstream_proto::retry::seconds_up(reached.wait);
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
                response
            }
        }
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

fn refuse_http(refusal: &Refusal) -> Response<Body> {
    let status = match refusal.code {
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Unimplemented => StatusCode::METHOD_NOT_ALLOWED,
        _ => StatusCode::FORBIDDEN,
    };
    let mut response = json_error(status, &refusal.message);
    if status == StatusCode::UNAUTHORIZED {
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// An error as JSON, which no browser takes for a page.
fn json_error(status: StatusCode, message: &str) -> Response<Body> {
    let body = serde_json::json!({ "error": message }).to_string() + "\n";
    let mut response = Response::new(Body::new(http_body_util::Full::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
