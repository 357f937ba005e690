//! Fields of JSON lines that become labels of their stream, where they are declared.
//!
//! A stream's labels are decided once, before the relay makes it, and never change: so selectors, scopes and cursors
//! may rely on them. Therefore only the first lines of a new stream are looked at, and only until each declared field
//! has a value; from then on nothing costs anything. A field whose value differs from line to line is no label: its
//! first value counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millstream_proto::limits::MAX_LABEL_NAME_BYTES;
use millstream_proto::v1::Channel;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::Out;

/// What is looked at before a stream is made without the labels that were not found.
const MAX_LINES: usize = 100;
const MAX_BYTES: usize = 64 << 10;
const MAX_WAIT: Duration = Duration::from_secs(2);

/// A value that is longer is text, not a label.
const MAX_VALUE_BYTES: usize = 256;

const MAX_FIELDS: usize = 16;

/// Labels that say what a stream is; nobody else gives them.
const BUILT_IN: [&str; 5] = ["host", "agent", "source", "path", "run"];

/// `json_labels` of a source.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum LabelRules {
    /// Fields, each a label of its own name.
    Fields(Vec<String>),
    /// Fields by label; `a.b` is `b` of the object `a`.
    Labels(BTreeMap<String, String>),
}

/// The same, checked: fields by label.
#[derive(Debug)]
pub struct LabelSettings {
    fields: BTreeMap<String, String>,
}

impl LabelSettings {
    /// `given`: labels that the source has anyway.
    ///
    /// # Errors
    /// A sentence on what is wrong.
    pub fn new(rules: &LabelRules, given: &BTreeMap<String, String>) -> Result<Self, String> {
        let fields: BTreeMap<String, String> = match rules {
            LabelRules::Fields(fields) => fields
                .iter()
                .map(|field| (field.clone(), field.clone()))
                .collect(),
            LabelRules::Labels(labels) => labels.clone(),
        };
        if fields.len() > MAX_FIELDS {
            return Err(format!(
                "json_labels: {} fields; the limit is {MAX_FIELDS}",
                fields.len()
            ));
        }
        for label in fields.keys() {
            let is_name = label.len() <= MAX_LABEL_NAME_BYTES
                && label.starts_with(|first: char| first.is_ascii_alphabetic())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_./-".contains(&byte));
            if !is_name {
                return Err(format!(
                    "json_labels: {label:?} is no name of a label (a letter, then letters, digits and _./-); give the \
                     field another one: {{ name = {label:?} }}"
                ));
            }
            if BUILT_IN.contains(&label.as_str()) {
                return Err(format!(
                    "json_labels: `{label}` is what Millstream itself says of a stream; give the field another name: \
                     {{ app_{label} = {label:?} }}"
                ));
            }
            if given.contains_key(label) {
                return Err(format!(
                    "json_labels: the source has a label `{label}` already; leave out one of them"
                ));
            }
        }
        Ok(Self { fields })
    }
}

/// Looks at the first lines of one stream.
#[derive(Debug)]
pub(super) struct Lifter {
    settings: Arc<LabelSettings>,
    found: BTreeMap<String, String>,
    lines: usize,
    bytes: usize,
    since: Option<Instant>,
}

impl Lifter {
    pub(super) fn new(settings: Arc<LabelSettings>) -> Self {
        Self {
            settings,
            found: BTreeMap::new(),
            lines: 0,
            bytes: 0,
            since: None,
        }
    }

    /// The source goes back to the beginning.
    pub(super) fn begin_anew(&mut self) {
        *self = Self::new(Arc::clone(&self.settings));
    }

    /// Takes in what leaves the host. Text that comes in parts is passed over.
    pub(super) fn look(&mut self, out: &Out<'_>) {
        self.since.get_or_insert_with(Instant::now);
        if out.channel == Channel::Notice {
            return;
        }
        for line in out.text.split_inclusive(|byte| *byte == b'\n') {
            if self.is_done() {
                return;
            }
            self.lines += 1;
            self.bytes += line.len();
            if line.len() <= MAX_BYTES
                && line.trim_ascii_start().first() == Some(&b'{')
                && let Ok(Value::Object(object)) = serde_json::from_slice(line)
            {
                let missing = self
                    .settings
                    .fields
                    .iter()
                    .filter(|(label, _)| !self.found.contains_key(*label));
                let values: Vec<_> = missing
                    .filter_map(|(label, field)| Some((label.clone(), value(&object, field)?)))
                    .collect();
                self.found.extend(values);
            }
        }
    }

    /// Nothing more is looked at.
    pub(super) fn is_done(&self) -> bool {
        self.found.len() == self.settings.fields.len() || self.lines >= MAX_LINES || self.bytes >= MAX_BYTES
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + MAX_WAIT)
    }

    pub(super) fn labels(self) -> BTreeMap<String, String> {
        self.found
    }
}

/// Of a field of its name, or of one within objects.
fn value(object: &serde_json::Map<String, Value>, field: &str) -> Option<String> {
    let found = object.get(field).or_else(|| {
        let (outer, inner) = field.split_once('.')?;
        let mut found = object.get(outer)?;
        for part in inner.split('.') {
            found = found.get(part)?;
        }
        Some(found)
    });
    let text = match found? {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(is_true) => is_true.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    let is_label = !text.is_empty() && text.len() <= MAX_VALUE_BYTES && !text.chars().any(char::is_control);
    is_label.then_some(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::edge::At;

    #[derive(Deserialize)]
    struct Source {
        json_labels: LabelRules,
    }

    fn settings(text: &str) -> Result<LabelSettings, String> {
        let source: Source = toml::from_str(text).unwrap();
        LabelSettings::new(
            &source.json_labels,
            &[("team".to_owned(), "core".to_owned())].into(),
        )
    }

    fn lifted(rules: &str, text: &[u8]) -> (bool, BTreeMap<String, String>) {
        let mut lifter = Lifter::new(Arc::new(settings(rules).unwrap()));
        lifter.look(&Out {
            text,
            channel: Channel::Stdout,
            time_unix_us: 7,
            at: At::Keep,
        });
        (lifter.is_done(), lifter.labels())
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn the_first_value_of_each_declared_field_counts() {
        let rules = "json_labels = { service = 'service', pod = 'kubernetes.pod', v = 'version' }";
        let text = b"starting\n\
            {\"service\":\"api\",\"version\":7,\"other\":\"x\"}\n\
            {\"service\":\"worker\",\"kubernetes\":{\"pod\":\"api-1\"}}\n\
            {\"version\":8}\n";
        let expected = labels(&[("service", "api"), ("pod", "api-1"), ("v", "7")]);
        assert_eq!(lifted(rules, text), (true, expected));
    }

    #[test]
    fn what_is_no_label_is_not_lifted_and_the_search_for_it_ends() {
        let rules = "json_labels = ['a']";
        for line in [
            "{\"a\":null}",
            "{\"a\":{\"b\":1}}",
            "{\"a\":[1]}",
            "{\"a\":\"\"}",
            "{\"a\":\"x\\ny\"}",
            "{\"b\":1}",
            "[1]",
            "{\"a\":1",
            "text",
        ] {
            let text = format!("{line}\n");
            assert_eq!(lifted(rules, text.as_bytes()), (false, labels(&[])), "{line}");
            let many = text.repeat(MAX_LINES);
            assert_eq!(lifted(rules, many.as_bytes()), (true, labels(&[])), "{line}");
        }
        let long = format!("{{\"a\":\"{}\"}}\n", "x".repeat(MAX_VALUE_BYTES + 1));
        assert_eq!(lifted(rules, long.as_bytes()), (false, labels(&[])));
    }

    #[test]
    fn a_field_with_a_point_in_its_name_is_found_before_one_within() {
        let text = b"{\"a\":{\"b\":\"within\"},\"a.b\":\"named\"}\n";
        assert_eq!(
            lifted("json_labels = ['a.b']", text).1,
            labels(&[("a.b", "named")])
        );
    }

    #[test]
    fn names_that_cannot_be_labels_say_why() {
        for (rules, words) in [
            ("json_labels = ['host']", "app_host"),
            ("json_labels = ['team']", "already"),
            ("json_labels = ['@level']", "no name of a label"),
            ("json_labels = { 'x y' = 'x' }", "no name of a label"),
        ] {
            let problem = settings(rules).unwrap_err();
            assert!(problem.contains(words), "{problem}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_looked_at_within_bounds(text: Vec<u8>) {
            let (_, found) = lifted("json_labels = ['a', 'b.c']", &text);
            prop_assert!(found.values().all(|value| value.len() <= MAX_VALUE_BYTES));
        }

        /// However the lines come in pieces, the same is found.
        #[test]
        fn pieces_make_no_difference(
            lines in prop::collection::vec(
                prop_oneof!["[a-z]{0,5}", "\\{\"(a|b)\":\"[a-z]{0,2}\"\\}", "\\{\"a\":[0-9],\"b\":\\{\"c\":true\\}\\}"],
                1..150,
            ),
            piece in 1_usize..20,
        ) {
            let rules = "json_labels = { a = 'a', c = 'b.c' }";
            let lines: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
            let whole = lifted(rules, lines.concat().as_bytes());
            let mut lifter = Lifter::new(Arc::new(settings(rules).unwrap()));
            for lines in lines.chunks(piece) {
                lifter.look(&Out {
                    text: lines.concat().as_bytes(), channel: Channel::Stdout, time_unix_us: 7, at: At::Keep,
                });
            }
            prop_assert_eq!((lifter.is_done(), lifter.labels()), whole);
        }
    }
}
