//! The plugin protocol, version 1: what the agent writes to a plugin's standard input and what it reads, line
//! by line, from its standard output. Parsing only; who acts on it is [`super::source`].

use std::collections::BTreeMap;

use millstream_proto::limits::MAX_LINE_BYTES;
use millstream_proto::v1::Channel;
use serde::{Deserialize, Serialize};

use super::schema::Values;
use super::timestamp;

/// The version that this agent speaks.
pub const VERSION: u32 = 1;

/// Longest line of protocol: a line of text at its limit whose every byte is escaped would be longer, but no
/// plugin has to print one.
pub const MAX_MESSAGE_BYTES: usize = 2 << 20;

/// Longest checkpoint, as JSON text. The relay takes 64 KiB with what the agent adds.
pub const MAX_CHECKPOINT_BYTES: usize = 16 << 10;

const MAX_STREAM_NAME_BYTES: usize = 255;

/// What a plugin gets, as one line of JSON; then its standard input ends.
#[derive(Debug, Serialize)]
pub struct Request<'a> {
    pub protocol: u32,
    /// Name of the source in the agent's configuration.
    pub source: &'a str,
    pub settings: &'a Values,
    /// The last checkpoint of each stream that has one. Only for plugins that can resume.
    pub checkpoints: BTreeMap<&'a str, &'a str>,
    /// Streams that were ended and take no line any more.
    pub ended: Vec<&'a str>,
}

/// One line of a plugin's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Line(Line),
    /// Everything printed for the stream so far is before this point.
    Checkpoint {
        stream: String,
        checkpoint: String,
    },
    /// No line follows in the stream, ever.
    End {
        stream: String,
    },
    Status {
        state: State,
        message: String,
    },
}

/// A line of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Empty: the source's only stream.
    pub stream: String,
    pub text: Vec<u8>,
    pub channel: Channel,
    /// Microseconds since the Unix epoch; `None`: now.
    pub time_unix_us: Option<i64>,
    /// The checkpoint after this line.
    pub checkpoint: Option<String>,
}

/// How a plugin says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Running,
    Idle,
    Retrying,
    Failed,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum Raw {
    Line {
        text: Option<String>,
        base64: Option<String>,
        time: Option<RawTime>,
        channel: Option<RawChannel>,
        #[serde(default)]
        stream: String,
        checkpoint: Option<String>,
    },
    Checkpoint {
        #[serde(default)]
        stream: String,
        checkpoint: String,
    },
    End {
        #[serde(default)]
        stream: String,
    },
    Status {
        state: State,
        #[serde(default)]
        message: String,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawTime {
    /// RFC 3339.
    Text(String),
    /// Microseconds since the Unix epoch.
    UnixUs(i64),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawChannel {
    Stdout,
    Stderr,
}

/// Parses one line of output, without its `\n`.
///
/// # Errors
/// A sentence for the plugin's author.
pub fn parse(line: &[u8]) -> Result<Message, String> {
    let raw: Raw = serde_json::from_slice(line).map_err(|error| {
        let hint = if line.first() == Some(&b'{') {
            ""
        } else {
            " (every line of standard output is one JSON object; print what is for people to standard error)"
        };
        format!("{error}{hint}")
    })?;
    match raw {
        Raw::Line {
            text,
            base64,
            time,
            channel,
            stream,
            checkpoint,
        } => {
            let text = match (text, base64) {
                (Some(text), None) => text.into_bytes(),
                (None, Some(text)) => decode_base64(&text)?,
                _ => return Err("a line has either `text` or `base64`".to_owned()),
            };
            if text.contains(&b'\n') {
                return Err("the text holds a newline; print one `line` for each line".to_owned());
            }
            if text.len() > MAX_LINE_BYTES {
                return Err(format!(
                    "the text has {} bytes; the limit is {MAX_LINE_BYTES}",
                    text.len()
                ));
            }
            check_stream(&stream)?;
            if let Some(checkpoint) = &checkpoint {
                check_checkpoint(checkpoint)?;
            }
            let time_unix_us = match time {
                None => None,
                Some(RawTime::UnixUs(time)) => Some(time),
                Some(RawTime::Text(text)) => Some(timestamp::rfc3339(text.as_bytes()).ok_or_else(|| {
                    format!("time {text:?} is neither RFC 3339 nor an integer of microseconds since 1970")
                })?),
            };
            let channel = match channel {
                Some(RawChannel::Stderr) => Channel::Stderr,
                Some(RawChannel::Stdout) | None => Channel::Stdout,
            };
            Ok(Message::Line(Line {
                stream,
                text,
                channel,
                time_unix_us,
                checkpoint,
            }))
        }
        Raw::Checkpoint { stream, checkpoint } => {
            check_stream(&stream)?;
            check_checkpoint(&checkpoint)?;
            Ok(Message::Checkpoint { stream, checkpoint })
        }
        Raw::End { stream } => {
            check_stream(&stream)?;
            Ok(Message::End { stream })
        }
        Raw::Status { state, mut message } => {
            message.retain(|character| !character.is_control());
            crate::text::truncate(&mut message, 500);
            Ok(Message::Status { state, message })
        }
    }
}

fn decode_base64(text: &str) -> Result<Vec<u8>, String> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .map_err(|error| format!("base64: {error}"))
}

fn check_stream(stream: &str) -> Result<(), String> {
    if stream.len() > MAX_STREAM_NAME_BYTES || stream.chars().any(char::is_control) {
        return Err(format!(
            "the stream's name has more than {MAX_STREAM_NAME_BYTES} bytes or control characters"
        ));
    }
    Ok(())
}

fn check_checkpoint(checkpoint: &str) -> Result<(), String> {
    if checkpoint.is_empty() {
        return Err("the checkpoint is empty".to_owned());
    }
    if checkpoint.len() > MAX_CHECKPOINT_BYTES {
        return Err(format!(
            "the checkpoint has {} bytes; the limit is {MAX_CHECKPOINT_BYTES}",
            checkpoint.len()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(text: &str) -> Line {
        let Ok(Message::Line(line)) = parse(text.as_bytes()) else {
            panic!("{text} is a line");
        };
        line
    }

    #[test]
    fn a_line_says_what_it_is_where_it_belongs_and_when_it_was() {
        let plain = line(r#"{"type":"line","text":"hello"}"#);
        assert_eq!(plain.text, b"hello");
        assert_eq!((plain.channel, plain.time_unix_us), (Channel::Stdout, None));
        let full = line(
            r#"{"type":"line","base64":"/wo=","time":"2026-11-25T09:00:00.5Z","channel":"stderr","stream":"a","checkpoint":"7"}"#
                .replace("/wo=", "/w==")
                .as_str(),
        );
        assert_eq!(full.text, [0xff]);
        assert_eq!(full.channel, Channel::Stderr);
        assert_eq!(full.time_unix_us, Some(1_795_597_200_500_000));
        assert_eq!(
            (full.stream.as_str(), full.checkpoint.as_deref()),
            ("a", Some("7"))
        );
        assert_eq!(
            line(r#"{"type":"line","text":"x","time":12}"#).time_unix_us,
            Some(12)
        );
    }

    #[test]
    fn what_is_wrong_is_said_to_the_author() {
        for (text, expected) in [
            ("hello", "print what is for people to standard error"),
            ("{}", "missing field `type`"),
            (r#"{"type":"lines"}"#, "unknown variant `lines`"),
            (r#"{"type":"line"}"#, "either `text` or `base64`"),
            (
                r#"{"type":"line","text":"a","base64":"YQ=="}"#,
                "either `text` or `base64`",
            ),
            (
                r#"{"type":"line","text":"a","chanel":"stderr"}"#,
                "unknown field `chanel`",
            ),
            (r#"{"type":"line","text":"a\nb"}"#, "holds a newline"),
            (r#"{"type":"line","base64":"!"}"#, "base64"),
            (r#"{"type":"line","text":"a","time":"yesterday"}"#, "RFC 3339"),
            (
                r#"{"type":"line","text":"a","stream":"a\u0007"}"#,
                "control characters",
            ),
            (r#"{"type":"checkpoint","checkpoint":""}"#, "empty"),
            (r#"{"type":"checkpoint"}"#, "missing field `checkpoint`"),
            (r#"{"type":"status","state":"fine"}"#, "unknown variant `fine`"),
        ] {
            let problem = parse(text.as_bytes()).unwrap_err();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_as_a_line_arrive_as_they_were(text: Vec<u8>, stream in "[a-z/]{0,20}", time: Option<i64>) {
            use base64::Engine as _;
            let mut message = serde_json::json!({
                "type": "line",
                "base64": base64::engine::general_purpose::STANDARD.encode(&text),
                "stream": stream,
            });
            if let Some(time) = time {
                message["time"] = time.into();
            }
            let parsed = parse(message.to_string().as_bytes());
            if text.contains(&b'\n') {
                prop_assert!(parsed.is_err());
            } else {
                let Ok(Message::Line(line)) = parsed else { panic!("it is a line") };
                prop_assert_eq!((line.text, line.stream, line.time_unix_us), (text, stream, time));
            }
        }

        #[test]
        fn any_text_as_a_line_arrives_as_it_was(text in "[^\n]*") {
            let message = serde_json::json!({"type": "line", "text": text});
            let Ok(Message::Line(line)) = parse(message.to_string().as_bytes()) else { panic!("it is a line") };
            prop_assert_eq!(line.text, text.into_bytes());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }

        #[test]
        fn what_nearly_is_a_message_never_panics(cut in 0_usize..120, byte: u8, at in 0_usize..120) {
            let mut text =
                br#"{"type":"line","text":"x","time":"2026-11-25T09:00:00.123456789+01:00","channel":"stderr","checkpoint":"7"}"#
                    .to_vec();
            let end = text.len();
            text[at.min(end - 1)] = byte;
            text.truncate(cut);
            let _ = parse(&text);
        }
    }
}
