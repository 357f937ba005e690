//! The `exec` source: runs a command, again and again when it should. Every execution is a run: a stream of
//! its own with process facts.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::process::{self, CommandSpec};
use super::{SourceContext, SourceError};
use crate::backoff::Backoff;
use crate::outbox::{PROCESS_HOLD_BYTES, StreamSpec};
use crate::runs::follow::{Follow, Followed};
use crate::runs::{Description, RunDir, Work};
use crate::spool::Bound;

/// A run of at least this length starts the waits between restarts over.
const STEADY_RUN: Duration = Duration::from_secs(60);

/// When to run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    #[default]
    Never,
    OnFailure,
    Always,
}

/// Settings of an `exec` source.
#[derive(Debug)]
pub struct ExecSettings {
    pub command: CommandSpec,
    pub restart: Restart,
    /// Wait before the first restart; doubles up to `restart_limit` while runs are short.
    pub restart_delay: Duration,
    pub restart_limit: Duration,
    /// Bound of the disk spool of each run.
    pub spool: Bound,
    /// Stop the run when the agent stops, rather than leave it to the next start.
    pub stop_with_agent: bool,
}

/// Runs the command under its restart policy. Runs that an earlier agent left are adopted first; one that lived
/// or ended in order meanwhile is this start's run.
pub(super) async fn run(context: SourceContext, settings: &ExecSettings) -> Result<(), SourceError> {
    let mut backoff = Backoff::new(
        settings.restart_delay,
        settings.restart_limit.max(settings.restart_delay),
    );
    let mut adopted = None;
    let is_ours = |left: &Description| left.source == context.name && matches!(left.work, Work::Command(_));
    for left in context.runs.take_left(is_ours) {
        info!("source {}: adopts run {}", context.name, left.description.run_id);
        adopted = match follow_run(&context, settings, &left).await {
            Followed::Ended { success } => Some(success),
            Followed::Lost | Followed::Refused(_) => None,
            Followed::Left => return Ok(()),
        };
    }
    loop {
        let began = Instant::now();
        let success = match adopted.take() {
            Some(success) => success,
            None => run_once(&context, settings).await,
        };
        let again = match settings.restart {
            Restart::Never => false,
            Restart::OnFailure => !success,
            Restart::Always => true,
        };
        if context.stop.is_cancelled() || !again {
            return Ok(());
        }
        if began.elapsed() >= STEADY_RUN {
            backoff.reset();
        }
        tokio::select! {
            () = context.stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(backoff.next_wait()) => {}
        }
    }
}

/// True: it exited with 0.
async fn run_once(context: &SourceContext, settings: &ExecSettings) -> bool {
    let name = &context.name;
    let work = Work::Command(settings.command.clone());
    let description = Description::new(name, context.labels.clone(), work, settings.spool);
    match context.runs.start(description.clone()) {
        Ok(run) => {
            info!("source {name}: run {} started", run.description.run_id);
            follow_run(context, settings, &run).await == Followed::Ended { success: true }
        }
        Err(error) => {
            let message = format!("cannot hold a run in the data directory: {error}");
            warn!("source {name}: {message}");
            let writer = context.outbox.open(StreamSpec {
                source: name.clone(),
                instance: description.run_id.clone(),
                labels: context.labels.clone(),
                run: description.to_run(),
                path: None,
                resumable: false,
                outlives: false,
                hold_bytes: PROCESS_HOLD_BYTES,
            });
            writer.end(process::start_failed(message));
            false
        }
    }
}

async fn follow_run(context: &SourceContext, settings: &ExecSettings, run: &RunDir) -> Followed {
    let follow = Follow {
        stops_run: settings.stop_with_agent,
        ..Follow::new(run, &context.outbox)
    };
    let followed = follow.follow(&context.stop).await;
    info!(
        "source {}: run {}: {followed}",
        context.name, run.description.run_id
    );
    followed
}
