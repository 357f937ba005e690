//! The `tail` source: runs `tail -F` and takes its output. It cannot resume: what is written while it does
//! not run is skipped, and the stream says so. `file` is the better choice wherever it can be used.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader};
use tracing::{info, warn};

use super::process::{self, CommandSpec};
use super::{SourceContext, SourceError, Start};
use crate::backoff::Backoff;
use crate::outbox::{PROCESS_HOLD_BYTES, StreamSpec, StreamWriter};

const STEADY_RUN: Duration = Duration::from_secs(60);

/// Settings of a `tail` source.
#[derive(Debug)]
pub struct TailSettings {
    pub path: String,
    pub start: Start,
}

/// Keeps `tail` running. It does not start before the relay has said whether the stream has lines already.
pub(super) async fn run(context: SourceContext, settings: &TailSettings) -> Result<(), SourceError> {
    let path = std::path::absolute(&settings.path)
        .map_err(|error| SourceError::Setting(format!("path {:?}: {error}", settings.path)))?
        .to_string_lossy()
        .into_owned();
    let writer = context.outbox.open(StreamSpec {
        source: context.name.clone(),
        instance: path.clone(),
        labels: context.labels.clone(),
        run: None,
        path: Some(path.clone()),
        resumable: false,
        hold_bytes: PROCESS_HOLD_BYTES,
    });
    let opened = tokio::select! {
        () = context.stop.cancelled() => return Ok(()),
        opened = writer.opened() => opened.map_err(refused)?,
    };
    let mut fresh = opened.next_sequence == 0;
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    loop {
        let began = Instant::now();
        let ended = run_tail(&context, settings, &path, &writer, fresh).await;
        if context.stop.is_cancelled() {
            return Ok(());
        }
        match ended {
            Ok(status) => warn!(
                "source {}: tail ended ({status}); starting it again",
                context.name
            ),
            Err(error @ SourceError::Spawn { .. }) => warn!("source {}: {error}; trying again", context.name),
            Err(error) => return Err(error),
        }
        fresh = false;
        if began.elapsed() >= STEADY_RUN {
            backoff.reset();
        }
        tokio::select! {
            () = context.stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(backoff.next_wait()) => {}
        }
    }
}

async fn run_tail(
    context: &SourceContext,
    settings: &TailSettings,
    path: &str,
    writer: &StreamWriter,
    fresh: bool,
) -> Result<String, SourceError> {
    let from = if fresh && settings.start == Start::Beginning {
        "+1"
    } else {
        "0"
    };
    let argv = ["tail", "-n", from, "-F", "--", path].map(str::to_owned).to_vec();
    let command = CommandSpec {
        argv,
        cwd: None,
        env: BTreeMap::new(),
        pty: None,
        inherit_stdin: false,
    };
    let mut child = process::spawn_plain(&command).map_err(|error| SourceError::Spawn {
        program: "tail".to_owned(),
        error,
    })?;
    if !fresh {
        let text = format!(
            "tail-restarted: tail cannot resume; lines written to {path} while it did not run are skipped"
        );
        writer.notice(&text, None).await.map_err(refused)?;
    }
    let stdout = child.stdout.take().expect("spawn_plain pipes standard output");
    let stderr = child.stderr.take().expect("spawn_plain pipes standard error");
    let group = process::group_of(&child);
    let mut words = BufReader::new(stderr).lines();
    let output = super::pipe::read_lines(stdout, writer);
    tokio::pin!(output);
    let mut words_open = true;
    let result = loop {
        tokio::select! {
            result = &mut output => break result,
            line = words.next_line(), if words_open => match line {
                // What tail itself says: "has become inaccessible", "file truncated" and the like.
                Ok(Some(line)) => info!("source {}: {line}", context.name),
                _ => words_open = false,
            },
            () = context.stop.cancelled() => {
                process::signal_group(group, rustix::process::Signal::TERM);
                break output.await;
            }
        }
    };
    if result.is_err() {
        process::signal_group(group, rustix::process::Signal::KILL);
    }
    let status = child.wait().await.map(|status| status.to_string());
    result.map_err(refused)?;
    Ok(status.unwrap_or_else(|error| error.to_string()))
}

fn refused(error: impl std::fmt::Display) -> SourceError {
    SourceError::Refused(error.to_string())
}
