//! The secrets of a stream, and every form in which they are looked for.

use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{GeneralPurpose, general_purpose::NO_PAD};
use regex::bytes::Regex;
use regex_syntax::hir::literal::Extractor;

use super::pairs::Pairs;
use super::sieve::Sieve;

/// Shorter values are refused: masking every `abc` would hide nothing and break everything.
pub(super) const MIN_SECRET_BYTES: usize = 6;

/// Longest value that is taken; more is a file that was named by mistake.
pub(super) const MAX_SECRET_BYTES: usize = 64 << 10;

/// So much of a secret, if it is half of it, is not shown; less says nothing.
const STRONG_BYTES: usize = 4;

/// Of a pattern, what it may begin with: more, or shorter, is found too often to be worth a search of its own.
const MAX_BEGINNINGS: usize = 8;
const MIN_BEGINNING_BYTES: usize = 3;

/// What is looked for: the plain values in all their forms, and patterns.
#[derive(Debug, Clone)]
pub(super) struct Secrets {
    /// Sorted; without line ends, as the text that they are compared with.
    forms: Vec<Vec<u8>>,
    finder: Option<AhoCorasick>,
    /// Says where none is.
    pub(super) sieve: Sieve,
    /// With which forms begin.
    first: Pairs,
    longest: usize,
    pub(super) patterns: Vec<Regex>,
    /// The sieve does not know what they match.
    patterns_hide: bool,
    /// All of them in one; `None`: there is one, or they cannot be put together.
    any_pattern: Option<Regex>,
}

impl Secrets {
    pub(super) fn new(values: &BTreeSet<Vec<u8>>, patterns: Vec<Regex>) -> Self {
        let by_value: Vec<Vec<Vec<u8>>> = values
            .iter()
            .map(|value| {
                // First: what is a piece of it is mostly in others.
                let mut all = vec![value.clone()];
                all.extend(forms(value).into_iter().filter(|form| form != value));
                all
            })
            .collect();
        let beginnings: Option<Vec<_>> = patterns.iter().map(beginnings).collect();
        let sieve = Sieve::new(&by_value, &beginnings.as_deref().unwrap_or_default().concat());
        let forms: BTreeSet<Vec<u8>> = by_value.into_iter().flatten().collect();
        let forms: Vec<Vec<u8>> = forms.into_iter().collect();
        let mut first = Pairs::default();
        for form in &forms {
            first.insert(form[0], form[1]);
        }
        let finder = (!forms.is_empty()).then(|| {
            AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .kind(Some(if forms.len() <= 200 {
                    AhoCorasickKind::DFA
                } else {
                    AhoCorasickKind::ContiguousNFA
                }))
                .build(&forms)
                .expect("the number and length of forms are bounded far below the automaton's limits")
        });
        Self {
            longest: forms.iter().map(Vec::len).max().unwrap_or(0),
            forms,
            finder,
            sieve,
            first,
            patterns_hide: beginnings.is_none(),
            any_pattern: any_of(&patterns),
            patterns,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.forms.is_empty() && self.patterns.is_empty()
    }

    pub(super) fn has_forms(&self) -> bool {
        !self.forms.is_empty()
    }

    /// The patterns that a text has to be searched for. `suspected`: the sieve finds something in it.
    pub(super) fn patterns_for(&self, suspected: bool) -> &[Regex] {
        if suspected || self.patterns_hide {
            &self.patterns
        } else {
            &[]
        }
    }

    /// Some pattern may match.
    pub(super) fn patterns_may_match(&self, text: &[u8]) -> bool {
        self.any_pattern.as_ref().is_none_or(|any| any.is_match(text))
    }

    /// So many bytes at the end of a text may be the beginning of a secret.
    pub(super) fn longest_beginning(&self) -> usize {
        self.longest.saturating_sub(1)
    }

    /// Where secrets are in a clean text.
    pub(super) fn find<'a>(&'a self, clean: &'a [u8]) -> impl Iterator<Item = std::ops::Range<usize>> + 'a {
        self.finder
            .iter()
            .flat_map(move |finder| finder.find_iter(clean))
            .map(|found| found.range())
    }

    /// Where the end of a clean text may be the beginning of a secret: the first such place, and whether it is so
    /// much of one that it must not be shown.
    pub(super) fn live_tail(&self, clean: &[u8]) -> Option<(usize, bool)> {
        let from = clean.len().saturating_sub(self.longest_beginning());
        let mut lives = (from..clean.len())
            .filter(|at| {
                clean
                    .get(at + 1)
                    .is_none_or(|second| self.first.has(clean[*at], *second))
            })
            .filter_map(|at| {
                let tail = &clean[at..];
                let index = self.forms.partition_point(|form| form.as_slice() < tail);
                let begins = self.forms[index..]
                    .iter()
                    .take_while(|form| form.starts_with(tail));
                let shortest = begins
                    .filter(|form| form.len() > tail.len())
                    .map(Vec::len)
                    .min()?;
                Some((at, tail.len() >= STRONG_BYTES && tail.len() * 2 >= shortest))
            });
        let (first, first_is_strong) = lives.next()?;
        Some((first, first_is_strong || lives.any(|(_, is_strong)| is_strong)))
    }
}

fn any_of(patterns: &[Regex]) -> Option<Regex> {
    let all: Vec<String> = patterns
        .iter()
        .map(|pattern| format!("(?:{})", pattern.as_str()))
        .collect();
    (patterns.len() > 1)
        .then(|| Regex::new(&all.join("|")).ok())
        .flatten()
}

/// One of these begins whatever the pattern matches; `None`: that may begin with too much, or with too little to be
/// searched for.
fn beginnings(pattern: &Regex) -> Option<Vec<Vec<u8>>> {
    let pattern = regex_syntax::ParserBuilder::new()
        .utf8(false)
        .build()
        .parse(pattern.as_str())
        .ok()?;
    let found = Extractor::new().limit_total(MAX_BEGINNINGS).extract(&pattern);
    let found: Vec<_> = found
        .literals()?
        .iter()
        .map(|literal| literal.as_bytes().to_vec())
        .collect();
    found
        .iter()
        .all(|beginning| beginning.len() >= MIN_BEGINNING_BYTES)
        .then_some(found)
}

/// Why a value is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    TooShort,
    TooLong,
}

/// The values that a text stands for: itself, and each of its lines. Empty when it cannot be one.
pub(super) fn values(text: &[u8]) -> Result<Vec<Vec<u8>>, Refused> {
    let text = text.trim_ascii();
    if text.len() > MAX_SECRET_BYTES {
        return Err(Refused::TooLong);
    }
    // Text is compared without its line ends.
    let whole: Vec<u8> = text
        .iter()
        .copied()
        .filter(|byte| !matches!(byte, b'\n' | b'\r'))
        .collect();
    if whole.len() < MIN_SECRET_BYTES {
        return Err(Refused::TooShort);
    }
    let mut values = vec![whole];
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    // Frames like `-----BEGIN PRIVATE KEY-----` are no secret.
    let lines = lines.filter(|line| line.len() >= MIN_SECRET_BYTES && !line.starts_with(b"-----"));
    values.extend(lines.map(<[u8]>::to_vec));
    Ok(values)
}

/// A value as it is, in base64 at each of the three places where it can begin in a longer text, URL-encoded and
/// as the inside of a JSON string.
fn forms(value: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut forms = BTreeSet::from([value.to_vec()]);
    for alphabet in [&alphabet::STANDARD, &alphabet::URL_SAFE] {
        let engine = GeneralPurpose::new(alphabet, NO_PAD);
        for offset in 0..3 {
            let mut text = vec![0; offset];
            text.extend_from_slice(value);
            let encoded = engine.encode(&text).into_bytes();
            // Characters that also hold bits of what stands before or after are not the value's alone.
            let start = (offset * 8).div_ceil(6);
            let end = (text.len() * 8) / 6;
            if end - start >= MIN_SECRET_BYTES {
                forms.insert(encoded[start..end].to_vec());
            }
        }
    }
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let component = |byte: u8| unreserved(byte) || b"!'()*".contains(&byte);
    let whole_url = |byte: u8| component(byte) || b";,/?:@&=+$#".contains(&byte);
    for hex in [b"0123456789ABCDEF", b"0123456789abcdef"] {
        forms.insert(url(value, hex, unreserved, false));
        forms.insert(url(value, hex, unreserved, true));
        forms.insert(url(value, hex, component, false));
        forms.insert(url(value, hex, whole_url, false));
        forms.insert(url(value, hex, |_| false, false));
    }
    if let Ok(text) = std::str::from_utf8(value) {
        let quoted = serde_json::Value::from(text).to_string();
        forms.insert(quoted.as_bytes()[1..quoted.len() - 1].to_vec());
    }
    forms
}

fn url(value: &[u8], hex: &[u8; 16], keeps: impl Fn(u8) -> bool, plus_for_space: bool) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(value.len());
    for byte in value {
        if keeps(*byte) {
            encoded.push(*byte);
        } else if plus_for_space && *byte == b' ' {
            encoded.push(b'+');
        } else {
            encoded.extend([b'%', hex[usize::from(byte >> 4)], hex[usize::from(byte & 15)]]);
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secrets(values: &[&str]) -> Secrets {
        Secrets::new(
            &values.iter().map(|value| value.as_bytes().to_vec()).collect(),
            Vec::new(),
        )
    }

    proptest! {
        /// Wherever a value begins in a longer text, the text's base64 holds one of its forms.
        #[test]
        fn base64_of_a_longer_text_is_recognised(
            before in prop::collection::vec(any::<u8>(), 0..20),
            value in prop::collection::vec(any::<u8>(), 6..40),
            after in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let secrets = Secrets::new(&BTreeSet::from([value.clone()]), Vec::new());
            let text = [before, value, after].concat();
            for engine in [&base64::engine::general_purpose::STANDARD, &base64::engine::general_purpose::URL_SAFE] {
                let encoded = engine.encode(&text);
                prop_assert!(secrets.find(encoded.as_bytes()).next().is_some());
            }
        }
    }

    #[test]
    fn values_are_trimmed_split_and_refused_when_they_are_short() {
        assert_eq!(values(b" short "), Err(Refused::TooShort));
        assert_eq!(
            values(b"secret\n"),
            Ok(vec![b"secret".to_vec(), b"secret".to_vec()])
        );
        let key = b"-----BEGIN KEY-----\r\nAAAABBBB\r\nCC\r\n-----END KEY-----\n";
        let found = values(key).unwrap();
        assert_eq!(found[0], b"-----BEGIN KEY-----AAAABBBBCC-----END KEY-----");
        assert_eq!(found[1..], [b"AAAABBBB".to_vec()]);
    }

    #[test]
    fn url_and_json_forms_are_recognised() {
        let secrets = secrets(&["p@ss w\"rd/1"]);
        for form in [
            "p%40ss%20w%22rd%2F1",
            "p%40ss+w%22rd%2f1",
            "p@ss%20w%22rd/1",
            "p@ss w\\\"rd/1",
            "p@ss w\"rd/1",
        ] {
            assert!(
                secrets.find(format!("x{form}y").as_bytes()).next().is_some(),
                "{form}"
            );
        }
    }

    #[test]
    fn the_beginning_of_a_secret_at_the_end_is_live() {
        let secrets = secrets(&["hunter2!", "hunting-season"]);
        assert_eq!(secrets.live_tail(b"go hunt"), Some((3, true)));
        assert_eq!(secrets.live_tail(b"go hun"), Some((3, false)));
        assert_eq!(secrets.live_tail(b"go fishing."), None);
        assert_eq!(secrets.live_tail(b"hunter2!"), None, "it is found, not expected");
    }
}
