//! Checks a configuration file's keys before anything else looks at it, so that a misspelt one is an error
//! with its line and the key that was probably meant.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::ConfigError;
use crate::control::allow;
use crate::plugins::catalog::Catalog;
use crate::sources::registry::{self, COMMON_SETTINGS, PLUGIN_SETTINGS, PLUGINS};

/// Keys at the top of the file.
const TOP_KEYS: [&str; 15] = [
    "relay",
    "ca",
    "pin",
    "tls_cert",
    "tls_key",
    "token_file",
    "insecure_no_tls",
    "data_dir",
    "host",
    "compress_level",
    "labels",
    "plugin_path",
    "mask",
    "sources",
    "control",
];

/// # Errors
/// The first key that is not known.
pub(super) fn check(
    path: &Path,
    text: &str,
    table: &DeTable<'_>,
    catalog: &Catalog,
) -> Result<(), ConfigError> {
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
    let control = table.get("control").and_then(|value| value.get_ref().as_table());
    for (name, allowed) in control.into_iter().flatten() {
        if let DeValue::Table(settings) = allowed.get_ref() {
            check_keys(
                &format!(" in [control.{}]", name.get_ref()),
                settings,
                &allow::KEYS,
            )?;
        }
    }
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
                plugin_names(catalog)
                    .map(|name| format!("\"{name}\""))
                    .collect::<Vec<_>>()
                    .join(" or ")
            );
            return Err(ConfigError::new(place(name.span().start), problem));
        };
        let plugin_name = plugin.get_ref().as_str().unwrap_or_default();
        let common = COMMON_SETTINGS.iter().map(|setting| setting.name);
        let keys: Vec<&str> = if let Some(known) = registry::plugin(plugin_name) {
            common
                .chain(known.settings.iter().map(|setting| setting.name))
                .collect()
        } else {
            let at_plugin = |problem| ConfigError::new(place(plugin.span().start), problem);
            let Some(found) = catalog.plugin(plugin_name) else {
                let names: Vec<&str> = plugin_names(catalog).collect();
                let nearest = suggestion(plugin_name, &names);
                return Err(at_plugin(format!("unknown plugin `{plugin_name}`{nearest}")));
            };
            let found = found.map_err(at_plugin)?;
            // One that does not even describe itself must not keep the other sources from running: its own source
            // fails, and says why.
            let Ok(schema) = found.settings() else {
                continue;
            };
            let own = schema.settings.keys().map(String::as_str);
            let keys = common
                .chain(PLUGIN_SETTINGS.iter().map(|setting| setting.name))
                .chain(own)
                .collect::<Vec<_>>();
            check_keys(&format!(" for plugin {plugin_name}"), settings, &keys)?;
            continue;
        };
        check_keys(&format!(" for plugin {plugin_name}"), settings, &keys)?;
    }
    Ok(())
}

fn plugin_names(catalog: &Catalog) -> impl Iterator<Item = &str> {
    PLUGINS.iter().map(|plugin| plugin.name).chain(catalog.names())
}

/// "; did you mean `relay`?", or the list when nothing is near.
pub(crate) fn suggestion(name: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .max_by(|left, right| strsim::jaro_winkler(name, left).total_cmp(&strsim::jaro_winkler(name, right)));
    match nearest {
        Some(nearest) if strsim::jaro_winkler(name, nearest) >= 0.7 => format!("; did you mean `{nearest}`?"),
        _ => format!("; known are {}", known.join(", ")),
    }
}
