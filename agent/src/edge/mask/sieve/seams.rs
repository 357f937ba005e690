//! The places at which something hidden lies within a text, and whether a form goes on across one of them.

use std::ops::Range;

use memchr::memchr2;
use wide::u8x16;

use super::super::pairs::Pairs;
use super::super::strip::{hidden_length, is_hidden, visible_from};

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

/// Where the needle of a form is in it: a seam anywhere else does not keep it from being found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Within<'f> {
    pub(super) form: &'f [u8],
    pub(super) at: usize,
    length: usize,
}

impl<'f> Within<'f> {
    pub(super) fn new(form: &'f [u8], at: usize, length: usize) -> Self {
        Self { form, at, length }
    }
}

/// What may stand on both sides of a seam.
#[derive(Debug, Clone)]
pub(super) struct Seams {
    /// Neighbours in a needle; and each second one of them behind a line end, before which other line ends may be.
    neighbours: Pairs,
    /// Two bytes before the seam and two behind it; and three, where the form has only one on one side.
    near: [Bits; 2],
    /// Only escape sequences are seams: there are no secrets, and a command is on one line.
    escapes_only: bool,
}

impl Seams {
    pub(super) fn new(needles: &[Within<'_>], escapes_only: bool) -> Self {
        let places = needles.iter().map(|needle| needle.length).sum();
        let mut seams = Self {
            neighbours: Pairs::default(),
            near: FACTORS.map(|factor| Bits::new(places, 256, factor)),
            escapes_only,
        };
        for Within { form, at, length } in needles {
            for seam in at + 1..at + length {
                let (before, after) = form.split_at(seam);
                let (b, c) = (before[seam - 1], after[0]);
                seams.neighbours.insert(b, c);
                seams.neighbours.insert(b'\n', c);
                let number = match (before.last_chunk(), after.first_chunk()) {
                    (Some([a, b]), Some([c, d])) => [*a, *b, *c, *d],
                    (None, Some([c, d])) => [b, *c, *d, 0],
                    (Some([a, b]), None) => [*a, *b, c, 0],
                    (None, None) => continue,
                };
                let number = u32::from_le_bytes(number);
                seams.near.iter_mut().for_each(|bits| bits.insert(number));
            }
        }
        seams
    }

    /// A seam that begins in this block of the text may lie within a needle. `visible`: where the last one ends that
    /// began in the blocks before, which were looked at in order.
    pub(super) fn are_in(&self, text: &[u8], block: Range<usize>, visible: &mut usize) -> bool {
        let ends_of_lines =
            !self.escapes_only && any_place(text, block.clone(), [b'\n'], |end| self.goes_on_over(text, end));
        ends_of_lines || self.others_are_in(text, block, visible)
    }

    /// Of the end of a line. Empty lines belong to the last end of a line in a row, and what is beside something else
    /// that is hidden belongs to that.
    fn goes_on_over(&self, text: &[u8], end: usize) -> bool {
        let Some([before, _, after]) = end.checked_sub(1).and_then(|at| text[at..].first_chunk()) else {
            return false;
        };
        if !self.neighbours.has(*before, *after) {
            return false;
        }
        let to = self.visible_front(text, 0, end).len();
        self.may_go_on(&text[visible_from(text, to)..to], &text[end + 1..])
    }

    /// A seam that is not only of ends of lines may lie within a needle.
    fn others_are_in(&self, text: &[u8], block: Range<usize>, visible: &mut usize) -> bool {
        let begins = if self.escapes_only {
            [0x1b; 2]
        } else {
            [0x1b, b'\r']
        };
        // Most text has none.
        let Some(first) = memchr2(begins[0], begins[1], &text[block.clone()]) else {
            return false;
        };
        any_place(text, block.start + first..block.end, begins, |seam| {
            if seam < *visible {
                return false;
            }
            let before = self.visible_front(text, *visible, seam);
            *visible = seam;
            while text.get(*visible).is_some_and(|byte| self.hides(*byte)) {
                *visible += hidden_length(&text[*visible..]);
            }
            self.may_go_on(before, text.get(*visible..).unwrap_or_default())
        })
    }

    /// What is between two places, without line ends at its end.
    fn visible_front<'t>(&self, text: &'t [u8], from: usize, to: usize) -> &'t [u8] {
        let stretch = &text[from..to];
        let hidden = stretch.iter().rev().take_while(|byte| self.hides(**byte));
        &stretch[..stretch.len() - hidden.count()]
    }

    fn hides(&self, byte: u8) -> bool {
        if self.escapes_only {
            byte == 0x1b
        } else {
            is_hidden(byte)
        }
    }

    /// What is on both sides of a seam may be one needle. Where another seam is near, nothing more is known.
    fn may_go_on(&self, before: &[u8], after: &[u8]) -> bool {
        let (Some(last), Some(next)) = (before.last(), after.first()) else {
            return false;
        };
        if !self.neighbours.has(*last, *next) {
            return false;
        }
        let (Some(&[a, b]), Some(&[c, d])) = (before.last_chunk::<2>(), after.first_chunk::<2>()) else {
            return true;
        };
        if self.hides(a) || self.hides(d) {
            return true;
        }
        let tried = [[a, b, c, d], [b, c, d, 0], [a, b, c, 0]].map(u32::from_le_bytes);
        tried
            .into_iter()
            .any(|number| self.near.iter().all(|bits| bits.may_hold(number)))
    }
}

/// Whether `is_it` of any place of a part of the text at which one of the bytes is; asked in order.
///
/// Ends of lines are so near to each other that a search for each would mostly begin and end.
fn any_place<const N: usize>(
    text: &[u8],
    part: Range<usize>,
    bytes: [u8; N],
    mut is_it: impl FnMut(usize) -> bool,
) -> bool {
    let bytes = bytes.map(u8x16::splat);
    let (blocks, rest) = text[part.clone()].as_chunks::<64>();
    let mut last = [0; 64];
    last[..rest.len()].copy_from_slice(rest);
    for (number, block) in blocks.iter().chain([&last]).enumerate() {
        let mut places = places_of(block, &bytes);
        while places != 0 {
            if is_it(part.start + number * 64 + places.trailing_zeros() as usize) {
                return true;
            }
            places &= places - 1;
        }
    }
    false
}

/// One bit for each byte of the block.
fn places_of<const N: usize>(block: &[u8; 64], bytes: &[u8x16; N]) -> u64 {
    let (quarters, _) = block.as_chunks::<16>();
    let quarters = quarters.iter().rev();
    quarters.fold(0, |places, quarter| {
        let quarter = u8x16::new(*quarter);
        let found = bytes
            .iter()
            .fold(u8x16::ZERO, |found, byte| found | quarter.simd_eq(*byte));
        places << 16 | u64::from(found.to_bitmask())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_place_is_found_in_order(
            text in prop::collection::vec(prop_oneof![Just(0_u8), 9..14_u8], 0..300),
            from: prop::sample::Index,
        ) {
            let part = from.index(text.len() + 1)..text.len();
            let mut found = Vec::new();
            any_place(&text, part.clone(), [b'\n', b'\r'], |place| {
                found.push(place);
                false
            });
            let expected: Vec<usize> =
                memchr::memchr2_iter(b'\n', b'\r', &text).filter(|place| part.contains(place)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
