//! The `exec` source: runs a command when something asks for it, again when it should, and not more than
//! wanted at once. Every execution is a run: a stream of its own with process facts.
//!
//! [`source`] is the task that owns a source's runs; it is asked by the agent's start, by the clock
//! ([`schedule`]), by changed files ([`changes`]), by its restart policy, and by people through the
//! [desk](crate::control::desk).

mod cause;
mod changes;
mod host_time;
mod schedule;
mod source;

use std::time::Duration;

pub use changes::ChangeSettings;
pub use schedule::Schedule;

use super::process::CommandSpec;
use super::{SourceContext, SourceError};
use crate::runs::RunLimits;
use crate::spool::Bound;

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
    /// Run once when the agent starts.
    pub at_start: bool,
    pub schedule: Option<Schedule>,
    pub changes: Option<ChangeSettings>,
    pub restart: Restart,
    /// Wait before the first restart; doubles up to `restart_limit` while runs are short.
    pub restart_delay: Duration,
    pub restart_limit: Duration,
    /// Runs at once; at least 1.
    pub max_runs: usize,
    pub limits: RunLimits,
    /// Names of environment variables that are shown with the run.
    pub record_env: Vec<String>,
    /// Bound of the disk spool of each run.
    pub spool: Bound,
    /// Stop the run when the agent stops, rather than leave it to the next start.
    pub stop_with_agent: bool,
}

/// Runs until the agent stops, or nothing can ever ask for another run.
pub(super) async fn run(context: SourceContext, settings: &ExecSettings) -> Result<(), SourceError> {
    source::Source::new(&context, settings).run().await;
    Ok(())
}
