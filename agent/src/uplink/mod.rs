//! The way to the relay: one session after the other, for ever.
//!
//! This file decides where to connect and how long to wait; [`session`] speaks the protocol. Neither knows
//! what a source is: blocks come from the outbox.

mod compress;
mod session;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use millstream_dial::{Credentials, Route};
use millstream_proto::limits::MAX_MESSAGE_BYTES;
use millstream_proto::v1;
use millstream_proto::v1::ingest_service_client::IngestServiceClient;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tracing::{error, info, warn};

use crate::backoff::Backoff;
use crate::outbox::Outbox;
use compress::CompressorTask;
use session::{SessionEnd, SessionError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that is gone without a word is found after interval and timeout.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The relay sends little to an agent (acks, later commands): small windows, small memory.
const RECEIVE_STREAM_WINDOW_BYTES: u32 = 256 << 10;
const RECEIVE_CONNECTION_WINDOW_BYTES: u32 = 512 << 10;
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// After a refusal that another attempt is unlikely to change: another process uses this agent's id, or the
/// protocol does not match.
const REFUSED_WAIT: Duration = Duration::from_secs(30);

/// What the uplink says about this agent, and where.
#[derive(Debug, Clone)]
pub struct UplinkConfig {
    /// Tried in turn.
    pub relays: Vec<String>,
    /// How to know the relays, and how to be known; files in it are read for each session.
    pub credentials: Credentials,
    pub agent_id: String,
    pub host: String,
    pub labels: BTreeMap<String, String>,
    /// zstd level for large blocks; `None` sends them raw.
    pub compress_level: Option<i32>,
}

/// Makes a connection of an endpoint that is set up; the ordinary way is TCP.
pub type Dial =
    Box<dyn Fn(Endpoint) -> BoxFuture<'static, Result<Channel, tonic::transport::Error>> + Send + Sync>;

/// Sends what is in the outbox until it is cancelled.
pub struct Uplink {
    config: UplinkConfig,
    outbox: Outbox,
    dial: Dial,
    compressor: CompressorTask,
}

impl std::fmt::Debug for Uplink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = formatter.debug_struct("Uplink");
        debug.field("config", &self.config).finish_non_exhaustive()
    }
}

impl Uplink {
    #[must_use]
    pub fn new(config: UplinkConfig, outbox: Outbox) -> Self {
        let compressor = CompressorTask::beside(config.compress_level);
        let dial: Dial = Box::new(|endpoint| Box::pin(async move { endpoint.connect().await }));
        Self {
            config,
            outbox,
            dial,
            compressor,
        }
    }

    /// With a network of one's own, and everything on the caller's thread: for simulations, which have to be
    /// repeatable.
    #[must_use]
    pub fn simulated(config: UplinkConfig, outbox: Outbox, dial: Dial) -> Self {
        let compressor = CompressorTask::inline(config.compress_level);
        Self {
            config,
            outbox,
            dial,
            compressor,
        }
    }

    /// Keeps a session open; returns when `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut compressor = std::mem::take(&mut self.compressor);
        let mut complaint = Complaint::default();
        for url in self.config.relays.iter().cycle() {
            let result = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                result = self.one_session(url, &mut compressor, &mut complaint, &stop) => result,
            };
            self.outbox.session_ended();
            let wait = match result {
                Ok(SessionEnd::Stopped) => break,
                Ok(SessionEnd::Closed(reason)) => {
                    warn!("relay {url} closed the session: {reason}; reconnecting");
                    backoff.reset();
                    backoff.next_wait()
                }
                Err(SessionError::Refused(status)) => {
                    report_refusal(url, &self.config.agent_id, &status);
                    REFUSED_WAIT.mul_f64(0.75 + fastrand::f64() * 0.5)
                }
                Err(error) => {
                    if error.had_session() {
                        backoff.reset();
                    }
                    let wait = error.retry_after() + backoff.next_wait();
                    complaint.say(url, &error);
                    wait
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
        compressor.stop().await;
    }

    async fn one_session(
        &self,
        url: &str,
        compressor: &mut CompressorTask,
        complaint: &mut Complaint,
        stop: &CancellationToken,
    ) -> Result<SessionEnd, SessionError> {
        let route = Route {
            address: url.parse()?,
            credentials: self.config.credentials.clone(),
        };
        let bearer = route.bearer()?;
        let channel = (self.dial)(tuned(route.endpoint()?))
            .await
            .map_err(SessionError::Connect)?;
        let mut client = IngestServiceClient::with_interceptor(channel, bearer)
            .max_decoding_message_size(MAX_MESSAGE_BYTES);
        let hello = v1::Hello {
            protocol_version: millstream_proto::PROTOCOL_VERSION,
            agent_id: self.config.agent_id.clone(),
            host: self.config.host.clone(),
            labels: self.config.labels.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let session = session::open(&mut client, hello).await?;
        info!("millstream-agent connected to {url} as {}", self.config.agent_id);
        complaint.forget();
        session.run(&self.outbox, compressor, stop).await
    }
}

/// Connects to a relay as the uplink does, for calls beside it.
///
/// # Errors
/// Why not, as a status.
pub(crate) async fn connect(
    config: &UplinkConfig,
    url: &str,
) -> Result<(Channel, millstream_dial::Bearer), tonic::Status> {
    let unavailable = |error: &dyn std::error::Error| tonic::Status::unavailable(error.to_string());
    let route = Route {
        address: url.parse().map_err(|error| unavailable(&error))?,
        credentials: config.credentials.clone(),
    };
    let bearer = route.bearer().map_err(|error| unavailable(&error))?;
    let endpoint = tuned(route.endpoint().map_err(|error| unavailable(&error))?);
    let channel = endpoint.connect().await.map_err(|error| unavailable(&error))?;
    Ok((channel, bearer))
}

fn tuned(endpoint: Endpoint) -> Endpoint {
    endpoint
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(RECEIVE_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(RECEIVE_CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
}

fn report_refusal(url: &str, agent_id: &str, status: &tonic::Status) {
    let message = status.message();
    if status.code() == Code::Aborted {
        error!(
            "relay {url} fenced this agent off: another process connected as {agent_id}: {message}; \
             give one of them a data directory of its own (--data-dir)"
        );
    } else {
        error!("relay {url} refuses this agent: {message}");
    }
}

/// Says the same trouble once, not at every attempt.
#[derive(Debug, Default)]
struct Complaint {
    last: BTreeMap<String, String>,
}

impl Complaint {
    fn say(&mut self, url: &str, error: &SessionError) {
        let text = error.to_string();
        if self.last.get(url) == Some(&text) {
            return;
        }
        warn!("relay {url}: {text}; trying again until it works, output is held meanwhile");
        self.last.insert(url.to_owned(), text);
    }

    fn forget(&mut self) {
        self.last.clear();
    }
}
