//! The agent put together: sources, outbox and uplink, started and stopped in order.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::outbox::Outbox;
use crate::sources::SourceConfig;
use crate::supervisor;
use crate::uplink::{Uplink, UplinkConfig};

/// How long a stopping agent waits for acknowledgements. Files are read again from where the relay's store
/// ends, so only output of commands can be lost when this is over.
const STOP_DRAIN: Duration = Duration::from_secs(5);

/// Everything that [`run`] needs.
#[derive(Debug)]
pub struct AgentConfig {
    pub uplink: UplinkConfig,
    pub sources: Vec<SourceConfig>,
}

/// Runs until `stop` is cancelled, then stops the sources, delivers what they left, and hangs up.
pub async fn run(config: AgentConfig, stop: CancellationToken) {
    let outbox = Outbox::new();
    let hang_up = CancellationToken::new();
    let mut uplink = JoinSet::new();
    uplink.spawn(Uplink::new(config.uplink, outbox.clone()).run(hang_up.clone()));
    supervisor::run(config.sources, outbox.clone(), stop).await;
    drain(&outbox, STOP_DRAIN).await;
    hang_up.cancel();
    while uplink.join_next().await.is_some() {}
}

async fn drain(outbox: &Outbox, limit: Duration) {
    if tokio::time::timeout(limit, outbox.settled()).await.is_ok() {
        info!("stopped; everything is delivered");
        return;
    }
    let unsettled = outbox.unsettled();
    warn!(
        "stopped with {} lines not acknowledged by the relay; lines of files are sent by the next start, output \
         of commands is lost",
        unsettled.lines
    );
}
