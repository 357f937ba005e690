//! The engine's journals, looked through before it opens them.
//!
//! The engine itself stops at the first bad byte: it refuses to open, or drops all that follows without a
//! word. Here every whole batch is kept (each has a checksum and is independent of the others), what is not
//! is reported with its place, and the file as it was is set aside.
//!
//! Layout of a batch, little-endian: 1, number of items (4 bytes), number of the batch (8); for each item
//! 2, kind (1), compression (1), family (8), sizes of key (2), value (4) and stored value (4), key, value, or
//! 4, family (8); then 3, XXH3 of all items (8), `FJL\x03`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::StoreError;

const TRAILER: &[u8] = b"FJL\x03";

/// Batches are numbered in order; a number that is so much larger than the one before is no number.
const MAX_STEP: u64 = 1 << 40;

/// What a journal holds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Contents {
    /// Whole batches, in order.
    batches: Vec<Range<usize>>,
    /// What stands between them and is none.
    damaged: Vec<Range<usize>>,
    /// A batch at the end that was never finished: no damage, nobody was told that it is there.
    unfinished: Option<usize>,
}

/// Repairs the journals in the engine's folder; what is taken out goes to `aside`. Returns what was found, in
/// words.
pub(crate) fn repair(engine: &Path, aside: &Path) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(engine) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries.map_err(|error| failed(engine, &error))?,
    };
    for entry in entries {
        let path = entry.map_err(|error| failed(engine, &error))?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            repair_one(&path, aside, &mut found).map_err(|error| failed(&path, &error))?;
        }
    }
    Ok(found)
}

fn repair_one(path: &Path, aside: &Path, found: &mut Vec<String>) -> io::Result<()> {
    let bytes = fs::read(path)?;
    let contents = look_through(&bytes);
    if contents.damaged.is_empty() {
        if let Some(end) = contents.unfinished {
            tracing::info!(
                "{}: dropped an unfinished write at byte {end}, as after a power failure",
                path.display()
            );
            let file = OpenOptions::new().write(true).open(path)?;
            file.set_len(end as u64)?;
            file.sync_all()?;
        }
        return Ok(());
    }
    let repaired = path.with_extension("jnl.repaired");
    let mut file = File::create(&repaired)?;
    for batch in &contents.batches {
        file.write_all(&bytes[batch.clone()])?;
    }
    file.sync_all()?;
    let original = set_aside(path, aside)?;
    fs::rename(&repaired, path)?;
    if let Some(engine) = path.parent() {
        File::open(engine)?.sync_all()?;
    }
    for place in &contents.damaged {
        let words = format!(
            "store: {} is damaged from byte {} to {}; all whole writes around it are kept, lines that stood \
             there are reported where they are missed, and the file as it was is {}",
            path.display(),
            place.start,
            place.end,
            original.display()
        );
        tracing::error!("{words}");
        found.push(words);
    }
    Ok(())
}

/// Copies the file to a name in `aside` that is free.
fn set_aside(path: &Path, aside: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(aside)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let free = (0_u32..)
        .map(|number| aside.join(format!("{name}.{number}")))
        .find(|path| !path.exists());
    let target = free.ok_or(io::ErrorKind::AlreadyExists)?;
    fs::copy(path, &target)?;
    Ok(target)
}

fn failed(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Engine {
        what: format!("look through {}", path.display()),
        cause: error.to_string(),
    }
}

fn look_through(bytes: &[u8]) -> Contents {
    let mut contents = Contents::default();
    let mut numbers = Vec::new();
    let mut place = 0;
    // The rest of a journal is zeros that were reserved.
    let written = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    while place < written {
        if let Some((end, number)) = batch_at(bytes, place) {
            contents.batches.push(place..end);
            numbers.push(number);
            place = end;
            continue;
        }
        // A batch begins where another ends, and that has a trailer.
        let mut ends = trailers(&bytes[..written], place);
        let Some(first_end) = ends.next() else {
            contents.unfinished = Some(place);
            break;
        };
        let next = std::iter::once(first_end)
            .chain(ends)
            .find(|end| batch_at(bytes, *end).is_some())
            .unwrap_or(written);
        contents.damaged.push(place..next);
        place = next;
    }
    drop_misnumbered(&mut contents, &mut numbers);
    contents
}

/// Ends of all trailers from `place` on.
fn trailers(bytes: &[u8], place: usize) -> impl Iterator<Item = usize> + '_ {
    let windows = bytes.get(place..).unwrap_or_default().windows(TRAILER.len());
    windows
        .enumerate()
        .filter(|(_, window)| *window == TRAILER)
        .map(move |(at, _)| place + at + TRAILER.len())
}

/// The checksum of a batch does not cover its number. One that is out of order is damaged; the engine would
/// take it for older than what it replaces.
fn drop_misnumbered(contents: &mut Contents, numbers: &mut Vec<u64>) {
    let mut at = 0;
    while at < numbers.len() {
        let before = at.checked_sub(1).map(|before| numbers[before]);
        let after = numbers.get(at + 1).copied();
        let is_too_low = before.is_some_and(|before| numbers[at] <= before);
        let is_too_high = match (before, after) {
            (Some(before), _) if numbers[at] - before.min(numbers[at]) > MAX_STEP => true,
            (Some(before), Some(after)) => numbers[at] >= after && before < after,
            // Without one before, the second after it has to be the judge.
            (None, Some(after)) => {
                numbers[at] >= after && numbers.get(at + 2).is_some_and(|second| numbers[at] >= *second)
            }
            _ => false,
        };
        if is_too_low || is_too_high {
            numbers.remove(at);
            contents.damaged.push(contents.batches.remove(at));
        } else {
            at += 1;
        }
    }
}

/// End and number of the whole batch that begins at `place`.
fn batch_at(bytes: &[u8], place: usize) -> Option<(usize, u64)> {
    let mut rest = Rest {
        bytes: bytes.get(place..)?,
    };
    if rest.byte()? != 1 {
        return None;
    }
    let items = u32::from_le_bytes(rest.array()?);
    let number = u64::from_le_bytes(rest.array()?);
    let before = rest.bytes;
    for _ in 0..items {
        match rest.byte()? {
            2 => {
                let [kind, compression] = rest.array()?;
                // Values, removals, weak removals; none is compressed.
                if kind > 2 || compression != 0 {
                    return None;
                }
                let _family: [u8; 8] = rest.array()?;
                let key_bytes = usize::from(u16::from_le_bytes(rest.array()?));
                let value_bytes = u32::from_le_bytes(rest.array()?);
                if u32::from_le_bytes(rest.array()?) != value_bytes {
                    return None;
                }
                rest.skip(key_bytes)?;
                rest.skip(value_bytes as usize)?;
            }
            4 => rest.skip(8)?,
            _ => return None,
        }
    }
    let content = &before[..before.len() - rest.bytes.len()];
    if rest.byte()? != 3 || u64::from_le_bytes(rest.array()?) != xxh3_64(content) {
        return None;
    }
    (rest.array::<4>()? == TRAILER).then(|| (bytes.len() - rest.bytes.len(), number))
}

struct Rest<'a> {
    bytes: &'a [u8],
}

impl Rest<'_> {
    fn skip(&mut self, count: usize) -> Option<()> {
        self.bytes = self.bytes.get(count..)?;
        Some(())
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(*array)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(number: u64, value: &[u8]) -> Vec<u8> {
        let mut item = vec![2, 0, 0];
        item.extend(7_u64.to_le_bytes());
        item.extend(3_u16.to_le_bytes());
        item.extend(u32::try_from(value.len()).unwrap().to_le_bytes());
        item.extend(u32::try_from(value.len()).unwrap().to_le_bytes());
        item.extend(b"key");
        item.extend(value);
        let mut batch = vec![1];
        batch.extend(1_u32.to_le_bytes());
        batch.extend(number.to_le_bytes());
        batch.extend(&item);
        batch.push(3);
        batch.extend(xxh3_64(&item).to_le_bytes());
        batch.extend(TRAILER);
        batch
    }

    fn journal() -> (Vec<u8>, usize) {
        let batches = [
            batch(4, b"one"),
            batch(5, b"FJL\x03 is text too"),
            batch(9, b"three"),
        ];
        let mut bytes = batches.concat();
        let written = bytes.len();
        bytes.resize(written + 100, 0);
        (bytes, written)
    }

    #[test]
    fn a_sound_journal_is_left_as_it_is() {
        let (bytes, written) = journal();
        let contents = look_through(&bytes);
        assert_eq!((contents.damaged.len(), contents.unfinished), (0, None));
        assert_eq!(contents.batches.len(), 3);
        assert_eq!(contents.batches[2].end, written);
        assert_eq!(look_through(&[]), Contents::default());
    }

    #[test]
    fn a_journal_cut_at_every_byte_keeps_every_whole_batch_and_has_no_damage() {
        let (bytes, written) = journal();
        let whole = look_through(&bytes).batches;
        for cut in 0..written {
            let contents = look_through(&bytes[..cut]);
            let kept = whole.iter().filter(|batch| batch.end <= cut).count();
            assert_eq!(contents.batches, whole[..kept], "cut at {cut}");
            let end = whole[..kept].last().map_or(0, |batch| batch.end);
            if contents.damaged.is_empty() {
                // Zeros at the end of a cut batch look like reserved room, and are treated alike.
                assert!(
                    contents.unfinished.is_none_or(|place| place == end),
                    "cut at {cut}"
                );
            } else {
                // The text of the second batch looks like the end of one: then it is told, not dropped.
                assert_eq!(contents.damaged, vec![end..cut; 1], "cut at {cut}");
            }
        }
    }

    #[test]
    fn every_flipped_bit_costs_its_own_batch_only() {
        let (bytes, written) = journal();
        let whole = look_through(&bytes).batches;
        for place in 0..written {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[place] ^= 1 << bit;
                let contents = look_through(&bytes);
                let hit = whole.iter().position(|batch| batch.contains(&place)).unwrap();
                // A number may change and still be in order; then nothing is wrong. When it is not, it or its
                // neighbour's is wrong, and nobody can tell which.
                if (5..13).contains(&(place - whole[hit].start)) {
                    assert!(contents.batches.len() >= 2, "byte {place} bit {bit}");
                    assert!(contents.batches.iter().all(|batch| whole.contains(batch)));
                    continue;
                }
                for (number, batch) in whole.iter().enumerate() {
                    let is_kept = contents.batches.contains(batch);
                    // A batch is found by the end of the one before it.
                    let has_begin = number == 0 || hit + 1 != number || place < batch.start - TRAILER.len();
                    if number == hit {
                        assert!(!is_kept, "byte {place} bit {bit}");
                    } else if has_begin {
                        assert!(is_kept, "byte {place} bit {bit}: batch {number} was lost");
                    }
                }
                assert_eq!(
                    contents.batches.len() == whole.len(),
                    contents.damaged.is_empty() && contents.unfinished.is_none(),
                    "byte {place} bit {bit}"
                );
            }
        }
    }
}
