//! Sources: where lines come from. One registry tells the configuration which plugins there are, and starts
//! them; what all sources share (context, errors, process handling) is here and in [`process`].

pub mod exec;
pub mod file;
pub mod pipe;
pub mod process;
pub mod registry;
pub mod tail;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::health::HealthBoard;
use crate::outbox::Outbox;
use crate::plugins::{self, source::PluginSettings};
use crate::runs::Runs;

/// Where a source begins in what exists before it was first seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    #[default]
    Beginning,
    End,
}

/// What every source gets.
#[derive(Debug, Clone)]
pub struct SourceContext {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub outbox: Outbox,
    pub runs: Runs,
    /// How this source is, for whoever asks.
    pub health: HealthBoard,
    /// Cancelled when the agent stops; a source then finishes what it has begun and returns.
    pub stop: CancellationToken,
}

/// A plugin with its settings, ready to run.
#[derive(Debug, Clone)]
pub enum SourceKind {
    File(Arc<file::FileSettings>),
    Tail(Arc<tail::TailSettings>),
    Exec(Arc<exec::ExecSettings>),
    Plugin(Arc<PluginSettings>),
}

/// One configured source.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub kind: SourceKind,
}

impl SourceConfig {
    #[must_use]
    pub fn plugin(&self) -> &str {
        match &self.kind {
            SourceKind::File(_) => "file",
            SourceKind::Tail(_) => "tail",
            SourceKind::Exec(_) => "exec",
            SourceKind::Plugin(settings) => settings.plugin.name(),
        }
    }
}

/// Why a source stopped working. The supervisor starts it again.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("{0}")]
    Setting(String),
    #[error("cannot run {program}: {error}")]
    Spawn { program: String, error: std::io::Error },
    #[error("the relay refuses the stream: {0}")]
    Refused(String),
    #[error("{what} ended: {status}")]
    Ended { what: String, status: String },
}

/// Runs a source until it is done, fails, or the context's stop is cancelled.
///
/// # Errors
/// Why it cannot go on; trying again may help.
pub async fn run(context: SourceContext, kind: SourceKind) -> Result<(), SourceError> {
    match kind {
        SourceKind::File(settings) => {
            let stop = context.stop.clone();
            tokio::select! {
                () = stop.cancelled() => Ok(()),
                result = file::run(context, settings) => result,
            }
        }
        SourceKind::Tail(settings) => tail::run(context, &settings).await,
        SourceKind::Exec(settings) => exec::run(context, &settings).await,
        SourceKind::Plugin(settings) => plugins::source::run(context, &settings).await,
    }
}
