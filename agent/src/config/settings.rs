//! One source's table into validated settings, and the sources that flags add.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use globset::{Glob, GlobSet, GlobSetBuilder};
use serde::Deserialize;

use super::{ConfigError, exec, file};
use crate::edge::{
    DropRule, DropSettings, EdgeSettings, JoinRules, JoinSettings, LabelRules, LabelSettings, MaskRules,
    SeverityRules, SeveritySettings, ShapeSettings,
};
use crate::plugins::catalog::{Catalog, Plugin};
use crate::plugins::containment::Limits;
use crate::plugins::source::PluginSettings;
use crate::sources::exec::Restart;
use crate::sources::file::FileSettings;
use crate::sources::registry;
use crate::sources::tail::TailSettings;
use crate::sources::{SourceConfig, SourceKind, Start};
use crate::spool::{Bound, DEFAULT_SPOOL_BYTES, MIN_SPOOL_BYTES, WhenFull};

/// Least memory that a plugin can be given; below it no interpreter starts.
const MIN_PLUGIN_MEMORY_BYTES: u64 = 16 << 20;

#[derive(Debug, Deserialize)]
struct RawSource<T> {
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(flatten)]
    settings: T,
}

#[derive(Debug, Deserialize)]
struct RawFile {
    paths: Vec<String>,
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default)]
    start: Start,
    #[serde(default)]
    watch: Watch,
    poll_interval: Option<String>,
    rotate_wait: Option<String>,
    forget_after: Option<String>,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Watch {
    #[default]
    Auto,
    Poll,
}

#[derive(Debug, Deserialize)]
struct RawTail {
    path: String,
    #[serde(default)]
    start: Start,
    #[serde(flatten)]
    spool: RawSpool,
}

/// Settings of every source that has a spool.
#[derive(Debug, Default, Deserialize)]
pub(super) struct RawSpool {
    spool_max_bytes: Option<u64>,
    #[serde(default)]
    spool_when_full: WhenFull,
}

/// # Errors
/// A sentence on what is wrong.
pub(super) fn source(name: &str, mut table: toml::Table, catalog: &Catalog) -> Result<SourceConfig, String> {
    let (mask, edge) = edge_rules(&mut table)?;
    let plugin = table
        .get("plugin")
        .and_then(toml::Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let (labels, kind) = match plugin.as_str() {
        "file" => {
            let raw: RawSource<RawFile> = from_table(table)?;
            (
                raw.labels,
                SourceKind::File(Arc::new(file_settings(raw.settings)?)),
            )
        }
        "tail" => {
            let raw: RawSource<RawTail> = from_table(table)?;
            let settings = TailSettings {
                path: raw.settings.path,
                start: raw.settings.start,
                spool: raw.settings.spool.bound()?,
            };
            (raw.labels, SourceKind::Tail(Arc::new(settings)))
        }
        "exec" => {
            let raw: RawSource<exec::RawExec> = from_table(table)?;
            (
                raw.labels,
                SourceKind::Exec(Arc::new(exec::settings(raw.settings)?)),
            )
        }
        other => {
            let found = catalog
                .plugin(other)
                .unwrap_or_else(|| Err(format!("unknown plugin `{other}`")))?;
            let (labels, settings) = plugin_settings(found, table)?;
            (labels, SourceKind::Plugin(Arc::new(settings)))
        }
    };
    Ok(SourceConfig {
        name: name.to_owned(),
        labels,
        mask,
        edge,
        kind,
    })
}

/// Takes what is done to every source's text out of its table. Masks are made later, when those of all sources are
/// known.
fn edge_rules(table: &mut toml::Table) -> Result<(MaskRules, EdgeSettings), String> {
    let mut edge = toml::Table::new();
    for key in ["mask", "join", "drop", "severity", "json_labels"] {
        if let Some(value) = table.remove(key) {
            edge.insert(key.to_owned(), value);
        }
    }
    let raw: RawEdge = from_table(edge)?;
    let join = raw.join.as_ref().map(JoinSettings::new).transpose()?;
    let drop = DropSettings::new(&raw.drop)?;
    let shape = ShapeSettings {
        join: join.map(Arc::new),
        drop: drop.map(Arc::new),
    };
    let severity = raw.severity.as_ref().map(SeveritySettings::new).transpose()?;
    let given = table.get("labels").cloned().map(toml::Value::try_into);
    // What is wrong with the labels themselves is said by who reads them.
    let given = given.and_then(Result::ok).unwrap_or_default();
    let labels = raw
        .json_labels
        .as_ref()
        .map(|rules| LabelSettings::new(rules, &given));
    let edge = EdgeSettings {
        mask: None,
        shape,
        severity: severity.map(Arc::new),
        labels: labels.transpose()?.map(Arc::new),
    };
    Ok((raw.mask, edge))
}

#[derive(Debug, Default, Deserialize)]
struct RawEdge {
    #[serde(default)]
    mask: MaskRules,
    join: Option<JoinRules>,
    #[serde(default)]
    drop: Vec<DropRule>,
    severity: Option<SeverityRules>,
    json_labels: Option<LabelRules>,
}

/// What the agent itself gives a meaning, out of a plugin's table.
#[derive(Debug, Deserialize)]
struct RawPlugin {
    #[serde(default)]
    labels: BTreeMap<String, String>,
    restart: Option<Restart>,
    memory_max_bytes: Option<u64>,
    max_bytes_per_second: Option<u64>,
    stall_timeout: Option<String>,
}

fn plugin_settings(
    plugin: Arc<Plugin>,
    mut table: toml::Table,
) -> Result<(BTreeMap<String, String>, PluginSettings), String> {
    let raw: RawPlugin = from_table(table.clone())?;
    let common = registry::COMMON_SETTINGS.iter().chain(registry::PLUGIN_SETTINGS);
    for setting in common {
        table.remove(setting.name);
    }
    if let Ok(schema) = plugin.settings() {
        schema.values(&table)?;
    }
    let mut limits = Limits::default();
    if let Some(bytes) = raw.memory_max_bytes {
        if bytes < MIN_PLUGIN_MEMORY_BYTES {
            return Err(format!(
                "memory_max_bytes has to be at least {MIN_PLUGIN_MEMORY_BYTES} (16 MiB)"
            ));
        }
        limits.memory_max_bytes = bytes;
    }
    if let Some(bytes) = raw.max_bytes_per_second {
        limits.max_bytes_per_second = bytes;
    }
    let stall_timeout = raw.stall_timeout.as_deref().map(parse_duration).transpose();
    limits.stall_timeout = stall_timeout.map_err(|problem| format!("stall_timeout: {problem}"))?;
    let settings = PluginSettings {
        plugin,
        given: table,
        limits,
        restart: raw.restart,
    };
    Ok((raw.labels, settings))
}

fn from_table<T: serde::de::DeserializeOwned>(table: toml::Table) -> Result<T, String> {
    toml::Value::Table(table)
        .try_into()
        .map_err(|error| error.to_string().trim_end().to_owned())
}

fn file_settings(raw: RawFile) -> Result<FileSettings, String> {
    if raw.paths.is_empty() {
        return Err("paths is empty; name at least one file or glob".to_owned());
    }
    Ok(FileSettings {
        paths: raw.paths,
        exclude: globs(&raw.exclude)?,
        start: raw.start,
        force_polling: raw.watch == Watch::Poll,
        poll_interval: duration("poll_interval", raw.poll_interval.as_deref(), "1s")?,
        rotate_wait: duration("rotate_wait", raw.rotate_wait.as_deref(), "500ms")?,
        forget_after: duration("forget_after", raw.forget_after.as_deref(), "1m")?,
    })
}

fn globs(patterns: &[String]) -> Result<GlobSet, String> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(Glob::new(pattern).map_err(|error| format!("exclude: {error}"))?);
    }
    set.build().map_err(|error| format!("exclude: {error}"))
}

impl RawSpool {
    /// # Errors
    /// What it has to be instead.
    pub(super) fn bound(&self) -> Result<Bound, String> {
        let max_bytes = self.spool_max_bytes.unwrap_or(DEFAULT_SPOOL_BYTES);
        check_spool_bytes(max_bytes).map_err(|problem| format!("spool_max_bytes {problem}"))?;
        Ok(Bound {
            max_bytes,
            when_full: self.spool_when_full,
        })
    }
}

/// # Errors
/// What it has to be instead.
pub(super) fn check_spool_bytes(bytes: u64) -> Result<(), String> {
    match bytes {
        MIN_SPOOL_BYTES.. => Ok(()),
        _ => Err(format!("has to be at least {MIN_SPOOL_BYTES} (1 MiB)")),
    }
}

pub(super) fn duration(name: &str, value: Option<&str>, default: &str) -> Result<Duration, String> {
    parse_duration(value.unwrap_or(default)).map_err(|problem| format!("{name}: {problem}"))
}

/// "250ms", "1.5s", "2m", "1h".
///
/// # Errors
/// A sentence on what to write instead.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let problem = || format!("{text:?} is no duration; write 250ms, 1s, 2m or 1h");
    let unit_at = text
        .find(|character: char| character.is_ascii_alphabetic())
        .ok_or_else(problem)?;
    let (number, unit) = text.split_at(unit_at);
    let number: f64 = number.trim().parse().map_err(|_| problem())?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(problem()),
    };
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(problem)
}

/// `MILLSTREAM_SOURCES_<NAME>_<SETTING>` wins over the file. The value is TOML, or else a plain string.
pub(super) fn apply_environment(
    name: &str,
    table: &mut toml::Table,
    catalog: &Catalog,
    get: impl Fn(&str) -> Option<String>,
) {
    let plugin = table
        .get("plugin")
        .and_then(toml::Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let upper = |text: &str| -> String {
        text.chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_uppercase()
                } else {
                    '_'
                }
            })
            .collect()
    };
    for setting in file::setting_names(&plugin, catalog) {
        if let Some(text) = get(&format!("MILLSTREAM_SOURCES_{}_{}", upper(name), upper(&setting))) {
            let parsed = toml::from_str::<toml::Table>(&format!("value = {text}"));
            let value = parsed.ok().and_then(|mut table| table.remove("value"));
            table.insert(setting, value.unwrap_or(toml::Value::String(text)));
        }
    }
}

/// `--file` and `--tail`: sources named `file` and `tail`, the latter numbered from the second on.
///
/// # Errors
/// When the configuration file has a source of that name.
pub(super) fn add_flag_sources(
    sources: &mut Vec<SourceConfig>,
    files: &[String],
    tails: &[String],
) -> Result<(), ConfigError> {
    let mut added = Vec::new();
    if !files.is_empty() {
        let raw = RawFile {
            paths: files.to_vec(),
            exclude: Vec::new(),
            start: Start::Beginning,
            watch: Watch::Auto,
            poll_interval: None,
            rotate_wait: None,
            forget_after: None,
        };
        let settings = file_settings(raw).map_err(|problem| ConfigError::new("--file", problem))?;
        added.push(("file".to_owned(), SourceKind::File(Arc::new(settings))));
    }
    for (index, path) in tails.iter().enumerate() {
        let name = if index == 0 {
            "tail".to_owned()
        } else {
            format!("tail-{}", index + 1)
        };
        let settings = TailSettings {
            path: path.clone(),
            start: Start::Beginning,
            spool: Bound::default(),
        };
        added.push((name, SourceKind::Tail(Arc::new(settings))));
    }
    for (name, kind) in added {
        if sources.iter().any(|source| source.name == name) {
            let problem = format!("the configuration file has a source `{name}` too; rename that one");
            return Err(ConfigError::new("--file/--tail", problem));
        }
        sources.push(SourceConfig {
            name,
            labels: BTreeMap::new(),
            mask: MaskRules::default(),
            edge: EdgeSettings::default(),
            kind,
        });
    }
    Ok(())
}
