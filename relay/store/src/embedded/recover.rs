//! Opening: segments and catalog are read, and each fills in what is missing in the other. What is damaged is told
//! with file and place, what is lost with stream and lines; intact records of a damaged segment move to the end of
//! the log, and the file as it was is set aside.
//!
//! A sequence that a reader may have seen is never given out again. When it cannot be told whose lines stood in a
//! damaged place, each stream that may be concerned goes on at its bound, the sequence up to which the catalog knows
//! that lines may have been given out, and the lines before it are lost by name. After a proper stop bounds are exact.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, RwLock};

use bytes::Bytes;

use super::EmbeddedOptions;
use super::catalog::{self, Catalog, Note, Saying};
use super::directory::{DataDirectory, Format, random_id};
use super::disk::Disk;
use super::index::{Index, Placed};
use super::layout::block::{BlockFacts, FLAG_LOST};
use super::layout::footer;
use super::layout::frame::{self, Contents, Found, Kind};
use super::layout::notes::{SegmentNote, store_id_of};
use super::layout::stream;
use super::log::{Draft, Log};
use super::segment::{self, Segment};
use super::upkeep;
use super::volume::{Volume, agent_draft, free_name, io_error, seed_of, stream_draft};
use crate::StoreError;

/// Streams whose losses are told when the store is opened; readers are told of all of them.
const MAX_TOLD: usize = 500;

/// Without a catalog nobody knows which lines of a damaged place were given out; no stream writes so many between
/// two starts.
const UNKNOWN_BOUND_STEP: u64 = 1 << 32;

/// What was found out about one segment.
struct Examined {
    segment: std::sync::Arc<Segment>,
    bytes: u64,
    is_sealed: bool,
    /// It must be emptied and set aside.
    is_damaged: bool,
}

struct Recovery<'a> {
    directory: &'a DataDirectory,
    disk: &'a Disk,
    index: Index,
    words: Vec<String>,
    last_batch: u64,
    store_id: Option<String>,
    /// Lines may be lost of which nothing tells whose they were.
    is_uncertain: bool,
    /// Blocks whose text is lost. What they say counts only where no other block has the lines: one that was made of
    /// older ones may have been damaged before those were gone.
    lost: Vec<(BlockFacts, Placed)>,
}

/// Opens the store in the directory, or creates one. Returns its id and what was found damaged, in words.
pub(crate) fn open(
    directory: &DataDirectory,
    options: &EmbeddedOptions,
) -> Result<(String, Volume, Vec<String>), StoreError> {
    let disk = &options.disk;
    let failed = |error: io::Error| directory.unusable("its store cannot be opened", &error);
    let format = directory.read_format()?;
    let saying = catalog::read(&directory.catalog()).map_err(failed)?;
    disk.create_folder(&directory.log()).map_err(failed)?;
    let files = segment_files(&directory.log()).map_err(failed)?;
    let is_new = files.is_empty()
        && !matches!(format, Format::StoreId(_))
        && saying
            .as_ref()
            .is_none_or(|saying| saying.streams.is_empty() && saying.damaged.is_empty());
    let mut recovery = Recovery {
        directory,
        disk,
        index: Index::default(),
        words: Vec::new(),
        last_batch: saying.as_ref().map_or(0, |saying| saying.last_batch),
        store_id: saying.as_ref().and_then(|saying| saying.store_id.clone()),
        is_uncertain: false,
        lost: Vec::new(),
    };
    let nothing = Saying::default();
    let known = saying.as_ref().unwrap_or(&nothing);
    let examined = recovery.examine_all(&files, known).map_err(failed)?;
    let is_empty = !is_new && saying.is_none() && recovery.index.segments.is_empty();
    let store_id = recovery
        .settle_identity(&format, is_new, is_empty)
        .map_err(failed)?;
    let is_catalog_sound = saying.as_ref().is_some_and(|saying| saying.damaged.is_empty());
    recovery.tell_catalog(saying.as_ref(), is_new).map_err(failed)?;
    recovery.fill_from(known);

    let saying = if is_new { None } else { saying };
    let catalog = if is_new {
        let fresh = catalog::read(&directory.catalog()).map_err(failed)?;
        Catalog::open(&directory.catalog(), &store_id, disk.clone(), fresh.as_ref())
    } else {
        Catalog::open(&directory.catalog(), &store_id, disk.clone(), saying.as_ref())
    };
    let mut log = Log::new(
        directory.log(),
        store_id.clone(),
        disk.clone(),
        options.segment_bytes,
        catalog.map_err(failed)?,
    );
    log.next_batch = recovery.last_batch + 1;
    let last_file = files.keys().next_back().copied().unwrap_or(0);
    let last_noted = saying.as_ref().map_or(0, |saying| saying.last_segment);
    log.next_number = last_file.max(last_noted) + 1;
    if let Some(last) = examined.last()
        && last.segment.number == last_file
        && !last.is_sealed
        && !last.is_damaged
    {
        log.go_on_in(&last.segment, last.bytes).map_err(failed)?;
    }
    let Recovery {
        index,
        mut words,
        is_uncertain,
        ..
    } = recovery;
    let volume = Volume {
        index: RwLock::new(index),
        log: Mutex::new(log),
        disk: disk.clone(),
        aside: directory.damaged(),
    };
    let has_damage = !words.is_empty();
    finish(
        &volume,
        saying.as_ref(),
        is_uncertain,
        is_catalog_sound,
        &mut words,
    )?;
    for damaged in examined.iter().filter(|examined| examined.is_damaged) {
        if let Err(error) = set_aside(&volume, &damaged.segment) {
            // It stays where it is and is read from there; the next start tries again.
            words.push(format!(
                "store: {} cannot be set aside: {error}",
                damaged.segment.path.display()
            ));
        }
    }
    if has_damage {
        tell_losses(&volume.index(), &mut words);
    }
    let mut log = volume.log();
    if log.catalog.is_outdated()
        && let Err(error) = upkeep::rewrite_catalog(&volume, &mut log)
    {
        tracing::warn!(%error, "the catalog is written later");
    }
    drop(log);
    Ok((store_id, volume, words))
}

/// Segments in the folder, by number. What an interrupted replacement left is removed.
fn segment_files(folder: &Path) -> io::Result<BTreeMap<u32, std::path::PathBuf>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if let Some(number) = segment::number_of(&path) {
            files.insert(number, path);
        }
    }
    Ok(files)
}

impl Recovery<'_> {
    fn tell(&mut self, path: &Path, what: &str) {
        let words = format!("store: {} {what}", path.display());
        tracing::error!("{words}");
        self.words.push(words);
    }

    fn examine_all(
        &mut self,
        files: &BTreeMap<u32, std::path::PathBuf>,
        known: &Saying,
    ) -> io::Result<Vec<Examined>> {
        let folder = self.directory.log();
        let numbers: BTreeSet<u32> = files.keys().chain(known.segments.keys()).copied().collect();
        let mut all = Vec::new();
        for number in numbers {
            let segment = Segment::new(&folder, number, self.disk.clone());
            let known_bytes = known.segments.get(&number).map_or(0, |note| note.known_bytes);
            if !files.contains_key(&number) {
                self.tell(
                    &segment.path,
                    &format!("is missing; at least {known_bytes} bytes had been written to it"),
                );
                self.is_uncertain = true;
                continue;
            }
            if let Some(examined) = self.examine(segment, known_bytes)? {
                all.push(examined);
            }
        }
        for (facts, placed) in std::mem::take(&mut self.lost) {
            self.index.put_lost(&facts, &placed);
        }
        Ok(all)
    }

    /// Takes what a segment holds into the index. `None`: nothing was ever written to it.
    fn examine(
        &mut self,
        segment: std::sync::Arc<Segment>,
        known_bytes: u64,
    ) -> io::Result<Option<Examined>> {
        let file = segment.open()?;
        let bytes = file.metadata()?.len();
        if let Some(table) = segment::read_footer(&file, segment.number)?
            && bytes >= known_bytes
            && let Ok(listed) = footer::read(&table)
        {
            self.index.add_segment(segment.clone(), bytes, true);
            for listed in listed {
                let placed = Placed {
                    segment: segment.number,
                    offset: listed.offset,
                    meta_bytes: listed.meta_bytes,
                    body_bytes: listed.body_bytes,
                    body_check: listed.body_check,
                    batch: listed.batch,
                };
                self.take(listed.kind, listed.meta, &placed, || {
                    Bytes::copy_from_slice(listed.body)
                });
            }
            return Ok(Some(Examined {
                segment,
                bytes,
                is_sealed: true,
                is_damaged: false,
            }));
        }
        drop(file);
        let content = segment::read_whole(&segment.path)?;
        let known = usize::try_from(known_bytes).unwrap_or(usize::MAX);
        let contents = frame::look_through(&content, segment.number, known, seed_of);
        if contents.records.is_empty() && contents.damaged.is_empty() {
            // Its header was never finished, so nothing was.
            self.disk.remove(&segment.path)?;
            return Ok(None);
        }
        Ok(Some(self.take_all(segment, &content, &contents)))
    }

    fn take_all(
        &mut self,
        segment: std::sync::Arc<Segment>,
        content: &[u8],
        contents: &Contents,
    ) -> Examined {
        self.tell_damage(&segment, content, contents);
        if let Some(at) = contents.unfinished {
            tracing::info!(
                "{}: dropped an unfinished write at byte {at}, as after a crash",
                segment.path.display()
            );
        }
        let has_footer = contents
            .records
            .iter()
            .any(|record| record.head.kind == Kind::End);
        let is_damaged = !contents.is_sound() || has_footer;
        let bytes = contents.end() as u64;
        self.index.add_segment(segment.clone(), bytes, false);
        for record in &contents.records {
            self.take_found(&segment, content, record);
        }
        Examined {
            segment,
            bytes,
            is_sealed: false,
            is_damaged,
        }
    }

    fn tell_damage(&mut self, segment: &Segment, content: &[u8], contents: &Contents) {
        for range in &contents.damaged {
            let what = if range.end > content.len() {
                format!("is cut off at byte {}; it had {} bytes", content.len(), range.end)
            } else {
                format!("is damaged from byte {} to {}", range.start, range.end)
            };
            self.tell(
                &segment.path,
                &format!(
                    "{what}; all whole records around it are kept, and the file as it was is kept in damaged/"
                ),
            );
            // What is behind the last record of a sealed segment is only its table of contents.
            self.is_uncertain |= !is_behind_contents(contents, range);
        }
        for record in contents.records.iter().filter(|record| !record.is_body_sound) {
            let whose = match record.head.kind {
                Kind::Block => BlockFacts::from_meta(&content[record.meta.clone()]).map_or_else(
                    |_| "lines".to_owned(),
                    |facts| {
                        format!(
                            "lines {} to {} of stream {}",
                            facts.first_sequence,
                            facts.next_sequence - 1,
                            facts.stream_id
                        )
                    },
                ),
                Kind::Footer => "its table of contents, which nothing else needs".to_owned(),
                _ => "a record that the catalog has too".to_owned(),
            };
            self.tell(
                &segment.path,
                &format!(
                    "is damaged between byte {} and {}: {whose}; the file as it was is kept in damaged/",
                    record.body.start, record.body.end
                ),
            );
        }
    }

    fn take_found(&mut self, segment: &Segment, content: &[u8], record: &Found) {
        let head = &record.head;
        let Ok(offset) = u32::try_from(record.offset) else {
            return;
        };
        let placed = Placed {
            segment: segment.number,
            offset,
            meta_bytes: head.meta_bytes,
            body_bytes: head.body_bytes,
            body_check: head.body_check,
            batch: head.batch,
        };
        let meta = &content[record.meta.clone()];
        if !record.is_body_sound {
            // Of a block its place in the stream is known all the same.
            if head.kind == Kind::Block
                && let Ok(mut facts) = BlockFacts::from_meta(meta)
            {
                facts.flags |= FLAG_LOST;
                self.last_batch = self.last_batch.max(head.batch);
                self.lost.push((facts, placed));
            }
            return;
        }
        self.take(head.kind, meta, &placed, || {
            Bytes::copy_from_slice(&content[record.body.clone()])
        });
    }

    /// Takes a sound record into the index.
    fn take(&mut self, kind: Kind, meta: &[u8], placed: &Placed, body: impl FnOnce() -> Bytes) {
        self.last_batch = self.last_batch.max(placed.batch);
        let taken = match kind {
            Kind::Block => BlockFacts::from_meta(meta)
                .map(|facts| {
                    if facts.flags & FLAG_LOST == 0 {
                        self.index.put_block(&facts, placed);
                    } else {
                        self.lost.push((facts, *placed));
                    }
                })
                .map_err(|error| error.to_string()),
            Kind::Stream => stream::from_meta(meta)
                .map(|(stream_id, created)| self.index.put_stream(stream_id, created, *placed, body()))
                .map_err(|error| error.to_string()),
            Kind::Agent => self
                .index
                .put_agent(*placed, body())
                .map_err(|error| error.to_string()),
            Kind::Header => store_id_of(meta)
                .map(|store_id| self.store_id = Some(store_id))
                .map_err(|error| error.to_string()),
            Kind::Footer | Kind::End | Kind::Bound | Kind::Segment => Ok(()),
        };
        if let Err(error) = taken {
            // Its checksums are right, so it was written like this.
            tracing::error!(
                "store: a record of segment {} cannot be read: {error}",
                placed.segment
            );
        }
    }

    /// The store's id, from whatever has it; a new one for a new store.
    fn settle_identity(&mut self, format: &Format, is_new: bool, is_empty: bool) -> io::Result<String> {
        let path = self.directory.format();
        match format {
            // Its stream ids and sequences will be given out again: they must not be taken for those of before.
            Format::StoreId(_) if is_empty => {
                let store_id = random_id()?;
                self.directory.write_format(self.disk, &store_id)?;
                return Ok(store_id);
            }
            Format::StoreId(store_id) => return Ok(store_id.clone()),
            Format::Missing | Format::Damaged => {}
        }
        if self.store_id.is_none() {
            // A sealed segment's header was only checked, not read.
            self.store_id = self.index.segments.values().find_map(|state| {
                let file = state.segment.open().ok()?;
                let place = frame::Place {
                    file: state.segment.number,
                    offset: 0,
                };
                let (_, meta) = segment::read_head(&file, place).ok()??;
                store_id_of(&meta).ok()
            });
        }
        let found = self.store_id.clone();
        let store_id = match &found {
            Some(store_id) => store_id.clone(),
            None => random_id()?,
        };
        if !is_new {
            let what = if *format == Format::Missing {
                "is missing"
            } else {
                "is damaged"
            };
            let rest = if found.is_some() {
                "nothing is lost, other files say the same, and it is written anew"
            } else {
                "no other file has the store's id, so it gets a new one and cursors of before are refused"
            };
            self.tell(&path, &format!("{what}; {rest}"));
        }
        if *format == Format::Damaged {
            self.keep(&path)?;
        }
        if is_new && found.is_none() {
            Catalog::create(&self.directory.catalog(), &store_id, self.disk)?;
        }
        self.directory.write_format(self.disk, &store_id)?;
        Ok(store_id)
    }

    /// Moves a damaged file to where those are kept.
    fn keep(&self, path: &Path) -> io::Result<()> {
        let aside = self.directory.damaged();
        self.disk.create_folder(&aside)?;
        self.disk.rename(path, &free_name(&aside, path))
    }

    fn tell_catalog(&mut self, saying: Option<&Saying>, is_new: bool) -> io::Result<()> {
        let path = self.directory.catalog();
        match saying {
            None if is_new => {}
            None if self.index.segments.is_empty() => self.tell(
                &path,
                "is missing, and so is every segment: nothing is left of what the store held, and nothing tells \
                 what that was; the store gets a new id, so that cursors of before are refused",
            ),
            None => self.tell(
                &path,
                "is missing; it is a second copy of what the segments hold, and is written anew",
            ),
            Some(saying) if saying.damaged.is_empty() => {}
            Some(saying) => {
                let range = saying.damaged[0].clone();
                self.tell(
                    &path,
                    &format!(
                        "is damaged from byte {} to {}; it is a second copy of what the segments hold, and is \
                         written anew; the file as it was is kept in damaged/",
                        range.start, range.end
                    ),
                );
                self.keep(&path)?;
            }
        }
        Ok(())
    }

    /// What the catalog knows and no segment has.
    fn fill_from(&mut self, known: &Saying) {
        let nowhere = |batch| Placed {
            segment: 0,
            offset: 0,
            meta_bytes: 0,
            body_bytes: 0,
            body_check: 0,
            batch,
        };
        for (stream_id, (batch, created, body)) in &known.streams {
            let stored = self
                .index
                .streams
                .get(stream_id)
                .and_then(|stream| stream.stored.as_ref());
            if stored.is_none_or(|stored| stored.placed.batch < *batch) {
                self.index
                    .put_stream(*stream_id, created.clone(), nowhere(*batch), body.clone());
            }
        }
        for (agent_id, (batch, body)) in &known.agents {
            let stored = self.index.agents.get(agent_id);
            if stored.is_none_or(|stored| stored.placed.batch < *batch) {
                // It was decoded when the catalog was read.
                let _ = self.index.put_agent(nowhere(*batch), body.clone());
            }
        }
        for (stream_id, bound) in &known.bounds {
            if let Some(stream) = self.index.streams.get_mut(stream_id) {
                stream.bound = *bound;
            }
        }
    }
}

fn is_behind_contents(contents: &Contents, range: &Range<usize>) -> bool {
    let footer = contents
        .records
        .iter()
        .find(|record| record.head.kind == Kind::Footer);
    footer.is_some_and(|footer| footer.offset < range.start)
}

/// Lets streams go on where no line was given out before, brings records that only the catalog has back into the log,
/// and tells the catalog what only the segments have.
fn finish(
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

fn has_ended(stream_id: u64, stream: &super::index::Stream) -> bool {
    stream.record(stream_id).is_ok_and(|record| record.end.is_some())
}

/// Moves what is intact in a damaged segment to the end of the log, and the file to where damaged ones are kept.
fn set_aside(volume: &Volume, segment: &Segment) -> Result<(), StoreError> {
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
fn tell_losses(index: &Index, words: &mut Vec<String>) {
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
