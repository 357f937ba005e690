//! An outbox with its uplink: what a process has that sends for one agent beside the agent itself.

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::edge::EdgeSettings;
use crate::outbox::Outbox;
use crate::uplink::{Uplink, UplinkConfig};

/// The sending side of a small agent.
#[derive(Debug)]
pub struct Link {
    pub outbox: Outbox,
    uplink: JoinSet<()>,
    hang_up: CancellationToken,
}

impl Link {
    /// Begins to connect. `edge` is what is done to everything that is sent.
    #[must_use]
    pub fn start(config: UplinkConfig, edge: EdgeSettings) -> Self {
        let outbox = Outbox::new().with_edge(edge);
        let hang_up = CancellationToken::new();
        let mut uplink = JoinSet::new();
        uplink.spawn(Uplink::new(config, outbox.clone()).run(hang_up.clone()));
        Self {
            outbox,
            uplink,
            hang_up,
        }
    }

    /// Ends the session.
    pub async fn hang_up(mut self) {
        self.hang_up.cancel();
        while self.uplink.join_next().await.is_some() {}
    }
}
