//! `millstream tail`: lines as they are and as they come.

use std::io;
use std::time::Duration;

use futures_util::FutureExt;
use millstream_client::{Client, Error, Event, Start, StreamLines, TailOptions, v1};

use crate::args::{LineCount, Output, Switch, TailArgs};
use crate::explain::Failure;
use crate::print::{Printer, Style};
use crate::sanitise;

/// Lines of each stream when nobody says how many; what tail(1) and people expect.
const DEFAULT_LINES: u64 = 10;
/// Somebody who follows waits for the relay for ever; a script that reads history gets an answer.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

pub(crate) async fn run(client: Client, args: &TailArgs) -> Result<(), Failure> {
    let style = Style {
        output: args.output,
        colours: args.color.colours(),
        timestamps: args.timestamps,
        prefix: args.prefix,
    };
    let mut printer = Printer::new(io::stdout(), style);
    if args.output == Output::Text
        && args.prefix == Switch::Auto
        && args.stream.is_none()
        && has_several(&client, &args.selector).await?
    {
        printer.expect_several();
    }
    let mut subscription = client
        .tail(options(args))
        .await
        .map_err(|error| failure(error, args))?;
    let mut announced = 0;
    loop {
        // Buffered lines go out as soon as nothing else is at hand.
        let event = match subscription.next().now_or_never() {
            Some(event) => event,
            None => {
                printer.flush()?;
                subscription.next().await
            }
        };
        let event = match event {
            Ok(Some(event)) => event,
            Ok(None) => break,
            Err(error) => {
                printer.finish()?;
                return Err(failure(error, args));
            }
        };
        match event {
            Event::StreamAnnounced(stream) => {
                announced += 1;
                printer.announce(&stream);
            }
            Event::Lines(lines) => print_lines(&mut printer, &lines, args)?,
            event => {
                printer.flush()?;
                tell(&event);
                if matches!(event, Event::CaughtUp) && announced == 0 {
                    nothing_shown(&client, args).await?;
                }
            }
        }
    }
    printer.finish()?;
    Ok(())
}

fn print_lines<W: io::Write>(
    printer: &mut Printer<W>,
    lines: &StreamLines,
    args: &TailArgs,
) -> Result<(), Failure> {
    let Some(until) = args.until else {
        return Ok(printer.lines(lines)?);
    };
    // Capture times need not grow with the sequence (clocks are set back), so each line is asked.
    for line in lines.lines().filter(|line| line.time_unix_us <= until.unix_us) {
        printer.line(lines.stream(), &line)?;
    }
    Ok(())
}

fn options(args: &TailArgs) -> TailOptions {
    let looks_for = args.grep.is_some() || args.until.is_some();
    let start = match (args.since, args.lines) {
        (Some(since), _) => Start::SinceUnixUs(since.unix_us),
        (None, Some(LineCount::All)) => Start::Beginning,
        (None, Some(LineCount::Last(0))) => Start::Now,
        (None, Some(LineCount::Last(count))) => Start::LastLines(count),
        (None, None) if looks_for => Start::Beginning,
        (None, None) => Start::LastLines(DEFAULT_LINES),
    };
    let position = args.stream.zip(args.from_sequence);
    TailOptions {
        selector: args.selector.clone(),
        stream_ids: args.stream.into_iter().collect(),
        start,
        positions: position.into_iter().collect(),
        follow: args.follow,
        filter: args.grep.as_ref().map(|regex| v1::Filter {
            regex: regex.clone(),
            ignore_case: args.ignore_case,
            invert: args.invert,
            ..v1::Filter::default()
        }),
        give_up_after: (!args.follow).then_some(GIVE_UP_AFTER),
        ..TailOptions::default()
    }
}

/// Whether lines of more than one stream may come, so that the first line already has its prefix.
async fn has_several(client: &Client, selector: &str) -> Result<bool, Failure> {
    let mut streams = client.list_streams(selector);
    for _ in 0..2 {
        let stream = streams
            .next()
            .await
            .map_err(|error| Failure::of_selection(error, selector))?;
        if stream.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Tells a stream without lines (which is not announced unless it is followed) from one that does not
/// exist: a mistake when it was named, and a note when a selector found none.
async fn nothing_shown(client: &Client, args: &TailArgs) -> Result<(), Failure> {
    let mut streams = client.list_streams(&args.selector);
    while let Some(stream) = streams.next().await? {
        if args.stream.is_none_or(|stream_id| stream_id == stream.stream_id) {
            return Ok(());
        }
    }
    if let Some(stream_id) = args.stream {
        return Err(Failure::UnknownStream(stream_id));
    }
    let selector = sanitise::plain(&args.selector);
    let which = if selector.is_empty() {
        "yet".to_owned()
    } else {
        format!("that `{selector}` selects")
    };
    let then = if args.follow {
        "; waiting for one"
    } else {
        "; `millstream ls streams` lists all"
    };
    eprintln!("millstream: there is no stream {which}{then}");
    Ok(())
}

/// Says on standard error what is no line.
fn tell(event: &Event) {
    match event {
        Event::Gap { stream, gap } => eprintln!(
            "millstream: stream {}: lines {} to {} (exclusive) are missing: {}",
            stream.stream_id,
            gap.first_sequence,
            gap.next_sequence,
            sanitise::plain(&gap.message)
        ),
        // Each further attempt is the same news.
        Event::Reconnecting {
            reason, attempt: 1, ..
        } => {
            eprintln!(
                "millstream: {}; trying again",
                sanitise::plain(&reason.to_string())
            );
        }
        Event::Resumed { .. } => eprintln!("millstream: connected again, going on where it stopped"),
        _ => {}
    }
}

fn failure(error: Error, args: &TailArgs) -> Failure {
    match (error, args.stream) {
        (Error::NotFound { .. }, Some(stream_id)) => Failure::UnknownStream(stream_id),
        (error, _) => Failure::of_selection(error, &args.selector),
    }
}
