//! What stands at the front of each segment: its number, and how much text came before it in the whole spool, so
//! that whoever misses segments knows exactly what was in them.

use xxhash_rust::xxh3::xxh3_64;

use super::{Count, Totals};

/// Mark (8), number (8), bytes and lines before it of each channel (48), checksum (8); little-endian.
pub(super) const HEADER_BYTES: usize = 72;

/// The last byte is the version of the format.
const MARK: [u8; 8] = *b"MSPOOL\n\x02";
const SUM_AT: usize = HEADER_BYTES - 8;

pub(super) fn encode(segment: u64, before: &Totals) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MARK);
    let counts = before.iter().flat_map(|count| [count.bytes, count.lines]);
    for (at, number) in std::iter::once(segment).chain(counts).enumerate() {
        header[8 + at * 8..16 + at * 8].copy_from_slice(&number.to_le_bytes());
    }
    let sum = xxh3_64(&header[..SUM_AT]);
    header[SUM_AT..].copy_from_slice(&sum.to_le_bytes());
    header
}

/// `None`: these bytes are not the header of that segment.
pub(super) fn decode(bytes: &[u8], segment: u64) -> Option<Totals> {
    let header = bytes.get(..HEADER_BYTES)?;
    let number = |at: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&header[at..at + 8]);
        u64::from_le_bytes(number)
    };
    if header[..8] != MARK || number(8) != segment || number(SUM_AT) != xxh3_64(&header[..SUM_AT]) {
        return None;
    }
    let mut totals = Totals::default();
    for (channel, count) in totals.iter_mut().enumerate() {
        *count = Count {
            bytes: number(16 + channel * 16),
            lines: number(24 + channel * 16),
        };
    }
    Some(totals)
}
