//! The `exec` source: runs a command, again and again when it should. Every execution is a run: a stream of
//! its own with process facts.

use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use millstream_proto::v1;
use tracing::{info, warn};

use super::process::{self, CommandSpec};
use super::{SourceContext, SourceError};
use crate::backoff::Backoff;
use crate::outbox::{Outbox, PROCESS_HOLD_BYTES, StreamSpec, StreamWriter, now_unix_us};
use crate::runs::follow::{Followed, follow};
use crate::runs::{Description, RunDir};

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
    /// Bound of the disk spool of each run, bytes.
    pub spool_max_bytes: u64,
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
    for left in context.runs.take_left(&context.name) {
        info!("source {}: adopts run {}", context.name, left.description.run_id);
        adopted = match follow_run(&context, settings, &left).await {
            Followed::Ended { success } => Some(success),
            Followed::Lost => None,
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
    let facts = new_run(&settings.command, "agent");
    let description = Description {
        run_id: facts.run_id.clone(),
        source: name.clone(),
        labels: context.labels.clone(),
        command: settings.command.clone(),
        cwd: facts.cwd.clone(),
        started_by: facts.started_by.clone(),
        start_unix_us: facts.start_unix_us,
        spool_max_bytes: settings.spool_max_bytes,
    };
    match context.runs.start(description) {
        Ok(run) => {
            info!("source {name}: run {} started", run.description.run_id);
            follow_run(context, settings, &run).await == Followed::Ended { success: true }
        }
        Err(error) => {
            let message = format!("cannot hold a run in the data directory: {error}");
            warn!("source {name}: {message}");
            let writer = open_run(
                &context.outbox,
                name,
                context.labels.clone(),
                facts,
                PROCESS_HOLD_BYTES,
            );
            writer.end(process::start_failed(message));
            false
        }
    }
}

async fn follow_run(context: &SourceContext, settings: &ExecSettings, run: &RunDir) -> Followed {
    let followed = follow(run, &context.outbox, &context.stop, settings.stop_with_agent).await;
    info!(
        "source {}: run {}: {followed}",
        context.name, run.description.run_id
    );
    followed
}

/// Facts of a run that starts now.
#[must_use]
pub fn new_run(command: &CommandSpec, started_by: &str) -> v1::Run {
    let cwd = command
        .cwd
        .clone()
        .or_else(|| std::env::current_dir().ok())
        .unwrap_or_default();
    v1::Run {
        run_id: crate::identity::sortable_id(),
        argv: command.argv.clone(),
        cwd: cwd.to_string_lossy().into_owned(),
        env: BTreeMap::new(),
        started_by: started_by.to_owned(),
        start_unix_us: now_unix_us(),
    }
}

/// Opens the stream of a run.
#[must_use]
pub fn open_run(
    outbox: &Outbox,
    source: &str,
    labels: BTreeMap<String, String>,
    run: v1::Run,
    hold_bytes: usize,
) -> StreamWriter {
    outbox.open(StreamSpec {
        source: source.to_owned(),
        instance: run.run_id.clone(),
        labels,
        run: Some(run),
        path: None,
        resumable: false,
        hold_bytes,
    })
}

/// Exit status that a shell would report.
#[must_use]
pub fn shell_status(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    u8::try_from(code & 0xff).unwrap_or(1)
}
