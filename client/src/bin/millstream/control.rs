//! `start`, `stop`, `restart`, `set-command` and `search`.

use std::io::{self, Write};

use millstream_client::{Client, StreamLines, v1};
use v1::search_response::Message;

use crate::args::{Command, SearchArgs, Switch};
use crate::explain::Failure;
use crate::print::{Printer, Style};
use crate::sanitise;

/// What a command acts on.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Source(v1::SourceTarget),
    Run(String),
}

fn target(text: &str) -> Target {
    match text.split_once('/') {
        Some((agent_id, source)) => Target::Source(v1::SourceTarget {
            agent_id: agent_id.to_owned(),
            source: source.to_owned(),
        }),
        None => Target::Run(text.to_owned()),
    }
}

fn source(text: &str) -> Result<v1::SourceTarget, Failure> {
    match target(text) {
        Target::Source(source) => Ok(source),
        Target::Run(_) => Err(Failure::Usage(format!(
            "`{}` names no source: write AGENT/SOURCE; `millstream ls agents` shows the agents",
            sanitise::plain(text)
        ))),
    }
}

/// Runs one of the control commands.
pub(crate) async fn run(client: Client, command: &Command) -> Result<(), Failure> {
    let mut control = client.control();
    let mut out = io::stdout();
    match command {
        Command::Start(args) => {
            let request = v1::StartRequest {
                target: Some(source(&args.target)?),
            };
            let response = control.start(request).await;
            let run = response
                .map_err(|status| client.error(&status, "starting"))?
                .into_inner()
                .run;
            writeln!(out, "started {}", run_id(run))?;
        }
        Command::Stop(args) => {
            use v1::stop_request::Target as Wire;
            let target = match target(&args.target) {
                Target::Source(source) => Wire::Source(source),
                Target::Run(run_id) => Wire::RunId(run_id),
            };
            let response = control.stop(v1::StopRequest { target: Some(target) }).await;
            response.map_err(|status| client.error(&status, "stopping"))?;
            writeln!(out, "stopped")?;
        }
        Command::Restart(args) => {
            use v1::restart_request::Target as Wire;
            let target = match target(&args.target) {
                Target::Source(source) => Wire::Source(source),
                Target::Run(run_id) => Wire::RunId(run_id),
            };
            let response = control.restart(v1::RestartRequest { target: Some(target) }).await;
            let run = response
                .map_err(|status| client.error(&status, "restarting"))?
                .into_inner()
                .run;
            writeln!(out, "restarted as {}", run_id(run))?;
        }
        Command::SetArgv(args) => {
            let request = v1::SetCommandRequest {
                target: Some(source(&args.target)?),
                argv: args.argv.clone(),
                expected_argv: args.expect.clone(),
            };
            let response = control.set_command(request).await;
            let response = response.map_err(|status| client.error(&status, "changing commands"))?;
            let previous = response.into_inner().previous_argv.join(" ");
            writeln!(out, "changed; it was: {}", sanitise::plain(&previous))?;
        }
        _ => return Err(Failure::Usage("this is not a control command".to_owned())),
    }
    Ok(())
}

fn run_id(run: Option<v1::Run>) -> String {
    run.map_or_else(|| "a run".to_owned(), |run| sanitise::plain(&run.run_id))
}

pub(crate) async fn search(client: Client, args: &SearchArgs) -> Result<(), Failure> {
    let request = v1::SearchRequest {
        selector: args.selector.clone(),
        filter: Some(v1::Filter {
            regex: args.pattern.clone(),
            ignore_case: args.ignore_case,
            ..v1::Filter::default()
        }),
        context_lines: args.context,
        max_hits: args.max_hits,
        codecs: vec![v1::Codec::None.into(), v1::Codec::Zstd.into()],
        ..v1::SearchRequest::default()
    };
    let failed = |status| Failure::of_selection(client.error(&status, "searching"), &args.selector);
    let mut responses = client.log().search(request).await.map_err(failed)?.into_inner();
    let style = Style {
        output: args.output,
        colours: args.color.colours(),
        timestamps: false,
        prefix: Switch::Auto,
    };
    let mut printer = Printer::new(io::stdout(), style);
    let mut streams = std::collections::BTreeMap::new();
    while let Some(response) = responses.message().await.map_err(failed)? {
        match response.message {
            Some(Message::Stream(stream)) => {
                printer.announce(&stream);
                streams.insert(stream.stream_id, std::sync::Arc::new(stream));
            }
            Some(Message::Hits(hits)) => {
                let (Some(stream), Some(block)) = (streams.get(&hits.stream_id), &hits.block) else {
                    return Err(Failure::Failed(
                        "the relay sent hits of an unknown stream".to_owned(),
                    ));
                };
                printer.lines(&StreamLines::open(std::sync::Arc::clone(stream), block)?)?;
                printer.flush()?;
            }
            Some(Message::Progress(_)) | None => {}
        }
    }
    printer.finish()?;
    Ok(())
}
