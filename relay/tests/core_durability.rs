//! What an acknowledgement means under each fsync policy, shown with a store that forgets at a power cut what
//! was not synced.

#![allow(
    clippy::unwrap_used,
    reason = "clippy exempts functions marked as tests, not their helpers"
)]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream_proto::v1::{self, push_request, push_response};
use millstream_relay::{CoreOptions, Fsync};
use millstream_store::memory::MemoryStore;
use millstream_store::{LogStore, StoreError, StreamRecord, WriteOp};
use support::{Relay, SOON, from_beginning, lines, read_all, text};

/// A store in memory that fails when it is told to.
#[derive(Debug, Default)]
struct Disk {
    live: MemoryStore,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    syncs: usize,
    commits_to_fail: usize,
    syncs_to_fail: usize,
}

impl Disk {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What is left after the power was cut now.
    fn after_power_cut(&self) -> MemoryStore {
        self.live.after_power_cut(0)
    }

    fn durable(&self) -> Option<StreamRecord> {
        self.after_power_cut().load_streams().unwrap().pop()
    }
}

fn full() -> StoreError {
    StoreError::Full {
        place: "the test's disk".to_owned(),
        cause: "no space left".to_owned(),
    }
}

impl LogStore for Disk {
    fn store_id(&self) -> &str {
        self.live.store_id()
    }
    fn load_streams(&self) -> Result<Vec<StreamRecord>, StoreError> {
        self.live.load_streams()
    }
    fn load_agents(&self) -> Result<Vec<v1::Agent>, StoreError> {
        self.live.load_agents()
    }
    fn commit(&self, ops: Vec<WriteOp>) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.commits_to_fail > 0 {
            state.commits_to_fail -= 1;
            return Err(full());
        }
        self.live.commit(ops)
    }
    fn sync(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.syncs_to_fail > 0 {
            state.syncs_to_fail -= 1;
            return Err(full());
        }
        state.syncs += 1;
        self.live.sync()
    }
    fn read_blocks(&self, stream_id: u64, from: u64, max_bytes: usize) -> Result<Vec<v1::Block>, StoreError> {
        self.live.read_blocks(stream_id, from, max_bytes)
    }
    fn seek_time(&self, stream_id: u64, unix_us: i64) -> Result<u64, StoreError> {
        self.live.seek_time(stream_id, unix_us)
    }
    fn maintain(&self) -> Result<bool, StoreError> {
        self.live.maintain()
    }
    fn disk_bytes(&self) -> u64 {
        self.live.disk_bytes()
    }
}

async fn relay(fsync: Fsync) -> (Relay, Arc<Disk>) {
    let disk = Arc::new(Disk::default());
    let options = CoreOptions {
        fsync,
        ..CoreOptions::default()
    };
    let store = Arc::clone(&disk);
    (Relay::with(store, options).await, disk)
}

#[tokio::test(flavor = "multi_thread")]
async fn with_always_a_power_cut_takes_nothing_that_was_acknowledged() {
    let (relay, disk) = relay(Fsync::Always).await;
    let mut agent = relay.agent("a").await;
    agent.open(1, "/log").await;
    let mut sent = 0;
    for block in 0..200_u64 {
        let count = block % 7 + 1;
        let checkpoint = (sent + count).to_string();
        agent
            .push(1, lines("x", sent, count), checkpoint.as_bytes())
            .await;
        sent += count;
        if block % 5 > 0 {
            continue;
        }
        // Several blocks are in flight; the answer is about any prefix of them.
        let push_response::Message::Ack(ack) = agent.receive().await.unwrap() else {
            panic!("an acknowledgement is expected");
        };
        let acked = ack.streams[0].next_sequence;
        let left = disk.durable().unwrap();
        assert!(
            left.next_sequence >= acked,
            "{acked} acknowledged, {} left",
            left.next_sequence
        );
        // The checkpoint is the one of the last line that is there, never of another.
        assert_eq!(left.checkpoint, left.next_sequence.to_string());
    }
    agent.acked(1, sent).await;
    let after = Relay::with(Arc::new(disk.after_power_cut()), CoreOptions::default()).await;
    read_all(after.tail(from_beginning(false)).await)
        .await
        .assert_dense(1, "x", 0..sent);
    let mut agent = after.agent("a").await;
    assert_eq!(agent.open(1, "/log").await.next_sequence, sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_before_the_sync_and_agents_are_told_to_wait() {
    let (relay, disk) = relay(Fsync::Always).await;
    let mut agent = relay.agent("a").await;
    agent.open(1, "/log").await;
    for (commits_to_fail, syncs_to_fail) in [(0, 2), (2, 0), (1, 1)] {
        let next = disk.durable().unwrap().next_sequence;
        {
            let mut state = disk.state();
            (state.commits_to_fail, state.syncs_to_fail) = (commits_to_fail, syncs_to_fail);
        }
        agent.push(1, lines("x", next, 10), b"").await;
        // Acknowledgements are sent before throttles, so an early one would come first.
        let mut throttles = 0;
        loop {
            match agent.receive().await.unwrap() {
                push_response::Message::Throttle(throttle) => {
                    assert!(throttle.reason.starts_with("disk full: "), "{}", throttle.reason);
                    assert!(throttle.wait_ms > 0);
                    throttles += 1;
                }
                push_response::Message::Ack(ack) => {
                    assert_eq!(ack.streams[0].next_sequence, next + 10);
                    break;
                }
                other => panic!("Throttle or Ack expected, not {other:?}"),
            }
        }
        assert!(throttles > 0, "acknowledged before it was durable");
        assert_eq!(disk.durable().unwrap().next_sequence, next + 10);
        assert!(relay.core.is_healthy().is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_fails_health_says_why_readers_read_and_new_sessions_are_told() {
    let (relay, disk) = relay(Fsync::Always).await;
    let mut agent = relay.agent("a").await;
    agent.open(1, "/log").await;
    agent.push(1, lines("x", 0, 10), b"").await;
    agent.acked(1, 10).await;
    let mut trouble = relay.core.trouble();
    disk.state().commits_to_fail = usize::MAX;
    agent.push(1, lines("x", 10, 10), b"").await;
    let is_told = |trouble: &Option<String>| trouble.as_ref().is_some_and(|why| why.starts_with("disk full"));
    tokio::time::timeout(SOON, trouble.wait_for(is_told))
        .await
        .unwrap()
        .unwrap();
    assert!(relay.core.is_healthy().unwrap_err().starts_with("disk full: "));
    read_all(relay.tail(from_beginning(false)).await)
        .await
        .assert_dense(1, "x", 0..10);
    let status = support::Agent::connect(relay.channel().await, "b")
        .await
        .err()
        .unwrap();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert!(
        status.message().starts_with("disk full: "),
        "{}",
        status.message()
    );
    disk.state().commits_to_fail = 0;
    tokio::time::timeout(SOON, trouble.wait_for(Option::is_none))
        .await
        .unwrap()
        .unwrap();
    assert!(relay.core.is_healthy().is_ok());
    while disk.durable().unwrap().next_sequence < 20 {
        // The acknowledgement comes after the sync, between throttles of the time before.
        agent.receive().await.unwrap();
    }
    read_all(relay.tail(from_beginning(false)).await)
        .await
        .assert_dense(1, "x", 0..20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_whose_store_fails_can_still_be_stopped() {
    let (relay, disk) = relay(Fsync::Always).await;
    let mut agent = relay.agent("a").await;
    agent.open(1, "/log").await;
    disk.state().commits_to_fail = usize::MAX;
    agent.push(1, lines("x", 0, 10), b"").await;
    assert!(matches!(
        agent.receive().await.unwrap(),
        push_response::Message::Throttle(_)
    ));
    tokio::time::timeout(SOON, relay.core.shutdown()).await.unwrap();
    let status = loop {
        match agent.receive().await {
            Ok(push_response::Message::Throttle(_)) => {}
            Ok(other) => panic!("nothing may be acknowledged: {other:?}"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), tonic::Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_interval_a_power_cut_takes_the_last_interval_and_the_agent_sends_it_again() {
    let (relay, disk) = relay(Fsync::Interval(Duration::from_secs(3600))).await;
    let mut agent = relay.agent("a").await;
    agent.open(1, "/log").await;
    agent.push(1, lines("x", 0, 10), b"ten").await;
    agent.acked(1, 10).await;
    assert_eq!(disk.state().syncs, 1, "when the stream was made");
    assert_eq!(
        disk.durable().unwrap().next_sequence,
        0,
        "acknowledged and not durable: its promise"
    );
    // After the cut the relay says less than it acknowledged, and the agent goes on from there.
    let after = Relay::with(Arc::new(disk.after_power_cut()), CoreOptions::default()).await;
    let mut agent = after.agent("a").await;
    let opened = agent.open(1, "/log").await;
    assert_eq!((opened.next_sequence, opened.checkpoint.len()), (0, 0));
    agent.push(1, lines("x", 0, 10), b"ten").await;
    agent.acked(1, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_interval_the_last_lines_become_durable_although_none_follow() {
    let (relay, disk) = relay(Fsync::Interval(Duration::from_millis(20))).await;
    let mut agent = relay.agent("a").await;
    agent.open(1, "/log").await;
    agent.push(1, lines("x", 0, 10), b"").await;
    agent.acked(1, 10).await;
    let wait = async {
        while disk.durable().is_none_or(|stream| stream.next_sequence < 10) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, wait).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_never_the_relay_syncs_only_when_it_stops() {
    let (relay, disk) = relay(Fsync::Never).await;
    let mut agent = relay.agent("a").await;
    agent.open(1, "/log").await;
    agent.push(1, lines("x", 0, 10), b"").await;
    agent.acked(1, 10).await;
    assert_eq!(disk.state().syncs, 1, "when the stream was made");
    assert_eq!(disk.durable().unwrap().next_sequence, 0);
    tokio::time::timeout(SOON, relay.core.shutdown()).await.unwrap();
    assert_eq!(disk.durable().unwrap().next_sequence, 10);
}

/// Found by simulation: an id that a power cut took was given to another stream, and readers whose cursor knew it
/// took the lines of that one for seen.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_durable_before_anybody_sees_its_id_whatever_the_policy() {
    for fsync in [
        Fsync::Never,
        Fsync::Interval(Duration::from_secs(3600)),
        Fsync::Always,
    ] {
        let (relay, disk) = relay(fsync).await;
        let mut agent = relay.agent("a").await;
        let mut tail = relay.tail(from_beginning(true)).await;
        disk.state().syncs_to_fail = usize::MAX;
        agent.send(open_stream(1, "/log")).await;
        // The relay is at the sync: committed, and not durable.
        assert!(matches!(
            agent.receive().await.unwrap(),
            push_response::Message::Throttle(_)
        ));
        let records = relay.store.load_streams().unwrap();
        assert_eq!((records.len(), disk.durable()), (1, None));
        let listed = relay
            .log()
            .await
            .list_streams(v1::ListStreamsRequest::default())
            .await;
        assert_eq!(listed.unwrap().into_inner().streams, []);
        disk.state().syncs_to_fail = 0;
        let mut seen = support::Seen::default();
        support::read_until(&mut tail, &mut seen, |seen| !seen.announced.is_empty()).await;
        assert_eq!(disk.durable().unwrap().stream_id, records[0].stream_id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_opened_at_once_get_ids_of_their_own_also_when_two_ask_for_one() {
    let (relay, disk) = relay(Fsync::Always).await;
    let mut agent = relay.agent("a").await;
    // The writer is held at a sync, so that all of them wait for one group.
    disk.state().syncs_to_fail = usize::MAX;
    agent.send(open_stream(0, "/first")).await;
    assert!(matches!(
        agent.receive().await.unwrap(),
        push_response::Message::Throttle(_)
    ));
    for handle in 1..=20 {
        agent
            .send(open_stream(handle, &format!("/log {}", handle / 2)))
            .await;
    }
    disk.state().syncs_to_fail = 0;
    let mut ids = std::collections::BTreeMap::new();
    while ids.len() < 21 {
        if let push_response::Message::StreamOpened(opened) = agent.receive().await.unwrap() {
            ids.insert(opened.handle, opened.stream_id);
        }
    }
    for handle in 1..=20 {
        assert_eq!(
            ids[&handle] == ids[&(handle - 1)],
            handle % 2 == 1 && handle > 1,
            "{ids:?}"
        );
    }
    assert_eq!(relay.store.load_streams().unwrap().len(), 12);
}

fn open_stream(handle: u32, instance: &str) -> push_request::Message {
    push_request::Message::OpenStream(v1::OpenStream {
        handle,
        source: "app".to_owned(),
        instance: instance.to_owned(),
        ..v1::OpenStream::default()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_of_a_fenced_session_are_refused_also_those_that_wait_in_the_queue() {
    let relay = Relay::start().await;
    let mut old = relay.agent("a").await;
    old.open(1, "/log").await;
    let mut next = 0;
    for round in 0..40_u64 {
        // The earlier session floods the queue while the later one takes over.
        let name = format!("round {round}");
        for block in 0..64 {
            old.try_push(1, lines(&name, next + block * 3, 3)).await;
        }
        let mut new = relay.agent("a").await;
        let taken_over = new.open(1, "/log").await.next_sequence;
        assert!((next..=next + 64 * 3).contains(&taken_over));
        for block in 0..64 {
            old.try_push(1, lines("stale", taken_over + block * 3, 3)).await;
        }
        new.push(1, lines("new", taken_over, 5), b"").await;
        new.acked(1, taken_over + 5).await;
        let seen = read_all(relay.tail(from_beginning(false)).await).await;
        let stored = &seen.lines[&1];
        assert_eq!(stored.len() as u64, taken_over + 5);
        for (sequence, line) in &stored[usize::try_from(next).unwrap()..] {
            let writer = if *sequence < taken_over { &name } else { "new" };
            assert_eq!(
                *line,
                text(writer, *sequence),
                "the later session owns the stream"
            );
        }
        next = taken_over + 5;
        old = new;
    }
}
