//! What `millstream-agent sources` prints.

use std::fmt::Write as _;

use super::catalog::{Catalog, Entry, Plugin};
use super::schema::{Schema, SettingSpec};
use crate::sources::registry::{self, SettingDoc};
use crate::text::harmless;

/// Every plugin with its settings.
#[must_use]
pub fn describe(catalog: &Catalog) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail, here and below.
    for plugin in registry::PLUGINS {
        let _ = writeln!(text, "{}\n    {}\n", plugin.name, plugin.doc);
        write_docs(&mut text, plugin.settings);
        text.push('\n');
    }
    for (name, entry) in &catalog.entries {
        write_entry(&mut text, name, entry);
    }
    text.push_str("Every source has\n\n");
    write_docs(&mut text, registry::COMMON_SETTINGS);
    text.push_str("\nManifests and protocol plugins have, too:\n\n");
    write_docs(&mut text, registry::PLUGIN_SETTINGS);
    text.push_str(
        "\nIn the configuration file:\n\n    [sources.app]\n    plugin = \"file\"\n    paths = [\"/var/log/app/*.log\"]\n",
    );
    if !catalog.problems.is_empty() {
        text.push_str("\nNot used:\n\n");
        for problem in &catalog.problems {
            let _ = writeln!(text, "    {}", harmless(problem.as_bytes(), 500));
        }
    }
    text
}

fn write_entry(text: &mut String, name: &str, entry: &Entry) {
    let place = entry.path.as_ref().map_or_else(
        || "bundled manifest".to_owned(),
        |path| harmless(path.as_os_str().as_encoded_bytes(), 500),
    );
    let plugin = match &entry.plugin {
        Ok(plugin) => plugin,
        Err(problem) => {
            let _ = writeln!(
                text,
                "{name} (cannot be used)\n    {}\n",
                harmless(problem.as_bytes(), 500)
            );
            return;
        }
    };
    let described = match &**plugin {
        Plugin::Manifest(manifest) => Ok((
            &manifest.version,
            &manifest.doc,
            &manifest.settings,
            manifest.can_resume(),
        )),
        Plugin::Protocol(protocol) => protocol.description().map(|description| {
            let settings = &description.settings;
            (
                &description.version,
                &description.doc,
                settings,
                description.can_resume,
            )
        }),
    };
    match described {
        Ok((version, doc, settings, can_resume)) => {
            let resume = if can_resume { "resumes" } else { "cannot resume" };
            let version = harmless(version.as_bytes(), 40);
            let _ = writeln!(text, "{name} ({place}, version {version}, {resume})");
            let _ = writeln!(text, "    {}\n", harmless(doc.as_bytes(), 1000));
            write_schema(text, settings);
            text.push('\n');
        }
        Err(problem) => {
            let _ = writeln!(
                text,
                "{name} (cannot be used)\n    {}\n",
                harmless(problem.as_bytes(), 500)
            );
        }
    }
}

fn write_docs(text: &mut String, settings: &[SettingDoc]) {
    for setting in settings {
        let default = if setting.default.is_empty() {
            String::new()
        } else {
            format!(" (default {})", setting.default)
        };
        let _ = writeln!(
            text,
            "    {} = {}{default}\n        {}",
            setting.name, setting.form, setting.doc
        );
    }
}

fn write_schema(text: &mut String, schema: &Schema) {
    for (name, spec) in &schema.settings {
        let rule = rule(spec);
        let form = spec.kind.form();
        let doc = harmless(spec.doc.as_bytes(), 500);
        let _ = writeln!(text, "    {name} = {form}{rule}\n        {doc}");
    }
}

fn rule(spec: &SettingSpec) -> String {
    let mut rules = Vec::new();
    if spec.required {
        rules.push("required".to_owned());
    }
    if let Some(default) = &spec.default {
        rules.push(format!(
            "default {}",
            harmless(default.to_string().as_bytes(), 100)
        ));
    }
    if !spec.choices.is_empty() {
        rules.push(format!(
            "one of {}",
            harmless(spec.choices.join(", ").as_bytes(), 200)
        ));
    }
    if rules.is_empty() {
        return String::new();
    }
    format!(" ({})", rules.join("; "))
}
