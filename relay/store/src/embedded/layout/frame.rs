//! Records: what every file is made of. A record says what kind it is, to which batch it belongs and how long
//! it is, and has two checksums: one over its body, and one over all the rest *and its place* (file and offset),
//! so that bytes that ended up elsewhere are no record there. One can be found without knowing the others, which
//! is how reading goes on behind damage.
//!
//! Header, 44 bytes: magic (4), kind (1), flags (1), short checksum of the header alone (2), bytes of meta (4) and of
//! body (4), so many bytes of the file were durable (4), batch (8), checksum of the body (8), checksum of header, meta and place (8). Then meta, then body. The short checksum tells a damaged length
//! from a file that ends too early. What was durable when a record was written tells damage in the file from a write
//! that a power failure interrupted: below that no write can be unfinished.

use std::ops::Range;

use xxhash_rust::xxh3::Xxh3;

const MAGIC: [u8; 4] = *b"MSr\x02";
pub(crate) const HEADER_BYTES: usize = 44;
/// What the last checksum of the header covers of it.
const CHECKED_BYTES: usize = 36;
const SHORT_CHECK: Range<usize> = 6..8;

/// A sealed segment's table of contents is the longest body.
const MAX_BODY_BYTES: u32 = 1 << 28;
/// A stream's whole record, checkpoint included, is the longest meta.
const MAX_META_BYTES: u32 = 1 << 20;

const FLAG_LAST: u8 = 1;

/// Unit in which a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// What a record holds. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// First of a file: which store it belongs to.
    Header = 1,
    /// Lines, or that lines are lost.
    Block = 2,
    Stream = 3,
    Agent = 4,
    /// Table of contents of a sealed segment.
    Footer = 5,
    /// Last of a sealed segment: where its table of contents begins.
    End = 6,
    /// Catalog: below which sequence lines of a stream may have been given out.
    Bound = 7,
    /// Catalog: state and known length of a segment.
    Segment = 8,
}

impl Kind {
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Header,
            2 => Self::Block,
            3 => Self::Stream,
            4 => Self::Agent,
            5 => Self::Footer,
            6 => Self::End,
            7 => Self::Bound,
            8 => Self::Segment,
            _ => return None,
        })
    }
}

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Number of the segment; 0: the catalog.
    pub(crate) file: u32,
    pub(crate) offset: u64,
}

/// A record but for its meta and body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    /// With this record its batch is whole.
    pub(crate) is_last: bool,
    pub(crate) batch: u64,
    pub(crate) meta_bytes: u32,
    pub(crate) body_bytes: u32,
    pub(crate) body_check: u64,
    /// So many bytes of the file were durable when this was written.
    pub(crate) synced_bytes: u32,
}

impl Head {
    pub(crate) fn record_bytes(&self) -> usize {
        HEADER_BYTES + self.meta_bytes as usize + self.body_bytes as usize
    }

    /// Header and meta as they stand at `place`; the body follows.
    pub(crate) fn write(&self, meta: &[u8], place: Place, out: &mut Vec<u8>) {
        debug_assert_eq!(meta.len(), self.meta_bytes as usize);
        let start = out.len();
        out.extend(MAGIC);
        out.push(self.kind as u8);
        out.push(u8::from(self.is_last) * FLAG_LAST);
        out.extend([0; SHORT_CHECK.end - SHORT_CHECK.start]);
        out.extend(self.meta_bytes.to_le_bytes());
        out.extend(self.body_bytes.to_le_bytes());
        out.extend(self.synced_bytes.to_le_bytes());
        out.extend(self.batch.to_le_bytes());
        out.extend(self.body_check.to_le_bytes());
        let check = short_check(&out[start..]);
        out[start..][SHORT_CHECK].copy_from_slice(&check);
        let check = head_check(&out[start..], meta, place);
        out.extend(check.to_le_bytes());
        out.extend(meta);
    }
}

fn short_check(header: &[u8]) -> [u8; 2] {
    let mut hasher = Xxh3::new();
    hasher.update(&header[..SHORT_CHECK.start]);
    hasher.update(&header[SHORT_CHECK.end..CHECKED_BYTES]);
    let [first, second, ..] = hasher.digest().to_le_bytes();
    [first, second]
}

fn head_check(header: &[u8], meta: &[u8], place: Place) -> u64 {
    let mut hasher = Xxh3::with_seed(u64::from(place.file).rotate_left(40) ^ place.offset);
    hasher.update(&header[..CHECKED_BYTES]);
    hasher.update(meta);
    hasher.digest()
}

/// Checksum of a body; `seed` ties it to what it belongs to.
pub(crate) fn body_check(parts: &[&[u8]], seed: u64) -> u64 {
    let mut hasher = Xxh3::with_seed(seed);
    for part in parts {
        hasher.update(part);
    }
    hasher.digest()
}

/// Why there is no record at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NoRecord {
    /// The bytes end before it does.
    Cut,
    Bad,
}

/// Reads header and meta of the record at `at`, without looking at its body.
fn head_at(bytes: &[u8], at: usize, file: u32) -> Result<(Head, Range<usize>), NoRecord> {
    let rest = bytes.get(at..).unwrap_or_default();
    let Some((header, after)) = rest.split_first_chunk::<HEADER_BYTES>() else {
        let begins = MAGIC.starts_with(&rest[..rest.len().min(4)]);
        return Err(if begins { NoRecord::Cut } else { NoRecord::Bad });
    };
    let head = parse_header(header).ok_or(NoRecord::Bad)?;
    let meta = after.get(..head.meta_bytes as usize).ok_or(NoRecord::Cut)?;
    let place = Place {
        file,
        offset: at as u64,
    };
    if !is_head_sound(header, meta, place) {
        return Err(NoRecord::Bad);
    }
    let meta = at + HEADER_BYTES..at + HEADER_BYTES + meta.len();
    Ok((head, meta))
}

/// `None`: no header, whatever its checksum says.
pub(crate) fn parse_header(header: &[u8; HEADER_BYTES]) -> Option<Head> {
    let u32_at = |at: usize| Some(u32::from_le_bytes(*header[at..].first_chunk()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(*header[at..].first_chunk()?));
    let head = Head {
        kind: Kind::from_number(header[4])?,
        is_last: header[5] == FLAG_LAST,
        meta_bytes: u32_at(8)?,
        body_bytes: u32_at(12)?,
        synced_bytes: u32_at(16)?,
        batch: u64_at(20)?,
        body_check: u64_at(28)?,
    };
    let is_one = header[..4] == MAGIC
        && header[5] & !FLAG_LAST == 0
        && header[SHORT_CHECK] == short_check(header)
        && head.meta_bytes <= MAX_META_BYTES
        && head.body_bytes <= MAX_BODY_BYTES;
    is_one.then_some(head)
}

/// Whether header and meta are what was written at the place.
pub(crate) fn is_head_sound(header: &[u8; HEADER_BYTES], meta: &[u8], place: Place) -> bool {
    header[CHECKED_BYTES..] == head_check(header, meta, place).to_le_bytes()
}

/// A record that was found, with its places in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) offset: usize,
    pub(crate) head: Head,
    pub(crate) meta: Range<usize>,
    pub(crate) body: Range<usize>,
    /// The body is what was written; otherwise only what header and meta say can be relied on.
    pub(crate) is_body_sound: bool,
}

impl Found {
    pub(crate) fn end(&self) -> usize {
        self.body.end
    }
}

/// What a file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// In order. Those of a batch that was never finished are left out.
    pub(crate) records: Vec<Found>,
    /// What is no record although it should be, sound headers with damaged bodies not included.
    pub(crate) damaged: Vec<Range<usize>>,
    /// A write at the end that was never finished begins here: no damage, nobody was told that it is there.
    pub(crate) unfinished: Option<usize>,
}

impl Contents {
    /// Where the next record can be written.
    pub(crate) fn end(&self) -> usize {
        let records = self.records.last().map_or(0, Found::end);
        let damaged = self.damaged.last().map_or(0, |range| range.end);
        records.max(damaged)
    }

    /// Whether every byte is accounted for.
    pub(crate) fn is_sound(&self) -> bool {
        self.damaged.is_empty() && self.records.iter().all(|record| record.is_body_sound)
    }
}

/// Looks through a file. At least `known` bytes of it were durable, so nothing there can be unfinished; a file that is
/// shorter lost its end, which is damage up to `known`. `seed_of` tells what a body's checksum is tied to.
pub(crate) fn look_through(
    bytes: &[u8],
    file: u32,
    known: usize,
    seed_of: impl Fn(Kind, &[u8]) -> u64,
) -> Contents {
    let pieces = pieces_of(bytes, file, seed_of);
    let synced = pieces.iter().filter_map(|piece| match piece {
        Piece::Record(record) => Some(record.head.synced_bytes as usize),
        Piece::Bad { .. } => None,
    });
    let known = synced.fold(known, usize::max);
    let mut contents = Contents::default();
    // End of the last record that made its batch whole.
    let mut whole = 0;
    for piece in pieces {
        let range = piece.range();
        let is_unfinished = range.end > known
            && match &piece {
                Piece::Record(record) if record.is_body_sound => false,
                _ if range.end > bytes.len() => true,
                Piece::Bad { is_cut: true, .. } => true,
                Piece::Record(record) => is_torn(bytes, record.body.clone(), true),
                Piece::Bad { range, .. } => is_torn(bytes, range.clone(), false),
            };
        if is_unfinished {
            // What follows was not durable either: a sync is of all that was written before.
            contents.unfinished = Some(range.start);
            break;
        }
        match piece {
            Piece::Record(record) => {
                if record.head.is_last || !record.is_body_sound {
                    whole = range.end;
                }
                contents.records.push(record);
            }
            Piece::Bad { range, .. } => {
                // What was damaged may have been the last of its batch.
                whole = range.end;
                contents.damaged.push(range);
            }
        }
    }
    if contents.end() < known {
        contents.damaged.push(contents.end()..known);
        whole = known;
    }
    // Records behind the last whole batch belong to one that was never finished.
    if contents.records.last().is_some_and(|last| last.end() > whole) {
        contents.records.retain(|record| record.offset < whole);
        contents.unfinished = Some(whole);
    }
    contents
}

/// A part of a file.
#[derive(Debug)]
enum Piece {
    /// Header and meta are sound; the body may be damaged, or behind the file's end.
    Record(Found),
    /// No record.
    Bad {
        range: Range<usize>,
        /// It may be the begin of one that the file's end cuts off.
        is_cut: bool,
    },
}

impl Piece {
    fn range(&self) -> Range<usize> {
        match self {
            Self::Record(record) => record.offset..record.end(),
            Self::Bad { range, .. } => range.clone(),
        }
    }
}

fn pieces_of(bytes: &[u8], file: u32, seed_of: impl Fn(Kind, &[u8]) -> u64) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let piece = match head_at(bytes, at, file) {
            Ok((head, meta)) => {
                let body = meta.end..meta.end + head.body_bytes as usize;
                let is_body_sound = bytes.get(body.clone()).is_some_and(|content| {
                    let seed = seed_of(head.kind, &bytes[meta.clone()]);
                    body_check(&[content], seed) == head.body_check
                });
                Piece::Record(Found {
                    offset: at,
                    head,
                    meta,
                    body,
                    is_body_sound,
                })
            }
            Err(why) => {
                let next = next_record(bytes, at + 1, file);
                Piece::Bad {
                    range: at..next.unwrap_or(bytes.len()),
                    is_cut: next.is_none() && why == NoRecord::Cut,
                }
            }
        };
        at = piece.range().end;
        pieces.push(piece);
    }
    pieces
}

/// Begin of the next sound header from `from` on.
fn next_record(bytes: &[u8], from: usize, file: u32) -> Option<usize> {
    let mut at = from;
    loop {
        let rest = bytes.get(at..)?;
        at += rest.windows(MAGIC.len()).position(|window| window == MAGIC)?;
        if head_at(bytes, at, file).is_ok() {
            return Some(at);
        }
        at += 1;
    }
}

/// Whether a range that is not what was written looks like a write that a power failure interrupted: a disk leaves
/// whole sectors out, and what was never written is zero.
fn is_torn(bytes: &[u8], range: Range<usize>, is_body: bool) -> bool {
    /// A shorter part of a sector may be zero by chance.
    const MIN_BYTES: usize = 16;
    let mut at = range.start;
    while at < range.end {
        // The whole rest of the sector, also what belongs to the next record.
        let end = (at + 1).next_multiple_of(SECTOR_BYTES).min(bytes.len());
        let part = &bytes[at..end];
        // No record begins with zeros.
        let begins = at == range.start && !is_body;
        let is_long_enough = part.len() >= MIN_BYTES || end == bytes.len() || begins;
        if is_long_enough && part.iter().all(|byte| *byte == 0) {
            return true;
        }
        at = end;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE: u32 = 7;

    /// Batches of records with bodies of these sizes.
    fn file(batches: &[Vec<usize>]) -> (Vec<u8>, Vec<Range<usize>>) {
        let mut bytes = Vec::new();
        let mut ranges = Vec::new();
        for (batch, sizes) in batches.iter().enumerate() {
            for (index, size) in sizes.iter().enumerate() {
                // Not zero, as text is not.
                let body: Vec<u8> = (1..=251).cycle().map(|byte: u8| byte | 1).take(*size).collect();
                let meta = [u8::try_from(index).unwrap() + 1; 9];
                let head = Head {
                    kind: Kind::Block,
                    is_last: index + 1 == sizes.len(),
                    batch: batch as u64,
                    meta_bytes: 9,
                    body_bytes: u32::try_from(*size).unwrap(),
                    body_check: body_check(&[&body], 5),
                    synced_bytes: 0,
                };
                let start = bytes.len();
                let place = Place {
                    file: FILE,
                    offset: start as u64,
                };
                head.write(&meta, place, &mut bytes);
                bytes.extend(body);
                ranges.push(start..bytes.len());
            }
        }
        (bytes, ranges)
    }

    fn look(bytes: &[u8], known: usize) -> Contents {
        look_through(bytes, FILE, known, |_, _| 5)
    }

    fn places(contents: &Contents) -> Vec<Range<usize>> {
        contents
            .records
            .iter()
            .filter(|record| record.is_body_sound)
            .map(|record| record.offset..record.end())
            .collect()
    }

    fn any_batches() -> impl Strategy<Value = Vec<Vec<usize>>> {
        prop::collection::vec(
            prop::collection::vec(prop_oneof![0_usize..40, 500..3000_usize], 1..4),
            1..5,
        )
    }

    proptest! {
        #[test]
        fn what_was_written_is_found(batches in any_batches()) {
            let (bytes, ranges) = file(&batches);
            for known in [0, bytes.len()] {
                let contents = look(&bytes, known);
                prop_assert_eq!(places(&contents), ranges.clone());
                prop_assert!(contents.is_sound());
                prop_assert_eq!(contents.unfinished, None);
                prop_assert_eq!(contents.end(), bytes.len());
            }
            // The same bytes at another place are nothing.
            prop_assert!(look_through(&bytes, FILE + 1, 0, |_, _| 5).records.is_empty());
        }

        #[test]
        fn a_cut_file_keeps_whole_batches_or_when_it_is_known_to_be_longer_every_whole_record(
            batches in any_batches(),
            cut in 0_usize..12_000,
        ) {
            let (bytes, ranges) = file(&batches);
            let cut = cut % bytes.len();
            let contents = look(&bytes[..cut], 0);
            let mut whole = 0;
            let mut kept = Vec::new();
            let mut ends = ranges.iter();
            for batch in &batches {
                let of_batch: Vec<_> = ends.by_ref().take(batch.len()).cloned().collect();
                if of_batch.last().unwrap().end <= cut {
                    whole = of_batch.last().unwrap().end;
                    kept.extend(of_batch);
                }
            }
            prop_assert_eq!(places(&contents), kept);
            prop_assert!(contents.is_sound());
            prop_assert_eq!(contents.unfinished, (whole < cut).then_some(whole));
            let contents = look(&bytes[..cut], bytes.len());
            let kept: Vec<_> = ranges.iter().filter(|range| range.end <= cut).cloned().collect();
            prop_assert_eq!(places(&contents), kept);
            prop_assert!(!contents.is_sound());
            prop_assert_eq!(contents.unfinished, None);
        }

        #[test]
        fn a_changed_byte_costs_its_own_record_only_and_is_told(
            batches in any_batches(),
            place in 0_usize..12_000,
            bit in 0..8,
            is_known: bool,
        ) {
            let (mut bytes, ranges) = file(&batches);
            let place = place % bytes.len();
            bytes[place] ^= 1_u8 << bit;
            let contents = look(&bytes, if is_known { bytes.len() } else { 0 });
            let hit = ranges.iter().position(|range| range.contains(&place)).unwrap();
            let kept: Vec<_> = ranges.iter().filter(|range| !range.contains(&place)).cloned().collect();
            let last_batch = ranges.len() - batches.last().unwrap().len();
            if is_known || hit < last_batch {
                prop_assert_eq!(places(&contents), kept);
            } else {
                // It may also be taken for a write that never came to its end, with the records beside it.
                prop_assert!(places(&contents).len() >= last_batch);
                prop_assert!(places(&contents).iter().all(|place| kept.contains(place)));
            }
            prop_assert!(!contents.is_sound() || contents.unfinished.is_some());
        }

        #[test]
        fn any_bytes_are_looked_through_without_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            known in 0_usize..400,
        ) {
            let contents = look(&bytes, known);
            prop_assert!(contents.records.is_empty());
        }
    }
}
