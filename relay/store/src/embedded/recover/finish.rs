//! After everything was read: streams go on where no line was given out before, log and catalog are made to agree, and
//! what is lost is told.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::StoreError;
use crate::embedded::catalog::{Note, Saying};
use crate::embedded::index::{Index, Stream};
use crate::embedded::layout::block::{BlockFacts, FLAG_LOST};
use crate::embedded::layout::frame::Kind;
use crate::embedded::layout::notes::SegmentNote;
use crate::embedded::layout::stream;
use crate::embedded::log::Draft;
use crate::embedded::segment::Segment;
use crate::embedded::upkeep;
use crate::embedded::volume::{Volume, agent_draft, free_name, io_error, stream_draft};

/// Without a catalog nobody knows which lines of a damaged place were given out; no stream writes so many between
/// two starts.
const UNKNOWN_BOUND_STEP: u64 = 1 << 32;

/// Streams whose losses are told when the store is opened; readers are told of all of them.
const MAX_TOLD: usize = 500;

/// Lets streams go on where no line was given out before, brings records that only the catalog has back into the log,
/// and tells the catalog what only the segments have.
pub(super) fn finish(
    volume: &Volume,
    saying: Option<&Saying>,
    is_uncertain: bool,
    is_catalog_sound: bool,
    words: &mut Vec<String>,
) -> Result<(), StoreError> {
    let mut lost = Vec::new();
    let mut homeless: Vec<Draft> = Vec::new();
    {
        let mut index = volume.index_mut();
        for (stream_id, stream) in &mut index.streams {
            let mut bound = stream.bound;
            if is_uncertain && !is_catalog_sound && !has_ended(*stream_id, stream) {
                bound = bound.max(stream.head.next_sequence.saturating_add(UNKNOWN_BOUND_STEP));
            }
            if is_uncertain && bound > stream.head.next_sequence {
                lost.push(BlockFacts {
                    stream_id: *stream_id,
                    first_sequence: stream.head.next_sequence,
                    next_sequence: bound,
                    first_time_unix_us: stream.head.last_line_unix_us,
                    last_time_unix_us: stream.head.last_line_unix_us,
                    text_bytes: 0,
                    stream_text_bytes: stream.head.text_bytes,
                    flags: FLAG_LOST,
                    checkpoint: stream.head.checkpoint.clone(),
                });
            }
            if let Some(stored) = &stream.stored
                && stored.placed.segment == 0
            {
                homeless.push(stream_draft(*stream_id, &stream.created, stored.body.clone()));
            }
        }
        for stored in index.agents.values() {
            if stored.placed.segment == 0 {
                homeless.push(agent_draft(stored.body.clone()));
            }
        }
    }
    let mut log = volume.log();
    let lost_drafts = lost.iter().map(|facts| Draft {
        kind: Kind::Block,
        meta: facts.to_meta(),
        small: Bytes::new(),
        text: Bytes::new(),
        seed: 0,
    });
    let homes = homeless.len();
    homeless.extend(lost_drafts);
    if !homeless.is_empty() {
        let placed = log
            .append(&volume.index, &homeless)
            .map_err(|error| io_error("write what was found again", &error))?;
        let mut index = volume.index_mut();
        for (draft, placed) in homeless.iter().zip(&placed).take(homes) {
            if draft.kind == Kind::Agent {
                // It was decoded before.
                let _ = index.put_agent(*placed, draft.text.clone());
            } else if let Ok((stream_id, created)) = stream::from_meta(&draft.meta) {
                index.put_stream(stream_id, created, *placed, draft.text.clone());
            }
        }
        for (facts, placed) in lost.iter().zip(&placed[homes..]) {
            index.put_block(facts, placed);
        }
        drop(index);
        log.sync()
            .map_err(|error| io_error("write what was found again", &error))?;
    }
    if lost.len() > MAX_TOLD {
        words.push(format!(
            "store: {} streams may have lost lines at their ends",
            lost.len()
        ));
    }
    let mut index = volume.index_mut();
    for (stream_id, stream) in &mut index.streams {
        if stream.bound != stream.head.next_sequence {
            stream.bound = stream.head.next_sequence;
            log.catalog.note(Note::bound(*stream_id, stream.bound));
        }
        let noted = saying.and_then(|saying| saying.streams.get(stream_id));
        if let Some(stored) = &stream.stored
            && noted.is_none_or(|noted| noted.0 < stored.placed.batch)
        {
            let note = Note::stream(
                stored.placed.batch,
                *stream_id,
                &stream.created,
                stored.body.clone(),
            );
            log.catalog.note(note);
        }
    }
    for (agent_id, stored) in &index.agents {
        let noted = saying.and_then(|saying| saying.agents.get(agent_id));
        if noted.is_none_or(|noted| noted.0 < stored.placed.batch) {
            log.catalog
                .note(Note::agent(stored.placed.batch, stored.body.clone()));
        }
    }
    let noted = saying.map(|saying| &saying.segments);
    for number in index.segments.keys() {
        if noted.is_none_or(|noted| !noted.contains_key(number)) {
            log.catalog.note(Note::segment(SegmentNote {
                number: *number,
                is_removed: false,
                known_bytes: 0,
            }));
        }
    }
    for number in noted.into_iter().flat_map(BTreeMap::keys) {
        if !index.segments.contains_key(number) {
            upkeep::note_removed(&mut log, *number);
        }
    }
    drop(index);
    log.catalog.write();
    Ok(())
}

fn has_ended(stream_id: u64, stream: &Stream) -> bool {
    stream.record(stream_id).is_ok_and(|record| record.end.is_some())
}

/// Moves what is intact in a damaged segment to the end of the log, and the file to where damaged ones are kept.
pub(super) fn set_aside(volume: &Volume, segment: &Segment) -> Result<(), StoreError> {
    volume.evacuate(segment.number)?;
    let mut log = volume.log();
    log.sync()
        .map_err(|error| io_error("make the log durable", &error))?;
    // First, or a crash in between would have the next start miss it.
    upkeep::note_removed(&mut log, segment.number);
    let moved = volume.disk.create_folder(&volume.aside).and_then(|()| {
        volume
            .disk
            .rename(&segment.path, &free_name(&volume.aside, &segment.path))
    });
    moved.map_err(|error| io_error("move it", &error))?;
    volume.index_mut().segments.remove(&segment.number);
    Ok(())
}

/// Says which lines are missing.
pub(super) fn tell_losses(index: &Index, words: &mut Vec<String>) {
    let mut told = 0;
    for (stream_id, stream) in &index.streams {
        if stream.stored.is_none() {
            words.push(format!(
                "store: what stream {stream_id} is called is lost; its lines are served"
            ));
        }
        for hole in stream.holes() {
            if told == MAX_TOLD {
                return;
            }
            told += 1;
            let text = format!(
                "store: stream {stream_id}: lines {} to {} are lost",
                hole.start,
                hole.end.saturating_sub(1)
            );
            tracing::error!("{text}");
            words.push(text);
        }
    }
}
