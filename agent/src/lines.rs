//! Bytes into lines, exactly: the one splitter that every source uses.
//!
//! It works on chunks: whole lines leave as one slice, and only a line that was cut by a chunk's border is
//! copied. It knows nothing of time; who waits for the rest of an open line decides when to call
//! [`LineSplitter::take_open`].

use millstream_proto::limits::MAX_LINE_BYTES;

/// How long a last line without newline is held before it is sent as partial.
pub const OPEN_LINE_WAIT: std::time::Duration = std::time::Duration::from_millis(200);

/// Largest slice of a chunk that is looked at in one go. Far below [`MAX_LINE_BYTES`], so that a line which
/// lies within one slice always fits into a block.
const WINDOW_BYTES: usize = 256 << 10;

/// What a splitter hands out.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// One or more whole lines, each with its `\n`.
    Lines(&'a [u8]),
    /// Text after which no newline was read; the next piece continues it.
    Partial(&'a [u8]),
}

impl Piece<'_> {
    /// The bytes of the input that the piece stands for.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        match self {
            Self::Lines(text) | Self::Partial(text) => text,
        }
    }

    /// How many those are.
    #[must_use]
    pub fn input_bytes(&self) -> usize {
        self.text().len()
    }

    #[must_use]
    pub fn is_partial(&self) -> bool {
        matches!(self, Self::Partial(_))
    }
}

/// Splits one channel's bytes.
///
/// ```
/// use millstream_agent::lines::{LineSplitter, Piece};
///
/// let mut splitter = LineSplitter::default();
/// let mut chunk: &[u8] = b"one\ntwo\nthr";
/// assert_eq!(splitter.next_piece(&mut chunk), Some(Piece::Lines(b"one\ntwo\n")));
/// assert_eq!(splitter.next_piece(&mut chunk), None);
/// let mut chunk: &[u8] = b"ee\n";
/// assert_eq!(splitter.next_piece(&mut chunk), Some(Piece::Lines(b"three\n")));
/// ```
#[derive(Debug, Default)]
pub struct LineSplitter {
    /// Text of the line that is not complete yet, at most [`MAX_LINE_BYTES`] and its newline.
    open: Vec<u8>,
    /// `open` was handed out by the last call and is cleared by the next.
    handed_out: bool,
    /// The last piece was partial: the line goes on.
    continues: bool,
}

impl LineSplitter {
    /// Takes the next piece from the front of `chunk`. `None` when the chunk is used up; what is left of its
    /// last line stays in the splitter.
    pub fn next_piece<'s, 'c: 's>(&'s mut self, chunk: &mut &'c [u8]) -> Option<Piece<'s>> {
        self.forget_handed_out();
        let window = &chunk[..chunk.len().min(WINDOW_BYTES)];
        if window.is_empty() {
            return None;
        }
        if self.open.is_empty() {
            if let Some(last_newline) = memchr::memrchr(b'\n', window) {
                let (lines, rest) = chunk.split_at(last_newline + 1);
                *chunk = rest;
                self.continues = false;
                return Some(Piece::Lines(lines));
            }
            self.open.extend_from_slice(window);
            *chunk = &chunk[window.len()..];
            return if chunk.is_empty() {
                None
            } else {
                self.next_piece(chunk)
            };
        }
        let newline = memchr::memchr(b'\n', window);
        let text_bytes = newline.unwrap_or(window.len());
        let room = MAX_LINE_BYTES - self.open.len();
        if text_bytes > room {
            self.open.extend_from_slice(&chunk[..room]);
            *chunk = &chunk[room..];
            self.handed_out = true;
            self.continues = true;
            return Some(Piece::Partial(&self.open));
        }
        let taken = newline.map_or(text_bytes, |at| at + 1);
        self.open.extend_from_slice(&chunk[..taken]);
        *chunk = &chunk[taken..];
        if newline.is_some() {
            self.handed_out = true;
            self.continues = false;
            return Some(Piece::Lines(&self.open));
        }
        if chunk.is_empty() {
            None
        } else {
            self.next_piece(chunk)
        }
    }

    /// Hands out what is there of an incomplete line, when its rest did not come in time or never will.
    pub fn take_open(&mut self) -> Option<Piece<'_>> {
        self.forget_handed_out();
        if self.open.is_empty() {
            return None;
        }
        self.handed_out = true;
        self.continues = true;
        Some(Piece::Partial(&self.open))
    }

    /// Bytes that were read but not handed out.
    #[must_use]
    pub fn open_bytes(&self) -> usize {
        if self.handed_out { 0 } else { self.open.len() }
    }

    /// The last piece handed out was partial and its line goes on.
    #[must_use]
    pub fn continues(&self) -> bool {
        self.continues
    }

    /// Gives back memory between bursts of input.
    pub fn shrink(&mut self) {
        self.forget_handed_out();
        if self.open.is_empty() {
            self.open = Vec::new();
        }
    }

    fn forget_handed_out(&mut self) {
        if self.handed_out {
            self.handed_out = false;
            // A line of megabytes is rare; do not keep its memory.
            if self.open.capacity() > WINDOW_BYTES {
                self.open = Vec::new();
            } else {
                self.open.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds chunks, taking the open line after those where `stall` says so; returns the pieces joined.
    fn reassemble(chunks: &[Vec<u8>], stall: &[bool]) -> Vec<u8> {
        let mut splitter = LineSplitter::default();
        let mut output = Vec::new();
        let mut keep = |piece: Piece<'_>| match piece {
            Piece::Lines(text) => {
                assert_eq!(text.last(), Some(&b'\n'));
                assert!(
                    text.split(|byte| *byte == b'\n')
                        .all(|line| line.len() <= MAX_LINE_BYTES)
                );
                output.extend_from_slice(text);
            }
            Piece::Partial(text) => {
                assert!(!text.is_empty() && text.len() <= MAX_LINE_BYTES && !text.contains(&b'\n'));
                output.extend_from_slice(text);
            }
        };
        for (index, chunk) in chunks.iter().enumerate() {
            let mut rest: &[u8] = chunk;
            while let Some(piece) = splitter.next_piece(&mut rest) {
                keep(piece);
            }
            if stall.get(index).copied().unwrap_or(false)
                && let Some(piece) = splitter.take_open()
            {
                keep(piece);
            }
        }
        if let Some(piece) = splitter.take_open() {
            keep(piece);
        }
        output
    }

    proptest! {
        #[test]
        fn any_bytes_cut_in_any_way_come_out_as_they_went_in(
            chunks in prop::collection::vec(
                prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(0u8), any::<u8>()], 0..200),
                0..20,
            ),
            stall in prop::collection::vec(any::<bool>(), 0..20),
        ) {
            prop_assert_eq!(reassemble(&chunks, &stall), chunks.concat());
        }
    }

    #[test]
    fn a_line_of_several_mebibytes_is_split_into_partial_pieces() {
        for extra in [0, 1, 2, MAX_LINE_BYTES, MAX_LINE_BYTES + 1, 4_500_000] {
            let mut input = vec![b'x'; MAX_LINE_BYTES + extra];
            input.extend_from_slice(b"\nafter\n");
            for size in [1000, 65_536, 300_000, input.len()] {
                let chunks: Vec<_> = input.chunks(size).map(<[u8]>::to_vec).collect();
                assert!(
                    reassemble(&chunks, &[]) == input,
                    "extra {extra}, chunks of {size}"
                );
            }
        }
    }

    #[test]
    fn a_newline_that_comes_after_its_open_line_is_an_empty_line() {
        let mut splitter = LineSplitter::default();
        let mut chunk: &[u8] = b"prompt> ";
        assert_eq!(splitter.next_piece(&mut chunk), None);
        assert_eq!(splitter.take_open(), Some(Piece::Partial(b"prompt> ")));
        assert!(splitter.continues());
        let mut chunk: &[u8] = b"\n";
        assert_eq!(splitter.next_piece(&mut chunk), Some(Piece::Lines(b"\n")));
        assert!(!splitter.continues());
    }
}
