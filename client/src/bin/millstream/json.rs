//! Lines and lists as JSON, one object a line.

use std::collections::BTreeMap;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use millstream_client::{Line, v1};
use serde::Serialize;

use crate::sanitise::is_deceptive;
use crate::when::rfc3339;

#[derive(Serialize)]
struct JsonLine<'a> {
    stream: u64,
    sequence: u64,
    time: String,
    channel: &'static str,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text_base64: Option<String>,
    partial: bool,
    /// Only where the agent determined it.
    #[serde(skip_serializing_if = "Option::is_none")]
    severity: Option<&'static str>,
    /// Only in the answer of a search.
    #[serde(skip_serializing_if = "Option::is_none")]
    hit: Option<bool>,
    labels: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
pub(crate) struct JsonStream<'a> {
    pub(crate) stream: u64,
    pub(crate) state: &'static str,
    pub(crate) agent: &'a str,
    pub(crate) instance: &'a str,
    pub(crate) first_sequence: u64,
    pub(crate) next_sequence: u64,
    pub(crate) text_bytes: u64,
    pub(crate) created: Option<String>,
    pub(crate) last_line: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) run: Option<JsonRun<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) end: Option<JsonEnd<'a>>,
    pub(crate) labels: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
pub(crate) struct JsonRun<'a> {
    run: &'a str,
    argv: &'a [String],
    cwd: &'a str,
    env: &'a BTreeMap<String, String>,
    started_by: &'a str,
    start: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct JsonEnd<'a> {
    reason: &'static str,
    end: Option<String>,
    exit_code: Option<i32>,
    signal: Option<i32>,
    message: &'a str,
}

#[derive(Serialize)]
pub(crate) struct JsonAgent<'a> {
    pub(crate) agent: &'a str,
    pub(crate) host: &'a str,
    pub(crate) state: &'static str,
    pub(crate) version: &'a str,
    pub(crate) connected: Option<String>,
    pub(crate) disconnected: Option<String>,
    pub(crate) labels: &'a BTreeMap<String, String>,
}

/// Writes one line of a stream; of a search with whether it is a hit.
pub(crate) fn write_line(
    out: &mut impl Write,
    stream: &v1::Stream,
    line: &Line<'_>,
    hit: Option<bool>,
) -> io::Result<()> {
    let text = String::from_utf8_lossy(line.text);
    let is_utf8 = matches!(text, std::borrow::Cow::Borrowed(_));
    write(
        out,
        &JsonLine {
            stream: stream.stream_id,
            sequence: line.sequence,
            time: rfc3339(line.time_unix_us),
            channel: channel(line.channel),
            text: &text,
            text_base64: (!is_utf8).then(|| STANDARD.encode(line.text)),
            partial: line.partial,
            severity: severity(line.severity),
            hit,
            labels: &stream.labels,
        },
    )
}

fn severity(severity: v1::Severity) -> Option<&'static str> {
    match severity {
        v1::Severity::Unspecified => None,
        v1::Severity::None => Some("none"),
        v1::Severity::Warning => Some("warning"),
        v1::Severity::Error => Some("error"),
    }
}

/// Writes one object and a newline. Characters that a terminal would obey or that deceive a reader are
/// escaped, which JSON allows and parsers undo.
pub(crate) fn write(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_string(value)?;
    // They stand only inside strings: everything else that serde_json writes is ASCII.
    if text.chars().any(is_deceptive) {
        let mut escaped = String::with_capacity(text.len() + 16);
        for character in text.chars() {
            if is_deceptive(character) {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    escaped.push_str(&format!("\\u{unit:04x}"));
                }
            } else {
                escaped.push(character);
            }
        }
        text = escaped;
    }
    text.push('\n');
    out.write_all(text.as_bytes())
}

/// A time as JSON has it; none when the relay has none.
pub(crate) fn time(unix_us: i64) -> Option<String> {
    (unix_us != 0).then(|| rfc3339(unix_us))
}

pub(crate) fn stream(stream: &v1::Stream) -> JsonStream<'_> {
    JsonStream {
        stream: stream.stream_id,
        state: stream_state(stream),
        agent: &stream.agent_id,
        instance: &stream.instance,
        first_sequence: stream.first_sequence,
        next_sequence: stream.next_sequence,
        text_bytes: stream.text_bytes,
        created: time(stream.created_unix_us),
        last_line: time(stream.last_line_unix_us),
        run: stream.run.as_ref().map(|run| JsonRun {
            run: &run.run_id,
            argv: &run.argv,
            cwd: &run.cwd,
            env: &run.env,
            started_by: &run.started_by,
            start: time(run.start_unix_us),
        }),
        end: stream.end.as_ref().map(|end| JsonEnd {
            reason: end_reason(end),
            end: time(end.end_unix_us),
            exit_code: end.exit_code,
            signal: end.signal,
            message: &end.message,
        }),
        labels: &stream.labels,
    }
}

pub(crate) fn stream_state(stream: &v1::Stream) -> &'static str {
    match stream.state() {
        v1::StreamState::Live => "live",
        v1::StreamState::Away => "away",
        v1::StreamState::Ended => "ended",
        v1::StreamState::Unspecified => "unknown",
    }
}

pub(crate) fn agent_state(agent: &v1::Agent) -> &'static str {
    match agent.state() {
        v1::AgentState::Connected => "connected",
        v1::AgentState::Away => "away",
        v1::AgentState::Unspecified => "unknown",
    }
}

fn end_reason(end: &v1::StreamEnd) -> &'static str {
    match end.reason() {
        v1::EndReason::Exited => "exited",
        v1::EndReason::EndOfInput => "end-of-input",
        v1::EndReason::StartFailed => "start-failed",
        v1::EndReason::Lost => "lost",
        v1::EndReason::Unspecified => "unknown",
    }
}

fn channel(channel: v1::Channel) -> &'static str {
    match channel {
        v1::Channel::Stdout => "stdout",
        v1::Channel::Stderr => "stderr",
        v1::Channel::Notice => "notice",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &[u8], partial: bool) -> String {
        let labels = [("host", "build-1"), ("source", "cargo")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let stream = v1::Stream {
            stream_id: 7,
            labels,
            ..v1::Stream::default()
        };
        let line = Line {
            sequence: 120,
            time_unix_us: 1_764_000_000_000_042,
            channel: v1::Channel::Stderr,
            partial,
            severity: v1::Severity::Unspecified,
            text,
        };
        let mut out = Vec::new();
        write_line(&mut out, &stream, &line, None).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_is_one_object_with_everything_that_is_known_of_it() {
        assert_eq!(
            written(b"\x1b[31merror\x1b[0m: \"x\"\t", false),
            concat!(
                r#"{"stream":7,"sequence":120,"time":"2025-11-24T16:00:00.000042Z","channel":"stderr","#,
                r#""text":"\u001b[31merror\u001b[0m: \"x\"\t","partial":false,"#,
                r#""labels":{"host":"build-1","source":"cargo"}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn bytes_that_are_not_text_are_added_in_base64() {
        let text = written(b"caf\xe9", true);
        assert!(
            text.contains(r#""text":"caf�","text_base64":"Y2Fm6Q==","partial":true"#),
            "{text}"
        );
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_parses_back() {
        let original = "a\u{9b}2J\u{7f}\u{202e}\u{e0041}b";
        let text = written(original.as_bytes(), false);
        assert!(!text.chars().any(is_deceptive), "{text:?}");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["text"], original);
    }
}
