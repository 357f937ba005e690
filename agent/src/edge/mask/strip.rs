//! A text without what a terminal does not show: the view in which secrets are looked for, and the way back.

/// A sequence that is longer than this is text that begins like one.
const MAX_ESCAPE_BYTES: usize = 4096;

/// The visible bytes of a text, and where each stretch of them came from.
#[derive(Debug, Default)]
pub(super) struct Clean {
    pub(super) text: Vec<u8>,
    /// (place in `text`, place in the original), one a stretch.
    stretches: Vec<(usize, usize)>,
}

impl Clean {
    /// Strips `original` of escape sequences, and of line ends too where `join_lines`; reuses its memory.
    pub(super) fn fill(&mut self, original: &[u8], join_lines: bool) {
        self.text.clear();
        self.stretches.clear();
        let mut at = 0;
        while at < original.len() {
            let rest = &original[at..];
            let next = if join_lines {
                memchr::memchr3(b'\n', b'\r', 0x1b, rest)
            } else {
                memchr::memchr(0x1b, rest)
            };
            let visible = next.unwrap_or(rest.len());
            if visible > 0 {
                self.stretches.push((self.text.len(), at));
                self.text.extend_from_slice(&rest[..visible]);
            }
            at += visible;
            if at < original.len() {
                at += hidden_length(&original[at..]);
            }
        }
    }

    /// The same with the end of a text, as of the beginning of a line: at least so many visible bytes, or all there
    /// are. Returns where it begins.
    pub(super) fn fill_end(&mut self, original: &[u8], visible_bytes: usize) -> usize {
        let mut bytes = visible_bytes.max(1);
        loop {
            // No sequence goes on behind the end of a line.
            let start = original
                .len()
                .checked_sub(bytes)
                .and_then(|at| memchr::memrchr(b'\n', &original[..at]))
                .map_or(0, |newline| newline + 1);
            self.fill(&original[start..], true);
            if start == 0 || self.text.len() >= visible_bytes {
                return start;
            }
            bytes *= 2;
        }
    }

    /// Where the byte at `place` of the clean text is in the original.
    pub(super) fn original(&self, place: usize) -> usize {
        let index = self.stretches.partition_point(|(clean, _)| *clean <= place);
        let (clean, original) = self.stretches[index - 1];
        original + place - clean
    }
}

/// Something hidden begins with it.
pub(super) fn is_hidden(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r' | 0x1b)
}

/// Where the visible bytes that end at a place begin, as far as is certain: behind the end of a line or an escape
/// sequence, and not further back than the longest of those.
pub(super) fn visible_from(text: &[u8], to: usize) -> usize {
    // What begins before this ends before the bytes that are asked for.
    let begin = to.saturating_sub(2 * MAX_ESCAPE_BYTES);
    let line = memchr::memrchr(b'\n', &text[begin..to]).map_or(begin, |newline| begin + newline + 1);
    let visible = memchr::memrchr(0x1b, &text[line..to]).map_or(line, |escape| {
        line + escape + escape_length(&text[line + escape..])
    });
    visible.max(to.saturating_sub(MAX_ESCAPE_BYTES)).min(to)
}

/// Length of what is hidden at the front of a text: a line end, or an escape sequence.
pub(super) fn hidden_length(text: &[u8]) -> usize {
    match text {
        [0x1b, ..] => escape_length(text),
        _ => 1,
    }
}

/// Length of the escape sequence at the front; of what is there of one that is not complete.
fn escape_length(text: &[u8]) -> usize {
    let text = &text[..text.len().min(MAX_ESCAPE_BYTES)];
    let body = match text.get(1) {
        None => return 1,
        Some(b'[') => {
            let parameters = text[2..]
                .iter()
                .take_while(|byte| (0x20..=0x3f).contains(*byte))
                .count();
            let end = 2 + parameters;
            // Anything but a final byte ends the sequence without being part of it.
            return end + usize::from(text.get(end).is_some_and(|byte| (0x40..=0x7e).contains(byte)));
        }
        // Titles, links and the like, up to BEL or ESC \.
        Some(b']' | b'P' | b'X' | b'^' | b'_') => &text[2..],
        Some(_) => {
            let between = text[1..]
                .iter()
                .take_while(|byte| (0x20..=0x2f).contains(*byte))
                .count();
            let end = 1 + between;
            return end + usize::from(text.get(end).is_some_and(|byte| (0x30..=0x7e).contains(byte)));
        }
    };
    match body.iter().position(|byte| matches!(byte, 0x07 | 0x1b | b'\n')) {
        Some(end) if body[end] == 0x07 => 2 + end + 1,
        Some(end) if body[end] == 0x1b => match body.get(end + 1) {
            Some(b'\\') => 2 + end + 2,
            // Another sequence begins, and ends this one.
            Some(_) => 2 + end,
            None => text.len(),
        },
        // What was read ends within it: its rest comes.
        None if text.len() < MAX_ESCAPE_BYTES => text.len(),
        // It never ends on its line: what follows the two bytes that began it is shown somewhere.
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn clean(text: &[u8], join_lines: bool) -> Vec<u8> {
        let mut clean = Clean::default();
        clean.fill(text, join_lines);
        clean.text
    }

    #[test]
    fn what_a_terminal_shows_is_left() {
        assert_eq!(clean(b"a\x1b[1;31mb\x1b[0mc", true), b"abc");
        assert_eq!(clean(b"a\r\nb\nc", true), b"abc");
        assert_eq!(clean(b"a\r\nb\nc", false), b"a\r\nb\nc");
        assert_eq!(clean(b"a\x1b]0;title\x07b\x1b]8;;http://x\x1b\\c", true), b"abc");
        assert_eq!(clean(b"a\x1b(Bb\x1b=c\x1b", true), b"abc");
        assert_eq!(clean(b"a\x1b[12", true), b"a");
    }

    proptest! {
        #[test]
        fn every_clean_byte_is_found_in_the_original(text: Vec<u8>, join_lines: bool) {
            let mut clean = Clean::default();
            clean.fill(&text, join_lines);
            let mut last = None;
            for (place, byte) in clean.text.iter().enumerate() {
                let original = clean.original(place);
                prop_assert_eq!(text[original], *byte);
                prop_assert!(last.is_none_or(|last| last < original));
                last = Some(original);
            }
        }

        /// What is said to be visible in front of a place is what is left of a whole text there.
        #[test]
        fn bytes_that_are_visible_are_left(
            parts in prop::collection::vec(
                prop_oneof!["[a-z]{1,3}", "\n|\r", "\x1b(\\[[0-9;]{0,3}m?)?", "\x1b\\][0-9;a-z]{0,4}(\x07|\x1b\\\\)?", "\x1b[(=]B?"],
                0..12,
            ),
        ) {
            let text = parts.concat().into_bytes();
            let mut whole = Clean::default();
            whole.fill(&text, false);
            let left: Vec<usize> = (0..whole.text.len()).map(|place| whole.original(place)).collect();
            for to in 0..=text.len() {
                let from = visible_from(&text, to);
                prop_assert!((from..to).all(|place| left.contains(&place)), "{from}..{to} of {:?}", text.escape_ascii());
            }
        }
    }
}
