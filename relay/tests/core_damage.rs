//! A damaged range of a stream: readers are told and go on behind it, other streams are not touched.

#![allow(
    clippy::unwrap_used,
    reason = "clippy exempts functions marked as tests, not their helpers"
)]

mod support;

use std::sync::Arc;

use futures_util::StreamExt as _;
use millstream_proto::v1::{self, read_request};
use millstream_relay::CoreOptions;
use millstream_store::memory::MemoryStore;
use millstream_store::{LogStore, StoreError, StreamRecord, WriteOp};
use support::{Relay, from_beginning, lines, read_all};

/// Stream 1 is damaged from line 30 to 49; it is written in blocks of 10 lines.
#[derive(Debug, Default)]
struct Damaged(MemoryStore);

impl LogStore for Damaged {
    fn store_id(&self) -> &str {
        self.0.store_id()
    }
    fn load_streams(&self) -> Result<Vec<StreamRecord>, StoreError> {
        self.0.load_streams()
    }
    fn load_agents(&self) -> Result<Vec<v1::Agent>, StoreError> {
        self.0.load_agents()
    }
    fn commit(&self, ops: Vec<WriteOp>) -> Result<(), StoreError> {
        self.0.commit(ops)
    }
    fn sync(&self) -> Result<(), StoreError> {
        self.0.sync()
    }
    fn read_blocks(&self, stream_id: u64, from: u64, max_bytes: usize) -> Result<Vec<v1::Block>, StoreError> {
        if stream_id == 1 && (30..50).contains(&from) {
            return Err(StoreError::DamagedLines {
                stream_id,
                first_sequence: from,
                next_sequence: 50,
                cause: "a bit flipped".to_owned(),
            });
        }
        let mut blocks = self.0.read_blocks(stream_id, from, max_bytes)?;
        if stream_id == 1 && from < 30 {
            blocks.retain(|block| block.first_sequence < 30);
        }
        Ok(blocks)
    }
    fn seek_time(&self, stream_id: u64, unix_us: i64) -> Result<u64, StoreError> {
        self.0.seek_time(stream_id, unix_us)
    }
    fn maintain(&self) -> Result<bool, StoreError> {
        self.0.maintain()
    }
    fn disk_bytes(&self) -> u64 {
        self.0.disk_bytes()
    }
}

async fn relay() -> (Relay, support::Agent) {
    // No memory for recent blocks: everything is read from the store.
    let options = CoreOptions {
        ring_bytes_per_stream: 0,
        ..CoreOptions::default()
    };
    let relay = Relay::with(Arc::new(Damaged::default()), options).await;
    let mut agent = relay.agent("a").await;
    for handle in [1, 2] {
        agent.open(handle, &format!("/log-{handle}")).await;
        for block in 0..10 {
            agent.push(handle, lines("x", block * 10, 10), b"").await;
        }
        agent.acked(handle, 100).await;
    }
    (relay, agent)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_gets_a_gap_with_its_reason_and_goes_on_behind_it() {
    let (relay, _agent) = relay().await;
    let seen = read_all(relay.tail(from_beginning(false)).await).await;
    let [gap] = &seen.gaps[..] else {
        panic!("one gap is expected, not {:?}", seen.gaps);
    };
    assert_eq!(
        (gap.stream_id, gap.first_sequence, gap.next_sequence),
        (1, 30, 50)
    );
    assert_eq!(gap.reason(), v1::GapReason::Damaged);
    assert!(gap.message.contains("a bit flipped"), "{}", gap.message);
    let sequences: Vec<u64> = seen.lines[&1].iter().map(|(sequence, _)| *sequence).collect();
    assert_eq!(sequences, (0..30).chain(50..100).collect::<Vec<_>>());
    seen.assert_dense(2, "x", 0..100);
    assert!(seen.caught_up.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_tell_of_the_gap_once_and_go_on_behind_it() {
    let (relay, _agent) = relay().await;
    let (mut next, mut sequences, mut gaps) = (0, Vec::new(), Vec::new());
    while next < 100 {
        let request = v1::ReadRequest {
            stream_id: 1,
            from: Some(read_request::From::FromSequence(next)),
            ..v1::ReadRequest::default()
        };
        let page = relay.log().await.read(request).await.unwrap().into_inner();
        assert!(page.next_sequence > next, "a page gets on");
        next = page.next_sequence;
        gaps.extend(
            page.gap
                .map(|gap| (gap.first_sequence, gap.next_sequence, gap.reason)),
        );
        for block in page.blocks {
            sequences.extend(block.first_sequence..block.first_sequence + u64::from(block.line_count));
        }
    }
    assert_eq!(gaps, [(30, 50, v1::GapReason::Damaged.into())]);
    assert_eq!(sequences, (0..30).chain(50..100).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_download_breaks_off_at_the_damage_and_says_where_to_go_on() {
    let (relay, _agent) = relay().await;
    let chunks: Vec<_> = relay.core.raw(1, 0..100).collect().await;
    let (last, before) = chunks.split_last().unwrap();
    let text: usize = before.iter().map(|chunk| chunk.as_ref().unwrap().len()).sum();
    let intact: usize = (0..30).map(|line| support::text("x", line).len() + 1).sum();
    assert_eq!(text, intact);
    let error = last.as_ref().unwrap_err().to_string();
    assert!(error.contains("lines 30 to 49 are damaged"), "{error}");
    assert!(error.contains("lines from 50 on can be read"), "{error}");
    let chunks: Vec<_> = relay.core.raw(1, 50..100).collect().await;
    assert!(chunks.iter().all(Result::is_ok));
}
