//! Looking through stored lines: search and histogram.
//!
//! A plain scan of blocks, newest or oldest first. In the order in which data flows: [`pool`] bounds how many
//! searches there are and on which threads they run, [`plan`] checks a request, [`walk`] reads a stream's blocks
//! in either direction and [`merge`] those of many streams, [`scan`] finds lines in a block's text, [`hits`] packs them, [`context`] adds the lines
//! around them, [`run`] puts it together in turns. [`histogram`] counts instead. Nothing here knows of gRPC
//! calls; nothing here writes.

mod context;
mod histogram;
mod hits;
mod merge;
mod plan;
mod pool;
mod run;
mod scan;
mod walk;

pub(crate) use histogram::Histogram;
pub(crate) use plan::{HistogramPlan, PlanError, SearchPlan};
pub(crate) use pool::{SearchPool, Seat, TurnKind};
pub(crate) use run::{Cost, Search};
pub use scan::{Scanner, TextScan};

use millstream_proto::block::BlockError;
use millstream_store::StoreError;

use crate::limits::LimitReached;

/// Why a search cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SearchError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("stream {stream_id}: a stored block does not open: {cause}")]
    Block { stream_id: u64, cause: BlockError },
    #[error("the relay is stopping; search again when it is back")]
    Stopping,
    #[error(transparent)]
    TooCostly(#[from] LimitReached),
}
