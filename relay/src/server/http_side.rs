//! The plain HTTP side: the routes behind their guard.
//!
//! [`super::Relay`] puts it behind the port. Fuzz targets ask it without one.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use tonic::body::Body;
use tower::Service;

use super::http_routes;
use crate::Core;
use crate::auth::{Audit, Authority, Guard, Side, TokenError};
use crate::config::{Config, LinkTemplate};
use crate::limits::Ledger;

/// Everything that is asked for by plain HTTP.
#[derive(Clone, Debug)]
pub struct HttpSide(pub(super) Guard<Http>);

impl HttpSide {
    pub(super) fn new(
        core: Core,
        authority: &Arc<Authority>,
        ledger: &Arc<Ledger>,
        links: Arc<[LinkTemplate]>,
    ) -> Self {
        let router = http_routes::router(core, Arc::clone(authority), links);
        Self(Guard::new(
            Arc::clone(authority),
            Arc::clone(ledger),
            Side::Http,
            Http(router),
        ))
    }

    /// The side without a port and without anything that runs beside it: tokens are read once, and the audit is
    /// written nowhere.
    ///
    /// # Errors
    /// The token file cannot be used.
    pub fn without_port(core: Core, config: &Config) -> Result<Self, TokenError> {
        let (audit, _nobody_writes) = Audit::new();
        let authority = Arc::new(Authority::new(config.auth_options(), audit)?);
        let ledger = Ledger::new(config.limits.clone(), core.metrics());
        Ok(Self::new(
            core,
            &authority,
            &ledger,
            config.link_templates.clone().into(),
        ))
    }

    /// The answer to a request, as it would go through the port.
    pub async fn answer(&mut self, request: Request<Body>) -> Response<Body> {
        match self.0.call(request).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        }
    }
}

/// The HTTP routes with bodies of the type that gRPC has.
#[derive(Clone, Debug)]
pub(super) struct Http(Router);

impl Service<Request<Body>> for Http {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // A router is always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let response = self.0.call(request.map(axum::body::Body::new));
        Box::pin(async move { Ok(response.await?.map(Body::new)) })
    }
}
