//! The agent put together: sources, outbox and uplink, started and stopped in order.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::control::Desk;
use crate::control::attach::Attach;
use crate::edge::EdgeSettings;
use crate::health::HealthBoard;
use crate::leftover;
use crate::outbox::Outbox;
use crate::runs::follow::Follow;
use crate::runs::{Description, Runs, Work};
use crate::sources::{SourceConfig, SourceKind, tail};
use crate::supervisor::{self, Shared};
use crate::uplink::{Uplink, UplinkConfig};

/// How long a stopping agent waits for acknowledgements. Files are read again from where the relay's store ends,
/// and all else from its spool, so nothing is lost when this is over.
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
    /// What the relay may ask of them.
    pub desk: Desk,
}

/// Runs until `stop` is cancelled, then stops the sources, delivers what they left, and hangs up.
pub async fn run(config: AgentConfig, stop: CancellationToken) {
    let outbox = Outbox::new().with_edge(config.edge.clone());
    let hang_up = CancellationToken::new();
    let mut orphans = adopt_unconfigured(&config, &outbox, &stop);
    match config.runs.wrapped() {
        Ok(wrapped) => {
            orphans.spawn(leftover::deliver_for_ever(
                wrapped,
                config.uplink.clone(),
                config.edge.clone(),
                stop.clone(),
            ));
        }
        Err(error) => warn!("what wrapped commands have left is not delivered: {error}"),
    }
    let mut uplink = JoinSet::new();
    let attach = Attach {
        config: config.uplink.clone(),
        desk: config.desk.clone(),
        health: config.health.clone(),
    };
    uplink.spawn(attach.run(hang_up.clone()));
    uplink.spawn(Uplink::new(config.uplink, outbox.clone()).run(hang_up.clone()));
    let shared = Shared {
        outbox: outbox.clone(),
        runs: config.runs,
        health: config.health,
        desk: config.desk,
        stop,
    };
    supervisor::run(config.sources, shared).await;
    while orphans.join_next().await.is_some() {}
    drain(&outbox, STOP_DRAIN).await;
    hang_up.cancel();
    while uplink.join_next().await.is_some() {}
}

/// Follows what an earlier agent left and whose source is not configured any more.
fn adopt_unconfigured(config: &AgentConfig, outbox: &Outbox, stop: &CancellationToken) -> JoinSet<()> {
    let is_configured = |left: &Description| {
        config.sources.iter().any(|source| {
            source.name == left.source
                && matches!(
                    (&source.kind, &left.work),
                    (SourceKind::Exec(_), Work::Command(_)) | (SourceKind::Tail(_), Work::Kept(_))
                )
        })
    };
    let mut tasks = JoinSet::new();
    for run in config.runs.take_left(|left| !is_configured(left)) {
        let (outbox, stop) = (outbox.clone(), stop.clone());
        tasks.spawn(async move {
            match run.description.work {
                Work::Kept(_) => tail::retire(&run, &outbox, &stop).await,
                Work::Command(_) | Work::Input => {
                    Follow::new(&run, &outbox).follow(&stop).await;
                }
            }
        });
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
        "stopped with {} lines not acknowledged by the relay; the next start sends them from files and spools",
        unsettled.lines
    );
}
