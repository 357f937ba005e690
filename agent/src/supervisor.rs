//! Keeps sources running: one task each, started again with a growing wait when one fails.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use millstream_proto::v1::SourceState;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::backoff::Backoff;
use crate::control::Desk;
use crate::health::HealthBoard;
use crate::outbox::Outbox;
use crate::runs::Runs;
use crate::sources::{self, SourceConfig, SourceContext, SourceError};

const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A source that worked this long failed for a new reason.
const STEADY: Duration = Duration::from_secs(60);

struct Supervised {
    config: SourceConfig,
    backoff: Backoff,
    began: Instant,
}

/// What every source shares.
#[derive(Debug)]
pub struct Shared {
    pub outbox: Outbox,
    pub runs: Runs,
    pub health: HealthBoard,
    pub desk: Desk,
    pub stop: CancellationToken,
}

/// Runs every source until the stop is cancelled and all have returned.
pub async fn run(sources: Vec<SourceConfig>, shared: Shared) {
    let (health, stop) = (&shared.health, &shared.stop);
    let mut tasks: JoinSet<Result<(), SourceError>> = JoinSet::new();
    let mut running: HashMap<Id, Supervised> = HashMap::new();
    for config in sources {
        info!("source {} ({}) starts", config.name, config.plugin());
        let supervised = Supervised {
            config,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            began: Instant::now(),
        };
        start(&mut tasks, &mut running, supervised, Duration::ZERO, &shared);
    }
    while let Some(ended) = tasks.join_next_with_id().await {
        let (id, failure) = match ended {
            Ok((id, Ok(()))) => (id, None),
            Ok((id, Err(error))) => (id, Some(error.to_string())),
            Err(error) => (
                error.id(),
                Some(format!("it panicked, which is a bug in Millstream: {error}")),
            ),
        };
        let Some(mut supervised) = running.remove(&id) else {
            continue;
        };
        let name = &supervised.config.name;
        let Some(failure) = failure else {
            if !stop.is_cancelled() {
                info!("source {name} is done");
                health.update(name, |health| health.state = SourceState::Idle);
            }
            continue;
        };
        if stop.is_cancelled() {
            error!("source {name} failed while stopping: {failure}");
            continue;
        }
        if supervised.began.elapsed() >= STEADY {
            supervised.backoff.reset();
        }
        let wait = supervised.backoff.next_wait();
        warn!(
            "source {name} failed: {failure}; starting it again in {:.1} s",
            wait.as_secs_f64()
        );
        let message = format!("{failure}; starting again in {:.1} s", wait.as_secs_f64());
        health.set(name, supervised.config.plugin(), SourceState::Retrying, message);
        start(&mut tasks, &mut running, supervised, wait, &shared);
    }
    // Without sources there is nothing to wait for but the stop.
    stop.cancelled().await;
}

fn start(
    tasks: &mut JoinSet<Result<(), SourceError>>,
    running: &mut HashMap<Id, Supervised>,
    mut supervised: Supervised,
    wait: Duration,
    shared: &Shared,
) {
    let context = SourceContext {
        name: supervised.config.name.clone(),
        labels: supervised.config.labels.clone(),
        outbox: shared.outbox.with_edge(supervised.config.edge.clone()),
        runs: shared.runs.clone(),
        health: shared.health.clone(),
        desk: shared.desk.clone(),
        stop: shared.stop.clone(),
    };
    let plugin = supervised.config.plugin().to_owned();
    let kind = supervised.config.kind.clone();
    supervised.began = Instant::now() + wait;
    let handle = tasks.spawn(async move {
        tokio::select! {
            () = context.stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
        }
        context
            .health
            .set(&context.name, &plugin, SourceState::Running, String::new());
        sources::run(context, kind).await
    });
    running.insert(handle.id(), supervised);
}
