//! gRPC as readers see it. Each file is one kind of call; [`status`] maps errors for all of them.

mod lists;
mod log;
mod not_yet;
mod raw;
mod read;
mod search;
mod status;
mod tail;
mod watch;

use std::sync::Arc;

pub(crate) use not_yet::NotYet;
pub(crate) use raw::raw;
pub(crate) use status::unknown_stream;

use crate::core::CoreParts;

/// `LogService` with its hot path, `Tail`, in front.
pub(crate) fn log_service(parts: Arc<CoreParts>) -> tail::TailService {
    tail::TailService::new(parts)
}
