//! Whether a text can hold a secret or a command at all, told by a vectorised glance over the text as it is.
//!
//! Nearly all text holds none, and most of what masking costs would be to make sure of it. A form (a value in one of its
//! encodings, or the beginning of a command) stands in a text either in one stretch: then a piece of it is there, which
//! is searched for ([`Needles`]). Or something that a terminal does not show lies within it: then the characters on both
//! sides of such a *seam* are neighbours in the form, and there are few seams ([`Seams`]). What is found here is only a
//! reason to look closely; what is not found is not there.

use aho_corasick::{AhoCorasick, packed};
use memchr::memmem::Finder;

use super::commands::MARKERS;
use super::secrets::MIN_SECRET_BYTES;
use super::strip::hidden_length;

/// More pieces than this are too many for the vectorised search.
const MAX_PACKED: usize = 64;

/// Of a long form, so many places are considered for its piece.
const MAX_WINDOWS: usize = 256;

/// What a text has to be looked at closely for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Suspicion {
    pub(super) commands: bool,
    pub(super) secrets: bool,
}

impl Suspicion {
    pub(super) const NONE: Self = Self {
        commands: false,
        secrets: false,
    };
    /// Where a command is, more than it may be.
    pub(super) const ALL: Self = Self {
        commands: true,
        secrets: true,
    };
}

#[derive(Debug, Clone)]
pub(super) struct Sieve {
    needles: Needles,
    seams: Box<Seams>,
}

impl Sieve {
    /// `values`: the forms of each value together, which mostly have a piece in common.
    pub(super) fn new(values: &[Vec<Vec<u8>>]) -> Self {
        let mut needles: Vec<Vec<u8>> = MARKERS.iter().map(|marker| marker.to_vec()).collect();
        for forms in values {
            let first = needles.len();
            for form in forms {
                let is_in = |needle: &Vec<u8>| memchr::memmem::find(form, needle).is_some();
                if !needles[first..].iter().any(is_in) {
                    needles.push(piece(form).to_vec());
                }
            }
        }
        let forms = values.iter().flatten().map(Vec::as_slice);
        let all: Vec<&[u8]> = MARKERS.into_iter().chain(forms).collect();
        Self {
            needles: Needles::new(&needles),
            seams: Box::new(Seams::new(&all, values.is_empty())),
        }
    }

    pub(super) fn look(&self, text: &[u8]) -> Suspicion {
        let seen = self.needles.look(text);
        if seen != Suspicion::ALL && self.seams.are_in(text) {
            return Suspicion::ALL;
        }
        seen
    }
}

/// The commands' markers first, then pieces of forms.
#[derive(Debug, Clone)]
enum Needles {
    Markers(Box<[Finder<'static>; MARKERS.len()]>),
    Packed(packed::Searcher),
    Automaton(AhoCorasick),
}

impl Needles {
    fn new(needles: &[Vec<u8>]) -> Self {
        if needles.len() == MARKERS.len() {
            return Self::Markers(Box::new(MARKERS.map(Finder::new)));
        }
        let packed = (needles.len() <= MAX_PACKED)
            .then(|| packed::Config::new().builder().extend(needles).build())
            .flatten();
        packed.map_or_else(
            || {
                let automaton = AhoCorasick::new(needles)
                    .expect("the number and length of pieces are bounded far below the automaton's limits");
                Self::Automaton(automaton)
            },
            Self::Packed,
        )
    }

    fn look(&self, text: &[u8]) -> Suspicion {
        let mut secrets = false;
        // Of more than one thing at a place only one is found, but whatever is near a command is looked at anyway.
        let mut is_command = |needle: usize| {
            secrets = true;
            needle < MARKERS.len()
        };
        let commands = match self {
            Self::Markers(finders) => finders.iter().any(|finder| finder.find(text).is_some()),
            Self::Packed(searcher) => searcher
                .find_iter(text)
                .any(|found| is_command(found.pattern().as_usize())),
            Self::Automaton(automaton) => automaton
                .find_iter(text)
                .any(|found| is_command(found.pattern().as_usize())),
        };
        if commands {
            return Suspicion::ALL;
        }
        Suspicion { commands, secrets }
    }
}

/// The piece of a form that is least like other text, and likeliest to be in the value's other forms too.
fn piece(form: &[u8]) -> &[u8] {
    let common = |byte: u8| match byte {
        b'a'..=b'z' | b' ' => 4,
        b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' | b'=' => 3,
        b'A'..=b'Z' => 2,
        _ => 1,
    };
    let cost = |window: &&[u8]| -> u32 {
        // The search compares the first four bytes at once.
        let likely: u32 = window.iter().take(4).map(|byte| common(*byte)).sum();
        let others = window.iter().filter(|byte| !byte.is_ascii_alphanumeric());
        others.fold(likely, |cost, _| cost + 8)
    };
    let windows = form.windows(MIN_SECRET_BYTES).take(MAX_WINDOWS);
    windows.min_by_key(cost).unwrap_or(form)
}

/// A set of 32-bit numbers, as one bit for each hash: says no for certain, and yes wrongly now and then.
#[derive(Debug, Clone)]
struct Bits {
    bits: Vec<u64>,
    shift: u32,
    factor: u32,
}

/// Odd numbers without a pattern in their bits.
const FACTORS: [u32; 2] = [0x9e37_79b1, 0x85eb_ca6b];

impl Bits {
    /// Of so many numbers, with so many bits for each, up to 256 KiB.
    fn new(numbers: usize, bits_each: usize, factor: u32) -> Self {
        let size = (numbers * bits_each).next_power_of_two().clamp(1 << 12, 1 << 21);
        Self {
            bits: vec![0; size / 64],
            shift: 32 - size.trailing_zeros(),
            factor,
        }
    }

    fn place(&self, number: u32) -> usize {
        (number.wrapping_mul(self.factor) >> self.shift) as usize
    }

    fn insert(&mut self, number: u32) {
        let place = self.place(number);
        self.bits[place / 64] |= 1 << (place % 64);
    }

    fn may_hold(&self, number: u32) -> bool {
        let place = self.place(number);
        self.bits[place / 64] & (1 << (place % 64)) != 0
    }
}

fn number_of(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// What may stand on both sides of a seam.
#[derive(Debug, Clone)]
struct Seams {
    /// One bit for each pair of bytes: they are neighbours in a form.
    pairs: [u64; 1024],
    /// Two bytes before the seam and two behind it; and three, where the form has only one on one side.
    near: [Bits; 2],
    /// Only escape sequences are seams: there are no secrets, and a command is on one line.
    escapes_only: bool,
}

impl Seams {
    fn new(forms: &[&[u8]], escapes_only: bool) -> Self {
        let bytes = forms.iter().map(|form| form.len()).sum();
        let mut seams = Self {
            pairs: [0; 1024],
            near: FACTORS.map(|factor| Bits::new(bytes, 256, factor)),
            escapes_only,
        };
        for form in forms {
            for pair in form.windows(2) {
                let index = usize::from(pair[0]) << 8 | usize::from(pair[1]);
                seams.pairs[index / 64] |= 1 << (index % 64);
            }
            let around = form.windows(4).map(number_of);
            let ends = [form.first_chunk::<3>(), form.last_chunk::<3>()];
            let ends = ends
                .into_iter()
                .flatten()
                .map(|[a, b, c]| u32::from_le_bytes([*a, *b, *c, 0]));
            for number in around.chain(ends) {
                seams.near.iter_mut().for_each(|bits| bits.insert(number));
            }
        }
        seams
    }

    /// A seam of the text may lie within a form.
    fn are_in(&self, text: &[u8]) -> bool {
        if self.escapes_only {
            return self.any(text, memchr::memchr_iter(0x1b, text));
        }
        // Most text has no other seams than ends of lines.
        if memchr::memchr2(b'\r', 0x1b, text).is_none() {
            return self.ends_of_lines_are_in(text);
        }
        self.any(text, memchr::memchr3_iter(b'\n', b'\r', 0x1b, text))
    }

    /// The same of a text without other seams.
    fn ends_of_lines_are_in(&self, text: &[u8]) -> bool {
        let mut next = 0;
        for end in memchr::memchr_iter(b'\n', text) {
            let stretch = next;
            next = end + 1;
            // Empty lines belong to the end of line before them.
            if stretch == end {
                continue;
            }
            let mut after = next;
            while text.get(after) == Some(&b'\n') {
                after += 1;
            }
            if let Some(byte) = text.get(after)
                && self.are_neighbours(text[end - 1], *byte)
                && self.goes_on(&text[stretch..end], &text[after..])
            {
                return true;
            }
        }
        false
    }

    /// `seams`: where something hidden may begin.
    fn any(&self, text: &[u8], seams: impl Iterator<Item = usize>) -> bool {
        // The visible bytes between the last seam and the next one begin here.
        let mut visible = 0;
        let mut before: Option<u8> = None;
        for seam in seams {
            if seam < visible {
                continue;
            }
            let stretch = &text[visible..seam];
            visible = seam;
            while text.get(visible).is_some_and(|byte| self.hides(*byte)) {
                visible += hidden_length(&text[visible..]);
            }
            before = stretch.last().copied().or(before);
            if let (Some(last), Some(next)) = (before, text.get(visible))
                && self.are_neighbours(last, *next)
                && self.goes_on(stretch, &text[visible..])
            {
                return true;
            }
        }
        false
    }

    fn hides(&self, byte: u8) -> bool {
        byte == 0x1b || (!self.escapes_only && matches!(byte, b'\n' | b'\r'))
    }

    fn are_neighbours(&self, before: u8, after: u8) -> bool {
        let index = usize::from(before) << 8 | usize::from(after);
        self.pairs[index / 64] & (1 << (index % 64)) != 0
    }

    /// What is on both sides of a seam may be one form. Where another seam is near, nothing more is known.
    fn goes_on(&self, before: &[u8], after: &[u8]) -> bool {
        let (Some(&[a, b]), Some(&[c, d])) = (before.last_chunk::<2>(), after.first_chunk::<2>()) else {
            return true;
        };
        if self.hides(d) {
            return true;
        }
        let tried = [[a, b, c, d], [b, c, d, 0], [a, b, c, 0]].map(u32::from_le_bytes);
        tried
            .into_iter()
            .any(|number| self.near.iter().all(|bits| bits.may_hold(number)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::scan::Scanner;
    use super::super::secrets::Secrets;
    use super::*;

    fn scanner(values: &[&str]) -> Scanner {
        let values: BTreeSet<Vec<u8>> = values.iter().map(|value| value.as_bytes().to_vec()).collect();
        Scanner::new(Arc::new(Secrets::new(&values, Vec::new())), true)
    }

    #[test]
    fn a_real_build_log_is_not_looked_at_closely() {
        let values = [
            "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "hunter2!",
        ];
        let scanner = scanner(&values);
        for log in [
            &include_bytes!("../../../../tests/data/cpython-build-1.log")[..],
            include_bytes!("../../../../tests/data/cargo-build-failed.ansi.log"),
        ] {
            let pieces = log.chunks(64 << 10);
            let suspected = pieces
                .filter(|piece| scanner.suspect(piece) != Suspicion::NONE)
                .count();
            assert_eq!(suspected, 0, "of {} pieces", log.len().div_ceil(64 << 10));
        }
    }

    /// Text of what may be in the way: secrets in their forms, parts of them, hidden things at any place.
    fn hostile(values: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
        let hidden = prop_oneof![
            Just("\n"),
            Just("\r\n"),
            Just("\x1b[1m"),
            Just("\x1b[31;4m"),
            Just("\x1b]8;;x\x07"),
            Just("\x1b"),
            Just("\x1b("),
            Just("\x1b[3"),
            Just("\x1b]0;t"),
        ];
        let part = (prop::sample::select(values), 0_usize..40, 0_usize..40).prop_map(|(value, from, to)| {
            let from = from.min(value.len());
            value[from..to.clamp(from, value.len())].to_owned()
        });
        let encoded = (prop::sample::select(values), 0_usize..3).prop_map(|(value, before)| {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode(format!("{}{value}", "x".repeat(before)))
        });
        let piece = prop_oneof![
            3 => part,
            1 => prop::sample::select(values).prop_map(str::to_owned),
            1 => encoded,
            3 => hidden.prop_map(str::to_owned),
            1 => "[ -~]{0,6}",
            1 => Just("::add-mask::x".to_owned()),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// What is taken for clean without a closer look is clean when it is looked at closely.
        #[test]
        fn a_closer_look_finds_nothing_that_was_not_suspected(
            text in hostile(&["hunter2!", "abcabc", "p@ss w\"rd/1", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"]),
            last: bool,
        ) {
            let scanner = scanner(&["hunter2!", "abcabc", "p@ss w\"rd/1", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"]);
            let suspicion = scanner.suspect(&text);
            let scan = scanner.scan(&text, suspicion, 0, true, last);
            prop_assert_eq!(scan, scanner.scan(&text, Suspicion::ALL, 0, true, last));
            if !suspicion.commands {
                prop_assert_eq!(scanner.commands(&text, true, last), Vec::<Vec<u8>>::new());
            }
        }

        /// However a form is split, it is suspected.
        #[test]
        fn a_secret_with_anything_hidden_in_it_is_suspected(
            value in "[!-~]{6,30}", at in prop::collection::vec((0_usize..30, 0_usize..4), 0..6),
        ) {
            let hidden = ["\n", "\r\n", "\x1b[0m", "\x1b]0;title\x07"];
            let mut text = String::new();
            for (place, character) in value.chars().enumerate() {
                for (_, kind) in at.iter().filter(|(seam, _)| *seam == place) {
                    text.push_str(hidden[*kind]);
                }
                text.push(character);
            }
            let text = format!("some text {text} goes on\n");
            prop_assert!(scanner(&[&value]).suspect(text.as_bytes()).secrets);
        }
    }
}
