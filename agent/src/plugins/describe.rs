//! What `millstream-source-NAME --describe` prints.

use serde::{Deserialize, Serialize};

use super::schema::Schema;

/// Most of a description that is read, bytes.
pub const MAX_DESCRIPTION_BYTES: usize = 256 << 10;

/// How long a plugin may take to describe itself.
pub const DESCRIBE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// A protocol plugin in its own words.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PluginDescription {
    /// As in the name of its file.
    pub name: String,
    pub version: String,
    /// The plugin protocol that it speaks.
    pub protocol: u32,
    /// One or two sentences for people.
    #[serde(default)]
    pub doc: String,
    #[serde(default)]
    pub settings: Schema,
    /// After a restart with its last checkpoint it prints exactly the lines that follow that checkpoint.
    #[serde(default)]
    pub can_resume: bool,
}

impl PluginDescription {
    /// Parses the output of `--describe` of the plugin that is called `name`.
    ///
    /// # Errors
    /// A sentence for the author.
    pub fn parse(name: &str, output: &[u8]) -> Result<Self, String> {
        let description: Self = serde_json::from_slice(output)
            .map_err(|error| format!("--describe printed no valid description: {error}"))?;
        if description.name != name {
            return Err(format!(
                "--describe says its name is {:?}, but its file says {name:?}",
                description.name
            ));
        }
        if description.protocol != super::protocol::VERSION {
            return Err(format!(
                "it speaks plugin protocol {}; this agent speaks {}",
                description.protocol,
                super::protocol::VERSION
            ));
        }
        description
            .settings
            .check()
            .map_err(|problem| format!("--describe: {problem}"))?;
        Ok(description)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_read_whole_or_refused_with_the_reason() {
        let good = br#"{"name":"counter","version":"1.0","protocol":1,"can_resume":true,
            "settings":{"to":{"type":"integer","required":true,"doc":"Last number."}}}"#;
        let description = PluginDescription::parse("counter", good).unwrap();
        assert!(description.can_resume);
        assert!(description.settings.settings["to"].required);
        for (text, expected) in [
            ("hello", "no valid description"),
            ("{\"name\":\"counter\",\"version\":\"1\"}", "protocol"),
            (
                "{\"name\":\"other\",\"version\":\"1\",\"protocol\":1}",
                "its file says",
            ),
            (
                "{\"name\":\"counter\",\"version\":\"1\",\"protocol\":2}",
                "this agent speaks 1",
            ),
            (
                "{\"name\":\"counter\",\"version\":\"1\",\"protocol\":1,\"resume\":true}",
                "unknown field",
            ),
        ] {
            let problem = PluginDescription::parse("counter", text.as_bytes()).unwrap_err();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
    }
}
