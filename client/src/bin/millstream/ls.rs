//! `millstream ls`: what there is.

use std::collections::BTreeSet;
use std::io::{self, Write};

use jiff::Timestamp;
use millstream_client::{Client, v1};

use crate::args::{ListKind, ListOutput, LsArgs};
use crate::explain::Failure;
use crate::{json, table};

/// Labels that have a column of their own.
const COLUMN_LABELS: [&str; 5] = ["host", "agent", "source", "path", "run"];

pub(crate) async fn run(client: Client, args: &LsArgs) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let count = match args.what {
        ListKind::Streams => {
            let streams = streams(&client, &args.selector).await?;
            write_streams(&mut out, &streams, args.output)?;
            streams.len()
        }
        ListKind::Runs => {
            // Runs are the streams that have the built-in label `run`.
            let selector = if args.selector.is_empty() {
                "run".to_owned()
            } else {
                format!("{},run", args.selector)
            };
            let runs = streams(&client, &selector).await?;
            write_runs(&mut out, &runs, args.output)?;
            runs.len()
        }
        ListKind::Agents => {
            let agents = agents(&client, &args.selector).await?;
            write_agents(&mut out, &agents, args.output)?;
            agents.len()
        }
    };
    out.flush()?;
    if count == 0 && args.output == ListOutput::Text {
        let what = match args.what {
            ListKind::Streams => "streams",
            ListKind::Runs => "runs",
            ListKind::Agents => "agents",
        };
        eprintln!("millstream: no {what} found");
    }
    Ok(())
}

async fn streams(client: &Client, selector: &str) -> Result<Vec<v1::Stream>, Failure> {
    let streams = client.list_streams(selector).all().await;
    streams.map_err(|error| Failure::of_selection(error, selector))
}

async fn agents(client: &Client, selector: &str) -> Result<Vec<v1::Agent>, Failure> {
    let mut agents = client.list_agents().all().await?;
    if !selector.is_empty() {
        let selected = streams(client, selector).await?;
        let selected: BTreeSet<_> = selected.into_iter().map(|stream| stream.agent_id).collect();
        agents.retain(|agent| selected.contains(&agent.agent_id));
    }
    Ok(agents)
}

fn write_streams(out: &mut impl Write, streams: &[v1::Stream], output: ListOutput) -> io::Result<()> {
    if output == ListOutput::Json {
        return streams
            .iter()
            .try_for_each(|stream| json::write(out, &json::stream(stream)));
    }
    let now = Timestamp::now().as_microsecond();
    let rows: Vec<_> = streams
        .iter()
        .map(|stream| {
            vec![
                stream.stream_id.to_string(),
                json::stream_state(stream).to_owned(),
                label(stream, "host"),
                label(stream, "source"),
                (stream.next_sequence - stream.first_sequence.min(stream.next_sequence)).to_string(),
                table::size(stream.text_bytes),
                table::age(stream.last_line_unix_us, now),
                stream.instance.clone(),
                other_labels(stream),
            ]
        })
        .collect();
    let header = [
        "ID",
        "STATE",
        "HOST",
        "SOURCE",
        "LINES",
        "SIZE",
        "LAST LINE",
        "INSTANCE",
        "LABELS",
    ];
    write_rows(out, &header, &rows)
}

fn write_runs(out: &mut impl Write, runs: &[v1::Stream], output: ListOutput) -> io::Result<()> {
    if output == ListOutput::Json {
        return write_streams(out, runs, output);
    }
    let now = Timestamp::now().as_microsecond();
    let rows: Vec<_> = runs
        .iter()
        .map(|stream| {
            let run = stream.run.as_ref();
            vec![
                stream.stream_id.to_string(),
                fate(stream),
                label(stream, "host"),
                label(stream, "source"),
                stream.next_sequence.to_string(),
                table::age(run.map_or(0, |run| run.start_unix_us), now),
                run.map_or_else(|| stream.instance.clone(), |run| run.run_id.clone()),
                run.map_or_else(String::new, |run| run.argv.join(" ")),
            ]
        })
        .collect();
    let header = [
        "STREAM", "STATE", "HOST", "SOURCE", "LINES", "STARTED", "RUN", "COMMAND",
    ];
    write_rows(out, &header, &rows)
}

fn write_agents(out: &mut impl Write, agents: &[v1::Agent], output: ListOutput) -> io::Result<()> {
    if output == ListOutput::Json {
        return agents.iter().try_for_each(|agent| {
            let value = json::JsonAgent {
                agent: &agent.agent_id,
                host: &agent.host,
                state: json::agent_state(agent),
                version: &agent.version,
                connected: json::time(agent.connected_unix_us),
                disconnected: json::time(agent.disconnected_unix_us),
                labels: &agent.labels,
            };
            json::write(out, &value)
        });
    }
    let now = Timestamp::now().as_microsecond();
    let rows: Vec<_> = agents
        .iter()
        .map(|agent| {
            let labels: Vec<_> = agent
                .labels
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            let since = agent.connected_unix_us.max(agent.disconnected_unix_us);
            vec![
                agent.agent_id.clone(),
                json::agent_state(agent).to_owned(),
                agent.host.clone(),
                table::age(since, now),
                agent.version.clone(),
                labels.join(","),
            ]
        })
        .collect();
    write_rows(
        out,
        &["AGENT", "STATE", "HOST", "SINCE", "VERSION", "LABELS"],
        &rows,
    )
}

/// A list without rows is told on standard error instead.
fn write_rows(out: &mut impl Write, header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    if rows.is_empty() {
        Ok(())
    } else {
        table::write(out, header, rows)
    }
}

fn label(stream: &v1::Stream, name: &str) -> String {
    stream.labels.get(name).cloned().unwrap_or_default()
}

fn other_labels(stream: &v1::Stream) -> String {
    let labels = stream
        .labels
        .iter()
        .filter(|(name, _)| !COLUMN_LABELS.contains(&name.as_str()));
    labels
        .map(|(name, value)| format!("{name}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}

/// How a run stands or how it ended.
fn fate(stream: &v1::Stream) -> String {
    let Some(end) = &stream.end else {
        return json::stream_state(stream).to_owned();
    };
    match (end.reason(), end.exit_code, end.signal) {
        (_, _, Some(signal)) => format!("signal {signal}"),
        (_, Some(0), None) => "ok".to_owned(),
        (_, Some(code), None) => format!("exit {code}"),
        (v1::EndReason::StartFailed, ..) => "start failed".to_owned(),
        (v1::EndReason::Lost, ..) => "lost".to_owned(),
        _ => "ended".to_owned(),
    }
}
