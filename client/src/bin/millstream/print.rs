//! Lines on their way to standard output: as text for people, as JSON, or as bytes.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, IsTerminal, Write};

use millstream_client::{Line, StreamLines, v1};
use unicode_width::UnicodeWidthStr;

use crate::args::{Output, Switch};
use crate::json;
use crate::sanitise;
use crate::when::rfc3339;

/// Several blocks' worth of short lines, so that a busy stream costs few system calls.
const BUFFER_BYTES: usize = 256 << 10;

/// A longer name pushes only its own lines to the right.
const MAX_PREFIX_COLUMNS: usize = 32;

/// Prefix colours in the order in which streams appear; none that means failure.
const PREFIX_COLOURS: [&str; 6] = ["36", "33", "32", "35", "34", "96"];

/// How lines are shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    pub(crate) output: Output,
    pub(crate) colours: bool,
    pub(crate) timestamps: bool,
    pub(crate) prefix: Switch,
}

impl Switch {
    /// Whether colours are on.
    pub(crate) fn colours(self) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                io::stdout().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        }
    }
}

/// Prints lines of any number of streams.
#[derive(Debug)]
pub(crate) struct Printer<W: Write> {
    out: BufWriter<W>,
    style: Style,
    /// Streams that were announced, with what their prefix is made of.
    names: BTreeMap<u64, Name>,
    several: bool,
    /// A stream was announced since the prefixes were made.
    prefixes_stale: bool,
    /// Text of this stream and channel stands on the terminal without its newline.
    open_line: Option<(u64, v1::Channel)>,
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Name {
    text: String,
    colour: &'static str,
    /// What stands before each line, colours and padding included.
    prefix: Vec<u8>,
}

impl<W: Write> Printer<W> {
    pub(crate) fn new(out: W, style: Style) -> Self {
        Self {
            out: BufWriter::with_capacity(BUFFER_BYTES, out),
            style,
            names: BTreeMap::new(),
            several: false,
            prefixes_stale: false,
            open_line: None,
            scratch: Vec::new(),
        }
    }

    /// Says beforehand that several streams will be shown.
    pub(crate) fn expect_several(&mut self) {
        self.several = true;
    }

    /// Takes note of a stream that lines may come of.
    pub(crate) fn announce(&mut self, stream: &v1::Stream) {
        let colour = PREFIX_COLOURS[self.names.len() % PREFIX_COLOURS.len()];
        let label = |name| stream.labels.get(name).map_or("?", String::as_str);
        let text = sanitise::plain(&format!("{}/{}", label("host"), label("source")));
        self.names.insert(
            stream.stream_id,
            Name {
                text,
                colour,
                prefix: Vec::new(),
            },
        );
        self.prefixes_stale = true;
        self.several |= self.names.len() > 1;
    }

    pub(crate) fn lines(&mut self, lines: &StreamLines) -> io::Result<()> {
        for line in lines.lines() {
            match self.style.output {
                Output::Text => self.text_line(lines.stream(), &line, "")?,
                Output::Json => json::write_line(&mut self.out, lines.stream(), &line, None)?,
                Output::Raw => write_raw(&mut self.out, &line)?,
            }
        }
        Ok(())
    }

    /// Prints one line of a stream.
    pub(crate) fn line(&mut self, stream: &v1::Stream, line: &Line<'_>) -> io::Result<()> {
        match self.style.output {
            Output::Text => self.text_line(stream, line, ""),
            Output::Json => json::write_line(&mut self.out, stream, line, None),
            Output::Raw => write_raw(&mut self.out, line),
        }
    }

    /// Prints one line that a search found, or one around it.
    pub(crate) fn found(
        &mut self,
        stream: &v1::Stream,
        line: &Line<'_>,
        is_hit: bool,
        with_sequence: bool,
    ) -> io::Result<()> {
        match self.style.output {
            Output::Text if with_sequence => {
                let mark = format!("{}{}", line.sequence, if is_hit { ": " } else { "- " });
                self.text_line(stream, line, &mark)
            }
            Output::Text => self.text_line(stream, line, ""),
            Output::Json => json::write_line(&mut self.out, stream, line, Some(is_hit)),
            Output::Raw => write_raw(&mut self.out, line),
        }
    }

    /// Says that lines are left out here.
    pub(crate) fn separator(&mut self) -> io::Result<()> {
        self.out.write_all(b"--\n")
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Ends a line that is still open on the terminal.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        if self.open_line.take().is_some() {
            self.out.write_all(b"\n")?;
        }
        self.out.flush()
    }

    /// `mark` stands before the text.
    fn text_line(&mut self, stream: &v1::Stream, line: &Line<'_>, mark: &str) -> io::Result<()> {
        if std::mem::take(&mut self.prefixes_stale) {
            make_prefixes(&mut self.names, self.style.colours);
        }
        let place = (stream.stream_id, line.channel);
        let out = &mut self.scratch;
        out.clear();
        if self.open_line != Some(place) {
            if self.open_line.is_some() {
                out.push(b'\n');
            }
            let prefixed = match self.style.prefix {
                Switch::Always => true,
                Switch::Never => false,
                Switch::Auto => self.several,
            };
            if prefixed && let Some(name) = self.names.get(&stream.stream_id) {
                out.extend_from_slice(&name.prefix);
            }
            if self.style.timestamps {
                out.extend_from_slice(rfc3339(line.time_unix_us).as_bytes());
                out.push(b' ');
            }
            out.extend_from_slice(mark.as_bytes());
        }
        if line.channel == v1::Channel::Notice {
            let (begin, end): (&[u8], &[u8]) = if self.style.colours {
                (b"\x1b[2m", b"\x1b[0m")
            } else {
                (b"", b"")
            };
            out.extend_from_slice(begin);
            out.extend_from_slice(b"[millstream] ");
            sanitise::push(out, line.text, false);
            out.extend_from_slice(end);
        } else {
            sanitise::push(out, line.text, self.style.colours);
        }
        self.open_line = line.partial.then_some(place);
        if !line.partial {
            out.push(b'\n');
        }
        self.out.write_all(out)
    }
}

/// Bytes as produced: the text, and a newline unless none was read. Notices are Millstream's own.
fn write_raw(out: &mut impl Write, line: &Line<'_>) -> io::Result<()> {
    if line.channel == v1::Channel::Notice {
        return Ok(());
    }
    out.write_all(line.text)?;
    if line.partial {
        Ok(())
    } else {
        out.write_all(b"\n")
    }
}

/// Makes each `host/source`, with the stream's id where two share the name, in the stream's colour. All
/// are as wide as the widest, up to a limit, so that lines stand in a column.
fn make_prefixes(names: &mut BTreeMap<u64, Name>, colours: bool) {
    let mut uses: BTreeMap<String, u32> = BTreeMap::new();
    for name in names.values() {
        *uses.entry(name.text.clone()).or_default() += 1;
    }
    let titles: BTreeMap<u64, String> = names
        .iter()
        .map(|(stream_id, name)| match uses[&name.text] {
            1 => (*stream_id, name.text.clone()),
            _ => (*stream_id, format!("{}#{stream_id}", name.text)),
        })
        .collect();
    let width = titles
        .values()
        .map(|title| title.width())
        .max()
        .unwrap_or(0)
        .min(MAX_PREFIX_COLUMNS);
    for (name, title) in names.values_mut().zip(titles.values()) {
        let padding = " ".repeat(width.saturating_sub(title.width()));
        name.prefix = if colours {
            format!("\x1b[{}m{title}{padding} |\x1b[0m ", name.colour).into_bytes()
        } else {
            format!("{title}{padding} | ").into_bytes()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(stream_id: u64, host: &str) -> v1::Stream {
        let labels = [("host", host), ("source", "cargo")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        v1::Stream {
            stream_id,
            labels,
            ..v1::Stream::default()
        }
    }

    fn printed(
        output: Output,
        streams: &[v1::Stream],
        lines: &[(usize, &[u8], v1::Channel, bool)],
    ) -> String {
        let style = Style {
            output,
            colours: false,
            timestamps: false,
            prefix: Switch::Auto,
        };
        let mut printer = Printer::new(Vec::new(), style);
        streams.iter().for_each(|stream| printer.announce(stream));
        for (sequence, (stream, text, channel, partial)) in lines.iter().enumerate() {
            let line = Line {
                sequence: sequence as u64,
                time_unix_us: 0,
                channel: *channel,
                partial: *partial,
                severity: v1::Severity::Unspecified,
                text,
            };
            printer.line(&streams[*stream], &line).unwrap();
        }
        printer.finish().unwrap();
        String::from_utf8_lossy(printer.out.get_ref()).into_owned()
    }

    const OUT: v1::Channel = v1::Channel::Stdout;
    const ERR: v1::Channel = v1::Channel::Stderr;
    const NOTICE: v1::Channel = v1::Channel::Notice;

    #[test]
    fn one_stream_has_no_prefix_and_several_have_aligned_ones() {
        let (a, b) = (stream(1, "a"), stream(2, "build-2"));
        assert_eq!(
            printed(Output::Text, std::slice::from_ref(&a), &[(0, b"x", OUT, false)]),
            "x\n"
        );
        assert_eq!(
            printed(
                Output::Text,
                &[a.clone(), b],
                &[(0, b"x", OUT, false), (1, b"y", OUT, false)]
            ),
            "a/cargo       | x\nbuild-2/cargo | y\n"
        );
        assert_eq!(
            printed(Output::Text, &[a, stream(2, "a")], &[(1, b"y", OUT, false)]),
            "a/cargo#2 | y\n"
        );
    }

    #[test]
    fn a_hostile_host_name_is_harmless_in_the_prefix() {
        let streams = [stream(1, "\x1b]0;x\x07"), stream(2, "b")];
        let text = printed(Output::Text, &streams, &[(0, b"x", OUT, false)]);
        assert_eq!(text, "^[]0;x^G/cargo | x\n");
    }

    #[test]
    fn pieces_of_a_line_are_shown_on_one_line_unless_another_comes_between() {
        let one = [stream(1, "a")];
        let pieces: [(usize, &[u8], _, _); 5] = [
            (0, b"ab", OUT, true),
            (0, b"cd", OUT, false),
            (0, b"prompt> ", OUT, true),
            (0, b"error", ERR, false),
            (0, b"end", OUT, true),
        ];
        assert_eq!(
            printed(Output::Text, &one, &pieces),
            "abcd\nprompt> \nerror\nend\n"
        );
    }

    #[test]
    fn raw_is_what_was_produced_without_notices() {
        let one = [stream(1, "a")];
        let lines: [(usize, &[u8], _, _); 4] = [
            (0, b"\x1b[2J\r", OUT, false),
            (0, b"plugin-restarted: it exited", NOTICE, false),
            (0, b"no new", ERR, true),
            (0, b"line", ERR, true),
        ];
        assert_eq!(printed(Output::Raw, &one, &lines), "\x1b[2J\r\nno newline");
        assert_eq!(
            printed(Output::Text, &one, &lines[..2]),
            "^[[2J\n[millstream] plugin-restarted: it exited\n"
        );
    }
}
