//! Label selectors: which streams somebody means.
//!
//! The syntax is that of Kubernetes label selectors
//! (<https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors>):
//! requirements joined by commas, all of which must hold. In addition values may hold the globs `*` and
//! `?`, and may be quoted with `"` when they hold commas, parentheses or blanks.

mod parse;

use std::collections::BTreeMap;
use std::fmt;

use globset::{GlobBuilder, GlobMatcher};

pub use parse::SelectorError;

/// Length of a selector, in bytes.
const MAX_BYTES: usize = 8192;

/// A parsed selector. The empty one selects everything.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug)]
struct Requirement {
    label: String,
    operator: Operator,
}

#[derive(Clone, Debug)]
enum Operator {
    Exists,
    Missing,
    In(Vec<Value>),
    NotIn(Vec<Value>),
}

/// A value as written, and how to compare with it.
#[derive(Clone, Debug)]
struct Value {
    text: String,
    glob: Option<GlobMatcher>,
}

impl Selector {
    /// Parses a selector.
    ///
    /// # Errors
    /// A message with the position (in bytes, from 0) and what was expected there.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parse::parse(text)
    }

    /// Everything that both select.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.requirements.extend(other.requirements.iter().cloned());
        self
    }

    /// The requirements on these labels alone.
    #[must_use]
    pub fn about(&self, labels: &[&str]) -> Self {
        let requirements = self.requirements.iter();
        Self {
            requirements: requirements
                .filter(|requirement| labels.contains(&requirement.label.as_str()))
                .cloned()
                .collect(),
        }
    }

    /// Whether labels fulfil every requirement. As in Kubernetes, `!=` and `notin` also hold when the
    /// label is missing.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = labels.get(&requirement.label);
            match &requirement.operator {
                Operator::Exists => value.is_some(),
                Operator::Missing => value.is_none(),
                Operator::In(wanted) => {
                    value.is_some_and(|value| wanted.iter().any(|one| one.matches(value)))
                }
                Operator::NotIn(unwanted) => {
                    value.is_none_or(|value| !unwanted.iter().any(|one| one.matches(value)))
                }
            }
        })
    }
}

impl Value {
    /// A value with globs; `*` also crosses `/`, because a person who writes `path=*.log` means that.
    fn new(text: String, is_quoted: bool) -> Result<Self, String> {
        let has_glob = !is_quoted && text.contains(['*', '?']);
        let glob = if has_glob {
            // Only * and ? are globs here: everything else stands for itself.
            let pattern: String = text
                .chars()
                .flat_map(|character| {
                    let is_special = matches!(character, '[' | ']' | '{' | '}' | '\\');
                    is_special.then_some('\\').into_iter().chain([character])
                })
                .collect();
            let glob = GlobBuilder::new(&pattern)
                .literal_separator(false)
                .backslash_escape(true)
                .build()
                .map_err(|error| error.to_string())?;
            Some(glob.compile_matcher())
        } else {
            None
        };
        Ok(Self { text, glob })
    }

    fn matches(&self, value: &str) -> bool {
        match &self.glob {
            Some(glob) => glob.is_match(value),
            None => self.text == value,
        }
    }
}

impl fmt::Display for Selector {
    /// A selector that means the same.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Requirement { label, operator }) in self.requirements.iter().enumerate() {
            if index > 0 {
                formatter.write_str(",")?;
            }
            match operator {
                Operator::Exists => write!(formatter, "{label}")?,
                Operator::Missing => write!(formatter, "!{label}")?,
                Operator::In(values) if values.len() == 1 => write!(formatter, "{label}={}", values[0])?,
                Operator::NotIn(values) if values.len() == 1 => write!(formatter, "{label}!={}", values[0])?,
                Operator::In(values) => write!(formatter, "{label} in ({})", Values(values))?,
                Operator::NotIn(values) => write!(formatter, "{label} notin ({})", Values(values))?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_bare = !self.text.is_empty() && self.text.chars().all(parse::is_bare_character);
        if is_bare && (self.glob.is_some() || !self.text.contains(['*', '?'])) {
            formatter.write_str(&self.text)
        } else {
            write!(
                formatter,
                "\"{}\"",
                self.text.replace('\\', "\\\\").replace('"', "\\\"")
            )
        }
    }
}

struct Values<'a>(&'a [Value]);

impl fmt::Display for Values<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, value) in self.0.iter().enumerate() {
            write!(formatter, "{}{value}", if index > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn selects(selector: &str, pairs: &[(&str, &str)]) -> bool {
        Selector::parse(selector).unwrap().matches(&labels(pairs))
    }

    #[test]
    fn the_example_of_the_documentation_selects_what_it_says() {
        let selector = "host=build-*,source in (cargo,npm),branch!=main,job";
        assert!(selects(
            selector,
            &[("host", "build-7"), ("source", "npm"), ("job", "1")]
        ));
        assert!(selects(
            selector,
            &[
                ("host", "build-7"),
                ("source", "cargo"),
                ("job", ""),
                ("branch", "x")
            ]
        ));
        assert!(!selects(
            selector,
            &[("host", "ci-7"), ("source", "npm"), ("job", "1")]
        ));
        assert!(!selects(
            selector,
            &[("host", "build-7"), ("source", "make"), ("job", "1")]
        ));
        assert!(!selects(selector, &[("host", "build-7"), ("source", "npm")]));
        assert!(!selects(
            selector,
            &[
                ("host", "build-7"),
                ("source", "npm"),
                ("job", "1"),
                ("branch", "main")
            ]
        ));
    }

    #[test]
    fn every_operator_works_with_and_without_the_label() {
        assert!(selects("", &[]));
        assert!(selects(" a == 1 , b ", &[("a", "1"), ("b", "")]));
        assert!(selects("!a", &[]));
        assert!(!selects("!a", &[("a", "1")]));
        assert!(selects("a notin (1, 2)", &[]));
        assert!(!selects("a notin (1, 2)", &[("a", "2")]));
        assert!(!selects("a=1", &[]));
        assert!(selects("path=*.log", &[("path", "/var/log/app.log")]));
        assert!(selects("path=\"a,b (c)\"", &[("path", "a,b (c)")]));
        assert!(!selects("path=\"*\"", &[("path", "a")]));
        assert!(selects("path=/x[1]?", &[("path", "/x[1]y")]));
        assert!(selects("a=", &[("a", "")]));
    }

    #[test]
    fn errors_name_the_position_and_what_was_expected() {
        for (selector, position) in [
            ("=x", 0),
            ("a b", 2),
            ("a in x", 5),
            ("a in (", 6),
            ("a in (x", 7),
            ("a=x,,b", 4),
            ("a=\"x", 2),
            ("a!b", 1),
            ("a=x)", 3),
            ("ä=x", 0),
        ] {
            let error = Selector::parse(selector).unwrap_err();
            assert_eq!(error.position, position, "{selector}: {error}");
        }
        let message = Selector::parse("host~build").unwrap_err().to_string();
        assert!(message.contains("position 4"), "{message}");
        assert!(Selector::parse(&"a,".repeat(MAX_BYTES)).is_err());
    }

    fn any_value() -> impl Strategy<Value = String> {
        "[a-z0-9*?., ()\"\\\\/-]{0,8}"
    }

    proptest! {
        #[test]
        fn what_is_displayed_parses_to_the_same(
            parts in proptest::collection::vec(("[a-z][a-z0-9./-]{0,5}", 0..6, any_value(), any_value()), 0..5),
            candidates in proptest::collection::vec(("[a-z]", any_value()), 0..5),
        ) {
            let quote = |value: &str| format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
            let text: Vec<String> = parts.iter().map(|(label, operator, one, two)| match operator {
                0 => label.clone(),
                1 => format!("!{label}"),
                2 => format!("{label}={}", quote(one)),
                3 => format!("{label} != {}", quote(one)),
                4 => format!("{label} in ({}, {})", quote(one), quote(two)),
                _ => format!("{label} notin ({},{})", quote(one), quote(two)),
            }).collect();
            let selector = Selector::parse(&text.join(",")).unwrap();
            let again = Selector::parse(&selector.to_string()).unwrap();
            let candidate: BTreeMap<String, String> = candidates.into_iter().collect();
            prop_assert_eq!(selector.to_string(), again.to_string());
            prop_assert_eq!(selector.matches(&candidate), again.matches(&candidate));
        }

        #[test]
        fn any_text_parses_or_is_refused_without_panic(text in "\\PC{0,60}") {
            if let Ok(selector) = Selector::parse(&text) {
                Selector::parse(&selector.to_string()).unwrap();
            }
        }
    }
}
