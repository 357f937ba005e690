//! A subscriber that keeps what it gets and checks the order of it.

use std::collections::BTreeMap;

use millstream_proto::block::OpenBlock;
use millstream_proto::v1::log_service_client::LogServiceClient;
use millstream_proto::v1::tail_response::Message;
use millstream_proto::v1::{
    Channel, Codec, Position, Stream, StreamEnded, TailRequest, TailResponse, tail_request,
};
use tonic::transport::Channel as Connection;
use tonic::{Status, Streaming};

use crate::wait::PATIENCE;

/// What a subscriber has of one stream.
#[derive(Debug, Default)]
pub struct Copy {
    pub stream: Stream,
    /// Text as produced: terminators where they were, notices left out.
    pub text: Vec<u8>,
    pub lines: u64,
    /// Text of the notices, in order.
    pub notices: Vec<String>,
    /// Bytes of `text` before each of them.
    pub notice_places: Vec<usize>,
    /// Sequence that comes next at the earliest.
    pub next_sequence: u64,
    pub ended: Option<StreamEnded>,
}

/// A running `Tail` call.
#[derive(Debug)]
pub struct Reader {
    responses: Streaming<TailResponse>,
    /// Whether every line of a stream must come (no filter).
    dense: bool,
    /// By stream id.
    pub copies: BTreeMap<u64, Copy>,
    pub caught_up: bool,
    pub cursor: bytes::Bytes,
    pub messages: u64,
}

/// A request from the first line on that stays.
pub fn follow(selector: &str) -> TailRequest {
    TailRequest {
        selector: selector.into(),
        start: Some(tail_request::Start::FromBeginning(true)),
        follow: true,
        codecs: vec![Codec::None.into(), Codec::Zstd.into()],
        ..Default::default()
    }
}

impl Reader {
    /// Begins the call.
    ///
    /// # Errors
    /// The relay's refusal.
    pub async fn start(
        mut client: LogServiceClient<Connection>,
        request: TailRequest,
    ) -> Result<Self, Status> {
        let dense = request.filter.is_none();
        let responses = client.tail(request).await?.into_inner();
        Ok(Self {
            responses,
            dense,
            copies: BTreeMap::new(),
            caught_up: false,
            cursor: bytes::Bytes::new(),
            messages: 0,
        })
    }

    /// Calls again and goes on with the copies of before. CaughtUp may come again.
    ///
    /// # Errors
    /// The relay's refusal.
    pub async fn reconnect(
        &mut self,
        mut client: LogServiceClient<Connection>,
        request: TailRequest,
    ) -> Result<(), Status> {
        self.responses = client.tail(request).await?.into_inner();
        self.caught_up = false;
        Ok(())
    }

    /// Takes one message. `Ok(false)`: the call is over.
    ///
    /// # Errors
    /// The relay's, or the connection's.
    ///
    /// # Panics
    /// When a line is repeated, missing or out of order, a stream was not announced, or nothing (not even a
    /// heartbeat) came within [`PATIENCE`].
    pub async fn step(&mut self) -> Result<bool, Status> {
        let next = tokio::time::timeout(PATIENCE, self.responses.message()).await;
        let Some(response) = next.expect("a subscription says something at least every ten seconds")? else {
            return Ok(false);
        };
        self.messages += 1;
        match response.message.expect("a response carries a message") {
            Message::Stream(stream) => {
                let copy = self.copies.entry(stream.stream_id).or_default();
                copy.stream = stream;
            }
            Message::Block(block) => {
                let id = block.stream_id;
                let copy = self
                    .copies
                    .get_mut(&id)
                    .expect("a stream is announced before its first block");
                let block = OpenBlock::open(&block.block.expect("a stream block carries a block"));
                copy.take(id, self.dense, &block.expect("the relay sends valid blocks"));
            }
            Message::Gap(gap) => panic!("no line may be missing, and the relay says: {gap:?}"),
            Message::CaughtUp(caught_up) => {
                assert!(!self.caught_up, "CaughtUp is sent once");
                self.caught_up = true;
                self.cursor = caught_up.cursor;
            }
            Message::Heartbeat(heartbeat) => self.cursor = heartbeat.cursor,
            Message::StreamEnded(ended) => {
                let copy = self
                    .copies
                    .get_mut(&ended.stream_id)
                    .expect("a stream is announced before its end");
                if self.dense {
                    assert_eq!(
                        copy.next_sequence, ended.next_sequence,
                        "a stream's lines come before its end"
                    );
                }
                copy.ended = Some(ended);
            }
        }
        Ok(true)
    }

    /// Takes messages until `done`.
    ///
    /// # Panics
    /// When the call ends before.
    pub async fn until(&mut self, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let more = self.step().await.expect("the subscription goes on");
            assert!(more, "the subscription ended early; it has {:?}", self.summary());
        }
    }

    /// Takes messages until the call ends by itself (without `follow`).
    pub async fn to_end(&mut self) {
        while self.step().await.expect("the subscription comes to its end") {}
    }

    /// Lines of all streams.
    pub fn lines(&self) -> u64 {
        self.copies.values().map(|copy| copy.lines).sum()
    }

    /// Bytes of all streams.
    pub fn text_bytes(&self) -> usize {
        self.copies.values().map(|copy| copy.text.len()).sum()
    }

    /// Where it stands in each stream, to go on from there in another call.
    pub fn positions(&self) -> Vec<Position> {
        let position = |(id, copy): (&u64, &Copy)| Position {
            stream_id: *id,
            next_sequence: copy.next_sequence,
        };
        self.copies.iter().map(position).collect()
    }

    fn summary(&self) -> Vec<(u64, u64)> {
        self.copies
            .iter()
            .map(|(id, copy)| (*id, copy.next_sequence))
            .collect()
    }
}

impl Copy {
    fn take(&mut self, id: u64, dense: bool, block: &OpenBlock) {
        if self.lines == 0 && self.notices.is_empty() && self.next_sequence == 0 {
            self.next_sequence = block.first_sequence();
        }
        for line in block.lines() {
            if dense {
                assert_eq!(
                    line.sequence, self.next_sequence,
                    "stream {id}: a line is missing or repeated"
                );
            } else {
                assert!(
                    line.sequence >= self.next_sequence,
                    "stream {id}: a line is repeated or out of order"
                );
            }
            self.next_sequence = line.sequence + 1;
            if line.channel == Channel::Notice {
                self.notices.push(String::from_utf8_lossy(line.text).into_owned());
                self.notice_places.push(self.text.len());
                continue;
            }
            self.lines += 1;
            self.text.extend_from_slice(line.text);
            if !line.partial {
                self.text.push(b'\n');
            }
        }
    }
}
