//! Typed settings of a plugin: what a manifest or `--describe` declares, and the check of what a user wrote.

use std::collections::BTreeMap;

use regex::Regex;
use serde::{Deserialize, Serialize};

/// Settings of one plugin; more is a mistake.
const MAX_SETTINGS: usize = 64;
const MAX_NAME_BYTES: usize = 64;

/// Names that every source has, with a meaning that the agent gives them.
const RESERVED: &[&str] = &[
    "plugin",
    "labels",
    "mask",
    "join",
    "drop",
    "min_severity",
    "lift",
    "restart",
    "restart_delay",
    "restart_limit",
    "memory_max_bytes",
    "max_bytes_per_second",
    "stall_timeout",
    "trigger",
    "schedule",
    "time_limit",
];

/// What a setting holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SettingType {
    String,
    Integer,
    Boolean,
    /// Strings.
    List,
}

impl SettingType {
    fn name(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Integer => "an integer",
            Self::Boolean => "true or false",
            Self::List => "a list of strings",
        }
    }

    /// How one is written, as an example.
    #[must_use]
    pub fn form(self) -> &'static str {
        match self {
            Self::String => "\"text\"",
            Self::Integer => "1",
            Self::Boolean => "true | false",
            Self::List => "[\"text\"]",
        }
    }
}

/// One setting as a plugin declares it, in TOML or in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SettingSpec {
    #[serde(rename = "type")]
    pub kind: SettingType,
    #[serde(default)]
    pub required: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<serde_json::Value>,
    /// What it means, for people.
    #[serde(default)]
    pub doc: String,
    /// A string, or each of a list, has to match this regular expression as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// A string, or each of a list, has to be one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// A string may begin with `-`. Without it nobody can pass an option where a name is meant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_dash: bool,
}

/// What a user gave, checked and with defaults. JSON values, because that is how a protocol plugin gets them.
pub type Values = BTreeMap<String, serde_json::Value>;

/// Every setting of a plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Schema {
    pub settings: BTreeMap<String, SettingSpec>,
}

impl Schema {
    /// Checks the declaration itself: what an author may have got wrong.
    ///
    /// # Errors
    /// A sentence on the first thing that is wrong.
    pub fn check(&self) -> Result<(), String> {
        if self.settings.len() > MAX_SETTINGS {
            return Err(format!(
                "{} settings; the limit is {MAX_SETTINGS}",
                self.settings.len()
            ));
        }
        for (name, spec) in &self.settings {
            let fault = |problem: String| format!("setting `{name}`: {problem}");
            let is_name = name.len() <= MAX_NAME_BYTES
                && name.starts_with(|first: char| first.is_ascii_lowercase())
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
            if !is_name {
                return Err(fault(format!(
                    "a name has at most {MAX_NAME_BYTES} of a-z, 0-9 and _, and begins with a letter"
                )));
            }
            if RESERVED.contains(&name.as_str()) {
                return Err(fault(
                    "every source has one of that name; choose another".to_owned(),
                ));
            }
            if let Some(pattern) = &spec.pattern {
                whole(pattern).map_err(|error| fault(format!("pattern: {error}")))?;
            }
            let is_text = matches!(spec.kind, SettingType::String | SettingType::List);
            if !is_text && (spec.pattern.is_some() || !spec.choices.is_empty()) {
                return Err(fault(
                    "only strings and lists have a pattern or choices".to_owned(),
                ));
            }
            if let Some(default) = &spec.default {
                if spec.required {
                    return Err(fault("it is required, so its default is never used".to_owned()));
                }
                spec.check(default)
                    .map_err(|problem| fault(format!("the default {problem}")))?;
            }
        }
        Ok(())
    }

    /// Checks what a user gave and adds defaults. Keys that are not known were found before, by name.
    ///
    /// # Errors
    /// A sentence that names the setting and what to write.
    pub fn values(&self, given: &toml::Table) -> Result<Values, String> {
        let mut values = Values::new();
        for (name, value) in given {
            let Some(spec) = self.settings.get(name) else {
                let known: Vec<&str> = self.settings.keys().map(String::as_str).collect();
                return Err(format!(
                    "unknown setting `{name}`{}",
                    crate::config::suggestion(name, &known)
                ));
            };
            let value = to_json(value).ok_or_else(|| format!("{name} has to be {}", spec.kind.name()))?;
            spec.check(&value)
                .map_err(|problem| format!("{name} {problem}"))?;
            values.insert(name.clone(), value);
        }
        for (name, spec) in &self.settings {
            if values.contains_key(name) {
                continue;
            }
            if let Some(default) = &spec.default {
                values.insert(name.clone(), default.clone());
            } else if spec.required {
                return Err(format!("{name} is missing; write {name} = {}", spec.kind.form()));
            }
        }
        Ok(values)
    }

    /// A value from a command line: TOML, or else a plain string.
    #[must_use]
    pub fn parse_value(text: &str) -> toml::Value {
        toml::from_str::<toml::Table>(&format!("value = {text}"))
            .ok()
            .and_then(|mut table| table.remove("value"))
            .unwrap_or_else(|| toml::Value::String(text.to_owned()))
    }
}

impl SettingSpec {
    fn check(&self, value: &serde_json::Value) -> Result<(), String> {
        let wrong_type = || format!("has to be {}", self.kind.name());
        match self.kind {
            SettingType::String => self.check_text(value.as_str().ok_or_else(wrong_type)?),
            SettingType::List => value
                .as_array()
                .ok_or_else(wrong_type)?
                .iter()
                .try_for_each(|item| self.check_text(item.as_str().ok_or_else(wrong_type)?)),
            SettingType::Integer => value.as_i64().map(drop).ok_or_else(wrong_type),
            SettingType::Boolean => value.as_bool().map(drop).ok_or_else(wrong_type),
        }
    }

    fn check_text(&self, text: &str) -> Result<(), String> {
        if text.contains('\0') {
            return Err("holds a zero byte".to_owned());
        }
        if text.starts_with('-') && !self.allow_dash {
            return Err(format!(
                "{text:?} begins with `-`, which a command may take for an option"
            ));
        }
        if !self.choices.is_empty() && !self.choices.iter().any(|choice| choice == text) {
            return Err(format!("{text:?} is none of {}", self.choices.join(", ")));
        }
        if let Some(pattern) = &self.pattern {
            let matches = whole(pattern).is_ok_and(|pattern| pattern.is_match(text));
            if !matches {
                return Err(format!("{text:?} does not match {pattern}"));
            }
        }
        Ok(())
    }
}

fn whole(pattern: &str) -> Result<Regex, String> {
    regex::RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(1 << 20)
        .build()
        .map_err(|error| error.to_string())
}

/// `None` for what JSON settings never hold: dates, tables, fractions.
fn to_json(value: &toml::Value) -> Option<serde_json::Value> {
    match value {
        toml::Value::String(text) => Some(text.clone().into()),
        toml::Value::Integer(number) => Some((*number).into()),
        toml::Value::Boolean(truth) => Some((*truth).into()),
        toml::Value::Array(items) => items
            .iter()
            .map(to_json)
            .collect::<Option<Vec<_>>>()
            .map(Into::into),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(text: &str) -> Schema {
        toml::from_str(text).unwrap()
    }

    fn values(schema: &Schema, text: &str) -> Result<Values, String> {
        schema.values(&toml::from_str(text).unwrap())
    }

    #[test]
    fn values_are_checked_and_defaults_added() {
        let schema = schema(
            "container = { type = 'string', required = true, pattern = '[a-z0-9-]+' }\n\
             lines = { type = 'integer', default = 10 }\n\
             level = { type = 'string', choices = ['low', 'high'] }\n\
             units = { type = 'list' }\n",
        );
        schema.check().unwrap();
        let good = values(&schema, "container = 'web-1'\nunits = ['a', 'b']").unwrap();
        assert_eq!(good["container"], "web-1");
        assert_eq!(good["lines"], 10);
        assert_eq!(good["units"][1], "b");
        assert!(!good.contains_key("level"));
        for (text, expected) in [
            ("", "container is missing; write container = \"text\""),
            ("container = 3", "container has to be a string"),
            ("container = 'a b'", "does not match"),
            ("container = '--help'", "begins with `-`"),
            ("container = 'a'\nlevel = 'mid'", "is none of low, high"),
            (
                "container = 'a'\nunits = [1]",
                "units has to be a list of strings",
            ),
            ("container = 'a'\nunitz = []", "did you mean `units`?"),
        ] {
            let problem = values(&schema, text).unwrap_err();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
    }

    #[test]
    fn a_wrong_declaration_is_told_to_its_author() {
        for (text, expected) in [
            ("Name = { type = 'string' }", "begins with a letter"),
            ("plugin = { type = 'string' }", "every source has one"),
            ("a = { type = 'string', pattern = '(' }", "pattern"),
            (
                "a = { type = 'integer', choices = ['1'] }",
                "only strings and lists",
            ),
            (
                "a = { type = 'integer', default = 'x' }",
                "the default has to be an integer",
            ),
            (
                "a = { type = 'integer', default = 1, required = true }",
                "never used",
            ),
        ] {
            let problem = schema(text).check().unwrap_err();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
    }

    #[test]
    fn a_value_on_a_command_line_is_toml_or_text() {
        assert_eq!(Schema::parse_value("3"), toml::Value::Integer(3));
        assert_eq!(
            Schema::parse_value("[\"a\"]"),
            toml::Value::Array(vec!["a".into()])
        );
        assert_eq!(Schema::parse_value("web-1"), toml::Value::String("web-1".into()));
    }
}
