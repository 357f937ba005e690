//! Searches beside everything else: hanging up, too many of them, a damaged store, a writer that goes on.

#![allow(
    clippy::unwrap_used,
    reason = "clippy exempts functions marked as tests, not their helpers"
)]

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use millstream_proto::v1::{self, Filter, SearchOrder, SearchRequest, search_response::Message};
use millstream_relay::CoreOptions;
use millstream_store::memory::MemoryStore;
use millstream_store::{LogStore, StoreError, StreamRecord, WriteOp};
use support::{Relay, SOON, lines};
use tonic::Code;

/// A store whose reads wait at a gate and whose lines 30 to 49 of stream 1 may be damaged.
#[derive(Debug, Default)]
struct Gated {
    inner: MemoryStore,
    is_damaged: bool,
    is_closed: Mutex<bool>,
    opened: Condvar,
    reads: AtomicU64,
    waiting: AtomicU64,
}

impl Gated {
    fn set_closed(&self, is_closed: bool) {
        *self.is_closed.lock().unwrap() = is_closed;
        self.opened.notify_all();
    }
}

impl LogStore for Gated {
    fn store_id(&self) -> &str {
        self.inner.store_id()
    }
    fn load_streams(&self) -> Result<Vec<StreamRecord>, StoreError> {
        self.inner.load_streams()
    }
    fn load_agents(&self) -> Result<Vec<v1::Agent>, StoreError> {
        self.inner.load_agents()
    }
    fn commit(&self, ops: Vec<WriteOp>) -> Result<(), StoreError> {
        self.inner.commit(ops)
    }
    fn sync(&self) -> Result<(), StoreError> {
        self.inner.sync()
    }
    fn read_blocks(&self, stream_id: u64, from: u64, max_bytes: usize) -> Result<Vec<v1::Block>, StoreError> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        drop(
            self.opened
                .wait_while(self.is_closed.lock().unwrap(), |is_closed| *is_closed)
                .unwrap(),
        );
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.is_damaged && (30..50).contains(&from) {
            return Err(StoreError::DamagedLines {
                stream_id,
                first_sequence: from,
                next_sequence: 50,
                cause: "a bit flipped".to_owned(),
            });
        }
        let mut blocks = self.inner.read_blocks(stream_id, from, max_bytes)?;
        if self.is_damaged && from < 30 {
            blocks.retain(|block| block.first_sequence < 30);
        }
        Ok(blocks)
    }
    fn seek_time(&self, stream_id: u64, unix_us: i64) -> Result<u64, StoreError> {
        self.inner.seek_time(stream_id, unix_us)
    }
    fn maintain(&self) -> Result<bool, StoreError> {
        Ok(false)
    }
    fn disk_bytes(&self) -> u64 {
        self.inner.disk_bytes()
    }
}

async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(SOON, wait)
        .await
        .unwrap_or_else(|_| panic!("{what}"));
}

fn newest_first() -> SearchRequest {
    SearchRequest {
        filter: Some(Filter {
            substring: "not there".to_owned(),
            ..Filter::default()
        }),
        order: SearchOrder::NewestFirst.into(),
        ..SearchRequest::default()
    }
}

async fn relay_with_lines(store: &Arc<Gated>, options: CoreOptions) -> (Relay, support::Agent) {
    let relay = Relay::with(Arc::clone(store) as Arc<dyn LogStore>, options).await;
    let mut agent = relay.agent("a").await;
    agent.open(1, "/log").await;
    for first in (0..1000).step_by(10) {
        agent.push(1, lines("x", first, 10), b"").await;
    }
    agent.acked(1, 1000).await;
    (relay, agent)
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_up_ends_a_search_in_the_middle_of_its_scan() {
    let store = Arc::new(Gated::default());
    let (relay, _agent) = relay_with_lines(&store, CoreOptions::default()).await;
    let metrics = relay.core.metrics();
    store.set_closed(true);
    let mut search = relay
        .log()
        .await
        .search(newest_first())
        .await
        .unwrap()
        .into_inner();
    // The first progress comes before anything is read.
    let first = search.message().await.unwrap().unwrap().message.unwrap();
    assert!(matches!(first, Message::Progress(progress) if !progress.done));
    eventually("the scan has begun", || store.waiting.load(Ordering::SeqCst) == 1).await;
    assert_eq!(metrics.searches.get(), 1);
    drop(search);
    eventually("the call is over", || metrics.searches.get() == 0).await;
    let before = store.reads.load(Ordering::SeqCst);
    store.set_closed(false);
    // The thread is free again: another search runs to its end, on the one thread that there may be.
    let mut next = relay
        .log()
        .await
        .search(newest_first())
        .await
        .unwrap()
        .into_inner();
    while next.message().await.unwrap().is_some() {}
    let reads = store.reads.load(Ordering::SeqCst) - before;
    // A hundred blocks backwards by the second search, and at most the one that the first was reading.
    assert!(reads <= 101, "{reads} reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_search_too_many_is_refused_and_the_writer_goes_on_beside_all_of_them() {
    let store = Arc::new(Gated::default());
    let options = CoreOptions {
        max_searches: 2,
        search_threads: 2,
        ..CoreOptions::default()
    };
    let (relay, mut agent) = relay_with_lines(&store, options).await;
    store.set_closed(true);
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut search = relay
            .log()
            .await
            .search(newest_first())
            .await
            .unwrap()
            .into_inner();
        search.message().await.unwrap().unwrap();
        open.push(search);
    }
    let error = relay.log().await.search(newest_first()).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    assert!(error.message().contains("2 searches are open"), "{error}");
    let histogram = v1::HistogramRequest::default();
    let error = relay.log().await.histogram(histogram.clone()).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");

    // Every search thread is stuck in the store; lines are taken and acknowledged all the same.
    agent.push(1, lines("x", 1000, 10), b"").await;
    agent.acked(1, 1010).await;

    store.set_closed(false);
    for mut search in open {
        while search.message().await.unwrap().is_some() {}
    }
    let metrics = relay.core.metrics();
    eventually("the searches are over", || metrics.searches.get() == 0).await;
    relay.log().await.histogram(histogram).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_relay_ends_searches_at_once() {
    let store = Arc::new(Gated::default());
    let (relay, _agent) = relay_with_lines(&store, CoreOptions::default()).await;
    store.set_closed(true);
    let mut search = relay
        .log()
        .await
        .search(newest_first())
        .await
        .unwrap()
        .into_inner();
    search.message().await.unwrap().unwrap();
    eventually("the scan has begun", || store.waiting.load(Ordering::SeqCst) == 1).await;
    let shutdown = relay.core.shutdown();
    let ended = async {
        let error = loop {
            match search.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a search that was cut off does not end as if it were complete"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.code(), Code::Unavailable, "{error}");
        store.set_closed(false);
    };
    tokio::time::timeout(SOON, async { tokio::join!(shutdown, ended) })
        .await
        .expect("the relay stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_lines_are_told_and_the_rest_is_searched_in_both_directions() {
    let store = Arc::new(Gated {
        is_damaged: true,
        ..Gated::default()
    });
    let (relay, _agent) = relay_with_lines(&store, CoreOptions::default()).await;
    for order in [SearchOrder::OldestFirst, SearchOrder::NewestFirst] {
        let request = SearchRequest {
            order: order.into(),
            ..SearchRequest::default()
        };
        let mut search = relay.log().await.search(request).await.unwrap().into_inner();
        let (mut hits, mut gaps) = (0, Vec::new());
        while let Some(response) = search.message().await.unwrap() {
            match response.message.unwrap() {
                Message::Hits(block) => hits += block.block.unwrap().line_count,
                Message::Gap(gap) => gaps.push((gap.stream_id, gap.first_sequence, gap.next_sequence)),
                _ => {}
            }
        }
        assert_eq!(hits, 980, "{order:?}");
        assert_eq!(gaps, [(1, 30, 50)], "{order:?}");
    }
}
