//! What can go wrong, in words that name the thing, the place and the cure.

use millstream_proto::block::BlockError;
use millstream_proto::retry;
use tonic::{Code, Status};

/// Why a call or a subscription failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address, the token or a file of certificates cannot be used; nothing was sent.
    #[error(transparent)]
    Dial(#[from] millstream_dial::DialError),
    #[error("cannot reach the relay at {address}: {reason}; {}", cure(reason))]
    Unreachable { address: String, reason: String },
    /// The relay was there and is not any more, or its connection is not.
    #[error("the connection to the relay at {address} is lost: {reason}")]
    Lost { address: String, reason: String },
    /// The relay does not have it (yet).
    #[error("the relay at {address} does not offer {what} yet (UNIMPLEMENTED)")]
    Unimplemented { address: String, what: &'static str },
    /// A selector, filter or option that the relay does not accept.
    #[error("the relay refused the request: {message}")]
    BadRequest { message: String },
    #[error("not found: {message}")]
    NotFound { message: String },
    /// The place to resume from belongs to another store, so that it cannot be exact.
    #[error("cannot resume: {message}; start again from the beginning, a time or the last lines")]
    CursorOfAnotherStore { message: String },
    /// The relay does not know who asks.
    #[error("not allowed: {message}; give a token that the relay knows (--token-file or MILLSTREAM_TOKEN)")]
    NotAuthenticated { message: String },
    /// The relay or the agent knows who asks, and refuses.
    #[error("not allowed: {message}")]
    NotAllowed { message: String },
    /// A limit of the relay was reached; the message says which.
    #[error("{what} has to wait: {message}")]
    Busy {
        what: &'static str,
        message: String,
        /// When the relay says that it may be asked again.
        retry_after: std::time::Duration,
    },
    #[error("{what} failed: {message} ({code:?})")]
    Call {
        what: &'static str,
        code: Code,
        message: String,
    },
    /// Lines are missing although the relay announced no gap. Nothing is delivered after it.
    #[error(
        "stream {stream_id}: lines {expected_sequence} to {got_sequence} (exclusive) were not delivered and \
         no gap was announced; subscribe again from sequence {expected_sequence}"
    )]
    MissingLines {
        stream_id: u64,
        expected_sequence: u64,
        got_sequence: u64,
    },
    #[error("stream {stream_id}: the relay sent a block that cannot be read: {source}")]
    BadBlock { stream_id: u64, source: BlockError },
    #[error("the relay broke the protocol: {message}")]
    Protocol { message: String },
}

/// What to do about a relay that cannot be reached.
fn cure(reason: &str) -> &'static str {
    // As rustls says it.
    if reason.contains("invalid peer certificate") {
        "if it is the right relay, give the authority that its certificate is of (--ca) or the pin of its key (--pin)"
    } else {
        "is millstream-relay running there?"
    }
}

impl Error {
    /// Turns the status of a call that is over into an error; `what` names the call for people.
    pub(crate) fn from_status(status: &Status, what: &'static str, address: &str) -> Self {
        let message = status.message().to_owned();
        if let Some(retry_after) = retry::delay(status) {
            return Self::Busy {
                what,
                message,
                retry_after,
            };
        }
        match status.code() {
            Code::InvalidArgument => Self::BadRequest { message },
            Code::NotFound => Self::NotFound { message },
            Code::Unauthenticated => Self::NotAuthenticated { message },
            Code::PermissionDenied => Self::NotAllowed { message },
            Code::Unimplemented => Self::Unimplemented {
                address: address.to_owned(),
                what,
            },
            Code::Unavailable => Self::Unreachable {
                address: address.to_owned(),
                reason: describe(status),
            },
            code => Self::Call {
                what,
                code,
                message: describe(status),
            },
        }
    }
}

/// Whether the same call may succeed on a new connection.
pub(crate) fn is_transient(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Aborted | Code::DeadlineExceeded => true,
        // What the transport itself reports carries its cause; a relay's own INTERNAL does not.
        Code::Internal => std::error::Error::source(status).is_some() || status.message().contains("h2"),
        _ => false,
    }
}

/// The status in words: its message, or the innermost cause when the transport made it.
pub(crate) fn describe(status: &Status) -> String {
    let cause = root_cause(status);
    match (cause, status.message()) {
        (Some(cause), "") => cause,
        (Some(cause), message) if message.contains(&cause) => message.to_owned(),
        (Some(cause), message) => format!("{message}: {cause}"),
        (None, "") => status.code().description().to_owned(),
        (None, message) => message.to_owned(),
    }
}

/// The innermost cause of an error in words.
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut cause = error.source()?;
    while let Some(next) = cause.source() {
        cause = next;
    }
    Some(cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::Error;

    #[test]
    fn a_certificate_that_is_not_believed_is_no_relay_that_does_not_run() {
        let said = |reason: &str| {
            let (address, reason) = ("https://relay.example:7171".to_owned(), reason.to_owned());
            Error::Unreachable { address, reason }.to_string()
        };
        assert!(
            said("invalid peer certificate: UnknownIssuer").ends_with("(--ca) or the pin of its key (--pin)")
        );
        assert!(said("Connection refused").ends_with("is millstream-relay running there?"));
    }
}
