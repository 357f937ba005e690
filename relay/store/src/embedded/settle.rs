//! Settling: runs of small blocks into large compressed ones, beside commits and reads.
//!
//! A run is replaced in one atomic batch, so that readers see the small blocks or the large one, and a
//! restart at any point finds one or the other. Commits write heads and new blocks, the settler writes
//! frontiers and old blocks: they never touch the same key.

use std::sync::{Mutex, PoisonError};

use fjall::PersistMode;
use millstream_proto::block::{BlockBuilder, Compressor, OpenBlock};
use millstream_proto::limits::MAX_BLOCK_TEXT_BYTES;
use millstream_proto::v1;

use super::EmbeddedOptions;
use super::backlog::{Backlog, Rest, Task};
use super::engine::{Engine, engine_error};
use super::kv::block_index::{self, BlockIndex, BlockKey};
use super::kv::{self, frontier};
use super::read::{View, place};
use super::write::{Event, put_block};
use crate::StoreError;

/// Blocks with less text are small.
const SMALL_TEXT_BYTES: u32 = 64 << 10;

/// Blocks of one run, which bounds the time that a piece of work takes.
const MAX_RUN_BLOCKS: usize = 8192;

/// Index entries that one piece of work passes over, for the same reason.
const MAX_SKIPPED_BLOCKS: usize = 4096;

/// Streams of an earlier process that one piece of work looks at.
const STREAMS_PER_SCAN: usize = 256;

/// A settled block that is still small is settled again with new ones only when it is at most so many
/// times as large as they are together: a quiet stream's lines are rewritten a few times, not for ever.
const MAX_REWRITE_RATIO: u64 = 4;

/// A small block that was found to be sound; its text is unpacked.
struct Small {
    key: BlockKey,
    index: BlockIndex,
    open: OpenBlock,
}

/// The settler of one store.
#[derive(Debug)]
pub(crate) struct Settler {
    options: EmbeddedOptions,
    /// Held for moments only, also by commits.
    backlog: Mutex<Backlog>,
    /// Held for a piece of work, by `maintain` alone.
    work: Mutex<Work>,
}

#[derive(Debug)]
struct Work {
    /// Streams from this id on may have unsettled blocks of an earlier process; `None`: all were seen.
    scan_from: Option<u64>,
    /// Kept while there is work; it holds some MiB.
    compressor: Option<Compressor>,
}

impl Settler {
    pub(crate) fn new(options: EmbeddedOptions) -> Self {
        let backlog = Backlog::new(options.settle_text_bytes, options.settle_idle);
        Self {
            options,
            backlog: Mutex::new(backlog),
            work: Mutex::new(Work {
                scan_from: Some(0),
                compressor: None,
            }),
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
                } if text_bytes < SMALL_TEXT_BYTES || !is_compressed => {
                    backlog.appended(now, stream_id, first_sequence, text_bytes);
                }
                Event::Appended { .. } => {}
                Event::Ended { stream_id } => backlog.ended(stream_id),
            }
        }
    }

    /// A piece of work; true: there is more.
    pub(crate) fn maintain(&self, engine: &Engine) -> Result<bool, StoreError> {
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.options.clock.now();
        if let Some(stream_id) = work.scan_from {
            work.scan_from = self.scan(engine, stream_id)?;
        }
        let task = self.backlog().take(now);
        if let Some(task) = task {
            let compressor = work
                .compressor
                .get_or_insert_with(|| Compressor::new(self.options.compression_level));
            let (rest, result) = match settle(engine, compressor, self.options.settle_text_bytes, task) {
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
        let has_more = work.scan_from.is_some() || self.backlog().has_ready();
        if !has_more {
            work.compressor = None;
        }
        Ok(has_more)
    }

    /// Looks for what an earlier process left unsettled. Returns where to go on.
    fn scan(&self, engine: &Engine, stream_id: u64) -> Result<Option<u64>, StoreError> {
        let now = self.options.clock.now();
        let view = View::new(engine);
        for (seen, found) in view.heads_from(stream_id).enumerate() {
            let (stream_id, head) = found?;
            if seen == STREAMS_PER_SCAN {
                return Ok(Some(stream_id));
            }
            let from = view.frontier(stream_id)?;
            if from < head.next_sequence {
                self.backlog().found(now, stream_id, from);
            }
        }
        Ok(None)
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
    engine: &Engine,
    compressor: &mut Compressor,
    settle_text_bytes: u64,
    task: Task,
) -> Result<Rest, Failure> {
    let view = View::new(engine);
    let mut run = find_run(&view, task)?;
    let begin = run
        .blocks
        .first()
        .map_or(run.next_sequence, |small| small.key.first_sequence);
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
        if done.from > task.from {
            write_frontier(engine, task.stream_id, done.from)?;
        }
        return Ok(done);
    }
    extend_backwards(&view, &mut run, task)?;
    if let [Small { index, .. }] = &run.blocks[..]
        && (index.is_compressed || index.text_bytes < SMALL_TEXT_BYTES)
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
    replace(engine, task.stream_id, &run, &merged)?;
    Ok(done)
}

/// Passes over large blocks and collects the small ones that follow, up to a block full of text. A
/// damaged block ends the run before it; at the run's beginning it is an error, and passed over.
fn find_run(view: &View<'_>, task: Task) -> Result<Run, Failure> {
    let mut run = Run {
        is_open: true,
        next_sequence: task.from,
        ..Run::default()
    };
    for (skipped, found) in view.blocks(task.stream_id, task.from..=u64::MAX).enumerate() {
        let (key, index) = found?;
        let is_unsettled = index.text_bytes < SMALL_TEXT_BYTES || !(index.is_compressed || index.is_settled);
        if run.blocks.is_empty() {
            if !is_unsettled {
                run.next_sequence = index.next_sequence;
                if skipped >= MAX_SKIPPED_BLOCKS {
                    run.is_open = false;
                    break;
                }
                continue;
            }
        } else if !is_unsettled
            || run.text_bytes + u64::from(index.text_bytes) > MAX_BLOCK_TEXT_BYTES as u64
            || run.blocks.len() == MAX_RUN_BLOCKS
            || key.first_sequence != run.next_sequence
        {
            run.is_open = false;
            break;
        }
        let next_sequence = index.next_sequence;
        match open(view, key, index) {
            Ok(small) => {
                run.text_bytes += u64::from(small.index.text_bytes);
                run.next_sequence = next_sequence;
                run.blocks.push(small);
            }
            Err(StoreError::Damaged { .. }) if !run.blocks.is_empty() => {
                run.is_open = false;
                break;
            }
            Err(error) => {
                let go_on_at = matches!(error, StoreError::Damaged { .. }).then_some(next_sequence);
                return Err(Failure { go_on_at, error });
            }
        }
    }
    Ok(run)
}

/// Takes in settled blocks before the run that are still small, so that a quiet stream does not end up as
/// a row of small settled blocks.
fn extend_backwards(view: &View<'_>, run: &mut Run, task: Task) -> Result<(), StoreError> {
    let Some(first) = run.blocks.first() else {
        return Ok(());
    };
    let mut first_sequence = first.key.first_sequence;
    let mut earlier = Vec::new();
    while let Some(before) = first_sequence.checked_sub(1) {
        let Some((key, index)) = view.block_at(task.stream_id, before)? else {
            break;
        };
        let text_bytes = u64::from(index.text_bytes);
        let is_worth_it = task.has_ended || text_bytes <= MAX_REWRITE_RATIO * run.text_bytes;
        if index.next_sequence != first_sequence
            || index.text_bytes >= SMALL_TEXT_BYTES
            || run.text_bytes + text_bytes > MAX_BLOCK_TEXT_BYTES as u64
            || run.blocks.len() + earlier.len() >= MAX_RUN_BLOCKS
            || !is_worth_it
        {
            break;
        }
        match open(view, key, index) {
            Ok(small) => earlier.push(small),
            // It was reported when it was passed over.
            Err(StoreError::Damaged { .. }) => break,
            Err(error) => return Err(error),
        }
        run.text_bytes += text_bytes;
        first_sequence = key.first_sequence;
    }
    earlier.reverse();
    run.blocks.splice(..0, earlier);
    Ok(())
}

fn open(view: &View<'_>, key: BlockKey, index: BlockIndex) -> Result<Small, StoreError> {
    let damage = |cause: String| StoreError::Damaged {
        place: place(key, &index),
        cause,
    };
    let block = view.load(key, &index)?;
    let open = OpenBlock::open(&block).map_err(|error| damage(error.to_string()))?;
    if open.first_sequence() != key.first_sequence || open.next_sequence() != index.next_sequence {
        return Err(damage("it holds other lines than the index says".to_owned()));
    }
    Ok(Small { key, index, open })
}

/// The lines of all blocks of the run as few compressed blocks, with the time of each one's last line.
fn merge(compressor: &mut Compressor, run: &Run) -> Result<Vec<(v1::Block, i64)>, StoreError> {
    let mut merged = Vec::new();
    let mut builder = BlockBuilder::new();
    let mut first_sequence = run.blocks.first().map_or(0, |small| small.key.first_sequence);
    let mut last_time_unix_us = 0;
    for small in &run.blocks {
        for line in small.open.lines() {
            if !builder.push_line(line.text, line.time_unix_us, line.channel, line.partial) {
                // The columns are full before the text is.
                if let Some(block) = builder.finish(first_sequence) {
                    merged.push((compressor.compress(block), last_time_unix_us));
                }
                first_sequence = line.sequence;
                if !builder.push_line(line.text, line.time_unix_us, line.channel, line.partial) {
                    return Err(StoreError::Damaged {
                        place: place(small.key, &small.index),
                        cause: format!("line {} does not fit into a block", line.sequence),
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

/// Puts the merged blocks in the place of the run's, atomically.
fn replace(
    engine: &Engine,
    stream_id: u64,
    run: &Run,
    merged: &[(v1::Block, i64)],
) -> Result<(), StoreError> {
    let mut batch = engine.database.batch().durability(Some(PersistMode::Buffer));
    let mut written = Vec::with_capacity(merged.len());
    for (block, last_time_unix_us) in merged {
        let index = put_block(engine, &mut batch, stream_id, block, *last_time_unix_us, true)?;
        written.push((block.first_sequence, index.inline.is_some()));
    }
    for Small { key, index, .. } in &run.blocks {
        // A batch must not hold a key twice: what was written over is not removed as well.
        let same_place = written
            .iter()
            .find(|(first_sequence, _)| *first_sequence == key.first_sequence);
        let key = block_index::ser_key(*key);
        if same_place.is_none() {
            batch.remove(&engine.block_index, key);
        }
        if index.inline.is_none() && same_place.is_none_or(|(_, is_inline)| *is_inline) {
            batch.remove(&engine.block_bodies, key);
        }
    }
    batch.insert(
        &engine.frontiers,
        kv::ser_stream_key(stream_id),
        frontier::ser_value(run.next_sequence),
    );
    batch
        .commit()
        .map_err(|error| engine_error(&format!("settle stream {stream_id}"), &error))
}

/// Saves the next process from passing over the same large blocks.
fn write_frontier(engine: &Engine, stream_id: u64, settled_below: u64) -> Result<(), StoreError> {
    engine
        .frontiers
        .insert(kv::ser_stream_key(stream_id), frontier::ser_value(settled_below))
        .map_err(|error| engine_error(&format!("settle stream {stream_id}"), &error))
}
