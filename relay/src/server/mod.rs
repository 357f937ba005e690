//! The one port: gRPC, gRPC-Web, the web client, raw download, health and metrics.
//!
//! A request whose content type is gRPC's goes to the gRPC services (through the gRPC-Web layer), every
//! other one to the HTTP routes. Nothing here knows what a stream holds.

mod connection;
mod doors;
mod grpc;
mod http_routes;
mod http_side;
mod listen;
mod login;
mod metrics;
mod raw_download;
mod session;
mod settings;
mod switch;
mod tls;
mod turned_away;
mod web_client;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method, header};
use millstream_store::{EmbeddedStore, StoreError};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::auth::{Audit, AuditQueue, Authority, Event, TokenError};
use crate::config::Config;
use crate::limits::{Ledger, Limits};
use crate::{Core, Metrics};

pub(crate) use connection::Peer;
use doors::Doors;
pub(crate) use doors::OnLine;
pub use http_side::HttpSide;
use tls::Tls;
pub use tls::{TlsError, TlsFiles};

/// Time that a stop may take before what is left is cut off.
pub const STOP_LIMIT: Duration = Duration::from_secs(10);

/// HTTP/2 flow control: what a peer may send before it is read. Limits, not allocations; the protocol's
/// own 64 KiB would cost a round trip every 64 KiB.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
const FRAME_BYTES: u32 = 256 << 10;

/// Headers of one request, unpacked: a token, a session's cookie and those of other programs on this machine. A list that
/// is longer is refused, however many CONTINUATION frames it comes in.
const HEADER_LIST_BYTES: u32 = 16 << 10;

/// Streams that were reset before the relay looked at them, and those that it had to reset itself: beyond these the
/// connection is closed ("rapid reset").
const RESET_BEFORE_LOOKED_AT: usize = 64;
const RESET_BY_ERROR: usize = 256;

/// A connection that answers no ping for this long is dead.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Why the relay does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("tokens: {0}")]
    Tokens(#[from] TokenError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("cannot listen on {address}: {cause}; {cure}")]
    Listen {
        address: SocketAddr,
        cause: std::io::Error,
        cure: &'static str,
    },
}

/// A relay that is running.
#[derive(Debug)]
pub struct Relay {
    core: Core,
    address: SocketAddr,
    is_tls: bool,
    stop: CancellationToken,
    /// The server, and nothing else.
    tasks: JoinSet<Result<(), tonic::transport::Error>>,
    /// Tells the health service what the store says, and keeps up with tokens.
    keepers: JoinSet<()>,
    health: grpc::Health,
}

impl Relay {
    /// Opens the store, listens and serves.
    ///
    /// # Errors
    /// The data directory cannot be used or the address cannot be listened on.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        // Before the port is taken: a relay that cannot protect itself is not there at all.
        let tls = config.tls.clone().map(Tls::load).transpose()?.map(Arc::new);
        let listener = listen::bind(config.listen)?;
        let (data_dir, options) = (config.data_dir.clone(), config.store.clone());
        let store = tokio::task::spawn_blocking(move || EmbeddedStore::open(&data_dir, options));
        let store = store.await.map_err(|error| StoreError::Engine {
            what: "opening the store".to_owned(),
            cause: error.to_string(),
        })??;
        let (audit, audit_queue) = Audit::new();
        let authority = Authority::new(config.auth_options(), audit)?;
        if authority.asks() {
            authority.audit().tell(Event::Started {
                configuration: config.explain(),
            });
        }
        if authority.asks() && authority.has_no_tokens() {
            tracing::warn!(
                "there is no valid token yet, so nobody can do anything: make one with `millstream-relay token \
                 create --role admin --name NAME --data-dir {}`; it works at once",
                config.data_dir.display()
            );
        }
        Self::serve(
            listener,
            tls,
            Arc::new(store),
            config,
            (Arc::new(authority), audit_queue),
        )
        .await
    }

    async fn serve(
        listener: TcpListener,
        tls: Option<Arc<Tls>>,
        store: Arc<EmbeddedStore>,
        config: Config,
        (authority, audit_queue): (Arc<Authority>, AuditQueue),
    ) -> Result<Self, StartError> {
        let address = listener.local_addr().map_err(|cause| StartError::Listen {
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            cause,
            cure: "this should not happen; report it",
        })?;
        let core = Core::start(store, config.core)?;
        let ledger = Ledger::new(config.limits.clone(), core.metrics());
        let doors = Doors::new(&config.limits, core.metrics());
        let (health, grpc) = grpc::service(&core, &authority, &ledger).await;
        let http = HttpSide::new(core.clone(), &authority, &ledger, config.link_templates.into());
        let service = switch::Switch::new(grpc, http);
        let stop = CancellationToken::new();
        let server = transport(&config.limits)
            .layer(cors(config.cors_origins))
            .serve_with_incoming_shutdown(
                service,
                connection::incoming(listener, tls.clone(), Arc::clone(&doors), &config.limits),
                stop.clone().cancelled_owned(),
            );
        let mut tasks = JoinSet::new();
        tasks.spawn(server);
        let mut keepers = JoinSet::new();
        keepers.spawn(health.clone().report(core.trouble(), core.stopping()));
        keepers.spawn(core.keep_audit(audit_queue));
        keepers.spawn(sweep(doors, core.stopping()));
        let is_tls = tls.is_some();
        if let Some(tls) = tls {
            let audit = authority.audit().clone();
            keepers.spawn(keep_certificate(tls, audit, core.metrics(), core.stopping()));
        }
        if let Some(oidc) = authority.oidc() {
            keepers.spawn(Arc::clone(oidc).keep(core.stopping()));
        }
        keepers.spawn(authority.keep(core.stopping()));
        Ok(Self {
            core,
            address,
            is_tls,
            stop,
            tasks,
            keepers,
            health,
        })
    }

    /// Where it listens, with the real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it counts, as `/metrics` says it.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        self.core.metrics()
    }

    /// The same as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!(
            "{}://{}",
            if self.is_tls { "https" } else { "http" },
            self.address
        )
    }

    /// Stops: says NOT_SERVING, makes durable and acknowledges what was accepted, ends every call so that
    /// agents and readers reconnect, and closes the port. Cuts off what is left after [`STOP_LIMIT`].
    pub async fn stop(mut self) {
        self.stop.cancel();
        let graceful = async {
            self.core.shutdown().await;
            while self.keepers.join_next().await.is_some() {}
            self.health.hang_up().await;
            self.tasks.join_next().await
        };
        match tokio::time::timeout(STOP_LIMIT, graceful).await {
            Ok(None | Some(Ok(Ok(())))) => {}
            Ok(Some(Ok(Err(error)))) => tracing::warn!(%error, "the server stopped with an error"),
            Ok(Some(Err(error))) => tracing::error!(%error, "the server's task failed"),
            Err(_elapsed) => tracing::warn!("connections were cut off after {} s", STOP_LIMIT.as_secs()),
        }
    }
}

/// How often addresses that are gone are forgotten.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

async fn sweep(doors: Arc<Doors>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SWEEP_INTERVAL) => doors.sweep(),
        }
    }
}

/// HTTP as the relay speaks it, with its windows and pings.
#[must_use]
pub fn transport(limits: &Limits) -> Server {
    Server::builder()
        .accept_http1(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(limits.max_calls_per_connection)
        .http2_max_header_list_size(HEADER_LIST_BYTES)
        .http2_max_pending_accept_reset_streams(Some(RESET_BEFORE_LOOKED_AT))
        .http2_max_local_error_reset_streams(Some(RESET_BY_ERROR))
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
}

/// How often the certificate's files are looked at.
const CERTIFICATE_LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Takes a renewed certificate for the connections that come.
async fn keep_certificate(tls: Arc<Tls>, audit: Audit, metrics: Arc<Metrics>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(CERTIFICATE_LOOK_INTERVAL) => {}
        }
        let looking = Arc::clone(&tls);
        match tokio::task::spawn_blocking(move || looking.refresh()).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => {
                audit.tell(Event::Reloaded {
                    what: "the relay's certificate".to_owned(),
                });
                tracing::info!("the certificate's files changed: new connections get the new certificate");
            }
            Ok(Err(error)) => {
                metrics.certificate_errors_total.add(1);
                tracing::error!(%error, "the certificate that was in use stays in use");
            }
            Err(error) => tracing::error!(%error, "could not look at the certificate's files"),
        }
    }
}

/// Browsers may call from the configured origins, and from the relay's own page, which needs no leave.
fn cors(origins: Vec<http::HeaderValue>) -> CorsLayer {
    let grpc_header = HeaderName::from_static;
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            grpc_header("grpc-timeout"),
            grpc_header("x-grpc-web"),
            grpc_header("x-user-agent"),
            grpc_header("connect-protocol-version"),
        ])
        .expose_headers([
            grpc_header("grpc-status"),
            grpc_header("grpc-message"),
            grpc_header("grpc-status-details-bin"),
            header::RETRY_AFTER,
        ])
        .max_age(Duration::from_secs(3600))
}
