//! [`Progress`] against a model of a relay, under random histories: connections break between any two messages,
//! readers are replaced by others that only have their resume point, streams appear, grow and end. Every line from
//! the subscription's start has to come once, and none twice.

use std::collections::BTreeMap;

use bytes::Bytes;
use millstream_proto::block::BlockBuilder;
use millstream_proto::v1;
use millstream_proto::v1::tail_request;
use proptest::prelude::*;

use super::progress::Progress;
use super::{Start, TailOptions};

#[derive(Clone, Debug)]
enum Step {
    Appear,
    Write {
        stream: usize,
        lines: u64,
    },
    /// The relay sends a block of up to so many lines of a stream that has some, or else what else there is.
    Deliver {
        stream: usize,
        lines: u64,
    },
    Beat,
    Break,
    /// The reader's process is another one now.
    Replace,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Appear),
        6 => (any::<usize>(), 1_u64..10).prop_map(|(stream, lines)| Step::Write { stream, lines }),
        8 => (any::<usize>(), 1_u64..6).prop_map(|(stream, lines)| Step::Deliver { stream, lines }),
        2 => Just(Step::Beat),
        2 => Just(Step::Break),
        1 => Just(Step::Replace),
    ]
}

fn any_start() -> impl Strategy<Value = Start> {
    prop_oneof![
        Just(Start::Now),
        Just(Start::Beginning),
        (0_u64..20).prop_map(Start::LastLines),
    ]
}

/// What a relay promises of one call of `Tail`.
#[derive(Debug)]
struct Call {
    /// Next line of each stream that is delivered.
    positions: BTreeMap<u64, u64>,
    announced: Vec<u64>,
    /// Heads at the begin.
    history: BTreeMap<u64, u64>,
    is_caught_up: bool,
}

/// Heads by stream id, from 1.
type Heads = BTreeMap<u64, u64>;

impl Call {
    fn new(heads: &Heads, start: &tail_request::Start, given: &BTreeMap<u64, u64>) -> Self {
        let cursor = match start {
            tail_request::Start::Cursor(cursor) => Some(decode(cursor)),
            _ => None,
        };
        let positions = heads.iter().filter_map(|(stream_id, head)| {
            let by_start = match (start, &cursor) {
                (tail_request::Start::FromBeginning(_), _) => Some(0),
                (tail_request::Start::FromNow(_), _) => Some(*head),
                (tail_request::Start::LastLines(count), _) => Some(head.saturating_sub(*count)),
                (_, Some((watermark, positions))) => {
                    let is_new = stream_id > watermark;
                    positions.get(stream_id).copied().or(is_new.then_some(0))
                }
                _ => unreachable!("no such start in this test"),
            };
            let position = given.get(stream_id).copied().or(by_start);
            position.map(|position| (*stream_id, position))
        });
        Self {
            positions: positions.collect(),
            announced: Vec::new(),
            history: heads.clone(),
            is_caught_up: false,
        }
    }

    fn cursor(&self, heads: &Heads) -> Bytes {
        let watermark = heads.keys().last().copied().unwrap_or(0);
        let mut token = watermark.to_string();
        for (stream_id, position) in &self.positions {
            token += &format!(" {stream_id} {position}");
        }
        token.into()
    }
}

fn decode(cursor: &[u8]) -> (u64, BTreeMap<u64, u64>) {
    let text = std::str::from_utf8(cursor).unwrap();
    let mut numbers = text.split(' ').map(|number| number.parse().unwrap());
    let watermark = numbers.next().unwrap();
    let mut positions = BTreeMap::new();
    while let (Some(stream_id), Some(position)) = (numbers.next(), numbers.next()) {
        positions.insert(stream_id, position);
    }
    (watermark, positions)
}

struct World {
    heads: Heads,
    call: Call,
    progress: Progress,
    start: Start,
    /// The first cursor has come: from here on the subscription's begin is fixed.
    is_fixed: bool,
    /// Where each stream has to begin.
    begins: BTreeMap<u64, u64>,
    /// Next line of each stream of which some came.
    next: BTreeMap<u64, u64>,
}

impl World {
    fn new(start: Start, streams: &[u64]) -> Self {
        let heads: Heads = (1..).zip(streams.iter().copied()).collect();
        let progress = Progress::new(&options(start.clone()));
        Self {
            call: Call::new(&heads, &progress.request_start(), &progress.positions()),
            heads,
            progress,
            start,
            is_fixed: false,
            begins: BTreeMap::new(),
            next: BTreeMap::new(),
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let count = self.heads.len();
        let choose = |stream: usize| stream.checked_rem(count).map_or(0, |index| index as u64 + 1);
        match *step {
            Step::Appear => {
                let stream_id = count as u64 + 1;
                self.heads.insert(stream_id, 0);
                self.call.positions.insert(stream_id, 0);
                if self.is_fixed {
                    self.begins.insert(stream_id, 0);
                }
            }
            Step::Write { stream, lines } => {
                if let Some(head) = self.heads.get_mut(&choose(stream)) {
                    *head += lines;
                }
            }
            Step::Deliver { stream, lines } => self.deliver(choose(stream), lines)?,
            Step::Beat => {
                self.begin();
                self.progress.accept_cursor(self.call.cursor(&self.heads));
            }
            Step::Break => self.connect(),
            Step::Replace => {
                // Without a cursor it would be another subscription.
                if self.is_fixed {
                    let point = self.progress.resume_point();
                    self.progress = Progress::new(&options(Start::Resume(point)));
                    self.connect();
                }
            }
        }
        Ok(())
    }

    fn connect(&mut self) {
        self.call = Call::new(
            &self.heads,
            &self.progress.request_start(),
            &self.progress.positions(),
        );
    }

    /// The first message of a call is a heartbeat.
    fn begin(&mut self) {
        if !std::mem::replace(&mut self.is_fixed, true) {
            self.begins = self.call.positions.clone();
            self.progress.accept_cursor(self.call.cursor(&self.heads));
        }
    }

    fn deliver(&mut self, stream_id: u64, lines: u64) -> Result<(), TestCaseError> {
        self.begin();
        let (Some(head), Some(position)) = (
            self.heads.get(&stream_id).copied(),
            self.call.positions.get(&stream_id).copied(),
        ) else {
            return Ok(());
        };
        if !self.call.announced.contains(&stream_id) {
            self.call.announced.push(stream_id);
            self.progress.announce(v1::Stream {
                stream_id,
                next_sequence: head,
                ..v1::Stream::default()
            });
            return Ok(());
        }
        if position < head {
            let next = (position + lines).min(head);
            self.call.positions.insert(stream_id, next);
            return self.accept(stream_id, position..next);
        }
        // Each stream of the begin had its turn: it was announced, and its lines of then are delivered.
        let Call {
            positions,
            announced,
            history,
            ..
        } = &self.call;
        let is_through = history.iter().all(|(stream_id, head)| {
            let position = positions.get(stream_id);
            position.is_none_or(|position| position >= head && announced.contains(stream_id))
        });
        if is_through && !self.call.is_caught_up {
            self.call.is_caught_up = true;
            self.progress.accept_cursor(self.call.cursor(&self.heads));
            self.progress.accept_caught_up();
        }
        Ok(())
    }

    fn accept(&mut self, stream_id: u64, sequences: std::ops::Range<u64>) -> Result<(), TestCaseError> {
        let mut builder = BlockBuilder::new();
        for sequence in sequences.clone() {
            assert!(builder.push_line(sequence.to_string().as_bytes(), 0, v1::Channel::Stdout, false));
        }
        let block = builder.finish(sequences.start);
        let accepted = self.progress.accept_block(&v1::StreamBlock { stream_id, block });
        let lines = match accepted {
            Ok(lines) => lines,
            Err(error) => return Err(TestCaseError::fail(format!("{sequences:?}: {error}"))),
        };
        let begin = self.begins.get(&stream_id).copied();
        let next = self.next.entry(stream_id).or_insert(begin.unwrap_or(0));
        for line in lines.iter().flat_map(super::StreamLines::lines) {
            prop_assert_eq!(line.sequence, *next, "stream {} from {:?}", stream_id, begin);
            *next += 1;
        }
        prop_assert_eq!(
            self.progress.repeated_lines(),
            0,
            "stream {} was sent again",
            stream_id
        );
        Ok(())
    }
}

fn options(start: Start) -> TailOptions {
    TailOptions {
        start,
        follow: true,
        ..TailOptions::default()
    }
}

proptest! {
    #[test]
    fn lines_come_once_from_the_start_however_often_it_breaks(
        start in any_start(),
        streams in proptest::collection::vec(0_u64..50, 0..4),
        steps in proptest::collection::vec(any_step(), 1..150),
    ) {
        let mut world = World::new(start, &streams);
        for step in &steps {
            world.step(step)?;
        }
        // Then everything is delivered.
        for stream_id in 1..=world.heads.len() as u64 {
            while world.call.positions.get(&stream_id).is_some_and(|position| *position < world.heads[&stream_id]) {
                world.deliver(stream_id, 7)?;
            }
        }
        world.begin();
        for (stream_id, head) in &world.heads {
            let begin = world.begins[stream_id];
            let next = world.next.get(stream_id).copied().unwrap_or(begin);
            prop_assert_eq!(next, *head, "stream {} from {}, {:?}", stream_id, begin, world.start);
        }
    }
}
