//! Pieces of forms, searched for all at once.

use std::collections::BTreeSet;
use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind, Span, packed};
use memchr::memmem::{self, Finder};

use super::super::commands::MARKERS;
use super::super::secrets::MIN_SECRET_BYTES;
use super::super::strip::{is_hidden, visible_from};
use super::seams::Within;

/// One vectorised search takes so many needles, and so many of them are faster than an automaton.
const MAX_PACKED: usize = 64;
const MAX_SEARCHES: usize = 16;

/// Of a long form, so many places are considered for its needle.
const MAX_WINDOWS: usize = 256;

/// The vectorised search compares as many bytes at once as the shortest needle has, up to four. Three cost a third less
/// and are hardly found more often, so of one marker, which begins like no other text, only so much is searched for.
const COMPARED_BYTES: usize = 3;

/// Of what stands around a needle in its form, so many bytes are compared on each side.
const AROUND_BYTES: usize = 32;

#[derive(Debug, Clone)]
pub(super) struct Needles {
    search: Search,
    /// Bytes of the longest one.
    longest: usize,
    /// By what begins with the needle.
    expected: Vec<Expected>,
}

#[derive(Debug, Clone)]
enum Search {
    Markers(Box<[Finder<'static>; MARKERS.len()]>),
    Packed(Vec<packed::Searcher>),
    Automaton(AhoCorasick),
}

/// A form around its needle.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Expected {
    /// The needle, and what follows it.
    after: Box<[u8]>,
    before: Box<[u8]>,
}

impl Needles {
    /// And where in each marker and form its needle is. `groups`: forms that mostly have a piece in common.
    pub(super) fn new(groups: &[Vec<Vec<u8>>]) -> (Self, Vec<Within<'_>>) {
        let (mut needles, mut places): (Vec<&[u8]>, Vec<Within<'_>>) = (Vec::new(), Vec::new());
        for marker in MARKERS {
            let is_short = marker.starts_with(b"#");
            let needle = if is_short {
                &marker[..COMPARED_BYTES]
            } else {
                marker
            };
            needles.push(needle);
            // Where there are only markers, they are searched for whole.
            places.push(Within::new(marker, 0, marker.len()));
        }
        for forms in groups {
            let first = needles.len();
            for form in forms {
                let known = needles[first..]
                    .iter()
                    .find_map(|needle| Some((memmem::find(form, needle)?, needle.len())));
                let (at, length) = known.unwrap_or_else(|| {
                    let (at, needle) = rarest_piece(form);
                    needles.push(needle);
                    (at, needle.len())
                });
                places.push(Within::new(form, at, length));
            }
        }
        let mut expected: Vec<Expected> = places.iter().map(Expected::new).collect();
        expected.sort_unstable();
        let needles = Self {
            search: Search::new(&needles),
            longest: needles.iter().map(|needle| needle.len()).max().unwrap_or(1),
            expected,
        };
        (needles, places)
    }

    /// Something may be in the text whose needle begins in this block of it, and is in it as it is.
    pub(super) fn are_in(&self, text: &[u8], block: Range<usize>) -> bool {
        let span = Span::from(block.start..text.len().min(block.end + self.longest - 1));
        match &self.search {
            Search::Markers(finders) => finders.iter().any(|finder| finder.find(&text[span]).is_some()),
            Search::Packed(searches) => searches
                .iter()
                .any(|search| self.any(text, span, |span| Some(search.find_in(text, span)?.start()))),
            Search::Automaton(automaton) => self.any(text, span, |span| {
                let rest = aho_corasick::Input::new(text).span(span);
                Some(automaton.find(rest)?.start())
            }),
        }
    }

    /// `find`: where the first needle of a span begins.
    fn any(&self, text: &[u8], mut span: Span, find: impl Fn(Span) -> Option<usize>) -> bool {
        while let Some(at) = find(span) {
            if self.is_expected(text, at) {
                return true;
            }
            span.start = at + 1;
        }
        false
    }

    /// A needle begins here; of several, it does not matter which was found.
    fn is_expected(&self, text: &[u8], at: usize) -> bool {
        let begins =
            |expected: &Expected| expected.after[..COMPARED_BYTES].cmp(&text[at..at + COMPARED_BYTES]);
        let first = self.expected.partition_point(|expected| begins(expected).is_lt());
        self.expected[first..]
            .iter()
            .take_while(|expected| begins(expected).is_eq())
            .any(|expected| expected.may_be_at(text, at))
    }
}

impl Search {
    fn new(needles: &[&[u8]]) -> Self {
        if needles.len() == MARKERS.len() {
            return Self::Markers(Box::new(MARKERS.map(Finder::new)));
        }
        let shortest = needles.iter().min_by_key(|needle| needle.len());
        let packed = |needles: &[&[u8]]| {
            let needles: BTreeSet<&[u8]> = needles.iter().chain(shortest).copied().collect();
            packed::Config::new()
                .builder()
                .extend(in_buckets(&Vec::from_iter(needles)))
                .build()
        };
        let searches = needles.len().div_ceil(MAX_PACKED - 1);
        let packed: Option<Vec<_>> = (searches <= MAX_SEARCHES)
            .then(|| {
                needles
                    .chunks(needles.len().div_ceil(searches))
                    .map(packed)
                    .collect()
            })
            .flatten();
        packed.map_or_else(
            || {
                let automaton = AhoCorasick::builder()
                    .match_kind(MatchKind::LeftmostFirst)
                    .build(needles)
                    .expect("the number and length of needles are bounded far below the automaton's limits");
                Self::Automaton(automaton)
            },
            Self::Packed,
        )
    }
}

impl Expected {
    fn new(place: &Within<'_>) -> Self {
        let (before, after) = place.form.split_at(place.at);
        Self {
            after: after[..after.len().min(AROUND_BYTES)].into(),
            before: before[before.len().saturating_sub(AROUND_BYTES)..].into(),
        }
    }

    /// It is, or something hidden within it keeps from seeing.
    fn may_be_at(&self, text: &[u8], at: usize) -> bool {
        fn agree<'b>(text: impl Iterator<Item = &'b u8>, form: impl Iterator<Item = &'b u8>) -> bool {
            let differs = text.zip(form).find(|(byte, of_form)| byte != of_form);
            differs.is_none_or(|(byte, _)| is_hidden(*byte))
        }
        agree(text[at..].iter(), self.after.iter())
            && agree(
                text[visible_from(text, at)..at].iter().rev(),
                self.before.iter().rev(),
            )
    }
}

/// The vectorised search puts every so many needles into one bucket, and takes text for one of a bucket when each half
/// byte is that of any of them. So those that are likeliest to be mistaken come first, each to where it is mistaken least.
fn in_buckets<'n>(needles: &[&'n [u8]]) -> Vec<&'n [u8]> {
    let buckets = if needles.len() <= 32 { 8 } else { 16 };
    let mut likeliest: Vec<&[u8]> = needles.to_vec();
    likeliest.sort_by_key(|needle| std::cmp::Reverse(likelihood(needle)));
    let (rows, rest) = (needles.len() / buckets, needles.len() % buckets);
    let mut filled: Vec<(Vec<&[u8]>, HalfBytes)> = vec![Default::default(); buckets];
    for needle in likeliest {
        let with_room = filled
            .iter_mut()
            .enumerate()
            .filter(|(number, (bucket, _))| bucket.len() < rows + usize::from(*number < rest));
        let best =
            with_room.min_by_key(|(_, (_, mixed))| mixed.with(needle).likelihood() - mixed.likelihood());
        if let Some((_, (bucket, mixed))) = best {
            bucket.push(needle);
            *mixed = mixed.with(needle);
        }
    }
    let row = |row: usize| {
        filled
            .iter()
            .filter_map(move |(bucket, _)| bucket.get(row).copied())
    };
    (0..=rows).flat_map(row).collect()
}

/// What the vectorised search compares of a bucket: at each place, the low and the high half bytes that any needle has.
#[derive(Debug, Clone, Copy, Default)]
struct HalfBytes([(u16, u16); COMPARED_BYTES]);

impl HalfBytes {
    fn with(mut self, needle: &[u8]) -> Self {
        for ((low, high), byte) in self.0.iter_mut().zip(needle) {
            *low |= 1 << (byte & 15);
            *high |= 1 << (byte >> 4);
        }
        self
    }

    /// That a place of a log is taken for one of the needles, parts of a billion.
    fn likelihood(self) -> u64 {
        let of = |(low, high): (u16, u16)| -> u64 {
            let is_like = |byte: &u8| low >> (byte & 15) & 1 == 1 && high >> (byte >> 4) & 1 == 1;
            (0..=u8::MAX).filter(is_like).map(share).sum()
        };
        self.0.into_iter().map(of).product()
    }
}

/// That a place of a log is taken for the needle, parts of a billion.
fn likelihood(needle: &[u8]) -> u64 {
    needle
        .iter()
        .take(COMPARED_BYTES)
        .map(|byte| share(*byte))
        .product()
}

/// How much of a log is this byte, parts of a thousand; roughly, as of the build logs that the tests have.
fn share(byte: u8) -> u64 {
    match byte {
        b' ' | b'e' | b'i' | b'n' | b'o' | b's' | b't' | b'a' | b'r' => 50,
        b'c' | b'd' | b'l' | b'm' | b'p' | b'u' => 25,
        b'j' | b'q' | b'z' => 2,
        b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' | b'=' => 12,
        b'A'..=b'Z' | b'!'..=b'~' => 4,
        _ => 1,
    }
}

/// The piece of a form that is least like other text, and likeliest to be in the other forms too; and where it is.
fn rarest_piece(form: &[u8]) -> (usize, &[u8]) {
    let cost = |(_, window): &(usize, &[u8])| {
        let others = window.iter().filter(|byte| !byte.is_ascii_alphanumeric());
        // Digits of an escaped byte that are letters are small in one form and large in another.
        let is_escaped = window.contains(&b'%');
        let letters = window
            .iter()
            .filter(|byte| is_escaped && byte.is_ascii_alphabetic());
        (others.chain(letters).count(), likelihood(window))
    };
    let windows = form.windows(MIN_SECRET_BYTES).enumerate().take(MAX_WINDOWS);
    windows.min_by_key(cost).unwrap_or((0, form))
}
