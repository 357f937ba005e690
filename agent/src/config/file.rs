//! The configuration file, read into typed settings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use millstream_dial::CredentialFlags;
use serde::Deserialize;

use super::{ConfigError, keys, settings};
use crate::control::allow::{AllowList, Allowed, RawAllowed};
use crate::edge::MaskRules;
use crate::plugins::catalog::Catalog;
use crate::sources::registry;
use crate::sources::{SourceConfig, SourceKind};

/// What a file says; everything may be missing.
#[derive(Debug)]
pub(super) struct ConfigFile {
    pub(super) relay: Option<Vec<String>>,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) host: Option<String>,
    pub(super) credentials: CredentialFlags,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) compress_level: Option<i32>,
    pub(super) mask: MaskRules,
    pub(super) sources: Vec<SourceConfig>,
    pub(super) control: AllowList,
}

impl Default for ConfigFile {
    fn default() -> Self {
        Self {
            relay: None,
            data_dir: None,
            host: None,
            credentials: CredentialFlags::default(),
            labels: BTreeMap::new(),
            compress_level: Some(DEFAULT_COMPRESS_LEVEL),
            mask: MaskRules::default(),
            sources: Vec::new(),
            control: AllowList::default(),
        }
    }
}

/// zstd's fastest regular level: build logs shrink to a tenth for a fraction of the network's cost.
const DEFAULT_COMPRESS_LEVEL: i32 = 1;

#[derive(Debug, Deserialize)]
struct Raw {
    relay: Option<OneOrMany>,
    data_dir: Option<PathBuf>,
    host: Option<String>,
    compress_level: Option<i32>,
    ca: Option<PathBuf>,
    pin: Option<OneOrMany>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    token_file: Option<PathBuf>,
    insecure_no_tls: Option<bool>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    mask: MaskRules,
    #[serde(default)]
    sources: BTreeMap<String, toml::Table>,
    #[serde(default)]
    control: BTreeMap<String, RawAllowed>,
}

/// What has to be known before the rest can be understood.
#[derive(Debug, Default, Deserialize)]
struct RawPath {
    #[serde(default)]
    plugin_path: Vec<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_list(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(list) => list,
        }
    }
}

impl ConfigFile {
    /// # Errors
    /// When the file cannot be read, is no TOML, has a key that is not known or a value that cannot be used.
    pub(super) fn read(path: &Path, plugin_path: &[PathBuf]) -> Result<Self, ConfigError> {
        let place = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            ConfigError::new(&place, format!("cannot read the configuration file: {error}"))
        })?;
        Self::parse(path, &text, plugin_path)
    }

    /// The plugin path that the file names; what else is wrong with it is found later.
    pub(super) fn plugin_path(path: &Path) -> Vec<PathBuf> {
        let raw: Option<RawPath> = std::fs::read_to_string(path)
            .ok()
            .and_then(|text| toml::from_str(&text).ok());
        raw.unwrap_or_default().plugin_path
    }

    /// `plugin_path`: instead of the file's, when it is not empty.
    pub(super) fn parse(path: &Path, text: &str, plugin_path: &[PathBuf]) -> Result<Self, ConfigError> {
        let place = path.display().to_string();
        // toml's errors show the line and the place in it.
        let not_toml =
            |error: toml::de::Error| ConfigError::new(&place, error.to_string().trim_end().to_owned());
        let table = toml::de::DeTable::parse(text).map_err(not_toml)?;
        let catalog = if plugin_path.is_empty() {
            let raw: RawPath = toml::from_str(text).map_err(not_toml)?;
            Catalog::load(&raw.plugin_path)
        } else {
            Catalog::load(plugin_path)
        };
        keys::check(path, text, table.get_ref(), &catalog)?;
        let raw: Raw = toml::from_str(text).map_err(not_toml)?;
        let mut sources = Vec::new();
        for (name, mut table) in raw.sources {
            let get = |variable: &str| std::env::var(variable).ok();
            settings::apply_environment(&name, &mut table, &catalog, get);
            let source = settings::source(&name, table, &catalog)
                .map_err(|problem| ConfigError::new(format!("{place}: [sources.{name}]"), problem))?;
            sources.push(source);
        }
        let mut control = BTreeMap::new();
        for (name, allowed) in raw.control {
            let problem = |problem| ConfigError::new(format!("{place}: [control.{name}]"), problem);
            let is_exec = |source: &SourceConfig| matches!(source.kind, SourceKind::Exec(_));
            if !sources
                .iter()
                .any(|source| source.name == name && is_exec(source))
            {
                let text = format!("there is no [sources.{name}] with plugin = \"exec\" to be controlled");
                return Err(problem(text));
            }
            control.insert(name.clone(), Allowed::new(allowed).map_err(problem)?);
        }
        let compress_level = match raw.compress_level {
            None => Some(DEFAULT_COMPRESS_LEVEL),
            Some(0) => None,
            Some(level @ 1..=19) => Some(level),
            Some(_) => {
                let problem = "compress_level has to be 0 (off) to 19";
                return Err(ConfigError::new(place, problem));
            }
        };
        let pin = raw.pin.map_or_else(Vec::new, OneOrMany::into_list);
        let pin = pin
            .iter()
            .map(|pin| pin.parse())
            .collect::<Result<_, millstream_dial::DialError>>()
            .map_err(|error| ConfigError::new(format!("{place}: pin"), error.to_string()))?;
        if raw.tls_cert.is_some() != raw.tls_key.is_some() {
            let problem = "tls_cert and tls_key belong together; set both, or none";
            return Err(ConfigError::new(place, problem));
        }
        Ok(Self {
            relay: raw.relay.map(OneOrMany::into_list),
            credentials: CredentialFlags {
                ca: raw.ca,
                pin,
                tls_cert: raw.tls_cert,
                tls_key: raw.tls_key,
                token_file: raw.token_file,
                insecure_no_tls: raw.insecure_no_tls,
            },
            data_dir: raw.data_dir,
            host: raw.host,
            labels: raw.labels,
            mask: raw.mask,
            compress_level,
            sources,
            control: AllowList::new(control),
        })
    }
}

/// Names of a plugin's settings, for the environment.
pub(super) fn setting_names(plugin: &str, catalog: &Catalog) -> Vec<String> {
    if let Some(known) = registry::plugin(plugin) {
        return known
            .settings
            .iter()
            .map(|setting| setting.name.to_owned())
            .collect();
    }
    let found = catalog.plugin(plugin).and_then(Result::ok);
    let own = found.iter().filter_map(|found| found.settings().ok());
    let own = own.flat_map(|schema| schema.settings.keys().cloned());
    let common = registry::PLUGIN_SETTINGS
        .iter()
        .map(|setting| setting.name.to_owned());
    own.chain(common).collect()
}
