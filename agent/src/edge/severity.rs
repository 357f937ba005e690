//! How bad lines are, said where it is configured, so that nobody has to judge by the text later.
//!
//! It looks at lines as they leave the host: joined, thinned out and masked. A line that comes in parts is judged part
//! by part. Text is not changed.

use millstream_proto::v1;
use millstream_severity::{Severity, next_candidate};
use serde::Deserialize;

use super::pattern::{LinePattern, NextLine};

const MAX_PATTERNS: usize = 64;

/// `severity` of a source.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum SeverityRules {
    /// `"auto"`: as the text looks.
    Word(String),
    Table(SeverityTable),
}

/// Patterns by severity; the first that matches decides, errors before warnings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeverityTable {
    /// What matches is never bad, whatever matches below.
    #[serde(default)]
    none: Vec<String>,
    #[serde(default)]
    error: Vec<String>,
    #[serde(default)]
    warning: Vec<String>,
    /// What nothing matches: `"auto"` (as the text looks) or `"none"`.
    otherwise: Option<String>,
}

/// The same, checked.
#[derive(Debug)]
pub struct SeveritySettings {
    /// In the order in which they are asked.
    patterns: Vec<(LinePattern, Severity)>,
    /// Lines that no pattern matches are judged by their looks.
    is_auto: bool,
}

impl SeveritySettings {
    /// # Errors
    /// A sentence on what is wrong.
    pub fn new(rules: &SeverityRules) -> Result<Self, String> {
        let table = match rules {
            SeverityRules::Word(word) if word == "auto" => {
                return Ok(Self {
                    patterns: Vec::new(),
                    is_auto: true,
                });
            }
            SeverityRules::Word(word) => {
                return Err(format!(
                    "severity: {word:?} is not known; write \"auto\", or patterns: \
                     {{ error = [\"^E \"], warning = [\"^W \"] }}"
                ));
            }
            SeverityRules::Table(table) => table,
        };
        let is_auto = match table.otherwise.as_deref() {
            None | Some("auto") => true,
            Some("none") => false,
            Some(other) => {
                return Err(format!(
                    "severity.otherwise: {other:?} is not known; write \"auto\" or \"none\""
                ));
            }
        };
        let groups = [
            ("none", &table.none, Severity::None),
            ("error", &table.error, Severity::Error),
            ("warning", &table.warning, Severity::Warning),
        ];
        let mut patterns = Vec::new();
        for (name, group, severity) in groups {
            for pattern in group {
                let pattern =
                    LinePattern::new(pattern).map_err(|error| format!("severity.{name}: {error}"))?;
                patterns.push((pattern, severity));
            }
        }
        if patterns.len() > MAX_PATTERNS {
            return Err(format!(
                "severity: {} patterns; the limit is {MAX_PATTERNS}",
                patterns.len()
            ));
        }
        Ok(Self { patterns, is_auto })
    }

    /// Of the text of one line, without its `\n`.
    pub(crate) fn of(&self, line: &[u8]) -> v1::Severity {
        let matching = self.patterns.iter().find(|(pattern, _)| pattern.is_match(line));
        let severity = match matching {
            Some((_, severity)) => *severity,
            None if self.is_auto => Severity::of(line),
            None => Severity::None,
        };
        severity.into()
    }

    /// The severities of whole lines.
    pub(crate) fn judge<'a>(&'a self, lines: &'a [u8]) -> Judged<'a> {
        Judged {
            settings: self,
            next: NextLine::new(lines),
            lines,
            at: 0,
        }
    }
}

/// Goes through lines, run by run.
#[derive(Debug)]
pub(crate) struct Judged<'a> {
    settings: &'a SeveritySettings,
    next: NextLine<'a>,
    lines: &'a [u8],
    at: usize,
}

impl Judged<'_> {
    /// The severity of the next line, and the bytes of lines from there on that have the same and end within the next
    /// `room` bytes.
    pub(crate) fn next_run(&mut self, room: usize) -> (v1::Severity, usize) {
        let rest = &self.lines[self.at..self.at + room];
        let scans = self.settings.scans();
        let bad = self
            .next
            .find(self.at, scans)
            .map_or(rest.len(), |start| start - self.at);
        let (severity, bytes) = if bad > 0 {
            // No pattern matches, and nothing looks bad.
            (v1::Severity::None, bad.min(rest.len()))
        } else {
            let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            (self.settings.of(&rest[..end]), (end + 1).min(rest.len()))
        };
        self.at += bytes;
        (severity, bytes)
    }
}

impl SeveritySettings {
    /// What finds lines that may be bad.
    fn scans(&self) -> impl Iterator<Item = impl Fn(&[u8]) -> Option<usize>> {
        let patterns = self.patterns.iter().map(|(pattern, _)| Some(pattern));
        let auto = self.is_auto.then_some(None);
        patterns.chain(auto).map(|pattern| {
            move |text: &[u8]| match pattern {
                Some(pattern) => pattern.next_candidate(text),
                None => next_candidate(text),
            }
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Deserialize)]
    struct Source {
        severity: SeverityRules,
    }

    fn settings(text: &str) -> Result<SeveritySettings, String> {
        let source: Source = toml::from_str(text).unwrap();
        SeveritySettings::new(&source.severity)
    }

    fn judged(settings: &SeveritySettings, text: &[u8]) -> Vec<v1::Severity> {
        let mut judged = settings.judge(text);
        let mut at = 0;
        let mut all = Vec::new();
        while at < text.len() {
            let (severity, bytes) = judged.next_run(text.len() - at);
            let lines = memchr::memchr_iter(b'\n', &text[at..at + bytes]).count();
            all.extend(std::iter::repeat_n(severity, lines));
            at += bytes;
        }
        all
    }

    #[test]
    fn patterns_decide_before_looks_and_what_is_expected_before_all() {
        let settings = settings(
            "severity = { error = ['^E '], warning = ['^W ', 'slow'], none = ['expected'], otherwise = 'auto' }",
        )
        .unwrap();
        let text = b"E disk\nall well\nW slow\nerror: x\nE expected\nerror: slow\nwarning: y\n";
        assert_eq!(
            judged(&settings, text),
            [
                v1::Severity::Error,
                v1::Severity::None,
                v1::Severity::Warning,
                v1::Severity::Error,
                v1::Severity::None,
                v1::Severity::Warning,
                v1::Severity::Warning
            ]
        );
    }

    #[test]
    fn without_looks_only_patterns_decide() {
        let settings = settings("severity = { error = ['^E '], otherwise = 'none' }").unwrap();
        assert_eq!(
            judged(&settings, b"error: x\nE x\n"),
            [v1::Severity::None, v1::Severity::Error]
        );
    }

    #[test]
    fn rules_that_cannot_be_used_say_why() {
        for (text, words) in [
            ("severity = 'loud'", "write \"auto\""),
            ("severity = { error = ['('] }", "severity.error: "),
            ("severity = { otherwise = 'error' }", "severity.otherwise: "),
        ] {
            let problem = settings(text).unwrap_err();
            assert!(problem.contains(words), "{problem}");
        }
        assert!(toml::from_str::<Source>("severity = { fatal = [] }").is_err());
    }

    proptest! {
        /// However lines are looked for, each has the severity that it has alone.
        #[test]
        fn lines_are_judged_in_runs_as_they_are_alone(
            lines in prop::collection::vec(
                prop_oneof!["[a-z ]{0,12}", "[EW] [a-z]{0,4}", "[a-z]{0,3}(error: |WARN |panicked at)[a-z]{0,3}"],
                1..30,
            ),
            has_patterns: bool, is_auto: bool,
        ) {
            let otherwise = if is_auto { "auto" } else { "none" };
            let patterns = if has_patterns { "error = ['^E'], warning = ['W', 'b$'], none = ['x']," } else { "" };
            let settings = settings(&format!("severity = {{ {patterns} otherwise = '{otherwise}' }}")).unwrap();
            let text: Vec<u8> = lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect();
            let alone: Vec<_> = lines.iter().map(|line| settings.of(line.as_bytes())).collect();
            prop_assert_eq!(judged(&settings, &text), alone);
        }
    }
}
