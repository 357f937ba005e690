//! Settings: flags over environment over file over defaults, validated once into what the agent runs on.

pub mod cli;
mod exec;
mod file;
mod keys;
mod settings;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use millstream_dial::{Credentials, Route};

use crate::control::{AllowList, Masks};
use crate::edge::EdgeSettings;
use crate::sources::{SourceConfig, common_edge};

pub(crate) use keys::suggestion;
pub(crate) use settings::parse_duration;

use cli::GlobalArgs;
use file::ConfigFile;

/// Relay that is used when none is named.
pub const DEFAULT_RELAY: &str = "http://127.0.0.1:7171";

/// Holds the token, when no file does. What the agent starts does not get it.
pub const TOKEN_VARIABLE: &str = "MILLSTREAM_TOKEN";

/// Labels that the relay gives; users may not.
const BUILT_IN_LABELS: [&str; 5] = ["host", "agent", "source", "path", "run"];

/// What is wrong with the settings: the place, the key, the cure.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    place: String,
    problem: String,
}

impl ConfigError {
    pub(crate) fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            problem: problem.into(),
        }
    }
}

/// Validated settings.
#[derive(Debug)]
pub struct Settings {
    pub relays: Vec<String>,
    /// How to know the relays, and how to be known.
    pub credentials: Credentials,
    pub data_dir: PathBuf,
    pub host: String,
    pub labels: BTreeMap<String, String>,
    pub compress_level: Option<i32>,
    pub sources: Vec<SourceConfig>,
    /// What is done to everything that is sent.
    pub edge: EdgeSettings,
    /// What is not as somebody may believe, though nothing is wrong.
    pub warnings: Vec<String>,
    /// What the relay may ask of them.
    pub control: AllowList,
}

impl Settings {
    /// The masks of each source, for what is told of it beside its text.
    #[must_use]
    pub fn masks(&self) -> Masks {
        let masks = self.sources.iter().map(|source| {
            let mask = source.edge.mask.clone();
            mask.map(|mask| (source.name.clone(), mask))
        });
        masks.flatten().collect()
    }

    /// Reads the configuration file, if one is named, and puts everything together.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(args: &GlobalArgs) -> Result<Self, ConfigError> {
        let file = match &args.config {
            Some(path) => ConfigFile::read(path, &args.plugin_path)?,
            None => ConfigFile::default(),
        };
        let relays = non_empty(args.relay.clone())
            .or(file.relay)
            .unwrap_or_else(|| vec![DEFAULT_RELAY.to_owned()]);
        let token = std::env::var(TOKEN_VARIABLE).ok();
        let credentials = args.credentials.clone().over(file.credentials, token);
        for relay in &relays {
            check_relay(relay, &credentials)?;
        }
        let mut labels = file.labels;
        labels.extend(args.label.iter().cloned());
        check_labels("labels", &labels)?;
        let mut sources = file.sources;
        settings::add_flag_sources(&mut sources, &args.file, &args.tail)?;
        for source in &sources {
            check_labels(&format!("sources.{}.labels", source.name), &source.labels)?;
        }
        let host = args.host.clone().or(file.host);
        let host = host.unwrap_or_else(|| gethostname::gethostname().to_string_lossy().into_owned());
        let data_dir = args
            .data_dir
            .clone()
            .or(file.data_dir)
            .unwrap_or_else(default_data_dir);
        let mut warnings = Vec::new();
        let edge = common_edge(&file.mask, &data_dir, &mut warnings)
            .map_err(|problem| ConfigError::new("[mask]", problem))?;
        for source in &mut sources {
            source
                .put_masks_in(&file.mask, &data_dir, &mut warnings)
                .map_err(|problem| ConfigError::new(format!("[sources.{}]", source.name), problem))?;
        }
        Ok(Self {
            edge,
            warnings,
            relays,
            credentials,
            data_dir,
            host,
            labels,
            compress_level: file.compress_level,
            sources,
            control: file.control,
        })
    }
}

/// The plugin path alone, for listing plugins.
#[must_use]
pub fn plugin_path(args: &GlobalArgs) -> Vec<PathBuf> {
    if args.plugin_path.is_empty() {
        let file = args.config.as_deref();
        return file.map(ConfigFile::plugin_path).unwrap_or_default();
    }
    args.plugin_path.clone()
}

fn non_empty(list: Vec<String>) -> Option<Vec<String>> {
    (!list.is_empty()).then_some(list)
}

/// Everything that can be known to be wrong before the relay is called: addresses, files that are not there, a
/// token that would go over a plain network.
fn check_relay(relay: &str, credentials: &Credentials) -> Result<(), ConfigError> {
    let place = || format!("relay {:?}", relay.chars().take(200).collect::<String>());
    let problem = |error: millstream_dial::DialError| ConfigError::new(place(), error.to_string());
    let route = Route {
        address: relay.parse().map_err(problem)?,
        credentials: credentials.clone(),
    };
    route.bearer().map_err(problem)?;
    route.endpoint().map_err(problem)?;
    Ok(())
}

fn check_labels(place: &str, labels: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    use millstream_proto::limits::{MAX_LABEL_NAME_BYTES, MAX_LABEL_VALUE_BYTES};
    for (name, value) in labels {
        let problem = if BUILT_IN_LABELS.contains(&name.as_str()) {
            "is a built-in label, which the relay sets; choose another name".to_owned()
        } else if name.is_empty() || name.len() > MAX_LABEL_NAME_BYTES {
            format!("has to have 1 to {MAX_LABEL_NAME_BYTES} characters")
        } else if !name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte))
        {
            "may only have letters, digits, `_`, `-`, `.` and `/`".to_owned()
        } else if value.len() > MAX_LABEL_VALUE_BYTES {
            format!("has a value of more than {MAX_LABEL_VALUE_BYTES} bytes")
        } else {
            continue;
        };
        return Err(ConfigError::new(format!("{place}: label {name:?}"), problem));
    }
    Ok(())
}

fn default_data_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/millstream-agent");
    }
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    variable("XDG_STATE_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_else(|| Path::new("/var/lib").to_path_buf())
        .join("millstream-agent")
}

#[cfg(test)]
mod tests;
