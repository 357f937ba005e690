//! One place that turns errors into gRPC status.

use millstream_store::StoreError;
use tonic::Status;

use crate::filter::FilterError;
use crate::limits::LimitReached;
use crate::search::{PlanError, SearchError};
use crate::selector::SelectorError;
use crate::subscription::{CursorError, ReadError, StartError};

pub(super) trait ToStatus {
    fn to_status(&self) -> Status;
}

impl ToStatus for StoreError {
    fn to_status(&self) -> Status {
        tracing::error!(error = %self, "a read failed");
        match self {
            // Readers come again by themselves.
            Self::Damaged { .. } | Self::DamagedLines { .. } => Status::data_loss(self.to_string()),
            _ => Status::internal(self.to_string()),
        }
    }
}

impl ToStatus for SelectorError {
    fn to_status(&self) -> Status {
        Status::invalid_argument(self.to_string())
    }
}

impl ToStatus for FilterError {
    fn to_status(&self) -> Status {
        Status::invalid_argument(self.to_string())
    }
}

impl ToStatus for StartError {
    fn to_status(&self) -> Status {
        match self {
            Self::Cursor(CursorError::OtherStore) => Status::failed_precondition(self.to_string()),
            _ => Status::invalid_argument(self.to_string()),
        }
    }
}

impl ToStatus for ReadError {
    fn to_status(&self) -> Status {
        match self {
            Self::Store(error) => error.to_status(),
            Self::Block { .. } => Status::data_loss(self.to_string()),
            Self::Stopping => Status::unavailable(self.to_string()),
        }
    }
}

impl ToStatus for PlanError {
    fn to_status(&self) -> Status {
        match self {
            Self::UnknownStream(stream_id) => unknown_stream(*stream_id),
            _ => Status::invalid_argument(self.to_string()),
        }
    }
}

impl ToStatus for LimitReached {
    fn to_status(&self) -> Status {
        Self::to_status(self)
    }
}

impl ToStatus for SearchError {
    fn to_status(&self) -> Status {
        match self {
            Self::Store(error) => error.to_status(),
            Self::Block { .. } => Status::data_loss(self.to_string()),
            Self::Stopping => Status::unavailable(self.to_string()),
            Self::TooCostly(reached) => reached.to_status(),
        }
    }
}

pub(crate) fn unknown_stream(stream_id: u64) -> Status {
    Status::not_found(format!(
        "there is no stream {stream_id}; `millstream ls streams` or ListStreams shows which there are"
    ))
}
