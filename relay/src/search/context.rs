//! Lines around hits.

use std::ops::Range;

use millstream_proto::block::Unpacker;
use millstream_store::{LogStore, StoreError};

use super::hits::Hits;
use super::scan::Scanner;

/// Text of context for one message of hits.
const MAX_TEXT_BYTES: usize = 4 << 20;

/// Where context may come from.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) stream_id: u64,
    /// Lines before and after each hit.
    pub(super) lines: u64,
    /// Lines that are stored and were not sent yet.
    pub(super) open: Range<u64>,
}

/// The lines around the hits (given in order), without the hits. Beyond the first and the last of them, lines end
/// at the next hit, which brings its own. Each block is read once.
pub(super) fn around(
    store: &dyn LogStore,
    unpacker: &mut Unpacker,
    scanner: &Scanner,
    hits: &Hits,
    surroundings: &Surroundings,
) -> Result<Hits, StoreError> {
    let mut context = Hits::default();
    let Some((first_hit, last_hit)) = hits.sequences().next().zip(hits.sequences().last()) else {
        return Ok(context);
    };
    let mut hit_sequences = hits.sequences().peekable();
    let ranges = ranges(hits, surroundings);
    let mut at = ranges.first().map_or(u64::MAX, |range| range.start);
    let mut range_index = 0;
    while let Some(range) = ranges.get(range_index) {
        at = at.max(range.start);
        if at >= range.end {
            range_index += 1;
            continue;
        }
        let blocks = match store.read_blocks(surroundings.stream_id, at, 1) {
            // What is lost is told where it is searched.
            Err(StoreError::DamagedLines { next_sequence, .. }) => {
                at = next_sequence.max(at + 1);
                continue;
            }
            blocks => blocks?,
        };
        let Some(block) = blocks.first() else { break };
        let lines = unpacker.unpack(block).and_then(|unpacked| unpacked.lines());
        let mut block_end = at + 1;
        for line in lines.into_iter().flatten() {
            block_end = line.sequence + 1;
            while ranges
                .get(range_index)
                .is_some_and(|range| range.end <= line.sequence)
            {
                range_index += 1;
            }
            let Some(range) = ranges.get(range_index) else {
                break;
            };
            while hit_sequences.next_if(|hit| *hit < line.sequence).is_some() {}
            if line.sequence < at
                || line.sequence < range.start
                || hit_sequences.peek() == Some(&line.sequence)
            {
                continue;
            }
            let is_outside = line.sequence < first_hit || line.sequence > last_hit;
            if is_outside && scanner.keeps(&line) {
                if line.sequence > last_hit {
                    return Ok(context);
                }
                context.forget_below(line.sequence);
                continue;
            }
            if context.text_bytes() + line.text.len() > MAX_TEXT_BYTES {
                return Ok(context);
            }
            context.push(&line);
        }
        at = block_end.max(at + 1);
    }
    Ok(context)
}

/// Ranges of lines to read, in order and apart.
fn ranges(hits: &Hits, surroundings: &Surroundings) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for hit in hits.sequences() {
        let start = hit
            .saturating_sub(surroundings.lines)
            .max(surroundings.open.start);
        let end = hit
            .saturating_add(surroundings.lines + 1)
            .min(surroundings.open.end);
        match ranges.last_mut() {
            Some(last) if start <= last.end => last.end = last.end.max(end),
            _ if start < end => ranges.push(start..end),
            _ => {}
        }
    }
    ranges
}
