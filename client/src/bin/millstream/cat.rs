//! `millstream cat`: one stream from the store, exactly as it was produced.

use std::io::{self, IsTerminal};

use millstream_client::{Client, Error, ReadOptions};

use crate::args::{CatArgs, Output, Switch};
use crate::explain::Failure;
use crate::print::{Printer, Style};
use crate::sanitise;

pub(crate) async fn run(client: Client, args: &CatArgs) -> Result<(), Failure> {
    if args
        .to_sequence
        .is_some_and(|to| to <= args.from_sequence.unwrap_or(0))
    {
        return Err(Failure::Usage(
            "--to-sequence is the first line not wanted: it must be above --from-sequence".to_owned(),
        ));
    }
    let default = if io::stdout().is_terminal() {
        Output::Text
    } else {
        Output::Raw
    };
    let style = Style {
        output: args.output.unwrap_or(default),
        colours: args.color.colours(),
        timestamps: args.timestamps,
        prefix: Switch::Never,
    };
    let mut printer = Printer::new(io::stdout(), style);
    let mut pages = client.read(ReadOptions {
        stream_id: args.stream,
        from_sequence: args.from_sequence.unwrap_or(0),
        to_sequence: args.to_sequence,
        filter: None,
    });
    let mut missing_lines = 0;
    loop {
        let page = match pages.next().await {
            Ok(Some(page)) => page,
            Ok(None) => break,
            Err(error) => {
                // What was read before the failure is good.
                printer.finish()?;
                return Err(match error {
                    Error::NotFound { .. } => Failure::UnknownStream(args.stream),
                    error => Failure::Client(error),
                });
            }
        };
        if let Some(gap) = &page.gap {
            missing_lines += gap.next_sequence.saturating_sub(gap.first_sequence);
            printer.flush()?;
            eprintln!(
                "millstream: stream {}: lines {} to {} (exclusive) are not stored any more: {}",
                args.stream,
                gap.first_sequence,
                gap.next_sequence,
                sanitise::plain(&gap.message)
            );
        }
        for lines in &page.lines {
            printer.lines(lines)?;
        }
    }
    printer.finish()?;
    // Without a range, "all that is stored" was asked for, and that was printed.
    if missing_lines > 0 && args.from_sequence.is_some() {
        return Err(Failure::Failed(format!(
            "{missing_lines} of the lines asked for are missing"
        )));
    }
    Ok(())
}
