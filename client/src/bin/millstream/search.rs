//! `millstream search`: stored lines that match, on the relay's side.

use std::collections::BTreeMap;
use std::io::{self, Write};

use millstream_client::{Client, Line, OpenBlock, v1};
use v1::search_response::Message;

use crate::args::{Output, SearchArgs, SearchSeverity};
use crate::explain::Failure;
use crate::print::{Printer, Style};
use crate::sanitise;

pub(crate) async fn run(client: Client, args: &SearchArgs) -> Result<(), Failure> {
    let failed = |status| Failure::of_selection(client.error(&status, "searching"), &args.selector);
    let responses = client.log().search(request(args)).await;
    let mut responses = responses.map_err(failed)?.into_inner();
    let style = Style {
        output: args.output,
        colours: args.color.colours(),
        timestamps: args.timestamps,
        prefix: args.prefix,
    };
    let mut out = Out {
        printer: Printer::new(io::stdout(), style),
        streams: BTreeMap::new(),
        args,
        last: None,
    };
    let mut end = v1::SearchProgress::default();
    let mut has_lost_lines = false;
    while let Some(response) = responses.message().await.map_err(failed)? {
        match response.message {
            Some(Message::Stream(stream)) => {
                out.printer.announce(&stream);
                out.streams.insert(stream.stream_id, (stream, Vec::new()));
            }
            Some(Message::Context(lines)) => out.take(&lines, false)?,
            Some(Message::Hits(lines)) => {
                out.take(&lines, true)?;
                out.print(lines.stream_id)?;
                out.printer.flush()?;
            }
            Some(Message::Gap(gap)) => {
                has_lost_lines = true;
                out.printer.flush()?;
                eprintln!(
                    "millstream: stream {}: lines {} to {} (exclusive) were not searched: {}",
                    gap.stream_id,
                    gap.first_sequence,
                    gap.next_sequence,
                    sanitise::plain(&gap.message)
                );
            }
            Some(Message::Progress(progress)) => end = progress,
            None => {}
        }
    }
    out.printer.finish()?;
    if !end.done {
        return Err(Failure::Failed(
            "the relay ended the search before it was complete".to_owned(),
        ));
    }
    if end.limit_reached {
        eprintln!(
            "millstream: stopped after {} hits; --max-hits, --since or --until show others",
            end.hits
        );
    }
    if has_lost_lines {
        return Err(Failure::Failed("some lines could not be searched".to_owned()));
    }
    if end.hits == 0 {
        return Err(Failure::NothingFound);
    }
    Ok(())
}

fn request(args: &SearchArgs) -> v1::SearchRequest {
    let (substring, regex) = if args.fixed_string {
        (args.pattern.clone(), String::new())
    } else {
        (String::new(), args.pattern.clone())
    };
    let severities = args.severity.iter().map(|severity| match severity {
        SearchSeverity::Warning => v1::Severity::Warning.into(),
        SearchSeverity::Error => v1::Severity::Error.into(),
    });
    v1::SearchRequest {
        selector: args.selector.clone(),
        stream_ids: args.stream.into_iter().collect(),
        filter: Some(v1::Filter {
            substring,
            regex,
            ignore_case: args.ignore_case,
            invert: args.invert,
            severities: severities.collect(),
            ..v1::Filter::default()
        }),
        since_unix_us: args.since.map_or(0, |since| since.unix_us.max(0)),
        // The last microsecond wanted, as for `tail`; on the wire it is the first one not wanted.
        until_unix_us: args
            .until
            .map_or(0, |until| until.unix_us.saturating_add(1).max(1)),
        order: if args.oldest_first {
            v1::SearchOrder::OldestFirst.into()
        } else {
            v1::SearchOrder::NewestFirst.into()
        },
        context_lines: args.context,
        max_hits: args.max_hits,
        ..v1::SearchRequest::default()
    }
}

/// A line that waits for the hits around which it stands, or is one.
#[derive(Debug)]
struct Shown {
    sequence: u64,
    time_unix_us: i64,
    channel: v1::Channel,
    severity: v1::Severity,
    text: Vec<u8>,
    is_hit: bool,
}

struct Out<'a, W: Write> {
    printer: Printer<W>,
    /// Streams that were announced, and lines of each that are not printed yet.
    streams: BTreeMap<u64, (v1::Stream, Vec<Shown>)>,
    args: &'a SearchArgs,
    /// Stream and sequence of the edge that was printed last, towards what comes next.
    last: Option<(u64, u64)>,
}

impl<W: Write> Out<'_, W> {
    fn take(&mut self, lines: &v1::StreamBlock, is_hit: bool) -> Result<(), Failure> {
        let (Some((_, shown)), Some(block)) = (self.streams.get_mut(&lines.stream_id), &lines.block) else {
            return Err(Failure::Failed(
                "the relay sent lines of a stream that it did not announce".to_owned(),
            ));
        };
        let open = OpenBlock::open(block).map_err(|source| millstream_client::Error::BadBlock {
            stream_id: lines.stream_id,
            source,
        })?;
        shown.extend(open.lines().map(|line| Shown {
            sequence: line.sequence,
            time_unix_us: line.time_unix_us,
            severity: line.severity,
            channel: line.channel,
            text: line.text.to_vec(),
            is_hit,
        }));
        Ok(())
    }

    /// Prints what a stream has: groups of neighbours, each in order; the groups newest first, or oldest first.
    fn print(&mut self, stream_id: u64) -> io::Result<()> {
        let Some((stream, shown)) = self.streams.get_mut(&stream_id) else {
            return Ok(());
        };
        shown.sort_unstable_by_key(|line| line.sequence);
        let has_context = self.args.context > 0;
        let mut groups: Vec<&[Shown]> = shown
            .chunk_by(|a, b| has_context && a.sequence + 1 == b.sequence)
            .collect();
        if !self.args.oldest_first {
            groups.reverse();
        }
        for group in groups {
            let (Some(first), Some(last)) = (group.first(), group.last()) else {
                continue;
            };
            // What a reader expects next when nothing is left out.
            let (begin, end) = if self.args.oldest_first {
                (first.sequence, last.sequence + 1)
            } else {
                (last.sequence + 1, first.sequence)
            };
            let is_apart = self.last.is_some_and(|last| last != (stream_id, begin));
            if has_context && is_apart && self.args.output == Output::Text {
                self.printer.separator()?;
            }
            self.last = Some((stream_id, end));
            for shown in group {
                let line = Line {
                    sequence: shown.sequence,
                    time_unix_us: shown.time_unix_us,
                    channel: shown.channel,
                    // A hit stands alone: the rest of its line may not be shown.
                    partial: false,
                    severity: shown.severity,
                    text: &shown.text,
                };
                self.printer
                    .found(stream, &line, shown.is_hit, self.args.line_number)?;
            }
        }
        shown.clear();
        Ok(())
    }
}
