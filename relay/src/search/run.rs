//! A search, turn by turn.

use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millstream_proto::block::Unpacker;
use millstream_proto::v1::{self, search_response::Message};
use millstream_store::LogStore;

use super::context::{Surroundings, around};
use super::hits::Hits;
use super::merge::Merge;
use super::plan::SearchPlan;
use super::scan::Scanner;
use super::walk::Step;
use super::{SearchError, Seat};
use crate::limits::LimitReached;
use crate::metrics::Metrics;

/// How long a turn takes, but for the step that it ends with: long enough to do something, short enough to share a
/// thread with other searches and to tell of progress.
pub(super) const TURN: Duration = Duration::from_millis(40);

/// A message of hits is sent when it has so much.
const MESSAGE_TEXT_BYTES: usize = 256 << 10;
const MESSAGE_HITS: usize = 4096;

/// When another search may be asked for after one that was too costly.
const WAIT: Duration = Duration::from_secs(1);

/// Distance of messages of progress.
const PROGRESS: Duration = Duration::from_millis(200);

/// What a search may cost; zero: no limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) time: Duration,
    pub(crate) text_bytes: u64,
}

impl Cost {
    fn check(self, spent: Duration, text_bytes: u64) -> Result<(), LimitReached> {
        let reached = |what: String, key, value| {
            Err(LimitReached {
                what: format!("{what}; ask for fewer streams, a shorter time or a simpler expression"),
                key,
                value,
                wait: WAIT,
            })
        };
        if self.time > Duration::ZERO && spent >= self.time {
            let what = format!("the search has taken {} s of the search threads", spent.as_secs());
            return reached(what, "max_search_secs", self.time.as_secs());
        }
        if self.text_bytes > 0 && text_bytes >= self.text_bytes {
            let what = format!("the search has looked through {text_bytes} bytes");
            return reached(what, "max_search_text_bytes", self.text_bytes);
        }
        Ok(())
    }
}

/// A running search. It queues no more than one turn's messages, and goes on when they were taken.
#[derive(Debug)]
pub(crate) struct Search {
    store: Arc<dyn LogStore>,
    metrics: Arc<Metrics>,
    /// Set when nobody waits any more.
    is_cancelled: Arc<AtomicBool>,
    merge: Merge,
    scanner: Scanner,
    newest_first: bool,
    context_lines: u64,
    max_hits: u64,
    count_all: bool,
    unpacker: Unpacker,
    /// Hits of the stream in the slot that were not made into a message yet.
    hits: Hits,
    slot: usize,
    /// By stream that was announced: the edge of the lines that were sent.
    covered: BTreeMap<usize, u64>,
    sent_hits: u64,
    progress: v1::SearchProgress,
    last_progress: Option<Instant>,
    messages: VecDeque<Message>,
    /// Told after the messages.
    failure: Option<SearchError>,
    cost: Cost,
    /// Time on the search threads.
    spent: Duration,
    _seat: Seat,
}

impl Search {
    pub(crate) fn new(
        plan: SearchPlan,
        store: Arc<dyn LogStore>,
        metrics: Arc<Metrics>,
        cost: Cost,
        seat: Seat,
        is_cancelled: Arc<AtomicBool>,
    ) -> Self {
        let merge = Merge::new(plan.scope, plan.newest_first);
        let mut search = Self {
            store,
            metrics,
            is_cancelled,
            merge,
            scanner: plan.scanner,
            newest_first: plan.newest_first,
            context_lines: plan.context_lines,
            max_hits: plan.max_hits,
            count_all: plan.count_all,
            unpacker: Unpacker::new(),
            hits: Hits::default(),
            slot: 0,
            covered: BTreeMap::new(),
            sent_hits: 0,
            progress: v1::SearchProgress::default(),
            last_progress: None,
            messages: VecDeque::new(),
            failure: None,
            cost,
            spent: Duration::ZERO,
            _seat: seat,
        };
        // A caller learns at once that the search runs and how much there is.
        search.tell_progress();
        search
    }

    /// What is ready to be sent.
    pub(crate) fn pop(&mut self) -> Option<Result<Message, SearchError>> {
        match self.messages.pop_front() {
            Some(message) => Some(Ok(message)),
            None => self.failure.take().map(Err),
        }
    }

    /// Nothing more will be found.
    pub(crate) fn is_over(&self) -> bool {
        self.progress.done
    }

    /// Searches for about [`TURN`]. Blocks.
    pub(crate) fn turn(&mut self) {
        let began = Instant::now();
        let searched_before = self.progress.searched_text_bytes;
        if let Err(error) = self.search_from(began) {
            self.failure = Some(error);
            self.progress.done = true;
        }
        let searched = self.progress.searched_text_bytes - searched_before;
        self.metrics.searched_text_bytes_total.add(searched);
        self.spent += began.elapsed();
        if self.failure.is_none()
            && (self.progress.done || self.last_progress.is_none_or(|last| last.elapsed() >= PROGRESS))
        {
            self.tell_progress();
        }
    }

    fn search_from(&mut self, began: Instant) -> Result<(), SearchError> {
        let turn_end = began + TURN;
        while !self.is_cancelled() {
            let Some((slot, step)) = self.merge.next(&*self.store)? else {
                self.flush()?;
                self.progress.done = true;
                return Ok(());
            };
            if slot != self.slot {
                self.flush()?;
                self.slot = slot;
            }
            match step {
                Step::Blocks(blocks) => {
                    for block in &blocks {
                        self.search_block(block)?;
                        if self.is_cancelled() || self.progress.done {
                            break;
                        }
                    }
                }
                Step::Lost(lost, cause) => {
                    self.flush()?;
                    self.announce();
                    self.messages.push_back(Message::Gap(v1::Gap {
                        stream_id: self.stream_id(),
                        first_sequence: lost.start,
                        next_sequence: lost.end,
                        message: format!("these lines are damaged in the relay's store: {cause}"),
                        reason: v1::GapReason::Damaged.into(),
                    }));
                }
                Step::End => {}
            }
            if !self.progress.done
                && let Err(reached) = self
                    .cost
                    .check(self.spent + began.elapsed(), self.progress.searched_text_bytes)
            {
                self.flush()?;
                return Err(reached.into());
            }
            let is_full = self.hits.text_bytes() >= MESSAGE_TEXT_BYTES || self.hits.len() >= MESSAGE_HITS;
            if is_full || self.progress.done || Instant::now() >= turn_end {
                self.flush()?;
                return Ok(());
            }
        }
        Ok(())
    }

    fn search_block(&mut self, block: &v1::Block) -> Result<(), SearchError> {
        let stream_id = self.stream_id();
        let damaged = |cause| SearchError::Block { stream_id, cause };
        let sequences = self.merge.sequences(self.slot);
        let times = self.merge.times();
        let unpacked = self.unpacker.unpack(block).map_err(damaged)?;
        self.progress.searched_text_bytes += u64::from(block.text_bytes);
        let room = self.max_hits - self.sent_hits;
        let held = self.hits.len() as u64;
        let from = self.hits.len();
        let (hits, newest_first) = (&mut self.hits, self.newest_first);
        let mut found = 0_u64;
        let scanned = self.scanner.scan(&unpacked, |line, _| {
            if sequences.contains(&line.sequence) && times.contains(&line.time_unix_us) {
                found += 1;
                if newest_first || held + found <= room {
                    hits.push(&line);
                }
            }
        });
        scanned.map_err(damaged)?;
        let room = room.saturating_sub(held);
        if newest_first && found > room {
            self.hits
                .keep_last(from, usize::try_from(room).unwrap_or(usize::MAX));
        }
        self.progress.hits += if self.count_all { found } else { found.min(room) };
        if found > room {
            self.progress.limit_reached = true;
        }
        if found >= room && !self.count_all {
            // What this page still holds was taken off the rest, so `found > room` of a later block is not known.
            self.progress.limit_reached |= !self.merge.is_done() || !self.is_last(block);
            self.progress.done = true;
        }
        Ok(())
    }

    /// Whether nothing of the stream's range lies behind the block.
    fn is_last(&self, block: &v1::Block) -> bool {
        let wanted = self.merge.sequences(self.slot);
        if self.newest_first {
            block.first_sequence <= wanted.start
        } else {
            block.first_sequence + u64::from(block.line_count) >= wanted.end
        }
    }

    /// Makes the hits that are held into messages, with context before them.
    fn flush(&mut self) -> Result<(), SearchError> {
        if self.hits.is_empty() {
            return Ok(());
        }
        self.announce();
        self.sent_hits += self.hits.len() as u64;
        if self.newest_first {
            self.hits.sort();
        }
        let stream_id = self.stream_id();
        if self.context_lines > 0 {
            let mut context = self.context()?;
            for block in context.take_blocks() {
                self.messages.push_back(Message::Context(v1::StreamBlock {
                    stream_id,
                    block: Some(block),
                }));
            }
        }
        let mut blocks = self.hits.take_blocks();
        if self.newest_first {
            blocks.reverse();
        }
        self.messages.extend(blocks.into_iter().map(|block| {
            Message::Hits(v1::StreamBlock {
                stream_id,
                block: Some(block),
            })
        }));
        Ok(())
    }

    fn context(&mut self) -> Result<Hits, SearchError> {
        let stream = self.merge.stream(self.slot);
        let bounds = stream.bounds();
        let stored = bounds.first_sequence..bounds.next_sequence;
        let covered = self.covered.get(&self.slot).copied();
        let open = if self.newest_first {
            stored.start..covered.unwrap_or(u64::MAX).min(stored.end)
        } else {
            covered.unwrap_or(0).max(stored.start)..stored.end
        };
        let surroundings = Surroundings {
            stream_id: stream.stream_id,
            lines: self.context_lines,
            open,
        };
        let context = around(
            &*self.store,
            &mut self.unpacker,
            &self.scanner,
            &self.hits,
            &surroundings,
        )?;
        let sent = || context.sequences().chain(self.hits.sequences());
        let edge = if self.newest_first {
            sent().min()
        } else {
            sent().max().map(|last| last + 1)
        };
        if let Some(edge) = edge {
            self.covered.insert(self.slot, edge);
        }
        Ok(context)
    }

    /// Sends the stream's record once, before anything of it.
    fn announce(&mut self) {
        let stream = self.merge.stream(self.slot);
        if let Entry::Vacant(entry) = self.covered.entry(self.slot) {
            entry.insert(if self.newest_first { u64::MAX } else { 0 });
            self.messages.push_back(Message::Stream(stream.to_proto()));
        }
    }

    fn tell_progress(&mut self) {
        self.last_progress = Some(Instant::now());
        self.progress.total_text_bytes = if self.progress.done && !self.progress.limit_reached {
            self.progress.searched_text_bytes
        } else {
            self.merge
                .total_text_bytes()
                .max(self.progress.searched_text_bytes)
        };
        self.messages.push_back(Message::Progress(self.progress));
    }

    fn stream_id(&self) -> u64 {
        self.merge.stream(self.slot).stream_id
    }

    fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }
}
