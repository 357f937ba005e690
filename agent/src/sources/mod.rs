//! Sources: where lines come from. One registry tells the configuration which plugins there are, and starts
//! them; what all sources share (context, errors, process handling) is here and in [`process`].

pub mod exec;
pub mod file;
pub mod process;
pub mod registry;
pub mod tail;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::control::Desk;
use crate::edge::{EdgeSettings, MaskRules, MaskSettings};
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
    /// Where requests of people come from.
    pub desk: Desk,
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
    /// Masks that it wants beside those of all sources.
    pub mask: MaskRules,
    /// What is done to its text; the masks are put in when everything is read.
    pub edge: EdgeSettings,
    pub kind: SourceKind,
}

impl SourceConfig {
    /// Puts the masks of all sources and its own in. Names of values that are refused go to `warnings`.
    ///
    /// # Errors
    /// When a mask cannot be made of what is named.
    pub fn put_masks_in(
        &mut self,
        masks: &MaskRules,
        directory: &Path,
        warnings: &mut Vec<String>,
    ) -> Result<(), String> {
        let mut environment = own_environment();
        if let SourceKind::Exec(settings) = &self.kind {
            environment.extend(settings.command.env.clone());
        }
        let mask = mask_settings(&masks.and(&self.mask), &environment, directory, warnings)?;
        self.edge.mask = Some(mask);
        Ok(())
    }

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

/// Masks that hold for everything that the agent sends.
///
/// # Errors
/// When a mask cannot be made of what is named.
pub fn common_edge(
    masks: &MaskRules,
    directory: &Path,
    warnings: &mut Vec<String>,
) -> Result<EdgeSettings, String> {
    Ok(EdgeSettings {
        mask: Some(mask_settings(masks, &own_environment(), directory, warnings)?),
        ..EdgeSettings::default()
    })
}

fn mask_settings(
    rules: &MaskRules,
    environment: &[(String, String)],
    directory: &Path,
    warnings: &mut Vec<String>,
) -> Result<Arc<MaskSettings>, String> {
    let directory = directory.join("masks");
    let (settings, refused) = MaskSettings::new(rules, environment, Some(directory))
        .map_err(|problem| format!("mask: {problem}"))?;
    for warning in refused {
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    Ok(Arc::new(settings))
}

/// Variables that are no UTF-8 cannot be named, and not be masked.
fn own_environment() -> Vec<(String, String)> {
    let variables = std::env::vars_os();
    variables
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
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
