//! Subscriptions: what to follow ([`TailOptions`]), what comes of it ([`Event`]), and how it goes on after
//! a disconnect. [`subscription`] owns the connection, [`progress`] the sequences; the rest is vocabulary.

mod progress;
#[cfg(test)]
mod progress_tests;
mod subscription;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millstream_proto::block::{Line, Lines, OpenBlock};
use millstream_proto::v1;

pub use subscription::Subscription;

use crate::backoff::Backoff;
use crate::error::Error;

/// Where to start in each stream that exists when the subscription begins. A stream that appears later
/// starts at its first line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// Only what comes.
    #[default]
    Now,
    /// At the oldest stored line.
    Beginning,
    /// At most this many lines before the head of each stream.
    LastLines(u64),
    /// At the first line captured at or after this time, microseconds since the Unix epoch.
    SinceUnixUs(i64),
    /// Where an earlier subscription stood ([`Subscription::resume_point`]).
    Resume(ResumePoint),
}

/// Where a subscription stands, to go on from later, also in another process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResumePoint {
    /// The relay's own account of every stream. It comes with the first message, but for
    /// [`Start::SinceUnixUs`], where it is empty until the subscription caught up.
    pub cursor: Bytes,
    /// The next line wanted by stream id; these win over the cursor.
    pub positions: BTreeMap<u64, u64>,
}

/// What to follow, and how.
#[derive(Clone, Debug)]
pub struct TailOptions {
    /// Kubernetes label selector with globs; empty: every stream.
    pub selector: String,
    /// Only these streams (of those selected); empty: all.
    pub stream_ids: Vec<u64>,
    pub start: Start,
    /// Exact places (stream id to next line wanted) that win over `start` for their streams.
    pub positions: BTreeMap<u64, u64>,
    /// Stay and deliver what comes.
    pub follow: bool,
    pub filter: Option<v1::Filter>,
    /// After a delivery, what comes within this time is delivered together; whole milliseconds, at most a second. For
    /// programs that show lines. Zero: everything at once.
    pub batch_interval: Duration,
    pub backoff: Backoff,
    /// A connection on which nothing comes for this long is given up and made anew. The relay sends a
    /// heartbeat every 10 seconds.
    pub silence_limit: Duration,
    /// Fail when the relay could not be reached again for this long; none: try for ever.
    pub give_up_after: Option<Duration>,
}

impl Default for TailOptions {
    fn default() -> Self {
        Self {
            selector: String::new(),
            stream_ids: Vec::new(),
            start: Start::default(),
            positions: BTreeMap::new(),
            follow: false,
            filter: None,
            batch_interval: Duration::ZERO,
            backoff: Backoff::default(),
            silence_limit: Duration::from_secs(30),
            give_up_after: None,
        }
    }
}

/// What a subscription tells.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A stream of the subscription, once, before its first lines.
    StreamAnnounced(Arc<v1::Stream>),
    /// Lines of one stream that follow those before.
    Lines(StreamLines),
    /// Lines that are not stored any more and will not come.
    Gap { stream: Arc<v1::Stream>, gap: v1::Gap },
    /// Every line that existed when the subscription began has been delivered. Told once.
    CaughtUp,
    /// The stream has ended and all its lines have been delivered. Told once for a stream.
    StreamEnded {
        stream: Arc<v1::Stream>,
        next_sequence: u64,
        end: Option<v1::StreamEnd>,
    },
    /// The relay is alive; `heads` tells where this subscriber is behind.
    Heartbeat {
        server_unix_us: i64,
        heads: Vec<v1::Position>,
    },
    /// The connection is lost and will be made again after `wait`.
    Reconnecting {
        reason: Error,
        attempt: u32,
        wait: Duration,
    },
    /// The connection is back; lines go on where they stopped.
    Resumed { attempts: u32 },
}

/// A block of lines and the stream that they belong to.
#[derive(Clone, Debug)]
pub struct StreamLines {
    stream: Arc<v1::Stream>,
    block: OpenBlock,
}

impl StreamLines {
    pub(crate) fn new(stream: Arc<v1::Stream>, block: OpenBlock) -> Self {
        Self { stream, block }
    }

    /// Opens a block that came by a call of one's own, for example of [`crate::Client::log`].
    ///
    /// # Errors
    /// [`Error::BadBlock`].
    pub fn open(stream: Arc<v1::Stream>, block: &v1::Block) -> Result<Self, Error> {
        let stream_id = stream.stream_id;
        let block = OpenBlock::open(block).map_err(|source| Error::BadBlock { stream_id, source })?;
        Ok(Self { stream, block })
    }

    /// The stream, as it was when it was announced.
    pub fn stream(&self) -> &Arc<v1::Stream> {
        &self.stream
    }

    pub fn block(&self) -> &OpenBlock {
        &self.block
    }

    /// The lines, borrowed from the block.
    pub fn lines(&self) -> Lines<'_> {
        self.block.lines()
    }

    /// The lines as values that may be kept or sent elsewhere. They share the block's memory, so one kept
    /// line keeps its block (at most 1 MiB).
    pub fn owned_lines(&self) -> impl Iterator<Item = OwnedLine> + '_ {
        self.lines().map(|line| OwnedLine {
            stream: Arc::clone(&self.stream),
            sequence: line.sequence,
            time_unix_us: line.time_unix_us,
            channel: line.channel,
            partial: line.partial,
            severity: line.severity,
            text: self.block.text().slice_ref(line.text),
        })
    }
}

/// One line on its own.
#[derive(Clone, Debug)]
pub struct OwnedLine {
    pub stream: Arc<v1::Stream>,
    pub sequence: u64,
    /// Capture time, microseconds since the Unix epoch.
    pub time_unix_us: i64,
    pub channel: v1::Channel,
    /// No newline was read after the text: the next line of the same channel continues it.
    pub partial: bool,
    /// As the agent determined it; mostly `Unspecified`: nobody said.
    pub severity: v1::Severity,
    pub text: Bytes,
}

impl OwnedLine {
    /// The same line, borrowed; for [`crate::LineJoiner`].
    pub fn as_line(&self) -> Line<'_> {
        Line {
            sequence: self.sequence,
            time_unix_us: self.time_unix_us,
            channel: self.channel,
            partial: self.partial,
            severity: self.severity,
            text: &self.text,
        }
    }
}
