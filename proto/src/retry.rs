//! How long a caller should wait before it asks again: told beside a status, as gRPC does it everywhere
//! (`google.rpc.RetryInfo` in `grpc-status-details-bin`), and for simpler callers in `retry-after`.

use std::time::Duration;

use prost::Message;
use tonic::Status;
use tonic::metadata::{MetadataMap, MetadataValue};

/// Whole seconds, rounded up, as in HTTP.
pub const RETRY_AFTER: &str = "retry-after";

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// The longest wait that is believed: what a stranger says must not put a caller to sleep for ever.
const LONGEST: Duration = Duration::from_secs(600);

/// `google.rpc.Status` (<https://github.com/googleapis/googleapis/blob/master/google/rpc/status.proto>).
#[derive(Clone, PartialEq, Message)]
struct RichStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// A status that says when to come again.
#[must_use]
pub fn status(code: tonic::Code, message: &str, wait: Duration) -> Status {
    let delay = Delay {
        seconds: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(wait.subsec_nanos()).unwrap_or(0),
    };
    let info = RetryInfo {
        retry_delay: Some(delay),
    };
    let rich = RichStatus {
        code: code.into(),
        message: message.to_owned(),
        details: vec![Detail {
            type_url: RETRY_INFO.to_owned(),
            value: info.encode_to_vec(),
        }],
    };
    let mut metadata = MetadataMap::new();
    metadata.insert(RETRY_AFTER, MetadataValue::from(seconds_up(wait)));
    Status::with_details_and_metadata(code, message, rich.encode_to_vec().into(), metadata)
}

/// When the other side says that it may be asked again, at most ten minutes from now; `None`: it does not say.
#[must_use]
pub fn delay(status: &Status) -> Option<Duration> {
    let from_details = RichStatus::decode(status.details()).ok().and_then(|rich| {
        let info = rich.details.iter().find(|detail| detail.type_url == RETRY_INFO)?;
        let delay = RetryInfo::decode(info.value.as_slice()).ok()?.retry_delay?;
        let seconds = u64::try_from(delay.seconds).ok()?;
        let nanos = u32::try_from(delay.nanos)
            .ok()
            .filter(|nanos| *nanos < 1_000_000_000)?;
        Some(Duration::new(seconds, nanos))
    });
    let from_header = || {
        let value = status.metadata().get(RETRY_AFTER)?.to_str().ok()?;
        value.parse().ok().map(Duration::from_secs)
    };
    from_details.or_else(from_header).map(|wait| wait.min(LONGEST))
}

/// Whole seconds, at least one.
#[must_use]
pub fn seconds_up(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tonic::Code;

    use super::*;

    #[test]
    fn a_wait_comes_through_headers_as_it_was() {
        let sent = status(Code::ResourceExhausted, "too many", Duration::from_millis(2500));
        let mut headers = http_headers(&sent);
        let received = Status::from_header_map(&headers).unwrap();
        assert_eq!(delay(&received), Some(Duration::from_millis(2500)));
        assert_eq!(received.message(), "too many");
        // A proxy that knows no details leaves whole seconds.
        headers.remove("grpc-status-details-bin");
        let received = Status::from_header_map(&headers).unwrap();
        assert_eq!(delay(&received), Some(Duration::from_secs(3)));
    }

    #[test]
    fn a_status_that_says_nothing_or_nonsense_has_no_wait_and_none_is_for_ever() {
        assert_eq!(delay(&Status::resource_exhausted("x")), None);
        let endless = status(Code::Unavailable, "x", Duration::from_secs(u64::MAX / 4));
        assert_eq!(delay(&endless), Some(LONGEST));
    }

    fn http_headers(status: &Status) -> tonic::codegen::http::HeaderMap {
        let mut headers = tonic::codegen::http::HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        headers
    }

    proptest! {
        #[test]
        fn details_of_a_stranger_never_panic(details in proptest::collection::vec(any::<u8>(), 0..80)) {
            let status = Status::with_details(Code::ResourceExhausted, "x", details.into());
            if let Some(wait) = delay(&status) {
                prop_assert!(wait <= LONGEST);
            }
        }
    }
}
