//! Stream id → what a stream is: identity, labels, run and end. What its lines change is in
//! [`super::head`].

use std::collections::BTreeMap;

use bytes::Bytes;
use millstream_proto::v1;
use prost::Message as _;

use super::LayoutError;
use super::head::Head;
use crate::StreamRecord;

/// The stored form; a protobuf message so that later versions can add fields.
#[derive(Clone, PartialEq, prost::Message)]
struct StoredStream {
    #[prost(string, tag = "1")]
    agent_id: String,
    #[prost(string, tag = "2")]
    source: String,
    #[prost(string, tag = "3")]
    instance: String,
    #[prost(btree_map = "string, string", tag = "4")]
    labels: BTreeMap<String, String>,
    #[prost(int64, tag = "5")]
    created_unix_us: i64,
    #[prost(message, optional, tag = "6")]
    run: Option<v1::Run>,
    #[prost(message, optional, tag = "7")]
    end: Option<v1::StreamEnd>,
}

pub(crate) fn ser_value(record: &StreamRecord) -> Vec<u8> {
    StoredStream {
        agent_id: record.agent_id.clone(),
        source: record.source.clone(),
        instance: record.instance.clone(),
        labels: record.labels.clone(),
        created_unix_us: record.created_unix_us,
        run: record.run.clone(),
        end: record.end.clone(),
    }
    .encode_to_vec()
}

/// Puts a record together from its two halves.
pub(crate) fn deser_value(stream_id: u64, value: Bytes, head: Head) -> Result<StreamRecord, LayoutError> {
    let stored = StoredStream::decode(value).map_err(|error| LayoutError::Content {
        what: "stream",
        cause: error.to_string(),
    })?;
    Ok(StreamRecord {
        stream_id,
        agent_id: stored.agent_id,
        source: stored.source,
        instance: stored.instance,
        labels: stored.labels,
        created_unix_us: stored.created_unix_us,
        first_sequence: head.first_sequence,
        next_sequence: head.next_sequence,
        text_bytes: head.text_bytes,
        last_line_unix_us: head.last_line_unix_us,
        checkpoint: head.checkpoint,
        run: stored.run,
        end: stored.end,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::kv::{deser_stream_key, ser_stream_key};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_stream_survives_the_round_trip(
            stream_id: u64,
            source in ".*",
            labels in prop::collection::btree_map(".*", ".*", 0..5),
            created_unix_us: i64,
            exit_code in prop::option::of(any::<i32>()),
            next_sequence: u64,
        ) {
            let record = StreamRecord {
                stream_id,
                agent_id: "a".to_owned(),
                source,
                instance: "/var/log/x".to_owned(),
                labels,
                created_unix_us,
                first_sequence: 0,
                next_sequence,
                text_bytes: 7,
                last_line_unix_us: 8,
                checkpoint: Bytes::from_static(b"here"),
                run: Some(v1::Run { argv: vec!["make".to_owned()], ..Default::default() }),
                end: exit_code.map(|code| v1::StreamEnd { exit_code: Some(code), ..Default::default() }),
            };
            let head = Head {
                first_sequence: 0,
                next_sequence,
                text_bytes: 7,
                last_line_unix_us: 8,
                checkpoint: Bytes::from_static(b"here"),
            };
            prop_assert_eq!(deser_stream_key(&ser_stream_key(stream_id)), Ok(stream_id));
            prop_assert_eq!(deser_value(stream_id, ser_value(&record).into(), head), Ok(record));
        }
    }
}
