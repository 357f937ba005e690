//! The table of an `exec` source into its settings.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::settings::{RawSpool, duration, parse_duration};
use crate::runs::RunLimits;
use crate::sources::exec::{ChangeSettings, ExecSettings, Restart, Schedule};
use crate::sources::process::{CommandSpec, PtySize};

/// Terminal of a command that nobody looks at: as wide as build tools lay out their progress for.
const UNATTENDED_PTY: PtySize = PtySize {
    rows: 50,
    columns: 160,
};

/// Runs of one source at once.
const MOST_RUNS: usize = 100;

/// What a quiet build says of itself in the stream, unless it is told otherwise.
const QUIET_NOTICE: &str = "60s";

#[derive(Debug, Deserialize)]
pub(super) struct RawExec {
    command: Vec<String>,
    cwd: Option<PathBuf>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    pty: bool,
    run_at_start: Option<bool>,
    schedule: Option<String>,
    #[serde(default)]
    on_change: Vec<String>,
    on_change_delay: Option<String>,
    #[serde(default)]
    restart: Restart,
    restart_delay: Option<String>,
    restart_limit: Option<String>,
    max_runs: Option<usize>,
    time_limit: Option<String>,
    quiet_notice: Option<String>,
    #[serde(default)]
    record_env: Vec<String>,
    #[serde(flatten)]
    spool: RawSpool,
    #[serde(default)]
    stop_with_agent: bool,
}

/// # Errors
/// A sentence on what is wrong.
pub(super) fn settings(raw: RawExec) -> Result<ExecSettings, String> {
    if raw.command.first().is_none_or(String::is_empty) {
        return Err("command is empty; write it as a list, for example [\"make\", \"-j4\"]".to_owned());
    }
    let max_runs = raw.max_runs.unwrap_or(1);
    if !(1..=MOST_RUNS).contains(&max_runs) {
        return Err(format!("max_runs has to be 1 to {MOST_RUNS}"));
    }
    let schedule = raw.schedule.as_deref().map(Schedule::parse).transpose()?;
    let delay = duration("on_change_delay", raw.on_change_delay.as_deref(), "500ms")?;
    let changes = (!raw.on_change.is_empty())
        .then(|| ChangeSettings::parse(&raw.on_change, delay))
        .transpose()
        .map_err(|problem| format!("on_change: {problem}"))?;
    let optional = |name: &str, value: Option<&str>| match value {
        None | Some("never") => Ok(None),
        Some(text) => parse_duration(text)
            .map(Some)
            .map_err(|problem| format!("{name}: {problem}, or \"never\"")),
    };
    let limits = RunLimits {
        time: optional("time_limit", raw.time_limit.as_deref())?,
        quiet: optional(
            "quiet_notice",
            Some(raw.quiet_notice.as_deref().unwrap_or(QUIET_NOTICE)),
        )?,
    };
    Ok(ExecSettings {
        command: CommandSpec {
            argv: raw.command,
            cwd: raw.cwd,
            env: raw.env,
            pty: raw.pty.then_some(UNATTENDED_PTY),
            inherit_stdin: false,
        },
        at_start: raw
            .run_at_start
            .unwrap_or(schedule.is_none() && changes.is_none()),
        schedule,
        changes,
        restart: raw.restart,
        restart_delay: duration("restart_delay", raw.restart_delay.as_deref(), "1s")?,
        restart_limit: duration("restart_limit", raw.restart_limit.as_deref(), "1m")?,
        max_runs,
        limits,
        record_env: raw.record_env,
        spool: raw.spool.bound()?,
        stop_with_agent: raw.stop_with_agent,
    })
}
