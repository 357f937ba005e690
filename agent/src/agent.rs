//! The agent put together: sources, outbox and uplink, started and stopped in order.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::edge::EdgeSettings;
use crate::health::HealthBoard;
use crate::outbox::Outbox;
use crate::runs::Runs;
use crate::runs::follow::follow;
use crate::sources::{SourceConfig, SourceKind};
use crate::supervisor::{self, Shared};
use crate::uplink::{Uplink, UplinkConfig};

/// How long a stopping agent waits for acknowledgements. Files are read again from where the relay's store
/// ends, and runs from their spools, so only
/// what `tail` printed can be lost when this is over.
const STOP_DRAIN: Duration = Duration::from_secs(5);

/// Everything that [`run`] needs.
#[derive(Debug)]
pub struct AgentConfig {
    pub uplink: UplinkConfig,
    pub sources: Vec<SourceConfig>,
    pub runs: Runs,
    /// What is done to everything that is sent, also of sources that are not configured any more.
    pub edge: EdgeSettings,
    /// Where the sources say how they are.
    pub health: HealthBoard,
}

/// Runs until `stop` is cancelled, then stops the sources, delivers what they left, and hangs up.
pub async fn run(config: AgentConfig, stop: CancellationToken) {
    let outbox = Outbox::new().with_edge(config.edge.clone());
    let hang_up = CancellationToken::new();
    let mut orphans = adopt_unconfigured(&config, &outbox, &stop);
    let mut uplink = JoinSet::new();
    uplink.spawn(Uplink::new(config.uplink, outbox.clone()).run(hang_up.clone()));
    let shared = Shared {
        outbox: outbox.clone(),
        runs: config.runs,
        health: config.health,
        stop,
    };
    supervisor::run(config.sources, shared).await;
    while orphans.join_next().await.is_some() {}
    drain(&outbox, STOP_DRAIN).await;
    hang_up.cancel();
    while uplink.join_next().await.is_some() {}
}

/// Follows the runs that an earlier agent left and whose source is not configured any more.
fn adopt_unconfigured(config: &AgentConfig, outbox: &Outbox, stop: &CancellationToken) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let is_exec = |name: &str| {
        let mut sources = config.sources.iter();
        sources.any(|source| source.name == name && matches!(source.kind, SourceKind::Exec(_)))
    };
    for name in config.runs.left_sources() {
        if is_exec(&name) {
            continue;
        }
        for run in config.runs.take_left(&name) {
            let (outbox, stop) = (outbox.clone(), stop.clone());
            tasks.spawn(async move {
                follow(&run, &outbox, &stop, false).await;
            });
        }
    }
    tasks
}

async fn drain(outbox: &Outbox, limit: Duration) {
    if tokio::time::timeout(limit, outbox.settled()).await.is_ok() {
        info!("stopped; everything is delivered");
        return;
    }
    let unsettled = outbox.unsettled();
    warn!(
        "stopped with {} lines not acknowledged by the relay; lines of files and runs are sent by the next \
         start, what `tail` printed is lost",
        unsettled.lines
    );
}
