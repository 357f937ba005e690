//! The `tail` source: keeps `tail -F` running under a supervisor and sends what is in its spool. It cannot resume:
//! what is written while no `tail` runs is skipped, and the stream says so. `file` is the better choice wherever it
//! can be used.
//!
//! The directory stays over restarts of `tail`, supervisor and agent, so that what one of them had read is
//! neither lost nor doubled by the next.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::process::CommandSpec;
use super::{SourceContext, SourceError, Start};
use crate::backoff::Backoff;
use crate::outbox::{Outbox, RESUMABLE_HOLD_BYTES, StreamSpec};
use crate::runs::follow::{Follow, stop_supervisor, supervisor_gone};
use crate::runs::{Description, Kept, RunDir, Runs, Work};
use crate::spool::Bound;

/// Waits before a supervisor that was killed is replaced.
const REPLACE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// One that lived this long was killed for a new reason.
const STEADY: Duration = Duration::from_secs(60);

/// What a stopped `tail` has printed last is sent at once if the relay is there; it waits on disk otherwise.
const LAST_WORDS_WAIT: Duration = Duration::from_secs(2);

/// Settings of a `tail` source.
#[derive(Debug)]
pub struct TailSettings {
    pub path: String,
    pub start: Start,
    /// Bound of the disk spool.
    pub spool: Bound,
}

/// Keeps `tail` running.
pub(super) async fn run(context: SourceContext, settings: &TailSettings) -> Result<(), SourceError> {
    let path = std::path::absolute(&settings.path)
        .map_err(|error| SourceError::Setting(format!("path {:?}: {error}", settings.path)))?
        .to_string_lossy()
        .into_owned();
    let is_ours = |left: &Description| left.source == context.name && matches!(left.work, Work::Kept(_));
    let (mut same, others): (Vec<RunDir>, Vec<RunDir>) = context
        .runs
        .take_left(is_ours)
        .into_iter()
        .partition(|left| left.description.instance() == path);
    let run = match same.pop() {
        Some(run) => run,
        None => {
            let Some(kept) = begin(&context, settings, &path).await? else {
                return Ok(());
            };
            let work = Work::Kept(kept);
            let description = Description::new(&context.name, context.labels.clone(), work, settings.spool);
            context.runs.create(description).map_err(|error| held(&error))?
        }
    };
    let closed = CancellationToken::new();
    let retired = async {
        for other in others.iter().chain(&same) {
            retire(other, &context.outbox, &context.stop).await;
        }
    };
    let kept = async {
        let result = keep(&run, &context.runs, &context.stop).await;
        closed.cancel();
        result
    };
    let sent = async {
        let mut follow = std::pin::pin!(Follow::new(&run, &context.outbox).follow(&closed));
        tokio::select! {
            _ = &mut follow => return,
            () = closed.cancelled() => {}
        }
        // What is not sent by then waits on disk.
        let _ = tokio::time::timeout(LAST_WORDS_WAIT, follow).await;
    };
    let (result, (), ()) = tokio::join!(kept, sent, retired);
    result.map_err(|error| held(&error))
}

/// What is to be kept running, when no directory is there: that depends on whether the relay has lines of it
/// already. `None`: the agent stops before it has answered.
async fn begin(
    context: &SourceContext,
    settings: &TailSettings,
    path: &str,
) -> Result<Option<Kept>, SourceError> {
    let writer = context.outbox.open(StreamSpec {
        source: context.name.clone(),
        instance: path.to_owned(),
        labels: context.labels.clone(),
        run: None,
        path: Some(path.to_owned()),
        resumable: true,
        outlives: true,
        hold_bytes: RESUMABLE_HOLD_BYTES,
    });
    let opened = tokio::select! {
        () = context.stop.cancelled() => return Ok(None),
        opened = writer.opened() => opened.map_err(|error| SourceError::Refused(error.to_string()))?,
    };
    let first = (opened.next_sequence == 0).then(|| match settings.start {
        Start::Beginning => tail("+1", path),
        Start::End => tail("0", path),
    });
    Ok(Some(Kept {
        path: path.to_owned(),
        first,
        again: tail("0", path),
        notice: format!(
            "tail-restarted: tail cannot resume; lines written to {path} while it did not run are skipped"
        ),
    }))
}

fn tail(from: &str, path: &str) -> CommandSpec {
    CommandSpec {
        argv: ["tail", "-n", from, "-F", "--", path].map(str::to_owned).to_vec(),
        cwd: None,
        env: BTreeMap::new(),
        pty: None,
        inherit_stdin: false,
    }
}

/// Sees to it that there is a supervisor until `stop` is cancelled, and that there is none then.
async fn keep(run: &RunDir, runs: &Runs, stop: &CancellationToken) -> io::Result<()> {
    let source = &run.description.source;
    let mut backoff = Backoff::new(REPLACE.0, REPLACE.1);
    loop {
        let began = Instant::now();
        if run.is_supervised()? {
            info!("source {source}: goes on with the tail that an earlier agent started");
        } else {
            runs.start_supervisor(run)?;
        }
        tokio::select! {
            gone = supervisor_gone(run) => gone?,
            () = stop.cancelled() => {
                stop_supervisor(run).await?;
                return supervisor_gone(run).await;
            }
        }
        if began.elapsed() >= STEADY {
            backoff.reset();
        }
        warn!("source {source}: the process that held tail is gone (was it killed?); starting both again");
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(backoff.next_wait()) => {}
        }
    }
}

/// Ends what is not configured any more: stops it, delivers the rest and forgets it.
pub(crate) async fn retire(run: &RunDir, outbox: &Outbox, stop: &CancellationToken) {
    let source = &run.description.source;
    info!(
        "source {source}: {} is not configured any more; it is sent to its end",
        run.description.instance()
    );
    let ended = async {
        stop_supervisor(run).await?;
        supervisor_gone(run).await
    };
    if let Err(error) = ended.await {
        warn!("source {source}: tail cannot be stopped: {error}");
        return;
    }
    let over = CancellationToken::new();
    over.cancel();
    tokio::select! {
        () = stop.cancelled() => return,
        _ = Follow::new(run, outbox).follow(&over) => {}
    }
    tokio::select! {
        () = stop.cancelled() => return,
        () = outbox.acknowledged(source, run.description.instance()) => {}
    }
    if let Err(error) = run.remove() {
        warn!("{} cannot be removed: {error}", run.path.display());
    }
}

fn held(error: &io::Error) -> SourceError {
    SourceError::Setting(format!("cannot hold tail in the data directory: {error}"))
}
