//! Reads a plugin's output line by line, with a bound on the line and on the rate.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt};

const CHUNK_BYTES: usize = 64 << 10;

/// A part of the output.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    Line(&'a [u8]),
    /// The first bytes of a line that is longer than the bound, or the last bytes without a newline before the
    /// end.
    Open(&'a [u8]),
    /// More of that line; `ends`: with its newline.
    More {
        text: &'a [u8],
        ends: bool,
    },
    End,
}

/// So many bytes a second, with one second's worth at once.
#[derive(Debug)]
pub(super) struct Rate {
    bytes_per_second: u64,
    /// When everything read so far is paid for.
    paid_at: Instant,
}

impl Rate {
    /// 0: no bound.
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second,
            paid_at: Instant::now(),
        }
    }

    fn spend(&mut self, bytes: usize) {
        if self.bytes_per_second > 0 {
            let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
            self.paid_at = self.paid_at.max(Instant::now()) + cost;
        }
    }

    /// How long to wait before more is read.
    fn wait(&self) -> Duration {
        let ahead = self.paid_at.saturating_duration_since(Instant::now());
        ahead.saturating_sub(Duration::from_secs(1))
    }
}

/// Lines of one pipe.
pub(super) struct LineReader<R> {
    input: R,
    buffer: Vec<u8>,
    /// Where in the buffer the next line begins, and how far it was searched for its end.
    start: usize,
    searched: usize,
    max_line_bytes: usize,
    /// The beginning of the present line was handed out.
    inside_long_line: bool,
    ended: bool,
    rate: Rate,
    /// The rate made it wait.
    pub(super) throttled: bool,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    pub(super) fn new(input: R, max_line_bytes: usize, rate: Rate) -> Self {
        Self {
            input,
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            max_line_bytes,
            inside_long_line: false,
            ended: false,
            rate,
            throttled: false,
        }
    }

    /// Reads until [`LineReader::take`] has something. Safe to drop and call again.
    ///
    /// # Errors
    /// As the system gives them.
    pub(super) async fn fill(&mut self) -> io::Result<()> {
        if self.has_part() {
            return Ok(());
        }
        loop {
            let wait = self.rate.wait();
            if !wait.is_zero() {
                self.throttled = true;
                tokio::time::sleep(wait).await;
            }
            self.buffer.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
            self.buffer.reserve(CHUNK_BYTES);
            let read = self.input.read_buf(&mut self.buffer).await?;
            self.rate.spend(read);
            self.ended = read == 0;
            if self.has_part() {
                return Ok(());
            }
        }
    }

    /// Bytes of a line whose end was not read yet.
    pub(super) fn open_bytes(&self) -> usize {
        self.buffer.len() - self.start
    }

    fn has_part(&mut self) -> bool {
        if self.ended {
            return true;
        }
        if memchr::memchr(b'\n', &self.buffer[self.searched..]).is_some() {
            return true;
        }
        self.searched = self.buffer.len();
        self.open_bytes() > self.max_line_bytes
    }

    /// What is there of a line whose rest did not come in time.
    pub(super) fn take_open(&mut self) -> Option<Part<'_>> {
        if self.open_bytes() == 0 {
            return None;
        }
        let from = std::mem::replace(&mut self.start, self.buffer.len());
        self.searched = self.start;
        let text = &self.buffer[from..];
        Some(if std::mem::replace(&mut self.inside_long_line, true) {
            Part::More { text, ends: false }
        } else {
            Part::Open(text)
        })
    }

    /// The next part, after [`LineReader::fill`]; `None`: fill first.
    pub(super) fn take(&mut self) -> Option<Part<'_>> {
        let rest = &self.buffer[self.start..];
        let bound = rest.len().min(self.max_line_bytes + 1);
        if let Some(length) = memchr::memchr(b'\n', &rest[..bound]) {
            let text = &rest[..length];
            self.start += length + 1;
            self.searched = self.start;
            return Some(if std::mem::take(&mut self.inside_long_line) {
                Part::More { text, ends: true }
            } else {
                Part::Line(text)
            });
        }
        if rest.len() > self.max_line_bytes || (self.ended && !rest.is_empty()) {
            let length = rest.len().min(self.max_line_bytes);
            let text = &rest[..length];
            self.start += length;
            self.searched = self.start;
            return Some(if std::mem::replace(&mut self.inside_long_line, true) {
                Part::More { text, ends: false }
            } else {
                Part::Open(text)
            });
        }
        self.ended.then_some(Part::End)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Parts as owned: kind and text.
    async fn read(input: &[u8], max_line_bytes: usize) -> Vec<(char, Vec<u8>)> {
        let mut reader = LineReader::new(input, max_line_bytes, Rate::new(0));
        let mut parts = Vec::new();
        loop {
            reader.fill().await.unwrap();
            while let Some(part) = reader.take() {
                match part {
                    Part::Line(text) => parts.push(('l', text.to_vec())),
                    Part::Open(text) => parts.push(('o', text.to_vec())),
                    Part::More { text, ends: false } => parts.push(('m', text.to_vec())),
                    Part::More { text, ends: true } => parts.push(('e', text.to_vec())),
                    Part::End => return parts,
                }
            }
        }
    }

    #[tokio::test]
    async fn lines_long_lines_and_a_last_one_without_newline() {
        let parts = read(b"ab\n\nabcdefg\nxyz", 3).await;
        let kinds: String = parts.iter().map(|(kind, _)| *kind).collect();
        let texts: Vec<&[u8]> = parts.iter().map(|(_, text)| text.as_slice()).collect();
        assert_eq!(kinds, "llomeo");
        assert_eq!(texts, [&b"ab"[..], b"", b"abc", b"def", b"g", b"xyz"]);
    }

    #[test]
    fn a_flood_is_read_at_its_rate() {
        let mut rate = Rate::new(1000);
        rate.spend(500);
        assert_eq!(rate.wait(), Duration::ZERO);
        rate.spend(60_000);
        assert!(rate.wait() > Duration::from_secs(50));
        let mut none = Rate::new(0);
        none.spend(usize::MAX);
        assert_eq!(none.wait(), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_and_no_part_is_too_long(input: Vec<u8>, max_line_bytes in 1_usize..20) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let parts = runtime.block_on(read(&input, max_line_bytes));
            let mut output = Vec::new();
            for (kind, text) in &parts {
                prop_assert!(text.len() <= max_line_bytes);
                output.extend_from_slice(text);
                if matches!(kind, 'l' | 'e') {
                    output.push(b'\n');
                }
            }
            prop_assert_eq!(output, input);
        }
    }
}
