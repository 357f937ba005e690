//! The arithmetic of resuming, against random histories: whatever a reader was sent before its connection broke,
//! cursor and positions make the next subscription go on exactly there. Nothing is skipped, nothing comes twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use millstream_proto::block::{BlockBuilder, OpenBlock};
use millstream_proto::v1::{self, tail_request::Start, tail_response::Message};
use millstream_store::memory::MemoryStore;
use millstream_store::{AppendOp, StreamRecord, WriteOp};
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::tests::messages;
use super::{Plan, Sources, Subscription};
use crate::auth::Access;
use crate::metrics::Metrics;
use crate::streams::{Published, Registry, RingBudget, block_frame};

/// One step of a history. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    /// A stream appears, of those that are asked for or not.
    Appear {
        is_wanted: bool,
    },
    Write {
        stream: usize,
        lines: u64,
    },
    End {
        stream: usize,
    },
    /// The reader takes so many frames.
    Read {
        frames: usize,
    },
    /// The reader is sent a heartbeat.
    Beat,
    /// The connection breaks; the reader comes again.
    Break,
    /// The relay starts anew from its store, and the reader comes again.
    Restart,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => any::<bool>().prop_map(|is_wanted| Step::Appear { is_wanted }),
        8 => (any::<usize>(), 1_u64..6).prop_map(|(stream, lines)| Step::Write { stream, lines }),
        1 => any::<usize>().prop_map(|stream| Step::End { stream }),
        8 => (1_usize..8).prop_map(|frames| Step::Read { frames }),
        2 => Just(Step::Beat),
        3 => Just(Step::Break),
        1 => Just(Step::Restart),
    ]
}

/// A relay without sessions.
struct Relay {
    sources: Sources,
    records: Vec<StreamRecord>,
}

impl Relay {
    fn new() -> Self {
        let sources = Sources {
            store: Arc::new(MemoryStore::new()),
            registry: Self::registry(Vec::new()),
            metrics: Arc::new(Metrics::default()),
            search_pool: Arc::new(crate::search::SearchPool::new(1)),
            stop: CancellationToken::new(),
            heartbeat: Duration::from_secs(3600),
        };
        Self {
            sources,
            records: Vec::new(),
        }
    }

    /// With rings so small that the store is read, too.
    fn registry(records: Vec<StreamRecord>) -> Arc<Registry> {
        Arc::new(Registry::new(records, Arc::new(RingBudget::new(200, 1000))))
    }

    fn restart(&mut self) {
        self.sources.registry = Self::registry(self.sources.store.load_streams().unwrap());
    }

    fn appear(&mut self, is_wanted: bool) {
        let stream_id = self.records.len() as u64 + 1;
        let team = if is_wanted { "ours" } else { "theirs" };
        let record = StreamRecord {
            stream_id,
            agent_id: "a".to_owned(),
            source: stream_id.to_string(),
            instance: "/log".to_owned(),
            labels: [("team".to_owned(), team.to_owned())].into(),
            created_unix_us: 0,
            first_sequence: 0,
            next_sequence: 0,
            text_bytes: 0,
            last_line_unix_us: 0,
            checkpoint: Bytes::new(),
            run: None,
            end: None,
        };
        self.records.push(record.clone());
        self.sources
            .store
            .commit(vec![WriteOp::PutStream(record.clone())])
            .unwrap();
        self.sources.registry.add(record);
    }

    /// The stream's place in `records`, if it can still be written.
    fn open(&self, stream: usize) -> Option<usize> {
        let index = stream.checked_rem(self.records.len())?;
        self.records[index].end.is_none().then_some(index)
    }

    fn write(&mut self, stream: usize, lines: u64) {
        let Some(index) = self.open(stream) else {
            return;
        };
        let record = &mut self.records[index];
        let mut builder = BlockBuilder::new();
        for sequence in record.next_sequence..record.next_sequence + lines {
            let text = text(record.stream_id, sequence);
            assert!(builder.push_line(text.as_bytes(), 1, v1::Channel::Stdout, false));
        }
        let block = builder.finish(record.next_sequence).unwrap();
        let published = Published {
            first_sequence: record.next_sequence,
            next_sequence: record.next_sequence + lines,
            text_bytes: block.text_bytes.into(),
            last_line_unix_us: 1,
            checkpoint: Bytes::new(),
            frame: block_frame(record.stream_id, block.clone()),
        };
        record.next_sequence += lines;
        let append = AppendOp {
            stream_id: record.stream_id,
            block,
            checkpoint: Bytes::new(),
            last_line_unix_us: 1,
        };
        self.sources.store.commit(vec![WriteOp::Append(append)]).unwrap();
        let stream = self.sources.registry.get(record.stream_id).unwrap();
        stream.publish(vec![published]);
    }

    fn end(&mut self, stream: usize) {
        let Some(index) = self.open(stream) else {
            return;
        };
        let record = &mut self.records[index];
        record.end = Some(v1::StreamEnd::default());
        self.sources
            .store
            .commit(vec![WriteOp::PutStream(record.clone())])
            .unwrap();
        let stream = self.sources.registry.get(record.stream_id).unwrap();
        stream.set_end(v1::StreamEnd::default());
    }
}

fn text(stream_id: u64, sequence: u64) -> String {
    format!("stream {stream_id} line {sequence}")
}

/// A subscriber that keeps what the protocol tells it to keep: the last cursor, and where it stands in streams that
/// moved since.
struct Reader {
    subscription: Subscription,
    cursor: Bytes,
    moved: BTreeMap<u64, u64>,
    next: BTreeMap<u64, u64>,
}

impl Reader {
    fn new(relay: &Relay) -> Self {
        Self {
            subscription: subscribe(relay, Start::FromBeginning(true), &BTreeMap::new()),
            cursor: Bytes::new(),
            moved: BTreeMap::new(),
            next: BTreeMap::new(),
        }
    }

    fn come_again(&mut self, relay: &Relay) {
        let start = if self.cursor.is_empty() {
            Start::FromBeginning(true)
        } else {
            Start::Cursor(self.cursor.clone())
        };
        self.subscription = subscribe(relay, start, &self.moved);
    }

    /// Takes a frame; false when there is none now.
    fn read(&mut self) -> Result<bool, TestCaseError> {
        let Some(frame) = self.subscription.next_frame().now_or_never() else {
            return Ok(false);
        };
        for message in messages(frame.unwrap().unwrap()) {
            self.take(message)?;
        }
        Ok(true)
    }

    fn take(&mut self, message: Message) -> Result<(), TestCaseError> {
        match message {
            Message::Block(block) => {
                let next = self.next.entry(block.stream_id).or_default();
                for line in OpenBlock::open(&block.block.unwrap()).unwrap().lines() {
                    prop_assert_eq!(line.sequence, *next, "stream {}", block.stream_id);
                    let wanted = text(block.stream_id, *next);
                    prop_assert_eq!(line.text, wanted.as_bytes());
                    *next += 1;
                }
                self.moved.insert(block.stream_id, *next);
            }
            Message::StreamEnded(ended) => {
                let next = self.next.get(&ended.stream_id).copied().unwrap_or(0);
                prop_assert_eq!(ended.next_sequence, next, "the end of stream {}", ended.stream_id);
            }
            Message::Heartbeat(v1::Heartbeat { cursor, .. }) | Message::CaughtUp(v1::CaughtUp { cursor }) => {
                self.cursor = cursor;
                self.moved.clear();
            }
            Message::Stream(_) => {}
            Message::Gap(gap) => return Err(TestCaseError::fail(format!("{gap:?}"))),
        }
        Ok(())
    }
}

fn subscribe(relay: &Relay, start: Start, positions: &BTreeMap<u64, u64>) -> Subscription {
    let positions = positions.iter().map(|(stream_id, next_sequence)| v1::Position {
        stream_id: *stream_id,
        next_sequence: *next_sequence,
    });
    let request = v1::TailRequest {
        selector: "team=ours".to_owned(),
        start: Some(start),
        positions: positions.collect(),
        follow: true,
        codecs: vec![v1::Codec::None.into()],
        ..v1::TailRequest::default()
    };
    let everybody = Access::unrestricted("test");
    let plan = Plan::new(request, relay.sources.store.store_id(), &everybody).unwrap();
    Subscription::new(relay.sources.clone(), plan)
}

proptest! {
    #[test]
    fn a_reader_that_breaks_anywhere_gets_every_line_once(
        steps in proptest::collection::vec(any_step(), 1..120)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _inside = runtime.enter();
        let mut relay = Relay::new();
        let mut reader = Reader::new(&relay);
        for step in steps {
            match step {
                Step::Appear { is_wanted } => relay.appear(is_wanted),
                Step::Write { stream, lines } => relay.write(stream, lines),
                Step::End { stream } => relay.end(stream),
                Step::Read { frames } => {
                    for _ in 0..frames {
                        reader.read()?;
                    }
                }
                Step::Beat => reader.subscription.beat(),
                Step::Break => reader.come_again(&relay),
                Step::Restart => {
                    relay.restart();
                    reader.come_again(&relay);
                }
            }
        }
        while reader.read()? {}
        for record in &relay.records {
            let is_wanted = record.labels["team"] == "ours";
            let seen = reader.next.get(&record.stream_id).copied().unwrap_or(0);
            prop_assert_eq!(seen, if is_wanted { record.next_sequence } else { 0 }, "{:?}", record.stream_id);
        }
    }
}
