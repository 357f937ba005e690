//! Where a subscriber stands in each stream: checks that lines are neither missing nor repeated, and
//! knows from where to go on. It does no I/O.
//!
//! Invariant: what [`Progress::accept_block`] and [`Progress::accept_gap`] returned is exactly the lines
//! below `next_sequence` of each stream, from where the subscription began in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use millstream_proto::block::OpenBlock;
use millstream_proto::v1;
use millstream_proto::v1::tail_request;

use crate::error::Error;
use crate::tail::{ResumePoint, Start, StreamLines, TailOptions};

/// One stream of the subscription.
#[derive(Debug)]
struct Place {
    stream: Arc<v1::Stream>,
    /// The next line wanted; none until the first line tells where the relay started.
    next_sequence: Option<u64>,
    /// Where delivery must have begun, as far as the announcement tells; used to resume a stream of
    /// which nothing came yet while there is no cursor.
    begin_hint: Option<u64>,
    /// It moved since the last cursor, so the cursor alone would repeat lines.
    moved: bool,
    ended: bool,
}

/// Where a subscription stands.
#[derive(Debug)]
pub(crate) struct Progress {
    start: Start,
    filtered: bool,
    given: BTreeMap<u64, u64>,
    cursor: Bytes,
    places: BTreeMap<u64, Place>,
    caught_up: bool,
    repeated_lines: u64,
}

impl Progress {
    pub(crate) fn new(options: &TailOptions) -> Self {
        let mut given = options.positions.clone();
        let mut cursor = Bytes::new();
        if let Start::Resume(point) = &options.start {
            cursor = point.cursor.clone();
            for (stream_id, next_sequence) in &point.positions {
                given.entry(*stream_id).or_insert(*next_sequence);
            }
        }
        Self {
            start: options.start.clone(),
            filtered: options
                .filter
                .as_ref()
                .is_some_and(|filter| *filter != v1::Filter::default()),
            given,
            cursor,
            places: BTreeMap::new(),
            caught_up: false,
            repeated_lines: 0,
        }
    }

    /// The start to ask for now: the last cursor once there is one, else what was asked for first.
    pub(crate) fn request_start(&self) -> tail_request::Start {
        if !self.cursor.is_empty() {
            return tail_request::Start::Cursor(self.cursor.clone());
        }
        match &self.start {
            Start::Now => tail_request::Start::FromNow(true),
            // Positions without a cursor: the streams they do not name are new to this subscriber.
            Start::Beginning | Start::Resume(_) => tail_request::Start::FromBeginning(true),
            Start::LastLines(count) => tail_request::Start::LastLines(*count),
            Start::SinceUnixUs(time) => tail_request::Start::SinceUnixUs(*time),
        }
    }

    /// The exact places that the request's start does not tell.
    pub(crate) fn positions(&self) -> BTreeMap<u64, u64> {
        let mut positions = self.given.clone();
        for (stream_id, place) in &self.places {
            // A cursor that came after the last change says the same, and keeps the request small.
            if !place.moved && !self.cursor.is_empty() {
                continue;
            }
            if let Some(next_sequence) = place.next_sequence.or(place.begin_hint) {
                positions.insert(*stream_id, next_sequence);
            }
        }
        positions
    }

    pub(crate) fn resume_point(&self) -> ResumePoint {
        ResumePoint {
            cursor: self.cursor.clone(),
            positions: self.positions(),
        }
    }

    /// Lines that came again and were dropped.
    pub(crate) fn repeated_lines(&self) -> u64 {
        self.repeated_lines
    }

    /// Takes note of a stream; true when it was not known.
    pub(crate) fn announce(&mut self, stream: v1::Stream) -> (Arc<v1::Stream>, bool) {
        let stream_id = stream.stream_id;
        let stream = Arc::new(stream);
        if let Some(place) = self.places.get_mut(&stream_id) {
            place.stream = Arc::clone(&stream);
            return (stream, false);
        }
        let given = self.given.get(&stream_id).copied();
        let (next_sequence, begin_hint) = if given.is_some() {
            (given, given)
        } else if self.caught_up {
            // It appeared later, so it starts at its first line.
            (Some(stream.first_sequence), Some(stream.first_sequence))
        } else {
            let hint = match &self.start {
                // The cursor tells, also of streams that appeared since. The announcement does not: it says where
                // the stream stands by now.
                _ if !self.cursor.is_empty() => None,
                Start::Now => Some(stream.next_sequence),
                Start::Beginning => Some(stream.first_sequence),
                Start::LastLines(count) => Some(
                    stream
                        .next_sequence
                        .saturating_sub(*count)
                        .max(stream.first_sequence),
                ),
                Start::SinceUnixUs(_) | Start::Resume(_) => None,
            };
            (None, hint)
        };
        let place = Place {
            stream: Arc::clone(&stream),
            next_sequence,
            begin_hint,
            moved: true,
            ended: false,
        };
        self.places.insert(stream_id, place);
        (stream, true)
    }

    /// Checks a block against what came before. None: every line of it was delivered already.
    pub(crate) fn accept_block(&mut self, message: &v1::StreamBlock) -> Result<Option<StreamLines>, Error> {
        let stream_id = message.stream_id;
        let filtered = self.filtered;
        let place = known(&mut self.places, stream_id, "a block")?;
        let block = message.block.as_ref().ok_or_else(|| Error::Protocol {
            message: format!("a message of stream {stream_id} has no block"),
        })?;
        let mut block = OpenBlock::open(block).map_err(|source| Error::BadBlock { stream_id, source })?;
        let (first, next) = (block.first_sequence(), block.next_sequence());
        if !filtered && next - first != u64::from(block.line_count()) {
            return Err(missing(stream_id, first + u64::from(block.line_count()), next));
        }
        if let Some(expected) = place.next_sequence {
            if first > expected && !filtered {
                return Err(missing(stream_id, expected, first));
            }
            if first < expected {
                let before = u64::from(block.line_count());
                let Some(rest) = block.slice(expected..u64::MAX) else {
                    self.repeated_lines += before;
                    return Ok(None);
                };
                block = OpenBlock::open(&rest).map_err(|source| Error::BadBlock { stream_id, source })?;
                self.repeated_lines += before - u64::from(block.line_count());
            }
        }
        place.next_sequence = Some(next);
        place.moved = true;
        self.given.remove(&stream_id);
        Ok(Some(StreamLines::new(Arc::clone(&place.stream), block)))
    }

    /// Checks a gap; none when the lines it is about were delivered already.
    pub(crate) fn accept_gap(
        &mut self,
        mut gap: v1::Gap,
    ) -> Result<Option<(Arc<v1::Stream>, v1::Gap)>, Error> {
        let place = known(&mut self.places, gap.stream_id, "a gap")?;
        if let Some(expected) = place.next_sequence {
            if gap.next_sequence <= expected {
                return Ok(None);
            }
            if gap.first_sequence > expected && !self.filtered {
                return Err(missing(gap.stream_id, expected, gap.first_sequence));
            }
            gap.first_sequence = gap.first_sequence.max(expected);
        }
        place.next_sequence = Some(gap.next_sequence);
        place.moved = true;
        self.given.remove(&gap.stream_id);
        Ok(Some((Arc::clone(&place.stream), gap)))
    }

    /// Checks the end of a stream; none when it was told already.
    pub(crate) fn accept_end(&mut self, ended: &v1::StreamEnded) -> Result<Option<Arc<v1::Stream>>, Error> {
        let filtered = self.filtered;
        let place = known(&mut self.places, ended.stream_id, "an end")?;
        if let Some(expected) = place.next_sequence
            && ended.next_sequence > expected
            && !filtered
        {
            return Err(missing(ended.stream_id, expected, ended.next_sequence));
        }
        if place.ended {
            return Ok(None);
        }
        place.ended = true;
        place.next_sequence = Some(ended.next_sequence.max(place.next_sequence.unwrap_or(0)));
        place.moved = true;
        self.given.remove(&ended.stream_id);
        Ok(Some(Arc::clone(&place.stream)))
    }

    /// The relay's account of everything delivered so far.
    pub(crate) fn accept_cursor(&mut self, cursor: Bytes) {
        if cursor.is_empty() {
            return;
        }
        self.cursor = cursor;
        for (stream_id, place) in &mut self.places {
            place.moved = false;
            self.given.remove(stream_id);
        }
    }

    /// True the first time.
    pub(crate) fn accept_caught_up(&mut self) -> bool {
        !std::mem::replace(&mut self.caught_up, true)
    }
}

fn known<'a>(
    places: &'a mut BTreeMap<u64, Place>,
    stream_id: u64,
    what: &str,
) -> Result<&'a mut Place, Error> {
    places.get_mut(&stream_id).ok_or_else(|| Error::Protocol {
        message: format!("{what} came for stream {stream_id}, which was not announced"),
    })
}

fn missing(stream_id: u64, expected_sequence: u64, got_sequence: u64) -> Error {
    Error::MissingLines {
        stream_id,
        expected_sequence,
        got_sequence,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_proto::block::BlockBuilder;

    fn block(first: u64, count: u64) -> v1::StreamBlock {
        let mut builder = BlockBuilder::new();
        for sequence in first..first + count {
            assert!(builder.push_line(sequence.to_string().as_bytes(), 0, v1::Channel::Stdout, false));
        }
        v1::StreamBlock {
            stream_id: 1,
            block: builder.finish(first),
        }
    }

    fn progress(start: Start) -> Progress {
        let mut progress = Progress::new(&TailOptions {
            start,
            ..TailOptions::default()
        });
        progress.announce(v1::Stream {
            stream_id: 1,
            next_sequence: 50,
            ..v1::Stream::default()
        });
        progress
    }

    fn sequences(lines: Option<StreamLines>) -> Vec<u64> {
        lines
            .map(|lines| lines.lines().map(|line| line.sequence).collect())
            .unwrap_or_default()
    }

    #[test]
    fn repeated_lines_are_dropped_also_within_a_block() {
        let mut progress = progress(Start::Beginning);
        assert_eq!(sequences(progress.accept_block(&block(0, 3)).unwrap()), [0, 1, 2]);
        assert_eq!(sequences(progress.accept_block(&block(1, 2)).unwrap()), []);
        assert_eq!(sequences(progress.accept_block(&block(1, 4)).unwrap()), [3, 4]);
        assert_eq!(progress.repeated_lines(), 4);
    }

    #[test]
    fn a_hole_without_a_gap_is_an_error_and_one_with_a_gap_is_not() {
        let mut progress = progress(Start::Beginning);
        progress.accept_block(&block(0, 3)).unwrap();
        let error = progress.accept_block(&block(4, 1)).unwrap_err();
        assert!(matches!(
            error,
            Error::MissingLines {
                stream_id: 1,
                expected_sequence: 3,
                got_sequence: 4
            }
        ));
        let gap = v1::Gap {
            stream_id: 1,
            first_sequence: 2,
            next_sequence: 4,
            message: String::new(),
            ..v1::Gap::default()
        };
        let (_, told) = progress.accept_gap(gap).unwrap().unwrap();
        assert_eq!((told.first_sequence, told.next_sequence), (3, 4));
        assert_eq!(sequences(progress.accept_block(&block(4, 1)).unwrap()), [4]);
    }

    #[test]
    fn an_end_beyond_the_last_line_is_a_hole() {
        let mut progress = progress(Start::Beginning);
        progress.accept_block(&block(0, 3)).unwrap();
        let end = |next_sequence| v1::StreamEnded {
            stream_id: 1,
            next_sequence,
            end: None,
        };
        assert!(matches!(
            progress.accept_end(&end(5)),
            Err(Error::MissingLines { .. })
        ));
        assert!(progress.accept_end(&end(3)).unwrap().is_some());
        assert!(progress.accept_end(&end(3)).unwrap().is_none());
    }

    #[test]
    fn an_announcement_after_the_first_cursor_does_not_move_the_place_to_begin() {
        let mut progress = Progress::new(&TailOptions::default());
        progress.accept_cursor(Bytes::from_static(b"first"));
        // 60 lines by now; the cursor knows that delivery begins before.
        progress.announce(v1::Stream {
            stream_id: 1,
            next_sequence: 60,
            ..v1::Stream::default()
        });
        assert_eq!(progress.positions(), BTreeMap::new());
        assert_eq!(
            sequences(progress.accept_block(&block(55, 5)).unwrap()),
            [55, 56, 57, 58, 59]
        );
        assert_eq!(progress.positions(), BTreeMap::from([(1, 60)]));
    }

    #[test]
    fn with_a_cursor_a_stream_that_appears_is_not_taken_to_begin_at_its_head() {
        let mut progress = Progress::new(&TailOptions {
            start: Start::Now,
            ..TailOptions::default()
        });
        progress.accept_cursor(Bytes::from_static(b"from the first"));
        progress.announce(v1::Stream {
            stream_id: 1,
            next_sequence: 50,
            ..v1::Stream::default()
        });
        assert_eq!(progress.positions(), BTreeMap::new());
        assert_eq!(
            progress.request_start(),
            tail_request::Start::Cursor(Bytes::from_static(b"from the first"))
        );
    }

    #[test]
    fn a_cursor_makes_positions_unnecessary_until_lines_follow_it() {
        let mut progress = progress(Start::LastLines(10));
        assert_eq!(progress.positions(), BTreeMap::from([(1, 40)]));
        progress.accept_block(&block(40, 10)).unwrap();
        assert_eq!(progress.positions(), BTreeMap::from([(1, 50)]));
        progress.accept_cursor(Bytes::from_static(b"here"));
        assert_eq!(progress.positions(), BTreeMap::new());
        assert_eq!(
            progress.request_start(),
            tail_request::Start::Cursor(Bytes::from_static(b"here"))
        );
        progress.accept_block(&block(50, 1)).unwrap();
        assert_eq!(progress.positions(), BTreeMap::from([(1, 51)]));
    }
}
