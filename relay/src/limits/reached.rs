//! What a caller is told when a limit bites.

use std::fmt;
use std::time::Duration;

use millstream_proto::retry;
use tonic::{Code, Status};

/// A limit that was reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct LimitReached {
    /// What there is too much of, and of whom.
    pub(crate) what: String,
    /// The key of the configuration, without `limits.`.
    pub(crate) key: &'static str,
    pub(crate) value: u64,
    /// When it makes sense to ask again.
    pub(crate) wait: Duration,
}

impl fmt::Display for LimitReached {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} (limits.{} = {}); try again in {} s",
            self.what,
            self.key,
            self.value,
            retry::seconds_up(self.wait)
        )
    }
}

impl LimitReached {
    /// `RESOURCE_EXHAUSTED` with the wait in its details.
    pub(crate) fn to_status(&self) -> Status {
        retry::status(Code::ResourceExhausted, &self.to_string(), self.wait)
    }
}
