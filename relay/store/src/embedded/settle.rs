//! Settling: runs of small blocks into large compressed ones, beside commits and reads.
//!
//! A run is replaced by one batch of the log, so that readers see the small blocks or the large one, and a restart
//! at any point finds one or the other: a block covers all that it was made from. Commits write heads and new
//! blocks, the settler writes old ones.

use std::sync::{Mutex, PoisonError};

use millstream_proto::block::{BlockBuilder, Compressor, OpenBlock};
use millstream_proto::limits::MAX_BLOCK_TEXT_BYTES;
use millstream_proto::v1;

use super::EmbeddedOptions;
use super::backlog::{Backlog, Rest, Task};
use super::index::{Entry, SMALL_TEXT_BYTES};
use super::layout::block::{BlockFacts, FLAG_COMPRESSED, FLAG_SETTLED};
use super::log::Draft;
use super::read::Loader;
use super::volume::{Held, Volume, facts_at, facts_of, io_error};
use super::write::{Event, block_draft, is_unsettled};
use crate::StoreError;

/// Blocks of one run, which bounds the time that a piece of work takes.
const MAX_RUN_BLOCKS: usize = 8192;

/// Index entries that one piece of work passes over, for the same reason.
const MAX_SKIPPED_BLOCKS: usize = 4096;

/// A settled block that is still small is settled again with new ones only when it is at most so many
/// times as large as they are together: a quiet stream's lines are rewritten a few times, not for ever.
const MAX_REWRITE_RATIO: u64 = 4;

/// A small block that was found to be sound; its text is unpacked.
struct Small {
    entry: Entry,
    open: OpenBlock,
}

/// The settler of one store.
#[derive(Debug)]
pub(crate) struct Settler {
    options: EmbeddedOptions,
    /// Held for moments only, also by commits.
    backlog: Mutex<Backlog>,
    /// Held for a piece of work, by `maintain` alone. Kept while there is work; it holds some MiB.
    compressor: Mutex<Option<Compressor>>,
}

impl Settler {
    pub(crate) fn new(options: EmbeddedOptions) -> Self {
        let backlog = Backlog::new(options.settle_text_bytes, options.settle_idle);
        Self {
            options,
            backlog: Mutex::new(backlog),
            compressor: Mutex::new(None),
        }
    }

    /// Notes what an earlier process left unsettled.
    pub(crate) fn find(&self, volume: &Volume) {
        let now = self.options.clock.now();
        let index = volume.index();
        let mut backlog = self.backlog();
        for (stream_id, stream) in &index.streams {
            let settled = stream.blocks.iter().rposition(|entry| {
                entry.is_lost()
                    || entry.is_settled()
                    || !is_unsettled(entry.text_bytes, entry.is_compressed())
            });
            let first = settled.map_or(0, |at| at + 1);
            if let Some(entry) = stream.blocks.get(first) {
                backlog.found(now, *stream_id, entry.first_sequence);
            }
        }
    }

    /// Notes what a commit did.
    pub(crate) fn observe(&self, events: &[Event]) {
        let now = self.options.clock.now();
        // The backlog is only a guide, so one that a panic left half changed does no harm.
        let mut backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            match *event {
                Event::Appended {
                    stream_id,
                    first_sequence,
                    text_bytes,
                    is_compressed,
                } if is_unsettled(text_bytes, is_compressed) => {
                    backlog.appended(now, stream_id, first_sequence, text_bytes);
                }
                Event::Appended { .. } => {}
                Event::Ended { stream_id } => backlog.ended(stream_id),
            }
        }
    }

    /// A piece of work; true: there is more.
    pub(crate) fn maintain(&self, volume: &Volume) -> Result<bool, StoreError> {
        let mut place = self.compressor.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.options.clock.now();
        let task = self.backlog().take(now);
        if let Some(task) = task {
            let compressor = place.get_or_insert_with(|| Compressor::new(self.options.compression_level));
            let (rest, result) = match settle(volume, compressor, self.options.settle_text_bytes, task) {
                Ok(rest) => (rest, Ok(())),
                Err(Failure { go_on_at, error }) => {
                    let rest = Rest {
                        from: go_on_at.unwrap_or(task.from),
                        is_unfinished: go_on_at.is_some(),
                        ..Rest::default()
                    };
                    (rest, Err(error))
                }
            };
            self.backlog().put_back(task, rest);
            result?;
        }
        let has_more = self.backlog().has_ready();
        if !has_more {
            *place = None;
        }
        Ok(has_more)
    }

    fn backlog(&self) -> std::sync::MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a task failed and, when only one place is bad, from where the others can still be settled.
struct Failure {
    go_on_at: Option<u64>,
    error: StoreError,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self {
            go_on_at: None,
            error,
        }
    }
}

/// A run of small blocks, in order and without a gap.
#[derive(Default)]
struct Run {
    blocks: Vec<Small>,
    text_bytes: u64,
    /// It reaches the head, so more small blocks may come; otherwise it is full, or what follows is large
    /// or damaged.
    is_open: bool,
    /// First sequence after the run and the large blocks before it.
    next_sequence: u64,
}

/// Settles the first run of the stream's unsettled blocks, unless it may still grow.
fn settle(
    volume: &Volume,
    compressor: &mut Compressor,
    settle_text_bytes: u64,
    task: Task,
) -> Result<Rest, Failure> {
    let (before, after, segments) = look_up(volume, task);
    let mut loader = Loader::new(volume, segments);
    let mut run = find_run(&mut loader, task, &after)?;
    let begin = run
        .blocks
        .first()
        .map_or(run.next_sequence, |small| small.entry.first_sequence);
    if run.is_open && !task.to_the_end && run.text_bytes < settle_text_bytes {
        return Ok(Rest {
            from: begin,
            text_bytes: run.text_bytes,
            blocks: run.blocks.len() as u64,
            is_unfinished: false,
        });
    }
    let done = Rest {
        from: run.next_sequence,
        is_unfinished: !run.is_open,
        ..Rest::default()
    };
    if run.blocks.is_empty() {
        return Ok(done);
    }
    extend_backwards(&mut loader, &mut run, task, &before)?;
    if let [Small { entry, .. }] = &run.blocks[..]
        && (entry.is_compressed() || entry.text_bytes < SMALL_TEXT_BYTES)
    {
        // Alone it would not get better; it waits for company, unless more cannot come.
        let waits = run.is_open && !task.has_ended;
        return Ok(Rest {
            from: if waits { begin } else { done.from },
            text_bytes: if waits { run.text_bytes } else { 0 },
            blocks: u64::from(waits),
            ..done
        });
    }
    let merged = merge(compressor, &run)?;
    replace(volume, task.stream_id, &run, merged)?;
    Ok(done)
}

/// Blocks before the task's place, newest first, and from there on, as many as it may have to look at; with their
/// segments.
fn look_up(volume: &Volume, task: Task) -> (Vec<Entry>, Vec<Entry>, Held) {
    let index = volume.index();
    let Some(stream) = index.streams.get(&task.stream_id) else {
        return (Vec::new(), Vec::new(), Held::new());
    };
    let at = stream
        .blocks
        .partition_point(|entry| entry.first_sequence < task.from);
    let limit = MAX_SKIPPED_BLOCKS + MAX_RUN_BLOCKS + 1;
    let after: Vec<Entry> = stream.blocks[at..].iter().take(limit).copied().collect();
    let before: Vec<Entry> = stream.blocks[..at]
        .iter()
        .rev()
        .take(MAX_RUN_BLOCKS)
        .copied()
        .collect();
    let mut segments = Held::new();
    for entry in before.iter().chain(&after) {
        if !segments.contains_key(&entry.segment)
            && let Some(segment) = index.segment(entry.segment)
        {
            segments.insert(entry.segment, segment.clone());
        }
    }
    (before, after, segments)
}

/// Passes over large blocks and collects the small ones that follow, up to a block full of text. A
/// damaged block ends the run before it; at the run's beginning it is an error, and passed over.
fn find_run(loader: &mut Loader<'_>, task: Task, entries: &[Entry]) -> Result<Run, Failure> {
    let mut run = Run {
        is_open: true,
        next_sequence: task.from,
        ..Run::default()
    };
    for (skipped, entry) in entries.iter().enumerate() {
        let is_small = entry.text_bytes < SMALL_TEXT_BYTES;
        let is_unsettled = !entry.is_lost() && (is_small || !(entry.is_compressed() || entry.is_settled()));
        if run.blocks.is_empty() {
            if !is_unsettled {
                run.next_sequence = entry.next_sequence;
                if skipped >= MAX_SKIPPED_BLOCKS {
                    run.is_open = false;
                    break;
                }
                continue;
            }
        } else if !is_unsettled
            || run.text_bytes + u64::from(entry.text_bytes) > MAX_BLOCK_TEXT_BYTES as u64
            || run.blocks.len() == MAX_RUN_BLOCKS
            || entry.first_sequence != run.next_sequence
        {
            run.is_open = false;
            break;
        }
        match open(loader, task.stream_id, entry) {
            Ok(small) => {
                run.text_bytes += u64::from(entry.text_bytes);
                run.next_sequence = entry.next_sequence;
                run.blocks.push(small);
            }
            Err(StoreError::Damaged { .. }) if !run.blocks.is_empty() => {
                run.is_open = false;
                break;
            }
            Err(error) => {
                let go_on_at = matches!(error, StoreError::Damaged { .. }).then_some(entry.next_sequence);
                return Err(Failure { go_on_at, error });
            }
        }
    }
    Ok(run)
}

/// Takes in settled blocks before the run that are still small, so that a quiet stream does not end up as
/// a row of small settled blocks.
fn extend_backwards(
    loader: &mut Loader<'_>,
    run: &mut Run,
    task: Task,
    before: &[Entry],
) -> Result<(), StoreError> {
    let Some(first) = run.blocks.first() else {
        return Ok(());
    };
    let mut first_sequence = first.entry.first_sequence;
    let mut earlier = Vec::new();
    for entry in before {
        let text_bytes = u64::from(entry.text_bytes);
        let is_worth_it = task.has_ended || text_bytes <= MAX_REWRITE_RATIO * run.text_bytes;
        if entry.is_lost()
            || entry.next_sequence != first_sequence
            || entry.text_bytes >= SMALL_TEXT_BYTES
            || run.text_bytes + text_bytes > MAX_BLOCK_TEXT_BYTES as u64
            || run.blocks.len() + earlier.len() >= MAX_RUN_BLOCKS
            || !is_worth_it
        {
            break;
        }
        match open(loader, task.stream_id, entry) {
            Ok(small) => earlier.push(small),
            // It was reported when it was passed over.
            Err(StoreError::Damaged { .. }) => break,
            Err(error) => return Err(error),
        }
        run.text_bytes += text_bytes;
        first_sequence = entry.first_sequence;
    }
    earlier.reverse();
    run.blocks.splice(..0, earlier);
    Ok(())
}

fn open(loader: &mut Loader<'_>, stream_id: u64, entry: &Entry) -> Result<Small, StoreError> {
    let damage = |cause: String| StoreError::Damaged {
        place: place(stream_id, entry),
        cause,
    };
    let block = loader.load(stream_id, entry).map_err(|error| match error {
        StoreError::Damaged { place, cause } => damage(format!("{place}: {cause}")),
        other => other,
    })?;
    let open = OpenBlock::open(&block).map_err(|error| damage(error.to_string()))?;
    if open.first_sequence() != entry.first_sequence || open.next_sequence() != entry.next_sequence {
        return Err(damage("it holds other lines than the index says".to_owned()));
    }
    Ok(Small { entry: *entry, open })
}

/// A block's name in messages.
fn place(stream_id: u64, entry: &Entry) -> String {
    format!(
        "stream {stream_id}, lines {} to {}",
        entry.first_sequence,
        entry.next_sequence.saturating_sub(1)
    )
}

/// The lines of all blocks of the run as few compressed blocks, with the time of each one's last line.
fn merge(compressor: &mut Compressor, run: &Run) -> Result<Vec<(v1::Block, i64)>, StoreError> {
    let mut merged = Vec::new();
    let mut builder = BlockBuilder::new();
    let mut first_sequence = run.blocks.first().map_or(0, |small| small.entry.first_sequence);
    let mut last_time_unix_us = 0;
    for small in &run.blocks {
        for line in small.open.lines() {
            if !builder.push(&line) {
                // The columns are full before the text is.
                if let Some(block) = builder.finish(first_sequence) {
                    merged.push((compressor.compress(block), last_time_unix_us));
                }
                first_sequence = line.sequence;
                if !builder.push(&line) {
                    return Err(StoreError::Damaged {
                        place: format!("line {}", line.sequence),
                        cause: "it does not fit into a block".to_owned(),
                    });
                }
            }
            last_time_unix_us = line.time_unix_us;
        }
    }
    if let Some(block) = builder.finish(first_sequence) {
        merged.push((compressor.compress(block), last_time_unix_us));
    }
    Ok(merged)
}

/// Puts the merged blocks in the place of the run's, in one batch.
fn replace(
    volume: &Volume,
    stream_id: u64,
    run: &Run,
    merged: Vec<(v1::Block, i64)>,
) -> Result<(), StoreError> {
    let Some(last) = run.blocks.last().map(|small| small.entry) else {
        return Ok(());
    };
    // What the run's last block says of the stream, its checkpoint above all, has to be said by the last merged one.
    let segment = volume.index().segment(last.segment).cloned();
    let last_facts = segment
        .and_then(|segment| facts_at(&segment.open().ok()?, stream_id, &last))
        .unwrap_or_else(|| facts_of(stream_id, &last));
    let mut facts = Vec::with_capacity(merged.len());
    let mut drafts: Vec<Draft> = Vec::with_capacity(merged.len());
    for (block, last_time_unix_us) in merged {
        let next_sequence = block.first_sequence + u64::from(block.line_count);
        let mut of_block = BlockFacts {
            stream_id,
            first_sequence: block.first_sequence,
            next_sequence,
            first_time_unix_us: block.first_time_unix_us,
            last_time_unix_us,
            text_bytes: block.text_bytes,
            stream_text_bytes: 0,
            flags: FLAG_SETTLED,
            checkpoint: bytes::Bytes::new(),
        };
        if block.codec == i32::from(v1::Codec::Zstd) {
            of_block.flags |= FLAG_COMPRESSED;
        }
        if next_sequence == last.next_sequence {
            of_block.stream_text_bytes = last_facts.stream_text_bytes;
            of_block.checkpoint = last_facts.checkpoint.clone();
        }
        drafts.push(block_draft(&of_block, &block));
        facts.push(of_block);
    }
    let mut log = volume.log();
    let placed = log
        .append(&volume.index, &drafts)
        .map_err(|error| io_error(&format!("settle stream {stream_id}"), &error))?;
    let mut index = volume.index_mut();
    for (facts, placed) in facts.iter().zip(&placed) {
        index.put_block(facts, placed);
    }
    Ok(())
}
