//! What subscriptions of the same stream share.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use millstream_proto::block::{BlockBuilder, OpenBlock};
use millstream_proto::v1::{self, tail_request::Start, tail_response::Message};
use millstream_store::memory::MemoryStore;
use millstream_store::{AppendOp, LogStore, StreamRecord, WriteOp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::outbox::Outbox;
use super::{Plan, Sources, Subscription};
use crate::auth::Access;
use crate::metrics::Metrics;
use crate::streams::{Published, Registry, RingBudget, StreamHandle, block_frame, decode_block_frame};

const STREAM_ID: u64 = 1;

fn record() -> StreamRecord {
    StreamRecord {
        stream_id: STREAM_ID,
        agent_id: "a".to_owned(),
        source: "app".to_owned(),
        instance: "/log".to_owned(),
        labels: [("source".to_owned(), "app".to_owned())].into(),
        created_unix_us: 0,
        first_sequence: 0,
        next_sequence: 0,
        text_bytes: 0,
        last_line_unix_us: 0,
        checkpoint: Bytes::new(),
        run: None,
        end: None,
    }
}

fn sources() -> (Sources, Arc<StreamHandle>) {
    let store = MemoryStore::new();
    store.commit(vec![WriteOp::PutStream(record())]).unwrap();
    let budget = Arc::new(RingBudget::new(1 << 20, 1 << 20));
    let registry = Arc::new(Registry::new(Vec::new(), budget));
    let stream = registry.add(record());
    let sources = Sources {
        store: Arc::new(store),
        registry,
        metrics: Arc::new(Metrics::default()),
        search_pool: Arc::new(crate::search::SearchPool::new(1)),
        stop: CancellationToken::new(),
        heartbeat: Duration::from_secs(3600),
    };
    (sources, stream)
}

/// Commits and shows one block of lines, as the writer does.
fn publish(sources: &Sources, stream: &StreamHandle, first_sequence: u64, lines: &[&str]) {
    let mut builder = BlockBuilder::new();
    for line in lines {
        assert!(builder.push_line(line.as_bytes(), 1, v1::Channel::Stdout, false));
    }
    publish_block(sources, stream, builder.finish(first_sequence).unwrap());
}

fn publish_block(sources: &Sources, stream: &StreamHandle, block: v1::Block) {
    let first_sequence = block.first_sequence;
    let published = Published {
        first_sequence,
        next_sequence: first_sequence + u64::from(block.line_count),
        text_bytes: block.text_bytes.into(),
        last_line_unix_us: 1,
        checkpoint: Bytes::new(),
        frame: block_frame(STREAM_ID, block.clone()),
    };
    let append = AppendOp {
        stream_id: STREAM_ID,
        block,
        checkpoint: Bytes::new(),
        last_line_unix_us: 1,
    };
    sources.store.commit(vec![WriteOp::Append(append)]).unwrap();
    stream.publish(vec![published]);
}

fn subscribe(sources: &Sources, request: v1::TailRequest) -> Subscription {
    let codecs = vec![v1::Codec::None.into(), v1::Codec::Zstd.into()];
    subscribe_with(sources, v1::TailRequest { codecs, ..request })
}

fn subscribe_with(sources: &Sources, request: v1::TailRequest) -> Subscription {
    let request = v1::TailRequest {
        start: Some(Start::FromBeginning(true)),
        follow: true,
        ..request
    };
    let plan = Plan::new(request, sources.store.store_id(), &Access::unrestricted("test")).unwrap();
    Subscription::new(sources.clone(), plan)
}

/// The messages of what is delivered at a time.
pub(super) fn messages(mut frames: Bytes) -> Vec<Message> {
    let mut messages = Vec::new();
    while !frames.is_empty() {
        assert_eq!(frames.get_u8(), 0, "not compressed");
        let length = frames.get_u32() as usize;
        let response: v1::TailResponse = prost::Message::decode(frames.split_to(length)).unwrap();
        messages.push(response.message.unwrap());
    }
    messages
}

/// The next frame that holds a block and nothing else.
async fn next_block(subscription: &mut Subscription) -> Bytes {
    loop {
        let frame = subscription.next_frame().await.unwrap().unwrap();
        if matches!(messages(frame.clone())[..], [Message::Block(_)]) {
            return frame;
        }
    }
}

#[tokio::test]
async fn two_subscribers_of_a_stream_get_the_very_same_bytes() {
    let (sources, stream) = sources();
    publish(&sources, &stream, 0, &["one", "two"]);
    let mut first = subscribe(&sources, v1::TailRequest::default());
    let mut second = subscribe(&sources, v1::TailRequest::default());
    for sequence in [0, 2, 4] {
        if sequence > 0 {
            publish(&sources, &stream, sequence, &["more", "and more"]);
        }
        let (ours, theirs) = (next_block(&mut first).await, next_block(&mut second).await);
        assert_eq!(decode_block_frame(&ours).first_sequence, sequence);
        assert_eq!(ours.len(), theirs.len());
        assert_eq!(ours.as_ptr(), theirs.as_ptr(), "encoded once and shared");
    }
    assert_eq!(sources.metrics.store_frames_total.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_comes_within_a_batch_interval_is_delivered_together_and_a_line_after_a_pause_at_once() {
    let (sources, stream) = sources();
    let request = v1::TailRequest {
        batch_interval_ms: 100,
        ..v1::TailRequest::default()
    };
    let mut subscription = subscribe(&sources, request);
    while !matches!(
        messages(subscription.next_frame().await.unwrap().unwrap())[..],
        [Message::CaughtUp(_)]
    ) {}
    let blocks = async |subscription: &mut Subscription| {
        let asked = Instant::now();
        let frame = subscription.next_frame().await.unwrap().unwrap();
        let sequences: Vec<u64> = messages(frame)
            .into_iter()
            .map(|message| match message {
                Message::Block(block) => block.block.unwrap().first_sequence,
                other => panic!("{other:?}"),
            })
            .collect();
        (asked.elapsed(), sequences)
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    publish(&sources, &stream, 0, &["first"]);
    assert_eq!(blocks(&mut subscription).await, (Duration::ZERO, vec![0]));
    for sequence in 1..4 {
        publish(&sources, &stream, sequence, &["more"]);
    }
    let (waited, sequences) = blocks(&mut subscription).await;
    assert_eq!(sequences, [1, 2, 3]);
    let interval = Duration::from_millis(100)..Duration::from_millis(110);
    assert!(interval.contains(&waited), "{waited:?}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    publish(&sources, &stream, 4, &["after a pause"]);
    assert_eq!(blocks(&mut subscription).await, (Duration::ZERO, vec![4]));
}

#[tokio::test]
async fn a_filter_of_one_subscriber_leaves_what_the_others_share_alone() {
    let (sources, stream) = sources();
    publish(&sources, &stream, 0, &["keep", "drop", "keep"]);
    let filter = v1::Filter {
        substring: "keep".to_owned(),
        ..v1::Filter::default()
    };
    let mut filtered = subscribe(
        &sources,
        v1::TailRequest {
            filter: Some(filter),
            ..v1::TailRequest::default()
        },
    );
    let mut plain = subscribe(&sources, v1::TailRequest::default());
    let part = decode_block_frame(&next_block(&mut filtered).await);
    let sequences: Vec<_> = OpenBlock::open(&part)
        .unwrap()
        .lines()
        .map(|line| line.sequence)
        .collect();
    assert_eq!(sequences, [0, 2]);
    assert_eq!(decode_block_frame(&next_block(&mut plain).await).line_count, 3);
}

/// Readers that take nothing: so much waits for them that turns are small ones.
fn many_stuck(sources: &Sources) -> Vec<Outbox> {
    let stuck = std::iter::repeat_with(|| {
        let mut stuck = Outbox::new(Arc::clone(&sources.metrics));
        stuck.push(Bytes::from(vec![0; 1 << 20]));
        stuck
    });
    stuck.take(40).collect()
}

#[tokio::test]
async fn a_turn_is_bounded_as_it_is_delivered_however_small_it_is_in_the_store() {
    let (sources, stream) = sources();
    let line = "x".repeat(1000);
    let mut compressor = millstream_proto::block::Compressor::new(3);
    for number in 0..40_u64 {
        let mut builder = BlockBuilder::new();
        for _ in 0..1000 {
            assert!(builder.push_line(line.as_bytes(), 1, v1::Channel::Stdout, false));
        }
        let block = builder.finish(number * 1000).unwrap();
        publish_block(&sources, &stream, compressor.compress(block));
    }
    for (filter, is_tight) in [None, Some("x"), Some("(x|y)+")]
        .into_iter()
        .flat_map(|filter| [(filter, true), (filter, false)])
    {
        let stuck = is_tight.then(|| many_stuck(&sources));
        let others = sources.metrics.subscription_frames_bytes.get();
        let most = if is_tight { 128 << 10 } else { 4 << 20 };
        let filter = filter.map(|regex| v1::Filter {
            regex: regex.to_owned(),
            ..v1::Filter::default()
        });
        let mut subscription = subscribe_with(
            &sources,
            v1::TailRequest {
                codecs: vec![v1::Codec::None.into()],
                filter,
                ..v1::TailRequest::default()
            },
        );
        let mut next = 0;
        while next < 40_000 {
            let frame = next_block(&mut subscription).await;
            let waiting = sources.metrics.subscription_frames_bytes.get() - others;
            assert!(waiting < most, "{waiting} bytes wait for one reader");
            let block = decode_block_frame(&frame);
            assert_eq!(block.first_sequence, next, "every line");
            next += u64::from(block.line_count);
        }
        drop(stuck);
    }
}
