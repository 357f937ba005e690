//! Requests of `Search` and `Histogram`, checked.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use millstream_proto::v1::{self, HistogramAxis, SearchOrder};

use super::scan::Scanner;
use crate::auth::Access;
use crate::filter::FilterError;
use crate::selector::SelectorError;
use crate::streams::{Registry, StreamHandle};

/// Hits that are sent when nobody says how many.
const DEFAULT_HITS: u64 = 10_000;
const MAX_HITS: u32 = 1_000_000;
const MAX_CONTEXT_LINES: u32 = 100;

const DEFAULT_BUCKETS: u32 = 200;
pub(super) const MAX_BUCKETS: u32 = 2000;

/// Why a request cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    #[error(transparent)]
    Selector(#[from] SelectorError),
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error("there is no stream {0}")]
    UnknownStream(u64),
    #[error("{what} is {value}; the limit is {limit}")]
    TooMany {
        what: &'static str,
        value: u32,
        limit: u32,
    },
    #[error("from_sequence and to_sequence are places in one stream: give exactly one stream_ids with them")]
    SequenceOfMany,
    #[error("the sequence axis is that of one stream: give exactly one stream_ids with it")]
    AxisOfMany,
    #[error("order {0} is not known; known are 1 (newest first) and 2 (oldest first)")]
    Order(i32),
    #[error("axis {0} is not known; known are 1 (time) and 2 (sequence)")]
    Axis(i32),
    #[error("{0} must not be negative")]
    NegativeTime(&'static str),
}

/// Which lines of which streams.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) streams: Vec<Arc<StreamHandle>>,
    pub(super) sequences: Range<u64>,
    /// Capture times, microseconds since the Unix epoch; whole when nothing was asked.
    pub(super) times: Range<i64>,
}

/// A search that can run.
#[derive(Debug)]
pub(crate) struct SearchPlan {
    pub(super) scope: Scope,
    pub(super) scanner: Scanner,
    pub(super) newest_first: bool,
    pub(super) context_lines: u64,
    pub(super) max_hits: u64,
    pub(super) count_all: bool,
}

impl SearchPlan {
    pub(crate) fn new(
        request: &v1::SearchRequest,
        registry: &Registry,
        access: &Access,
    ) -> Result<Self, PlanError> {
        let order = SearchOrder::try_from(request.order).map_err(|_| PlanError::Order(request.order))?;
        at_most("context_lines", request.context_lines, MAX_CONTEXT_LINES)?;
        at_most("max_hits", request.max_hits, MAX_HITS)?;
        let filter = request.filter.clone().unwrap_or_default();
        Ok(Self {
            scope: scope(
                registry,
                access,
                &request.selector,
                &request.stream_ids,
                request.from_sequence..request.to_sequence,
                request.since_unix_us..request.until_unix_us,
            )?,
            scanner: Scanner::new(&filter)?,
            newest_first: order != SearchOrder::OldestFirst,
            context_lines: request.context_lines.into(),
            max_hits: match request.max_hits {
                0 => DEFAULT_HITS,
                hits => hits.into(),
            },
            count_all: request.count_all,
        })
    }
}

/// A histogram that can be counted.
#[derive(Debug)]
pub(crate) struct HistogramPlan {
    pub(super) scope: Scope,
    pub(super) scanner: Scanner,
    pub(super) buckets: u64,
    pub(super) by_sequence: bool,
}

impl HistogramPlan {
    pub(crate) fn new(
        request: &v1::HistogramRequest,
        registry: &Registry,
        access: &Access,
    ) -> Result<Self, PlanError> {
        let axis = HistogramAxis::try_from(request.axis).map_err(|_| PlanError::Axis(request.axis))?;
        let by_sequence = axis == HistogramAxis::Sequence;
        if by_sequence && request.stream_ids.len() != 1 {
            return Err(PlanError::AxisOfMany);
        }
        at_most("buckets", request.buckets, MAX_BUCKETS)?;
        let filter = request.filter.clone().unwrap_or_default();
        Ok(Self {
            scope: scope(
                registry,
                access,
                &request.selector,
                &request.stream_ids,
                request.from_sequence..request.to_sequence,
                request.since_unix_us..request.until_unix_us,
            )?,
            scanner: Scanner::new(&filter)?,
            buckets: match request.buckets {
                0 => DEFAULT_BUCKETS,
                buckets => buckets,
            }
            .into(),
            by_sequence,
        })
    }
}

fn at_most(what: &'static str, value: u32, limit: u32) -> Result<(), PlanError> {
    if value > limit {
        return Err(PlanError::TooMany { what, value, limit });
    }
    Ok(())
}

fn scope(
    registry: &Registry,
    access: &Access,
    selector: &str,
    stream_ids: &[u64],
    sequences: Range<u64>,
    times: Range<i64>,
) -> Result<Scope, PlanError> {
    let selector = access.selector(selector)?;
    let wants_sequences = sequences.start > 0 || sequences.end > 0;
    if wants_sequences && stream_ids.len() != 1 {
        return Err(PlanError::SequenceOfMany);
    }
    for (what, time) in [("since_unix_us", times.start), ("until_unix_us", times.end)] {
        if time < 0 {
            return Err(PlanError::NegativeTime(what));
        }
    }
    let candidates = if stream_ids.is_empty() {
        registry.newest_first(u64::MAX)
    } else {
        let ids: BTreeSet<_> = stream_ids.iter().copied().collect();
        let known = ids.into_iter().map(|id| {
            let stream = registry.get(id).filter(|stream| access.sees(&stream.labels));
            stream.ok_or(PlanError::UnknownStream(id))
        });
        known.collect::<Result<_, _>>()?
    };
    let open_end = |end| if end == 0 { u64::MAX } else { end };
    Ok(Scope {
        streams: candidates
            .into_iter()
            .filter(|stream| selector.matches(&stream.labels))
            .collect(),
        sequences: sequences.start..open_end(sequences.end),
        times: if times.start == 0 { i64::MIN } else { times.start }..if times.end == 0 {
            i64::MAX
        } else {
            times.end
        },
    })
}
