//! `Histogram` through gRPC.

#![allow(
    clippy::unwrap_used,
    reason = "clippy exempts functions marked as tests, not their helpers"
)]

mod support;

use millstream_proto::block::BlockBuilder;
use millstream_proto::v1::{self, Filter, HistogramAxis, HistogramRequest};
use support::{Agent, Relay};
use tonic::Code;

const SECOND_US: i64 = 1_000_000;
const START_US: i64 = 1_700_000_000 * SECOND_US;

/// One line a second; every 10th an error, every 10th a warning.
async fn write(agent: &mut Agent, lines: u64) -> u64 {
    let opened = agent.open(1, "/log").await;
    for first in (0..lines).step_by(50) {
        let mut builder = BlockBuilder::new();
        for sequence in first..(first + 50).min(lines) {
            let text = match sequence % 10 {
                3 => format!("error: {sequence}"),
                6 => format!("warning: {sequence}"),
                _ => format!("plain {sequence}, 0 errors"),
            };
            let time = START_US + i64::try_from(sequence).unwrap() * SECOND_US;
            assert!(builder.push_line(text.as_bytes(), time, v1::Channel::Stdout, false));
        }
        agent.push(1, builder.finish(first).unwrap(), b"").await;
    }
    agent.acked(1, lines).await;
    opened.stream_id
}

fn counts(bucket: &v1::HistogramBucket) -> (u64, u64, u64) {
    (bucket.lines, bucket.warnings, bucket.errors)
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_counted_over_time_by_severity() {
    let relay = Relay::start().await;
    let mut agent = relay.agent("a").await;
    let stream_id = write(&mut agent, 1000).await;
    let request = HistogramRequest {
        buckets: 101,
        ..HistogramRequest::default()
    };
    let histogram = relay
        .log()
        .await
        .histogram(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(histogram.bucket_us, 10 * SECOND_US);
    assert_eq!(histogram.since_unix_us, START_US);
    assert_eq!(histogram.buckets.len(), 100);
    assert!(
        histogram
            .buckets
            .iter()
            .all(|bucket| counts(bucket) == (10, 1, 1)),
        "{histogram:?}"
    );
    assert!(!histogram.is_partial);

    // Zoomed and filtered.
    let zoomed = HistogramRequest {
        since_unix_us: START_US + 100 * SECOND_US,
        until_unix_us: START_US + 200 * SECOND_US,
        filter: Some(Filter {
            regex: "^(error|plain)".to_owned(),
            ..Filter::default()
        }),
        buckets: 50,
        ..HistogramRequest::default()
    };
    let histogram = relay.log().await.histogram(zoomed).await.unwrap().into_inner();
    assert_eq!(
        (histogram.bucket_us, histogram.buckets.len()),
        (2 * SECOND_US, 50)
    );
    let sum = |pick: fn(&v1::HistogramBucket) -> u64| histogram.buckets.iter().map(pick).sum::<u64>();
    assert_eq!(
        (sum(|b| b.lines), sum(|b| b.warnings), sum(|b| b.errors)),
        (90, 0, 10)
    );
    assert_eq!(counts(&histogram.buckets[1]), (2, 0, 1));

    // Over the sequences of a part of the stream.
    let by_sequence = HistogramRequest {
        stream_ids: vec![stream_id],
        axis: HistogramAxis::Sequence.into(),
        from_sequence: 500,
        buckets: 7,
        ..HistogramRequest::default()
    };
    let histogram = relay
        .log()
        .await
        .histogram(by_sequence)
        .await
        .unwrap()
        .into_inner();
    assert_eq!((histogram.first_sequence, histogram.bucket_lines), (500, 72));
    let lines: Vec<_> = histogram.buckets.iter().map(|bucket| bucket.lines).collect();
    assert_eq!(lines, [72, 72, 72, 72, 72, 72, 68]);
    assert_eq!(
        histogram.buckets.iter().map(|bucket| bucket.errors).sum::<u64>(),
        50
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_histogram_of_nothing_is_empty_and_one_that_cannot_be_is_refused() {
    let relay = Relay::start().await;
    let empty = HistogramRequest::default();
    let histogram = relay
        .log()
        .await
        .histogram(empty.clone())
        .await
        .unwrap()
        .into_inner();
    assert!(histogram.buckets.is_empty());
    for (request, code, words) in [
        (
            HistogramRequest {
                buckets: 2001,
                ..empty.clone()
            },
            Code::InvalidArgument,
            "the limit is 2000",
        ),
        (
            HistogramRequest {
                axis: HistogramAxis::Sequence.into(),
                ..empty.clone()
            },
            Code::InvalidArgument,
            "one stream",
        ),
        (
            HistogramRequest {
                axis: 7,
                ..empty.clone()
            },
            Code::InvalidArgument,
            "axis 7",
        ),
        (
            HistogramRequest {
                stream_ids: vec![4],
                ..empty.clone()
            },
            Code::NotFound,
            "stream 4",
        ),
    ] {
        let error = relay.log().await.histogram(request).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(words), "{error}");
    }
}
