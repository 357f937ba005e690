//! Checks a configuration file's keys before anything else looks at it, so that a misspelt one is an error
//! with its line and the key that was probably meant.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::ConfigError;
use crate::sources::registry::{self, COMMON_SETTINGS, PLUGINS};

/// Keys at the top of the file.
const TOP_KEYS: [&str; 6] = ["relay", "data_dir", "host", "compress_level", "labels", "sources"];

/// # Errors
/// The first key that is not known.
pub(super) fn check(path: &Path, text: &str, table: &DeTable<'_>) -> Result<(), ConfigError> {
    let place = |offset: usize| {
        let line = text[..offset].bytes().filter(|byte| *byte == b'\n').count() + 1;
        format!("{}:{line}", path.display())
    };
    let check_keys = |section: &str, table: &DeTable<'_>, known: &[&str]| {
        let unknown = table.keys().find(|key| !known.contains(&key.get_ref().as_ref()));
        unknown.map_or(Ok(()), |key| {
            let name = key.get_ref();
            Err(ConfigError::new(
                place(key.span().start),
                format!("unknown key `{name}`{section}{}", suggestion(name, known)),
            ))
        })
    };
    check_keys("", table, &TOP_KEYS)?;
    let Some(sources) = table.get("sources").and_then(|value| value.get_ref().as_table()) else {
        return Ok(());
    };
    for (name, source) in sources {
        let DeValue::Table(settings) = source.get_ref() else {
            let problem = format!(
                "`sources.{name}` has to be a table: [sources.{name}]",
                name = name.get_ref()
            );
            return Err(ConfigError::new(place(name.span().start), problem));
        };
        let Some(plugin) = settings.get("plugin") else {
            let problem = format!(
                "[sources.{}] names no plugin; add plugin = {}",
                name.get_ref(),
                plugin_names()
                    .map(|name| format!("\"{name}\""))
                    .collect::<Vec<_>>()
                    .join(" or ")
            );
            return Err(ConfigError::new(place(name.span().start), problem));
        };
        let plugin_name = plugin.get_ref().as_str().unwrap_or_default();
        let Some(known) = registry::plugin(plugin_name) else {
            let names: Vec<&str> = plugin_names().collect();
            let problem = format!(
                "unknown plugin `{plugin_name}`{}",
                suggestion(plugin_name, &names)
            );
            return Err(ConfigError::new(place(plugin.span().start), problem));
        };
        let keys: Vec<&str> = COMMON_SETTINGS
            .iter()
            .chain(known.settings)
            .map(|setting| setting.name)
            .collect();
        check_keys(&format!(" for plugin {plugin_name}"), settings, &keys)?;
    }
    Ok(())
}

fn plugin_names() -> impl Iterator<Item = &'static str> {
    PLUGINS.iter().map(|plugin| plugin.name)
}

/// "; did you mean `relay`?", or the list when nothing is near.
fn suggestion(name: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .max_by(|left, right| strsim::jaro_winkler(name, left).total_cmp(&strsim::jaro_winkler(name, right)));
    match nearest {
        Some(nearest) if strsim::jaro_winkler(name, nearest) >= 0.7 => format!("; did you mean `{nearest}`?"),
        _ => format!("; known are {}", known.join(", ")),
    }
}
