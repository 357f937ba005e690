//! What the relay may ask of which source.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// Longest compiled pattern, bytes. Patterns are the configuration's, so this only catches mistakes.
const PATTERN_SIZE_LIMIT: usize = 1 << 20;

/// One thing that can be asked of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Start,
    Stop,
    Restart,
    SetCommand,
}

impl Action {
    /// As the configuration writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::SetCommand => "set_command",
        }
    }
}

/// What is allowed on one source.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    actions: BTreeSet<Action>,
    pattern: Option<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    regex: regex::Regex,
}

/// `[control.NAME]` of the configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawAllowed {
    #[serde(default)]
    allow: Vec<Action>,
    command_pattern: Option<String>,
}

/// Keys of `[control.NAME]`.
pub const KEYS: [&str; 2] = ["allow", "command_pattern"];

impl Allowed {
    /// # Errors
    /// What is wrong with the setting, and what to write.
    pub fn new(raw: RawAllowed) -> Result<Self, String> {
        let actions: BTreeSet<Action> = raw.allow.into_iter().collect();
        let pattern = raw.command_pattern.map(|text| {
            // As a whole: a pattern that matches somewhere inside would allow anything around it.
            regex::RegexBuilder::new(&format!(r"\A(?:{text})\z"))
                .size_limit(PATTERN_SIZE_LIMIT)
                .build()
                .map(|regex| Pattern {
                    text: text.clone(),
                    regex,
                })
                .map_err(|error| format!("command_pattern {text:?} is no regular expression: {error}"))
        });
        let pattern = pattern.transpose()?;
        if pattern.is_some() && !actions.contains(&Action::SetCommand) {
            return Err("command_pattern has no effect without \"set_command\" in allow".to_owned());
        }
        Ok(Self { actions, pattern })
    }

    #[must_use]
    pub fn permits(&self, action: Action) -> bool {
        self.actions.contains(&action)
    }

    /// Names of what is permitted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.actions
            .iter()
            .map(|action| action.name().to_owned())
            .collect()
    }

    /// The pattern as the configuration has it; empty: any command.
    #[must_use]
    pub fn pattern(&self) -> &str {
        self.pattern.as_ref().map_or("", |pattern| &pattern.text)
    }

    /// Whether a new command matches the pattern.
    ///
    /// # Errors
    /// A sentence that says what does not match what.
    pub fn check_command(&self, argv: &[String]) -> Result<(), String> {
        let Some(pattern) = &self.pattern else {
            return Ok(());
        };
        // A word with a space in it would look like two: what was matched must be what runs.
        if let Some(word) = argv.iter().find(|word| word.chars().any(char::is_whitespace)) {
            return Err(format!(
                "the word {word:?} has a space in it, and command_pattern is matched against the words joined by \
                 spaces"
            ));
        }
        let command = argv.join(" ");
        if pattern.regex.is_match(&command) {
            Ok(())
        } else {
            Err(format!(
                "{command:?} does not match the agent's command_pattern {:?}",
                pattern.text
            ))
        }
    }
}

/// The allow-list by source; what it does not name is forbidden.
#[derive(Debug, Clone, Default)]
pub struct AllowList(BTreeMap<String, Allowed>);

impl AllowList {
    #[must_use]
    pub fn new(by_source: BTreeMap<String, Allowed>) -> Self {
        Self(by_source)
    }

    /// Nothing, for a source that is not named.
    #[must_use]
    pub fn of(&self, source: &str) -> Allowed {
        self.0.get(source).cloned().unwrap_or_default()
    }

    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(text: &str) -> Result<Allowed, String> {
        Allowed::new(toml::from_str(text).map_err(|error| error.to_string())?)
    }

    fn words(command: &str) -> Vec<String> {
        command.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn nothing_is_permitted_by_default() {
        let list = AllowList::default();
        for action in [Action::Start, Action::Stop, Action::Restart, Action::SetCommand] {
            assert!(!list.of("nightly").permits(action));
        }
        assert!(!allowed("").unwrap().permits(Action::Start));
    }

    #[test]
    fn a_command_has_to_match_the_pattern_as_a_whole() {
        let allowed = allowed("allow = [\"set_command\"]\ncommand_pattern = \"make|make [a-z-]+\"").unwrap();
        assert_eq!(allowed.check_command(&words("make")), Ok(()));
        assert_eq!(allowed.check_command(&words("make check")), Ok(()));
        for forbidden in [
            "makefoo",
            "make check; reboot",
            "sh make",
            "make a b",
            "make check\n",
        ] {
            assert!(allowed.check_command(&words(forbidden)).is_err(), "{forbidden:?}");
        }
        let hidden = ["make".to_owned(), "check x".to_owned()];
        assert!(allowed.check_command(&hidden).unwrap_err().contains("space"));
    }

    #[test]
    fn mistakes_in_the_configuration_are_said() {
        let cases = [
            ("allow = [\"stopp\"]", "stopp"),
            ("command_pattern = \"make\"", "set_command"),
            (
                "allow = [\"set_command\"]\ncommand_pattern = \"(\"",
                "no regular expression",
            ),
            ("allowed = []", "allowed"),
        ];
        for (text, expected) in cases {
            let error = allowed(text).unwrap_err();
            assert!(error.contains(expected), "{text:?} gave {error:?}");
        }
    }
}
