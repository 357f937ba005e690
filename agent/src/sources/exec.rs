//! The `exec` source: runs a command, again and again when it should. Every execution is a run: a stream of
//! its own with process facts.

use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use millstream_proto::v1;
use tracing::{info, warn};

use super::process::{self, CommandSpec, Tee};
use super::{SourceContext, SourceError};
use crate::backoff::Backoff;
use crate::outbox::{Outbox, PROCESS_HOLD_BYTES, StreamSpec, StreamWriter, now_unix_us};

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
}

/// Runs the command under its restart policy.
pub(super) async fn run(context: SourceContext, settings: &ExecSettings) -> Result<(), SourceError> {
    let mut backoff = Backoff::new(
        settings.restart_delay,
        settings.restart_limit.max(settings.restart_delay),
    );
    loop {
        let began = Instant::now();
        let success = run_once(&context, settings).await;
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
    let run = new_run(&settings.command, "agent");
    let run_id = run.run_id.clone();
    let writer = open_run(
        &context.outbox,
        name,
        context.labels.clone(),
        run,
        PROCESS_HOLD_BYTES,
    );
    let mut running = match process::spawn(&settings.command) {
        Ok(running) => running,
        Err(error) => {
            let message = process::explain_spawn_error(&settings.command, &error);
            warn!("source {name}: {message}");
            writer.end(process::start_failed(message));
            return false;
        }
    };
    info!("source {name}: run {run_id} started");
    let group = running.group;
    let mut tee = Tee::none();
    let pump = process::pump(&mut running, &writer, &mut tee);
    let stopped = async {
        context.stop.cancelled().await;
        process::stop_ladder(group).await;
    };
    let result = tokio::select! {
        result = pump => result,
        () = stopped => unreachable!("the ladder waits for ever at its end"),
    };
    match result {
        Ok(status) => {
            info!("source {name}: run {run_id} ended: {status}");
            writer.end(process::end_of(status));
            status.success()
        }
        Err(error) => {
            warn!("source {name}: lost sight of run {run_id}: {error}");
            writer.end(v1::StreamEnd {
                reason: v1::EndReason::Lost.into(),
                end_unix_us: now_unix_us(),
                message: error.to_string(),
                ..v1::StreamEnd::default()
            });
            false
        }
    }
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
