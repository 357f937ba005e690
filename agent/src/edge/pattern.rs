//! Patterns that are asked of lines, and how the next line that may match is found in a whole batch without a look at
//! the lines before it. Nothing here knows what a match means.

use grep_matcher::{LineMatchKind, Matcher as _};
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use regex::bytes::{Regex, RegexBuilder};

/// Compiled size of a pattern, and of its lazily built automaton, bytes.
const PATTERN_BYTES: usize = 1 << 20;

/// A regular expression on the text of one line.
#[derive(Debug, Clone)]
pub(super) struct LinePattern {
    regex: Regex,
    /// Bound to lines by its making; `None` where the pattern speaks of line ends, or of the text's begin or end.
    finder: Option<RegexMatcher>,
}

impl LinePattern {
    /// # Errors
    /// Why it is no pattern.
    pub(super) fn new(pattern: &str) -> Result<Self, String> {
        let regex = RegexBuilder::new(pattern)
            .size_limit(PATTERN_BYTES)
            .dfa_size_limit(PATTERN_BYTES)
            .build()
            .map_err(|error| error.to_string())?;
        let finder = RegexMatcherBuilder::new()
            .multi_line(true)
            .line_terminator(Some(b'\n'))
            .size_limit(PATTERN_BYTES)
            .dfa_size_limit(PATTERN_BYTES)
            .build(pattern)
            .ok()
            .filter(|matcher| matcher.line_terminator().is_some());
        Ok(Self { regex, finder })
    }

    pub(super) fn as_str(&self) -> &str {
        self.regex.as_str()
    }

    /// `line` is without its `\n`.
    pub(super) fn is_match(&self, line: &[u8]) -> bool {
        self.regex.is_match(line)
    }

    /// A place within the first line of `text` that may match; `None`: no line of it does. `text` begins at the
    /// beginning of a line.
    pub(super) fn next_candidate(&self, text: &[u8]) -> Option<usize> {
        let Some(finder) = &self.finder else {
            return (!text.is_empty()).then_some(0);
        };
        let found = finder.find_candidate_line(text).ok().flatten()?;
        let (LineMatchKind::Confirmed(at) | LineMatchKind::Candidate(at)) = found;
        // A match of nothing behind the last line end is in no line.
        (at < text.len()).then_some(at)
    }
}

/// The next line of a text that one of several scans calls a candidate. Each scan goes over the text once, however
/// often the others find something.
#[derive(Debug)]
pub(super) struct NextLine<'t> {
    text: &'t [u8],
    /// By scan: its first candidate from the last place on that was asked for.
    found: Vec<Option<usize>>,
    asked: usize,
}

impl<'t> NextLine<'t> {
    pub(super) fn new(text: &'t [u8]) -> Self {
        Self {
            text,
            found: Vec::new(),
            asked: 0,
        }
    }

    /// Start of the first candidate line that is not before `at`, which is the beginning of a line and never goes
    /// back. `scans` are the same each time.
    pub(super) fn find<S: Fn(&[u8]) -> Option<usize>>(
        &mut self,
        at: usize,
        scans: impl Iterator<Item = S>,
    ) -> Option<usize> {
        debug_assert!(self.asked <= at, "it only goes forward");
        self.asked = at;
        let mut nearest: Option<usize> = None;
        for (index, scan) in scans.enumerate() {
            if index == self.found.len() {
                self.found.push(scan(&self.text[at..]).map(|offset| at + offset));
            } else if self.found[index].is_some_and(|found| found < at) {
                self.found[index] = scan(&self.text[at..]).map(|offset| at + offset);
            }
            nearest = [nearest, self.found[index]].into_iter().flatten().min();
        }
        let place = nearest?;
        let before = memchr::memrchr(b'\n', &self.text[at..place]);
        Some(before.map_or(at, |newline| at + newline + 1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Whatever the patterns are, the lines that are passed over match none of them.
        #[test]
        fn no_line_that_matches_is_passed_over(
            patterns in prop::collection::vec(
                prop_oneof![
                    "[abc.*?^$ ]{1,6}",
                    r"(\\b|\\B|\\s|\\w|\\W|\\A|\\z|a|b|\[\^a\]|\\n|\|){1,5}",
                ],
                1..4,
            ),
            text in "([ab c]{0,6}\n){1,20}",
        ) {
            let patterns: Vec<_> = patterns.iter().filter_map(|pattern| LinePattern::new(pattern).ok()).collect();
            let matches = |line: &[u8]| patterns.iter().any(|pattern| pattern.is_match(line));
            let mut next = NextLine::new(text.as_bytes());
            let mut found = Vec::new();
            let mut at = 0;
            while let Some(start) = next.find(at, patterns.iter().map(|p| |text: &[u8]| p.next_candidate(text))) {
                let line = text[start..].split('\n').next().unwrap_or_default();
                if matches(line.as_bytes()) {
                    found.push(start);
                }
                at = start + line.len() + 1;
            }
            let mut expected = Vec::new();
            let mut start = 0;
            for line in text.split_terminator('\n') {
                if matches(line.as_bytes()) {
                    expected.push(start);
                }
                start += line.len() + 1;
            }
            prop_assert_eq!(found, expected);
        }
    }
}
