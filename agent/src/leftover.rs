//! Delivers what wrappers (`exec`, `pipe`) have left in the data directory: they were killed, or their time to
//! deliver was over. Each goes to the relay as the agent that it began as, with a session of its own.

use std::io;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::edge::EdgeSettings;
use crate::link::Link;
use crate::runs::follow::{Follow, Followed};
use crate::runs::wrapped::{Claimed, Wrapped};
use crate::uplink::UplinkConfig;

/// How often an agent looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Delivered at a time; the others wait on disk.
const MAX_AT_ONCE: usize = 8;

/// Looks again and again until `stop` is cancelled.
pub async fn deliver_for_ever(
    wrapped: Wrapped,
    uplink: UplinkConfig,
    edge: EdgeSettings,
    stop: CancellationToken,
) {
    let mut deliveries = Deliveries::new(wrapped, uplink, edge, stop.clone());
    let mut interval = tokio::time::interval(LOOK_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = interval.tick() => {
                if let Err(error) = deliveries.look() {
                    warn!("cannot look for what wrapped commands have left: {error}");
                }
            }
        }
    }
    deliveries.finish().await;
}

/// Deliveries under way.
#[derive(Debug)]
pub struct Deliveries {
    wrapped: Wrapped,
    uplink: UplinkConfig,
    edge: EdgeSettings,
    stop: CancellationToken,
    /// Of runs that had ended when they were found, and of those that go on.
    ended: JoinSet<()>,
    living: JoinSet<()>,
}

impl Deliveries {
    #[must_use]
    pub fn new(wrapped: Wrapped, uplink: UplinkConfig, edge: EdgeSettings, stop: CancellationToken) -> Self {
        Self {
            wrapped,
            uplink,
            edge,
            stop,
            ended: JoinSet::new(),
            living: JoinSet::new(),
        }
    }

    /// Begins with what nobody delivers.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn look(&mut self) -> io::Result<()> {
        while self.ended.try_join_next().is_some() || self.living.try_join_next().is_some() {}
        let room = MAX_AT_ONCE.saturating_sub(self.ended.len() + self.living.len());
        if room == 0 {
            return Ok(());
        }
        for claimed in self.wrapped.claim_left(room)? {
            let (uplink, edge) = (self.uplink.clone(), self.edge.clone());
            let tasks = match claimed.run.is_supervised()? {
                true => &mut self.living,
                false => &mut self.ended,
            };
            tasks.spawn(deliver(claimed, uplink, edge, self.stop.clone()));
        }
        Ok(())
    }

    /// Waits until what had ended is delivered, at most so long.
    pub async fn finish_ended(&mut self, limit: Duration) {
        let all = async { while self.ended.join_next().await.is_some() {} };
        // What is not delivered then waits on.
        let _ = tokio::time::timeout(limit, all).await;
    }

    /// Waits until every delivery is over, which cancelling `stop` brings about.
    pub async fn finish(mut self) {
        while self.ended.join_next().await.is_some() {}
        while self.living.join_next().await.is_some() {}
    }
}

async fn deliver(claimed: Claimed, mut uplink: UplinkConfig, edge: EdgeSettings, stop: CancellationToken) {
    let run = &claimed.run;
    let Some(sender) = run.description.sender.clone() else {
        warn!(
            "the run in {} says not whose it is; it stays there",
            run.path.display()
        );
        return stop.cancelled().await;
    };
    info!(
        "delivering what source {} left in {}",
        run.description.source,
        run.path.display()
    );
    uplink.agent_id = sender.agent_id;
    uplink.host = sender.host;
    uplink.labels = sender.labels;
    let link = Link::start(uplink, edge);
    let followed = Follow::new(run, &link.outbox).follow(&stop).await;
    if followed != Followed::Left {
        info!(
            "source {}: run {}: {followed}",
            run.description.source, run.description.run_id
        );
    }
    link.hang_up().await;
}
