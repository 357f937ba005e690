//! Background work on segments: full ones are sealed, those with little left in them are emptied and removed, and
//! an outdated catalog is written anew.

use super::catalog::Note;
use super::index::Index;
use super::layout::footer::Listed;
use super::layout::frame::Kind;
use super::layout::notes::SegmentNote;
use super::layout::stream;
use super::log::{seal, unsealed};
use super::segment::Segment;
use super::volume::{Volume, facts_at, facts_of, io_error};
use crate::StoreError;

/// A segment of which less than one part in so many is needed is emptied.
const MIN_LIVE_PART: u64 = 2;

/// The active segment is ended early for the same reason, but not while it is smaller.
const MIN_END_BYTES: u64 = 16 << 20;

/// A piece of work; true: there may be more.
pub(crate) fn maintain(volume: &Volume) -> Result<bool, StoreError> {
    if seal_next(volume)? || empty_next(volume)? {
        return Ok(true);
    }
    let mut log = volume.log();
    if log.catalog.is_outdated() {
        rewrite_catalog(volume, &mut log)?;
    }
    let is_wasteful = log.active_number().is_some_and(|number| {
        volume.index().segments.get(&number).is_some_and(|state| {
            state.bytes >= MIN_END_BYTES && state.live_bytes < state.bytes / MIN_LIVE_PART
        })
    });
    if is_wasteful {
        log.end_segment()
            .map_err(|error| io_error("end a segment", &error))?;
    }
    Ok(is_wasteful)
}

pub(crate) fn rewrite_catalog(volume: &Volume, log: &mut super::log::Log) -> Result<(), StoreError> {
    let active = log.active_number();
    let synced = active.and_then(|number| log.known_bytes(number));
    let index = volume.index();
    log.catalog
        .rewrite(&index, |number| synced.filter(|_| Some(number) == active))
        .map_err(|error| io_error("write the catalog anew", &error))
}

fn seal_next(volume: &Volume) -> Result<bool, StoreError> {
    let (active, batch, is_suspect) = {
        let log = volume.log();
        (
            log.active_number(),
            log.next_batch.saturating_sub(1),
            log.suspect().is_some(),
        )
    };
    // One whose sync failed is mended first, by whoever writes next.
    if is_suspect {
        return Ok(false);
    }
    let Some((segment, bytes)) = unsealed(&volume.index, active).into_iter().next() else {
        return Ok(false);
    };
    let table = table_of(volume, &segment);
    // What the table leaves out was replaced by something newer, which must be durable before it is left out.
    let synced = volume.log().sync();
    synced.map_err(|error| io_error("make the log durable before a segment is sealed", &error))?;
    let sealed = seal(&volume.disk, &segment, bytes, batch, &table);
    let bytes = sealed.map_err(|error| io_error(&format!("seal {}", segment.path.display()), &error))?;
    if let Some(state) = volume.index_mut().segments.get_mut(&segment.number) {
        state.bytes = bytes;
        state.is_sealed = true;
    }
    let mut log = volume.log();
    log.catalog.note(Note::segment(SegmentNote {
        number: segment.number,
        is_removed: false,
        known_bytes: bytes,
    }));
    log.catalog.write();
    Ok(true)
}

/// What of the segment is still the newest. The last block of each stream keeps its checkpoint: should all
/// segments after this one be lost, the source goes on there.
fn table_of(volume: &Volume, segment: &Segment) -> Vec<u8> {
    struct Item {
        offset: u32,
        bytes: Vec<u8>,
    }
    let number = segment.number;
    let mut items = Vec::new();
    let mut last_blocks = Vec::new();
    let mut add = |listed: Listed<'_>| {
        let mut bytes = Vec::new();
        listed.write(&mut bytes);
        items.push(Item {
            offset: listed.offset,
            bytes,
        });
    };
    {
        let index: &Index = &volume.index();
        for (stream_id, stream) in &index.streams {
            if let Some(stored) = &stream.stored
                && stored.placed.segment == number
            {
                add(Listed {
                    kind: Kind::Stream,
                    batch: stored.placed.batch,
                    offset: stored.placed.offset,
                    meta_bytes: stored.placed.meta_bytes,
                    body_bytes: stored.placed.body_bytes,
                    body_check: stored.placed.body_check,
                    meta: &stream::to_meta(*stream_id, &stream.created),
                    body: &stored.body,
                });
            }
            let mut last = None;
            for entry in stream.blocks.iter().filter(|entry| entry.segment == number) {
                if let Some((stream_id, entry)) = last.replace((*stream_id, *entry)) {
                    add(listed_block(&entry, &facts_of(stream_id, &entry).to_meta()));
                }
            }
            last_blocks.extend(last);
        }
        for stored in index.agents.values() {
            if stored.placed.segment == number {
                add(Listed {
                    kind: Kind::Agent,
                    batch: stored.placed.batch,
                    offset: stored.placed.offset,
                    meta_bytes: stored.placed.meta_bytes,
                    body_bytes: stored.placed.body_bytes,
                    body_check: stored.placed.body_check,
                    meta: &[],
                    body: &stored.body,
                });
            }
        }
    }
    let file = segment.open().ok();
    for (stream_id, entry) in last_blocks {
        let facts = file
            .as_ref()
            .and_then(|file| facts_at(file, stream_id, &entry))
            .unwrap_or_else(|| facts_of(stream_id, &entry));
        add(listed_block(&entry, &facts.to_meta()));
    }
    items.sort_unstable_by_key(|item| item.offset);
    items.into_iter().flat_map(|item| item.bytes).collect()
}

fn listed_block<'a>(entry: &super::index::Entry, meta: &'a [u8]) -> Listed<'a> {
    Listed {
        kind: Kind::Block,
        batch: 0,
        offset: entry.offset,
        meta_bytes: entry.meta_bytes,
        body_bytes: entry.body_bytes,
        body_check: entry.body_check,
        meta,
        body: &[],
    }
}

/// Empties the sealed segment with the least in it, if that is little enough.
fn empty_next(volume: &Volume) -> Result<bool, StoreError> {
    let number = {
        let index = volume.index();
        let emptiest = index
            .segments
            .iter()
            .filter(|(_, state)| state.is_sealed)
            .min_by_key(|(_, state)| state.live_bytes.saturating_mul(1000) / state.bytes.max(1));
        emptiest
            .filter(|(_, state)| state.live_bytes < state.bytes / MIN_LIVE_PART)
            .map(|(number, _)| *number)
    };
    let Some(number) = number else {
        return Ok(false);
    };
    volume.evacuate(number)?;
    remove(volume, number)?;
    Ok(true)
}

/// Forgets a segment that holds nothing any more; its file goes when its last reader is done.
fn remove(volume: &Volume, number: u32) -> Result<(), StoreError> {
    let mut log = volume.log();
    // What replaced its records must be durable before they go.
    log.sync()
        .map_err(|error| io_error("make the log durable before a segment is removed", &error))?;
    note_removed(&mut log, number);
    let removed = volume.index_mut().segments.remove(&number);
    drop(log);
    if let Some(state) = removed {
        state.segment.doom();
    }
    Ok(())
}

/// The catalog must know before the file is gone, or the next start would miss it.
pub(crate) fn note_removed(log: &mut super::log::Log, number: u32) {
    log.catalog.note(Note::segment(SegmentNote {
        number,
        is_removed: true,
        known_bytes: 0,
    }));
    log.catalog.sync();
}
