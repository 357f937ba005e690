//! Lines counted by severity, over time or over sequences, turn by turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millstream_proto::block::Unpacker;
use millstream_proto::v1;
use millstream_severity::{Severity, next_candidate};
use millstream_store::{LogStore, StoreError};

use super::merge::Merge;
use super::plan::{HistogramPlan, MAX_BUCKETS, Scope};
use super::run::TURN;
use super::scan::Scanner;
use super::walk::Step;
use super::{SearchError, Seat};
use crate::filter::severity;
use crate::metrics::Metrics;

/// A histogram that takes longer answers with what it has: a caller waits for one message, and a proxy in between
/// cuts what is quiet for long.
const LIMIT: Duration = Duration::from_secs(20);

/// Widths of buckets in microseconds that people read easily; days go on like the first ones.
const WIDTHS_US: [i64; 43] = {
    const MS: i64 = 1000;
    const S: i64 = 1000 * MS;
    const MIN: i64 = 60 * S;
    const H: i64 = 60 * MIN;
    [
        1,
        2,
        5,
        10,
        20,
        50,
        100,
        200,
        500,
        MS,
        2 * MS,
        5 * MS,
        10 * MS,
        20 * MS,
        50 * MS,
        100 * MS,
        200 * MS,
        500 * MS,
        S,
        2 * S,
        5 * S,
        10 * S,
        15 * S,
        30 * S,
        MIN,
        2 * MIN,
        5 * MIN,
        10 * MIN,
        15 * MIN,
        30 * MIN,
        H,
        2 * H,
        3 * H,
        6 * H,
        12 * H,
        24 * H,
        48 * H,
        120 * H,
        240 * H,
        480 * H,
        1200 * H,
        2400 * H,
        4800 * H,
    ]
};

/// A running count.
#[derive(Debug)]
pub(crate) struct Histogram {
    store: Arc<dyn LogStore>,
    metrics: Arc<Metrics>,
    is_cancelled: Arc<AtomicBool>,
    scanner: Scanner,
    unpacker: Unpacker,
    state: State,
    began: Instant,
    is_partial: bool,
    _seat: Seat,
}

#[derive(Debug)]
enum State {
    /// Before the first turn: the axis needs a look into the store.
    Planned(Option<(Scope, bool, u64)>),
    Counting(Merge, Axis, Vec<v1::HistogramBucket>),
    Done(Axis, Vec<v1::HistogramBucket>),
}

/// Where a line counts. Lines before the begin or behind the end (a clock was set back) count in the bucket at
/// that end.
#[derive(Clone, Copy, Debug)]
enum Axis {
    Time { since_unix_us: i64, bucket_us: i64 },
    Sequence { first_sequence: u64, bucket_lines: u64 },
}

impl Axis {
    fn bucket(&self, time_unix_us: i64, sequence: u64) -> usize {
        let index = match *self {
            Self::Time {
                since_unix_us,
                bucket_us,
            } => {
                let after = time_unix_us.saturating_sub(since_unix_us).max(0);
                after.cast_unsigned() / bucket_us.cast_unsigned()
            }
            Self::Sequence {
                first_sequence,
                bucket_lines,
            } => sequence.saturating_sub(first_sequence) / bucket_lines,
        };
        usize::try_from(index).unwrap_or(usize::MAX)
    }
}

impl Histogram {
    pub(crate) fn new(
        plan: HistogramPlan,
        store: Arc<dyn LogStore>,
        metrics: Arc<Metrics>,
        seat: Seat,
        is_cancelled: Arc<AtomicBool>,
    ) -> Self {
        Self {
            store,
            metrics,
            is_cancelled,
            scanner: plan.scanner,
            unpacker: Unpacker::new(),
            state: State::Planned(Some((plan.scope, plan.by_sequence, plan.buckets))),
            began: Instant::now(),
            is_partial: false,
            _seat: seat,
        }
    }

    /// Counts for about [`TURN`]. Blocks. True: there is more to do.
    pub(crate) fn turn(&mut self) -> Result<bool, SearchError> {
        if let State::Planned(plan) = &mut self.state {
            let Some((scope, by_sequence, buckets)) = plan.take() else {
                return Ok(false);
            };
            self.state = self.start(scope, by_sequence, buckets)?;
        }
        let turn_end = Instant::now() + TURN;
        let State::Counting(merge, axis, buckets) = &mut self.state else {
            return Ok(false);
        };
        let mut is_over = false;
        while !self.is_cancelled.load(Ordering::Relaxed) && Instant::now() < turn_end {
            let Some((slot, step)) = merge.next(&*self.store)? else {
                is_over = true;
                break;
            };
            let Step::Blocks(blocks) = step else { continue };
            for block in &blocks {
                let stream_id = merge.stream(slot).stream_id;
                let damaged = |cause| SearchError::Block { stream_id, cause };
                let unpacked = self.unpacker.unpack(block).map_err(damaged)?;
                let (sequences, times) = (merge.sequences(slot), merge.times());
                let text = unpacked.text();
                // Where the agent said it, text is not asked where trouble may be.
                let is_said = unpacked.says_severities();
                let mut trouble = if is_said { Some(0) } else { next_candidate(text) };
                let scanned = self.scanner.scan(&unpacked, |line, end| {
                    if !sequences.contains(&line.sequence) || !times.contains(&line.time_unix_us) {
                        return;
                    }
                    let last = buckets.len() - 1;
                    let bucket = &mut buckets[axis.bucket(line.time_unix_us, line.sequence).min(last)];
                    bucket.lines += 1;
                    let start = end - line.text.len() - 1;
                    if !is_said && trouble.is_some_and(|at| at < start) {
                        trouble = next_candidate(&text[start..]).map(|offset| start + offset);
                    }
                    if trouble.is_some_and(|at| at < end) {
                        match severity(&line) {
                            Severity::None => {}
                            Severity::Warning => bucket.warnings += 1,
                            Severity::Error => bucket.errors += 1,
                        }
                    }
                });
                scanned.map_err(damaged)?;
                self.metrics
                    .searched_text_bytes_total
                    .add(block.text_bytes.into());
            }
        }
        if !is_over && self.began.elapsed() >= LIMIT {
            self.is_partial = true;
            is_over = true;
        }
        if is_over {
            self.state = State::Done(*axis, std::mem::take(buckets));
        }
        Ok(!is_over)
    }

    /// What was counted, after the last turn.
    pub(crate) fn finish(self) -> v1::HistogramResponse {
        let State::Done(axis, buckets) = self.state else {
            return v1::HistogramResponse {
                is_partial: true,
                ..v1::HistogramResponse::default()
            };
        };
        let response = v1::HistogramResponse {
            buckets,
            is_partial: self.is_partial,
            ..v1::HistogramResponse::default()
        };
        match axis {
            Axis::Time {
                since_unix_us,
                bucket_us,
            } => v1::HistogramResponse {
                since_unix_us,
                bucket_us,
                ..response
            },
            Axis::Sequence {
                first_sequence,
                bucket_lines,
            } => v1::HistogramResponse {
                first_sequence,
                bucket_lines,
                ..response
            },
        }
    }

    fn start(&self, scope: Scope, by_sequence: bool, wanted: u64) -> Result<State, StoreError> {
        let (axis, count) = if by_sequence {
            let bounds = scope.streams.first().map(|stream| stream.bounds());
            let (first, next) = bounds.map_or((0, 0), |bounds| (bounds.first_sequence, bounds.next_sequence));
            let first_sequence = scope.sequences.start.max(first);
            let lines = scope.sequences.end.min(next).saturating_sub(first_sequence);
            let bucket_lines = lines.div_ceil(wanted).max(1);
            let axis = Axis::Sequence {
                first_sequence,
                bucket_lines,
            };
            (axis, lines.div_ceil(bucket_lines))
        } else {
            self.time_axis(&scope, wanted)?
        };
        let buckets = vec![v1::HistogramBucket::default(); usize::try_from(count).unwrap_or(0)];
        if buckets.is_empty() {
            return Ok(State::Done(axis, buckets));
        }
        // Newest first, so that what a limit leaves out is the oldest.
        Ok(State::Counting(Merge::new(scope, true), axis, buckets))
    }

    fn time_axis(&self, scope: &Scope, wanted: u64) -> Result<(Axis, u64), StoreError> {
        let mut since = scope.times.start;
        let mut until = scope.times.end;
        if since == i64::MIN {
            since = i64::MAX;
            for stream in &scope.streams {
                if self.is_cancelled.load(Ordering::Relaxed) {
                    break;
                }
                let from = stream.bounds().first_sequence.max(scope.sequences.start);
                match self.store.read_blocks(stream.stream_id, from, 1) {
                    Ok(blocks) => {
                        let first = blocks.first().map(|block| block.first_time_unix_us);
                        since = since.min(first.unwrap_or(i64::MAX));
                    }
                    // The first line that can be read tells nothing of those that cannot.
                    Err(StoreError::DamagedLines { .. }) => {
                        since = since.min(stream.record().created_unix_us);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        if until == i64::MAX {
            let newest = scope
                .streams
                .iter()
                .map(|stream| stream.record().last_line_unix_us);
            until = newest.max().map_or(i64::MIN, |newest| newest.saturating_add(1));
        }
        let (since_unix_us, bucket_us, count) = if since < until {
            time_buckets(since, until, wanted)
        } else {
            (0, 1, 0)
        };
        let axis = Axis::Time {
            since_unix_us,
            bucket_us,
        };
        Ok((axis, count))
    }
}

/// Begin, width and number of buckets over a range that is not empty: at most `wanted`, at most 2,000.
fn time_buckets(since: i64, until: i64, wanted: u64) -> (i64, i64, u64) {
    let wanted = wanted.clamp(1, MAX_BUCKETS.into());
    for width in WIDTHS_US {
        let begin = since.div_euclid(width).saturating_mul(width);
        let span = until.saturating_sub(begin).cast_unsigned();
        let count = span.div_ceil(width.cast_unsigned());
        if count <= wanted {
            return (begin, width, count);
        }
    }
    // Centuries: no log is so long, but a caller may ask.
    let span = until.saturating_sub(since).cast_unsigned();
    let width = span.div_ceil(wanted);
    (since, width.cast_signed(), span.div_ceil(width))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn widths_are_those_that_people_read() {
        const S: i64 = 1_000_000;
        assert_eq!(time_buckets(0, 600 * S, 200), (0, 5 * S, 120));
        // Aligned, so that two histograms of neighbouring ranges have the same buckets.
        assert_eq!(time_buckets(7 * S, 607 * S, 200), (5 * S, 5 * S, 121));
        assert_eq!(time_buckets(0, 86_400 * S, 24), (0, 3600 * S, 24));
        assert_eq!(time_buckets(S / 2, S / 2 + 1, 200), (S / 2, 1, 1));
    }

    proptest! {
        #[test]
        fn buckets_cover_the_range_and_are_no_more_than_wanted(since: i64, span in 1..i64::MAX, wanted in 1..3000_u64) {
            let until = since.saturating_add(span);
            prop_assume!(since < until);
            let (begin, width, count) = time_buckets(since, until, wanted);
            prop_assert!(begin <= since || begin == i64::MIN);
            prop_assert!(width > 0);
            prop_assert!(count >= 1 && count <= wanted.min(2000));
            let end = i128::from(begin) + i128::from(width) * i128::from(count);
            prop_assert!(end >= i128::from(until) || until.checked_sub(begin).is_none());
        }
    }
}
