//! A request of `Tail` as what it means for each stream.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use millstream_proto::v1::{self, tail_request};

use super::{Cursor, CursorError, CursorScope};
use crate::auth::Access;
use crate::filter::{FilterError, LineFilter};
use crate::selector::{Selector, SelectorError};
use crate::streams::StreamHandle;

/// Why a request cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Selector(#[from] SelectorError),
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error(transparent)]
    Cursor(#[from] CursorError),
    #[error("since_unix_us must not be negative")]
    NegativeTime,
    #[error("batch_interval_ms is {0}; at most {MAX_BATCH_INTERVAL_MS} are possible")]
    BatchInterval(u32),
}

/// Longer, and a person would notice.
const MAX_BATCH_INTERVAL_MS: u32 = 1_000;

/// Where to begin in streams that exist when the subscription begins.
#[derive(Clone, Debug)]
enum Start {
    Beginning,
    LastLines(u64),
    Since(i64),
    Cursor(Cursor),
    Now,
}

/// Where one stream begins; time needs a look into the store first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SlotStart {
    At(u64),
    Time(i64),
    /// Finished before: nothing to deliver.
    Skip,
}

/// A checked request.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(super) selector: Selector,
    pub(super) scope: CursorScope,
    pub(super) follow: bool,
    pub(super) filter: Option<Arc<LineFilter>>,
    pub(super) accepts_zstd: bool,
    /// What comes within that time after a delivery is delivered together.
    pub(super) batch_interval: Duration,
    only: BTreeSet<u64>,
    start: Start,
    positions: BTreeMap<u64, u64>,
}

impl Plan {
    /// What the caller asks for, within what they may see.
    pub(crate) fn new(request: v1::TailRequest, store_id: &str, access: &Access) -> Result<Self, StartError> {
        let scope = CursorScope::new(store_id, &request.selector, access.scope(), &request.stream_ids);
        let start = match request.start {
            Some(tail_request::Start::FromBeginning(true)) => Start::Beginning,
            Some(tail_request::Start::LastLines(lines)) => Start::LastLines(lines),
            Some(tail_request::Start::SinceUnixUs(unix_us)) if unix_us < 0 => {
                return Err(StartError::NegativeTime);
            }
            Some(tail_request::Start::SinceUnixUs(unix_us)) => Start::Since(unix_us),
            Some(tail_request::Start::Cursor(token)) => Start::Cursor(Cursor::decode(&token, scope)?),
            Some(tail_request::Start::FromBeginning(false) | tail_request::Start::FromNow(_)) | None => {
                Start::Now
            }
        };
        if request.batch_interval_ms > MAX_BATCH_INTERVAL_MS {
            return Err(StartError::BatchInterval(request.batch_interval_ms));
        }
        Ok(Self {
            selector: access.selector(&request.selector)?,
            scope,
            follow: request.follow,
            filter: request
                .filter
                .as_ref()
                .map(LineFilter::compile)
                .transpose()?
                .flatten()
                .map(Arc::new),
            accepts_zstd: request.codecs.contains(&i32::from(v1::Codec::Zstd)),
            batch_interval: Duration::from_millis(request.batch_interval_ms.into()),
            only: request.stream_ids.into_iter().collect(),
            start,
            positions: request
                .positions
                .into_iter()
                .map(|position| (position.stream_id, position.next_sequence))
                .collect(),
        })
    }

    /// Forgets where streams begin that existed when the subscription began: a cursor over a great many is some ten MiB,
    /// and is not needed again.
    pub(super) fn forget_starts(&mut self) {
        self.positions = BTreeMap::new();
        if matches!(self.start, Start::Cursor(_)) {
            self.start = Start::Now;
        }
    }

    /// True when the caller asked for this stream by its id, or for none in particular.
    pub(super) fn wants(&self, stream: &StreamHandle) -> bool {
        self.only.is_empty() || self.only.contains(&stream.stream_id)
    }

    /// Whether its filter is one that may be slow.
    pub(super) fn may_be_slow(&self) -> bool {
        self.filter.as_ref().is_some_and(|filter| filter.may_be_slow())
    }

    /// The store has to be asked where the streams begin.
    pub(super) fn starts_by_time(&self) -> bool {
        matches!(self.start, Start::Since(_))
    }

    /// Where to begin in a stream that exists when the subscription begins.
    pub(super) fn start_of(&self, stream: &Arc<StreamHandle>) -> SlotStart {
        if let Some(next_sequence) = self.positions.get(&stream.stream_id) {
            return SlotStart::At(*next_sequence);
        }
        let bounds = stream.bounds();
        match &self.start {
            Start::Beginning => SlotStart::At(bounds.first_sequence),
            Start::LastLines(lines) => SlotStart::At(
                bounds
                    .next_sequence
                    .saturating_sub(*lines)
                    .max(bounds.first_sequence),
            ),
            Start::Since(unix_us) => SlotStart::Time(*unix_us),
            Start::Cursor(cursor) => match cursor.positions.get(&stream.stream_id) {
                Some(next_sequence) => SlotStart::At(*next_sequence),
                None if stream.stream_id <= cursor.watermark => SlotStart::Skip,
                None => SlotStart::At(bounds.first_sequence),
            },
            // Of streams that ended long ago there is nothing to say, unless the caller named them.
            Start::Now if bounds.is_ended && self.only.is_empty() => SlotStart::Skip,
            Start::Now => SlotStart::At(bounds.next_sequence),
        }
    }
}
