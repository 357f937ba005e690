//! Opening: segments and catalog are read, and each fills in what is missing in the other. What is damaged is told
//! with file and place, what is lost with stream and lines; intact records of a damaged segment move to the end of
//! the log, and the file as it was is set aside.
//!
//! A sequence that a reader may have seen is never given out again. When it cannot be told whose lines stood in a
//! damaged place, each stream that may be concerned goes on at its bound, the sequence up to which the catalog knows
//! that lines may have been given out, and the lines before it are lost by name. After a proper stop bounds are exact.

mod examine;
mod finish;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Mutex, RwLock};

use self::finish::{finish, set_aside, tell_losses};
use super::EmbeddedOptions;
use super::catalog::{self, Catalog, Saying};
use super::directory::{DataDirectory, Format, random_id};
use super::disk::Disk;
use super::index::{Index, Placed};
use super::layout::block::BlockFacts;
use super::layout::frame;
use super::layout::notes::store_id_of;
use super::log::Log;
use super::segment::{self, Segment};
use super::upkeep;
use super::volume::{Volume, free_name};
use crate::StoreError;

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
