//! Lines of a block that a filter wants, without a look at the others.
//!
//! The whole text of a block is searched at once, at the speed of the literal or regex engine; a line's columns are
//! read only once there is a candidate in the block. Every candidate is then asked of [`LineFilter`], which alone
//! decides, so that this file can only cost time, never change an answer.

use grep_matcher::{LineMatchKind, Matcher as _};
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use memchr::memmem::Finder;
use millstream_proto::block::{BlockError, Line, Unpacked};
use millstream_proto::v1::{Filter, Severity};
use millstream_severity as severity;

use crate::filter::{AUTOMATON_BYTES, FilterError, LineFilter, REGEX_BYTES};

/// A filter that looks through text.
#[derive(Clone, Debug)]
pub struct Scanner {
    /// `None`: every line is wanted.
    filter: Option<LineFilter>,
    text: TextScan,
}

/// How the next line that may be wanted is found in text that begins at a line.
#[derive(Clone, Debug)]
pub enum TextScan {
    /// Any line may be.
    EveryLine,
    Literal(Finder<'static>),
    /// Bound to lines by its making: it never matches a line end.
    Regex(RegexMatcher),
    /// A warning or an error.
    Trouble,
}

impl Scanner {
    /// # Errors
    /// As [`LineFilter::compile`].
    pub fn new(filter: &Filter) -> Result<Self, FilterError> {
        // First what may be refused, so that it costs no more than that.
        let line_filter = LineFilter::compile(filter)?;
        Ok(Self {
            text: TextScan::new(filter),
            filter: line_filter,
        })
    }

    /// Whether the line is wanted.
    #[must_use]
    pub fn keeps(&self, line: &Line<'_>) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.keeps(line))
    }

    /// Hands every wanted line to `found`, in order, with the place behind it in the block's text. A block whose text holds no candidate is not looked at any
    /// further, damaged or not.
    ///
    /// # Errors
    /// The block does not open.
    pub fn scan<'a>(
        &self,
        block: &Unpacked<'a>,
        mut found: impl FnMut(Line<'a>, usize),
    ) -> Result<(), BlockError> {
        let text = block.text();
        let scan = self.text.for_block(block);
        let Some(mut candidate) = scan.next_candidate(text) else {
            return Ok(());
        };
        let mut lines = block.lines()?;
        while let Some(line) = lines.next() {
            let end = text.len() - lines.rest().len();
            if candidate < end {
                if self.keeps(&line) {
                    found(line, end);
                }
                match scan.next_candidate(&text[end..]) {
                    Some(offset) => candidate = end + offset,
                    None => return Ok(()),
                }
            }
        }
        Ok(())
    }
}

impl TextScan {
    /// The cheapest scan that finds every line the filter wants.
    #[must_use]
    pub fn new(filter: &Filter) -> Self {
        let has_pattern = !(filter.substring.is_empty() && filter.regex.is_empty());
        if has_pattern && !filter.invert {
            let literal = (!filter.substring.is_empty()).then_some(&filter.substring);
            match literal {
                Some(text) if !filter.ignore_case => {
                    return Self::Literal(Finder::new(text.as_bytes()).into_owned());
                }
                Some(text) => {
                    if let Some(scan) = Self::regex(&regex::escape(text), true) {
                        return scan;
                    }
                }
                None => {
                    if let Some(scan) = Self::regex(&filter.regex, filter.ignore_case) {
                        return scan;
                    }
                }
            }
        }
        let is_trouble = |number: &i32| [Severity::Warning.into(), Severity::Error.into()].contains(number);
        if !filter.severities.is_empty() && filter.severities.iter().all(is_trouble) {
            return Self::Trouble;
        }
        Self::EveryLine
    }

    /// Where the agent said how bad lines are, text is no guide to the bad ones.
    fn for_block(&self, block: &Unpacked<'_>) -> &Self {
        match self {
            Self::Trouble if block.says_severities() => &Self::EveryLine,
            scan => scan,
        }
    }

    /// `None`: the pattern cannot be bound to lines (it speaks of line ends, or of the text's begin or end).
    fn regex(pattern: &str, ignore_case: bool) -> Option<Self> {
        let matcher = RegexMatcherBuilder::new()
            .case_insensitive(ignore_case)
            .unicode(true)
            .multi_line(true)
            .line_terminator(Some(b'\n'))
            .size_limit(REGEX_BYTES)
            .dfa_size_limit(AUTOMATON_BYTES)
            .build(pattern)
            .ok()?;
        matcher.line_terminator()?;
        Some(Self::Regex(matcher))
    }

    /// A place in the first line of `text` that may be wanted; `None`: no line of it is. `text` begins at the
    /// beginning of a line.
    fn next_candidate(&self, text: &[u8]) -> Option<usize> {
        let found = match self {
            Self::EveryLine => Some(0),
            Self::Literal(finder) => finder.find(text),
            Self::Regex(matcher) => {
                let found = matcher.find_candidate_line(text).ok().flatten();
                found.map(|found| match found {
                    LineMatchKind::Confirmed(at) | LineMatchKind::Candidate(at) => at,
                })
            }
            Self::Trouble => severity::next_candidate(text),
        };
        // A match of nothing behind the last line end is in no line.
        found.filter(|at| *at < text.len())
    }
}

#[cfg(test)]
mod tests {
    use millstream_proto::block::{BlockBuilder, Unpacker};
    use millstream_proto::v1::Channel;
    use proptest::prelude::*;

    use super::*;

    /// Sequences of the lines that a scan finds, and of those that the filter keeps when each is asked.
    /// `said`: what the agent said of the lines, over and over.
    fn both(filter: &Filter, lines: &[Vec<u8>], said: &[Severity]) -> Option<(Vec<u64>, Vec<u64>)> {
        let scanner = Scanner::new(filter).ok()?;
        let mut builder = BlockBuilder::new();
        let mut said = said.iter().cycle();
        for text in lines {
            assert!(builder.push(&Line {
                sequence: 0,
                time_unix_us: 0,
                channel: Channel::Stdout,
                partial: false,
                severity: said.next().copied().unwrap_or_default(),
                text,
            }));
        }
        let block = builder.finish(0)?;
        let mut unpacker = Unpacker::new();
        let unpacked = unpacker.unpack(&block).unwrap();
        let mut found = Vec::new();
        scanner
            .scan(&unpacked, |line, _| found.push(line.sequence))
            .unwrap();
        let asked = unpacked.lines().unwrap().filter(|line| scanner.keeps(line));
        Some((found, asked.map(|line| line.sequence).collect()))
    }

    fn assert_same(regex: &str, lines: &[&str], expected: &[u64]) {
        let filter = Filter {
            regex: regex.to_owned(),
            ..Filter::default()
        };
        let lines: Vec<_> = lines.iter().map(|line| line.as_bytes().to_vec()).collect();
        let (found, asked) = both(&filter, &lines, &[]).unwrap();
        assert_eq!(found, expected, "{regex}");
        assert_eq!(asked, expected, "{regex}");
    }

    #[test]
    fn patterns_that_could_reach_over_line_ends_stay_within_lines() {
        assert_same("a[^b]*c", &["a", "xc", "ac", "a"], &[2]);
        assert_same("^c$", &["c", "cc", "", "c"], &[0, 3]);
        assert_same(r"\Ac\z", &["c", "cc", "", "c"], &[0, 3]);
        assert_same("^$", &["", "x", ""], &[0, 2]);
        assert_same("x*", &["", "x"], &[0, 1]);
        assert_same(r"a\s+b", &["a", "b", "a b"], &[2]);
        assert_same(r"a\nb|c", &["a", "b", "c"], &[2]);
        assert_same(r"(?s)a.*", &["x", "a", "y"], &[1]);
        assert_same(r"\bfoo\b", &["foo", "xfoo", "foo!"], &[0, 2]);
    }

    fn any_line() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            "[ab c]{0,8}".prop_map(String::into_bytes),
            "(error: |WARN |ab|\u{e4}){0,3}[abc]{0,3}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>().prop_filter("a line", |byte| *byte != b'\n'), 0..10),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn a_scan_finds_exactly_what_the_filter_keeps(
            substring in prop_oneof![Just(String::new()), "[ab]{1,2}", Just("a\nb".to_owned())],
            regex in prop_oneof![
                Just(String::new()),
                "[abc.*?^$ ]{1,6}",
                r"(\\b|\\B|\\s|\\w|\\W|\\A|\\z|a|b|\[\^a\]|\\n|\|){1,5}",
            ],
            ignore_case: bool, invert: bool,
            severities in prop::collection::vec(1..=3_i32, 0..2),
            lines in prop::collection::vec(any_line(), 1..30),
            said in prop::collection::vec(0..4_i32, 0..3),
        ) {
            let said: Vec<_> = said.iter().filter_map(|number| Severity::try_from(*number).ok()).collect();
            let filter = Filter { substring, regex, ignore_case, invert, severities, channels: Vec::new() };
            if let Some((found, asked)) = both(&filter, &lines, &said) {
                prop_assert_eq!(found, asked, "{:?}", filter);
            }
        }
    }
}
