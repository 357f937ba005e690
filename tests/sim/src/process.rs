//! The product's processes in the simulation: how a relay and an agent are started, and how they end. A process
//! that crashed is one that neither network nor disk hears any more; what is left of it may run on until it
//! notices.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use millstream_agent::outbox::Outbox;
use millstream_agent::uplink::{Uplink, UplinkConfig};
use millstream_relay::auth::admit_everybody;
use millstream_relay::{Core, CoreOptions, server};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tower::util::MapResponseLayer;

use crate::dice::Dice;
use crate::disk::{Disk, RELAY, SimStore};
use crate::log::Log;
use crate::net::{Death, Net};
use crate::source;
use crate::tamper::Wire;
use crate::trace::Trace;

/// What every process needs.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) net: Net,
    pub(crate) disk: Disk,
    pub(crate) dice: Dice,
    pub(crate) trace: Trace,
}

impl Machine {
    /// Connects an endpoint of the product over the virtual network.
    pub(crate) fn dial(
        &self,
        from: &str,
        endpoint: Endpoint,
    ) -> BoxFuture<'static, Result<Channel, tonic::transport::Error>> {
        let (net, from) = (self.net.clone(), from.to_owned());
        let connect = tower::service_fn(move |uri: Uri| {
            let (net, from) = (net.clone(), from.clone());
            async move {
                let to = uri.host().unwrap_or_default();
                net.dial(&from, to).await.map(TokioIo::new)
            }
        });
        async move { endpoint.connect_with_connector(connect).await }.boxed()
    }
}

/// Otherwise hyper adds the real second, which compressed is longer or shorter by a byte: another run.
fn dated<B>(mut response: http::Response<B>) -> http::Response<B> {
    let date = http::HeaderValue::from_static("Tue, 14 Nov 2023 22:13:20 GMT");
    response.headers_mut().insert(http::header::DATE, date);
    response
}

/// A relay that runs.
#[derive(Debug)]
pub(crate) struct RelayProcess {
    core: Core,
    store: Arc<SimStore>,
    tasks: JoinSet<()>,
}

impl RelayProcess {
    pub(crate) fn start(machine: &Machine, options: CoreOptions, wire: Wire) -> Self {
        machine.trace.event(format_args!("relay: starts"));
        let store = machine.disk.open();
        let (core, work) =
            Core::build(Arc::<SimStore>::clone(&store), options).expect("the store in memory can be read");
        let incoming = UnboundedReceiverStream::new(machine.net.listen(RELAY));
        let serve = server::transport(&millstream_relay::limits::Limits::default())
            .layer(admit_everybody())
            .layer(MapResponseLayer::new(dated))
            .layer(wire)
            .add_routes(core.routes())
            .serve_with_incoming(incoming);
        let mut tasks = JoinSet::new();
        tasks.spawn(work.run());
        tasks.spawn(async move { serve.await.expect("the virtual network accepts") });
        Self { core, store, tasks }
    }

    /// Dies now.
    pub(crate) fn crash(mut self, machine: &Machine, death: Death, graveyard: &mut JoinSet<()>) {
        machine.trace.event(format_args!("relay: {death:?}"));
        self.store.die();
        machine.net.down(RELAY, death);
        machine.disk.crash(death);
        graveyard.spawn(async move {
            self.core.shutdown().await;
            self.tasks.shutdown().await;
        });
    }

    /// Stops as on SIGTERM, then is gone. The server's own goodbye is left out: tonic says it to its connections
    /// in an order of the system's choice.
    pub(crate) async fn stop(self, machine: &Machine, graveyard: &mut JoinSet<()>) {
        machine.trace.event(format_args!("relay: is stopped"));
        machine.net.stop_listening(RELAY);
        let is_in_time = timeout(server::STOP_LIMIT, self.core.shutdown()).await.is_ok();
        machine
            .trace
            .event(format_args!("relay: stopped, in time: {is_in_time}"));
        self.crash(machine, Death::Killed, graveyard);
    }
}

/// Who an agent is, and what it sends.
#[derive(Clone, Debug)]
pub(crate) struct AgentSpec {
    pub(crate) host: String,
    pub(crate) agent_id: String,
    pub(crate) relays: Vec<String>,
    pub(crate) compress_level: Option<i32>,
    pub(crate) logs: Vec<Log>,
}

/// An agent that runs.
#[derive(Debug)]
pub(crate) struct AgentProcess {
    host: String,
    outbox: Outbox,
    sources: JoinSet<()>,
    uplink: JoinSet<()>,
    hang_up: CancellationToken,
}

impl AgentProcess {
    pub(crate) fn start(machine: &Machine, spec: &AgentSpec) -> Self {
        machine.trace.event(format_args!("{}: starts", spec.host));
        machine.net.up(&spec.host);
        let outbox = Outbox::new();
        let hang_up = CancellationToken::new();
        let config = UplinkConfig {
            relays: spec.relays.clone(),
            credentials: Default::default(),
            agent_id: spec.agent_id.clone(),
            host: spec.agent_id.clone(),
            labels: std::collections::BTreeMap::new(),
            compress_level: spec.compress_level,
        };
        let (network, host) = (machine.clone(), spec.host.clone());
        let dial = Box::new(move |endpoint| network.dial(&host, endpoint));
        let mut uplink = JoinSet::new();
        uplink.spawn(Uplink::simulated(config, outbox.clone(), dial).run(hang_up.clone()));
        let mut sources = JoinSet::new();
        for log in &spec.logs {
            sources.spawn(source::follow(
                log.clone(),
                outbox.clone(),
                machine.dice.fork(),
                machine.disk.clone(),
                machine.trace.clone(),
            ));
        }
        Self {
            host: spec.host.clone(),
            outbox,
            sources,
            uplink,
            hang_up,
        }
    }

    /// Dies now.
    pub(crate) fn crash(self, machine: &Machine, death: Death) {
        machine.trace.event(format_args!("{}: {death:?}", self.host));
        machine.net.down(&self.host, death);
    }

    /// Stops as `millstream_agent::agent::run` does, then is gone.
    pub(crate) async fn stop(mut self, machine: &Machine) {
        machine.trace.event(format_args!("{}: is stopped", self.host));
        self.sources.shutdown().await;
        let settled = timeout(Duration::from_secs(5), self.outbox.settled()).await;
        machine
            .trace
            .event(format_args!("{}: settled: {}", self.host, settled.is_ok()));
        self.hang_up.cancel();
        while self.uplink.join_next().await.is_some() {}
        machine.net.down(&self.host, Death::Killed);
    }
}
