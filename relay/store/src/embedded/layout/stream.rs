//! What a stream is: identity, labels, run and end. Meta of a record of kind `Stream`: its id (8), and where it
//! stood when it was created: first and next sequence (8, 8), text (8), last line's time (8), checkpoint. Body: the
//! rest as a protobuf message, so that later versions can add fields.

use std::collections::BTreeMap;

use bytes::Bytes;
use millstream_proto::v1;
use prost::Message as _;

use super::{LayoutError, take_i64, take_u64};
use crate::StreamRecord;

/// Where a stream stands; the fields are those of [`crate::StreamRecord`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) first_sequence: u64,
    pub(crate) next_sequence: u64,
    pub(crate) text_bytes: u64,
    pub(crate) last_line_unix_us: i64,
    pub(crate) checkpoint: Bytes,
}

impl Head {
    pub(crate) fn of(record: &StreamRecord) -> Self {
        Self {
            first_sequence: record.first_sequence,
            next_sequence: record.next_sequence,
            text_bytes: record.text_bytes,
            last_line_unix_us: record.last_line_unix_us,
            checkpoint: record.checkpoint.clone(),
        }
    }
}

pub(crate) fn to_meta(stream_id: u64, created: &Head) -> Vec<u8> {
    let mut meta = Vec::with_capacity(40 + created.checkpoint.len());
    meta.extend(stream_id.to_le_bytes());
    meta.extend(created.first_sequence.to_le_bytes());
    meta.extend(created.next_sequence.to_le_bytes());
    meta.extend(created.text_bytes.to_le_bytes());
    meta.extend(created.last_line_unix_us.to_le_bytes());
    meta.extend(&created.checkpoint);
    meta
}

pub(crate) fn from_meta(mut meta: &[u8]) -> Result<(u64, Head), LayoutError> {
    const WHAT: &str = "where a stream began";
    let rest = &mut meta;
    let stream_id = take_u64(rest, WHAT)?;
    let mut head = Head {
        first_sequence: take_u64(rest, WHAT)?,
        next_sequence: take_u64(rest, WHAT)?,
        text_bytes: take_u64(rest, WHAT)?,
        last_line_unix_us: take_i64(rest, WHAT)?,
        checkpoint: Bytes::new(),
    };
    head.checkpoint = Bytes::copy_from_slice(meta);
    Ok((stream_id, head))
}

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

pub(crate) fn to_body(record: &StreamRecord) -> Bytes {
    let stored = StoredStream {
        agent_id: record.agent_id.clone(),
        source: record.source.clone(),
        instance: record.instance.clone(),
        labels: record.labels.clone(),
        created_unix_us: record.created_unix_us,
        run: record.run.clone(),
        end: record.end.clone(),
    };
    stored.encode_to_vec().into()
}

/// Puts a record together from its two halves.
pub(crate) fn to_record(stream_id: u64, body: &[u8], head: Head) -> Result<StreamRecord, LayoutError> {
    let stored = StoredStream::decode(body).map_err(|error| LayoutError::Content {
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
            let head = Head {
                first_sequence: 0,
                next_sequence,
                text_bytes: 7,
                last_line_unix_us: 8,
                checkpoint: Bytes::from_static(b"here"),
            };
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
            prop_assert_eq!(&Head::of(&record), &head);
            prop_assert_eq!(from_meta(&to_meta(stream_id, &head)), Ok((stream_id, head.clone())));
            prop_assert_eq!(to_record(stream_id, &to_body(&record), head), Ok(record));
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = from_meta(&bytes);
            let _ = to_record(1, &bytes, Head::default());
        }
    }
}
