//! Which lines a reader wants: substring, regular expression, channel, severity.

use memchr::memmem::Finder;
use millstream_proto::block::Line;
use millstream_proto::v1::{self, Channel, Filter};
use millstream_severity::Severity;
use regex::bytes::{Regex, RegexBuilder};

/// Compiled size of a regular expression, in bytes. It is also what one byte of text costs at worst: an expression whose
/// automaton would explode is followed state by state, in time linear in the text and in this.
pub(crate) const REGEX_BYTES: usize = 256 << 10;

/// Memory of the automaton that is built while text is read, per search and thread.
pub(crate) const AUTOMATON_BYTES: usize = 1 << 20;

/// Length of a pattern as written, in bytes.
const PATTERN_BYTES: usize = 4096;

/// Why a filter cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("the regular expression is not valid: {0}")]
    Regex(String),
    #[error("the {what} has {bytes} bytes; the limit is {PATTERN_BYTES}")]
    TooLong { what: &'static str, bytes: usize },
    #[error("channel {0} is not known; known are 0 (stdout), 1 (stderr) and 2 (notice)")]
    Channel(i32),
    #[error("severity {0} is not known; known are 1 (none), 2 (warning) and 3 (error)")]
    Severity(i32),
}

/// A compiled [`Filter`]. Matching takes time linear in the line.
#[derive(Clone, Debug)]
pub struct LineFilter {
    substring: Option<Finder<'static>>,
    /// All of them must match: the one that was asked for, and the substring when case is ignored.
    regexes: Vec<Regex>,
    /// One of them was asked for.
    has_regex: bool,
    invert: bool,
    /// By channel number; all when empty in the request.
    channels: [bool; 3],
    /// By [`Severity`]; all when empty in the request.
    severities: [bool; 3],
}

impl LineFilter {
    /// Compiles a filter; `None` when it keeps every line.
    ///
    /// # Errors
    /// A pattern that does not parse or is too large, or a channel that does not exist.
    pub fn compile(filter: &Filter) -> Result<Option<Self>, FilterError> {
        for (what, pattern) in [
            ("substring", &filter.substring),
            ("regular expression", &filter.regex),
        ] {
            if pattern.len() > PATTERN_BYTES {
                return Err(FilterError::TooLong {
                    what,
                    bytes: pattern.len(),
                });
            }
        }
        let mut channels = [filter.channels.is_empty(); 3];
        for number in &filter.channels {
            let channel = usize::try_from(*number)
                .ok()
                .and_then(|index| channels.get_mut(index));
            *channel.ok_or(FilterError::Channel(*number))? = true;
        }
        let mut severities = [filter.severities.is_empty(); 3];
        for number in &filter.severities {
            let known = v1::Severity::try_from(*number).ok();
            let severity = known.and_then(|severity| Severity::try_from(severity).ok());
            severities[severity.ok_or(FilterError::Severity(*number))? as usize] = true;
        }
        // Case is the regex engine's trade, also for plain text.
        let (substring, folded) = match filter.substring.as_str() {
            "" => (None, None),
            text if filter.ignore_case => (None, Some(regex::escape(text))),
            text => (Some(Finder::new(text.as_bytes()).into_owned()), None),
        };
        let asked = (!filter.regex.is_empty()).then(|| filter.regex.clone());
        let regexes = folded
            .iter()
            .chain(&asked)
            .map(|pattern| compile_regex(pattern, filter.ignore_case))
            .collect::<Result<Vec<_>, _>>()?;
        let keeps_all =
            substring.is_none() && regexes.is_empty() && channels == [true; 3] && severities == [true; 3];
        Ok((!keeps_all).then_some(Self {
            substring,
            has_regex: asked.is_some(),
            regexes,
            invert: filter.invert,
            channels,
            severities,
        }))
    }

    /// Whether asking may take long: a regular expression that a stranger wrote can cost a thousand times as much a byte as
    /// a plain one. Such a filter is asked on threads of low priority.
    #[must_use]
    pub fn may_be_slow(&self) -> bool {
        self.has_regex
    }

    /// Whether the reader wants the line.
    #[must_use]
    pub fn keeps(&self, line: &Line<'_>) -> bool {
        let channel = match line.channel {
            Channel::Stdout => 0,
            Channel::Stderr => 1,
            Channel::Notice => 2,
        };
        if !self.channels[channel] {
            return false;
        }
        self.text_is_wanted(line.text)
            && (self.severities == [true; 3] || self.severities[severity(line) as usize])
    }

    fn text_is_wanted(&self, text: &[u8]) -> bool {
        if self.substring.is_none() && self.regexes.is_empty() {
            return true;
        }
        let matches = self
            .substring
            .as_ref()
            .is_none_or(|finder| finder.find(text).is_some())
            && self.regexes.iter().all(|regex| regex.is_match(text));
        matches != self.invert
    }
}

/// Of a line: as its agent said, or else as its text looks. What Millstream says itself is no trouble of the build.
pub(crate) fn severity(line: &Line<'_>) -> Severity {
    match line.channel {
        Channel::Notice => Severity::None,
        Channel::Stdout | Channel::Stderr => {
            Severity::try_from(line.severity).unwrap_or_else(|()| Severity::of(line.text))
        }
    }
}

fn compile_regex(pattern: &str, ignore_case: bool) -> Result<Regex, FilterError> {
    RegexBuilder::new(pattern)
        .case_insensitive(ignore_case)
        .unicode(true)
        .size_limit(REGEX_BYTES)
        .dfa_size_limit(AUTOMATON_BYTES)
        .build()
        .map_err(|error| FilterError::Regex(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &[u8], channel: Channel) -> Line<'_> {
        Line {
            sequence: 0,
            time_unix_us: 0,
            channel,
            partial: false,
            severity: v1::Severity::Unspecified,
            text,
        }
    }

    fn keeps(filter: &Filter, text: &[u8]) -> bool {
        LineFilter::compile(filter)
            .unwrap()
            .expect("it filters")
            .keeps(&line(text, Channel::Stdout))
    }

    #[test]
    fn an_empty_filter_is_none() {
        assert!(LineFilter::compile(&Filter::default()).unwrap().is_none());
    }

    #[test]
    fn patterns_match_bytes_and_case_as_asked() {
        let substring = Filter {
            substring: "error:".to_owned(),
            ..Filter::default()
        };
        assert!(keeps(&substring, b"\xff error: x"));
        assert!(!keeps(&substring, b"Error: x"));
        assert!(keeps(
            &Filter {
                ignore_case: true,
                ..substring.clone()
            },
            b"Error: x"
        ));
        assert!(!keeps(
            &Filter {
                invert: true,
                ..substring
            },
            b"error: x"
        ));
        let regex = Filter {
            regex: "^err.*[0-9]$".to_owned(),
            ..Filter::default()
        };
        assert!(keeps(&regex, b"error E0425 in line 7"));
        assert!(!keeps(&regex, b"no error 7 "));
    }

    #[test]
    fn substring_and_regex_must_both_match_with_and_without_case() {
        let both = Filter {
            substring: "main.rs".to_owned(),
            regex: "^error".to_owned(),
            ..Filter::default()
        };
        assert!(keeps(&both, b"error in main.rs"));
        assert!(!keeps(&both, b"error in mainXrs"));
        assert!(!keeps(&both, b"warning in main.rs"));
        assert!(!keeps(&both, b"Error in main.rs"));
        let folded = Filter {
            ignore_case: true,
            ..both
        };
        assert!(keeps(&folded, b"ERROR in Main.RS"));
        assert!(!keeps(&folded, b"ERROR in mainXrs"));
        assert!(!keeps(&folded, b"warning in Main.RS"));
    }

    #[test]
    fn channels_choose_before_patterns_do() {
        let filter = Filter {
            channels: vec![1],
            substring: "x".to_owned(),
            invert: true,
            ..Filter::default()
        };
        let filter = LineFilter::compile(&filter).unwrap().unwrap();
        assert!(filter.keeps(&line(b"y", Channel::Stderr)));
        assert!(!filter.keeps(&line(b"x", Channel::Stderr)));
        assert!(!filter.keeps(&line(b"y", Channel::Stdout)));
    }

    #[test]
    fn severities_choose_beside_patterns_and_invert_does_not_turn_them_round() {
        let mut filter = Filter {
            severities: vec![v1::Severity::Error.into()],
            ..Filter::default()
        };
        assert!(keeps(&filter, b"error: x"));
        assert!(!keeps(&filter, b"warning: x"));
        assert!(!keeps(&filter, b"x"));
        filter.substring = "x".to_owned();
        filter.invert = true;
        assert!(keeps(&filter, b"error: y"));
        assert!(!keeps(&filter, b"error: x"));
        assert!(!keeps(&filter, b"y"));
        filter.severities = vec![9];
        assert_eq!(
            LineFilter::compile(&filter).unwrap_err(),
            FilterError::Severity(9)
        );
        let notice = LineFilter::compile(&Filter {
            severities: vec![v1::Severity::Error.into()],
            ..Filter::default()
        });
        assert!(
            !notice
                .unwrap()
                .unwrap()
                .keeps(&line(b"error: x", Channel::Notice))
        );
    }

    #[test]
    fn what_the_agent_said_of_a_line_wins_over_its_looks() {
        let filter = Filter {
            severities: vec![v1::Severity::Error.into()],
            ..Filter::default()
        };
        let filter = LineFilter::compile(&filter).unwrap().unwrap();
        let said = |text, severity| Line {
            severity,
            ..line(text, Channel::Stdout)
        };
        assert!(filter.keeps(&said(b"all is well", v1::Severity::Error)));
        assert!(!filter.keeps(&said(b"error: x", v1::Severity::None)));
        assert!(!filter.keeps(&said(b"error: x", v1::Severity::Warning)));
        assert!(filter.keeps(&said(b"error: x", v1::Severity::Unspecified)));
    }

    #[test]
    fn patterns_that_do_not_parse_or_would_explode_are_refused() {
        for regex in ["(", "[z-a]", "(a{1000}){1000}"] {
            let filter = Filter {
                regex: regex.to_owned(),
                ..Filter::default()
            };
            assert!(
                matches!(LineFilter::compile(&filter), Err(FilterError::Regex(_))),
                "{regex}"
            );
        }
        let channel = Filter {
            channels: vec![7],
            ..Filter::default()
        };
        assert_eq!(
            LineFilter::compile(&channel).unwrap_err(),
            FilterError::Channel(7)
        );
    }
}
