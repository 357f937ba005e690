//! Lines that were delivered in pieces, put together again.
//!
//! A line longer than a block, or one that was sent before it was complete, arrives as several lines
//! flagged as partial. Pieces of one stream's standard output and standard error may alternate, so they
//! are joined by stream and channel.

use std::borrow::Cow;
use std::collections::BTreeMap;

use millstream_proto::block::Line;
use millstream_proto::v1::Channel;

/// A whole line as it was produced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedLine<'a> {
    /// Sequence of the first piece.
    pub first_sequence: u64,
    /// Sequence of the last piece; equal to the first for a line that came whole.
    pub last_sequence: u64,
    /// Capture time of the first piece, microseconds since the Unix epoch.
    pub time_unix_us: i64,
    pub channel: Channel,
    /// Borrowed from the block when the line came whole.
    pub text: Cow<'a, [u8]>,
    /// No newline was read after it: the joiner's limit was reached, or the stream ended here.
    pub partial: bool,
}

/// Joins partial lines. Feed it every line of a subscription or a stream, in order.
#[derive(Debug)]
pub struct LineJoiner {
    /// Begun lines by stream and channel.
    begun: BTreeMap<(u64, i32), JoinedLine<'static>>,
    max_line_bytes: usize,
}

impl Default for LineJoiner {
    /// Joins lines of up to 16 MiB.
    fn default() -> Self {
        Self::new(16 << 20)
    }
}

impl LineJoiner {
    /// Joins lines of up to `max_line_bytes`; a longer one is handed out in parts of about that size,
    /// each but the last flagged as partial, so that memory stays bounded.
    pub fn new(max_line_bytes: usize) -> Self {
        Self {
            begun: BTreeMap::new(),
            max_line_bytes,
        }
    }

    /// Takes the next line of a stream and returns a line that it completes.
    pub fn push<'a>(&mut self, stream_id: u64, line: &Line<'a>) -> Option<JoinedLine<'a>> {
        let key = (stream_id, line.channel as i32);
        let Some(mut begun) = self.begun.remove(&key) else {
            let whole = JoinedLine {
                first_sequence: line.sequence,
                last_sequence: line.sequence,
                time_unix_us: line.time_unix_us,
                channel: line.channel,
                text: Cow::Borrowed(line.text),
                partial: line.partial,
            };
            if !line.partial || line.text.len() >= self.max_line_bytes {
                return Some(whole);
            }
            let owned = JoinedLine {
                text: Cow::Owned(line.text.to_vec()),
                ..whole
            };
            self.begun.insert(key, owned);
            return None;
        };
        begun.text.to_mut().extend_from_slice(line.text);
        begun.last_sequence = line.sequence;
        begun.partial = line.partial;
        if !line.partial || begun.text.len() >= self.max_line_bytes {
            return Some(begun);
        }
        self.begun.insert(key, begun);
        None
    }

    /// Hands out what a stream began and did not complete: call it when the stream has ended.
    pub fn finish(&mut self, stream_id: u64) -> Vec<JoinedLine<'static>> {
        let keys: Vec<_> = self
            .begun
            .range((stream_id, i32::MIN)..=(stream_id, i32::MAX))
            .map(|(key, _)| *key)
            .collect();
        keys.iter().filter_map(|key| self.begun.remove(key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(sequence: u64, channel: Channel, partial: bool, text: &[u8]) -> Line<'_> {
        Line {
            sequence,
            time_unix_us: 7,
            channel,
            partial,
            severity: millstream_proto::v1::Severity::Unspecified,
            text,
        }
    }

    #[test]
    fn a_whole_line_is_borrowed() {
        let mut joiner = LineJoiner::default();
        let joined = joiner.push(1, &line(4, Channel::Stdout, false, b"abc")).unwrap();
        assert!(matches!(joined.text, Cow::Borrowed(b"abc")));
        assert_eq!(
            (joined.first_sequence, joined.last_sequence, joined.partial),
            (4, 4, false)
        );
    }

    #[test]
    fn a_line_above_the_limit_comes_in_parts() {
        let mut joiner = LineJoiner::new(5);
        assert_eq!(joiner.push(1, &line(0, Channel::Stdout, true, b"abc")), None);
        let part = joiner.push(1, &line(1, Channel::Stdout, true, b"def")).unwrap();
        assert_eq!((&part.text[..], part.partial), (&b"abcdef"[..], true));
        let rest = joiner.push(1, &line(2, Channel::Stdout, false, b"g")).unwrap();
        assert_eq!((&rest.text[..], rest.partial), (&b"g"[..], false));
    }

    proptest! {
        #[test]
        fn joining_gives_each_channel_back_as_it_was_produced(
            pieces in proptest::collection::vec(
                (0u64..3, 0i32..2, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..6)), 0..60)
        ) {
            let mut joiner = LineJoiner::default();
            let mut produced: BTreeMap<(u64, i32), Vec<u8>> = BTreeMap::new();
            let mut joined: BTreeMap<(u64, i32), Vec<u8>> = BTreeMap::new();
            let mut add = |stream: u64, whole: &JoinedLine<'_>| {
                let text = joined.entry((stream, whole.channel as i32)).or_default();
                text.extend_from_slice(&whole.text);
                if !whole.partial {
                    text.push(b'\n');
                }
            };
            for (sequence, (stream, channel, partial, text)) in pieces.iter().enumerate() {
                let text: Vec<u8> = text.iter().copied().filter(|byte| *byte != b'\n').collect();
                let expected = produced.entry((*stream, *channel)).or_default();
                expected.extend_from_slice(&text);
                if !partial {
                    expected.push(b'\n');
                }
                let channel = Channel::try_from(*channel).unwrap();
                if let Some(whole) = joiner.push(*stream, &line(sequence as u64, channel, *partial, &text)) {
                    prop_assert!(!whole.partial);
                    add(*stream, &whole);
                }
            }
            for stream in 0..3 {
                for rest in joiner.finish(stream) {
                    prop_assert!(rest.partial);
                    add(stream, &rest);
                }
            }
            produced.retain(|_, text| !text.is_empty());
            joined.retain(|_, text| !text.is_empty());
            prop_assert_eq!(joined, produced);
        }
    }
}
