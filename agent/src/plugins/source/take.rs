//! What one part of a plugin's output does to its streams.

use millstream_proto::limits::MAX_LINE_BYTES;
use millstream_proto::v1::{Channel, SourceState};
use tokio::io::AsyncRead;

use super::super::catalog::Plugin;
use super::super::manifest::{JsonFields, LineTime, Output};
use super::super::position::Taken;
use super::super::protocol::{self, Message, State};
use super::super::reader::{LineReader, Part};
use super::super::streams::StreamError;
use super::decode::{self, Entry};
use super::{Run, SourceError};
use crate::lines::Piece;
use crate::outbox::{WriteError, now_unix_us};

/// How the output is read.
pub(in crate::plugins) enum Reading<'a> {
    Protocol,
    Json(&'a JsonFields),
    Lines { time: LineTime, stderr_is_output: bool },
}

impl<'a> Reading<'a> {
    pub(in crate::plugins) fn of(plugin: &'a Plugin) -> Self {
        match plugin {
            Plugin::Protocol(_) => Self::Protocol,
            Plugin::Manifest(manifest) => match &manifest.output {
                Output::Json(fields) => Self::Json(fields),
                Output::Lines {
                    time,
                    stderr_is_output,
                } => Self::Lines {
                    time: *time,
                    stderr_is_output: *stderr_is_output,
                },
            },
        }
    }

    pub(in crate::plugins) fn stderr_is_output(&self) -> bool {
        matches!(
            self,
            Self::Lines {
                stderr_is_output: true,
                ..
            }
        )
    }

    /// Longer lines of text are split; longer lines of JSON are refused.
    pub(in crate::plugins) fn max_line_bytes(&self) -> usize {
        match self {
            Self::Protocol | Self::Json(_) => protocol::MAX_MESSAGE_BYTES,
            Self::Lines { .. } => MAX_LINE_BYTES,
        }
    }

    /// A line without its newline is sent after a short wait. Not where a time stands in front: such a line comes
    /// whole, and where it is cut has to be the same the next time.
    pub(super) fn sends_open_lines(&self) -> bool {
        matches!(
            self,
            Self::Lines {
                time: LineTime::None,
                ..
            }
        )
    }
}

const NO_CHECKPOINTS: &str = "a checkpoint, but --describe says that the plugin cannot resume (can_resume)";

/// Why the plugin's process is not listened to any more.
pub(super) enum Interrupt {
    Source(SourceError),
    Rewound,
}

impl From<SourceError> for Interrupt {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

impl From<WriteError> for Interrupt {
    fn from(error: WriteError) -> Self {
        match error {
            // The stream is asked for its position again before the next start.
            WriteError::Rewound(_) => Self::Rewound,
            WriteError::Refused(reason) => Self::Source(SourceError::Refused(reason)),
        }
    }
}

impl Run<'_> {
    /// Takes everything that was read. False: nothing follows.
    pub(super) async fn take<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut LineReader<R>,
        channel: Channel,
        reading: &Reading<'_>,
    ) -> Result<bool, Interrupt> {
        while let Some(part) = reader.take() {
            if part == Part::End {
                return Ok(false);
            }
            self.take_part(part, channel, reading).await?;
        }
        Ok(true)
    }

    pub(super) async fn take_part(
        &mut self,
        part: Part<'_>,
        channel: Channel,
        reading: &Reading<'_>,
    ) -> Result<(), Interrupt> {
        if let Reading::Lines { time, .. } = reading {
            return self.take_text(part, channel, *time).await;
        }
        if !matches!(part, Part::More { .. }) {
            self.complaints.next_line();
        }
        match (part, reading) {
            (Part::Line(text), Reading::Json(fields)) => match decode::json(text, fields) {
                Ok(entry) => self.take_entry(entry).await,
                Err(problem) => self.complain(&problem).await,
            },
            // An empty line is no message, and no mistake worth a word.
            (Part::Line(text), _) if text.trim_ascii().is_empty() => Ok(()),
            (Part::Line(text), _) => match protocol::parse(text) {
                Ok(message) => self.take_message(message).await,
                Err(problem) => self.complain(&problem).await,
            },
            (Part::Open(text), _) if text.len() < reading.max_line_bytes() => {
                self.complain("the output ends in the middle of a line").await
            }
            (Part::Open(_), _) => {
                let problem = format!(
                    "the line has more than {} bytes and is left out",
                    reading.max_line_bytes()
                );
                self.complain(&problem).await
            }
            (Part::More { .. } | Part::End, _) => Ok(()),
        }
    }

    /// A line of text, with or without a time in front. Each part of a long line counts as one.
    async fn take_text(
        &mut self,
        part: Part<'_>,
        channel: Channel,
        format: LineTime,
    ) -> Result<(), Interrupt> {
        let (text, is_start, ends) = match part {
            Part::Line(text) => (text, true, true),
            Part::Open(text) => (text, true, false),
            Part::More { text, ends } => (text, false, ends),
            Part::End => return Ok(()),
        };
        let timed = if is_start {
            decode::time_prefix(text, format)
        } else {
            None
        };
        let body = timed.as_ref().map_or(text, |time| time.rest);
        let stream = self.streams.get("").await.map_err(not_bad)?;
        let time = timed.as_ref().map(|time| (time.text, time.key));
        let taken = match format {
            LineTime::None => Taken::New,
            _ => stream.tracker.take_at(channel, time),
        };
        if taken == Taken::Skip {
            return Ok(());
        }
        stream.is_fresh = true;
        let unix_us = timed.and_then(|time| time.unix_us).unwrap_or_else(now_unix_us);
        let mut line = body.to_vec();
        let piece = if ends {
            line.push(b'\n');
            Piece::Lines(&line)
        } else {
            Piece::Partial(&line)
        };
        // A part without text carries nothing, and no piece is empty.
        if line.is_empty() {
            return Ok(());
        }
        let checkpoint_after = |_| stream.checkpoint();
        stream
            .writer
            .push_at(&piece, channel, unix_us, checkpoint_after)
            .await?;
        Ok(())
    }

    async fn take_entry(&mut self, entry: Entry) -> Result<(), Interrupt> {
        let time = entry.time_unix_us.unwrap_or_else(now_unix_us);
        let mut rest = entry.text.as_slice();
        loop {
            let newline = memchr::memchr(b'\n', &rest[..rest.len().min(MAX_LINE_BYTES + 1)]);
            let length = newline.unwrap_or(rest.len().min(MAX_LINE_BYTES));
            let text = &rest[..length];
            let goes_on = newline.is_none() && length < rest.len();
            rest = &rest[length + usize::from(newline.is_some())..];
            let is_last = newline.is_none() && !goes_on;
            let line = NewLine {
                stream: "",
                text,
                ends: !goes_on,
                channel: Channel::Stdout,
                time_unix_us: time,
                checkpoint: entry.checkpoint.clone().filter(|_| is_last),
            };
            self.push(line).await?;
            if is_last {
                return Ok(());
            }
        }
    }

    async fn take_message(&mut self, message: Message) -> Result<(), Interrupt> {
        match message {
            Message::Line(line) => {
                let is_resumable = self.streams.is_resumable();
                let needless_checkpoint = line.checkpoint.is_some() && !is_resumable;
                self.push(NewLine {
                    stream: &line.stream,
                    text: &line.text,
                    ends: true,
                    channel: line.channel,
                    time_unix_us: line.time_unix_us.unwrap_or_else(now_unix_us),
                    checkpoint: line.checkpoint.filter(|_| is_resumable),
                })
                .await?;
                if needless_checkpoint {
                    return self.complain(NO_CHECKPOINTS).await;
                }
                Ok(())
            }
            Message::Checkpoint { .. } if !self.streams.is_resumable() => self.complain(NO_CHECKPOINTS).await,
            Message::Checkpoint { stream, checkpoint } => match self.streams.get(&stream).await {
                Ok(found) => match found.tracker.checkpoint(checkpoint) {
                    Ok(()) => Ok(()),
                    Err(problem) => self.complain(problem).await,
                },
                Err(StreamError::Bad(problem)) => self.complain(&problem).await,
                Err(error) => Err(not_bad(error)),
            },
            Message::End { stream } => match self.streams.get(&stream).await {
                Ok(_) => {
                    self.streams.end(&stream);
                    Ok(())
                }
                Err(StreamError::Bad(problem)) => self.complain(&problem).await,
                Err(error) => Err(not_bad(error)),
            },
            Message::Status { state, message } => {
                let state = match state {
                    State::Running => SourceState::Running,
                    State::Idle => SourceState::Idle,
                    State::Retrying => SourceState::Retrying,
                    State::Failed => SourceState::Failed,
                };
                self.context.health.update(&self.context.name, |health| {
                    health.state = state;
                    health.message = message;
                });
                Ok(())
            }
        }
    }

    async fn push(&mut self, new: NewLine<'_>) -> Result<(), Interrupt> {
        let stream = match self.streams.get(new.stream).await {
            Ok(stream) => stream,
            Err(StreamError::Bad(problem)) => return self.complain(&problem).await,
            Err(error) => return Err(not_bad(error)),
        };
        let (taken, mut problem) = match stream.tracker.take(new.text) {
            Ok(taken) => (taken, None),
            Err(differs) => (Taken::New, Some(differs)),
        };
        if let Some(checkpoint) = new.checkpoint {
            problem = stream.tracker.checkpoint(checkpoint).err().or(problem);
        }
        if taken == Taken::New {
            stream.is_fresh = true;
            let mut line = new.text.to_vec();
            let piece = if new.ends {
                line.push(b'\n');
                Piece::Lines(&line)
            } else {
                Piece::Partial(&line)
            };
            let checkpoint_after = |_| stream.checkpoint();
            stream
                .writer
                .push_at(&piece, new.channel, new.time_unix_us, checkpoint_after)
                .await?;
        }
        if self.last_stream != new.stream {
            new.stream.clone_into(&mut self.last_stream);
        }
        match problem {
            Some(problem) => self.complain(problem).await,
            None => Ok(()),
        }
    }

    /// Reports a line that cannot be taken: in the log, in the source's health and, now and then, in the stream
    /// that the plugin printed to last.
    async fn complain(&mut self, problem: &str) -> Result<(), Interrupt> {
        self.context
            .health
            .update(&self.context.name, |health| health.bad_lines += 1);
        let Some(text) = self.complaints.say(problem) else {
            return Ok(());
        };
        let plugin = self.settings.plugin.name();
        tracing::warn!("source {}: plugin {plugin}: {text}", self.context.name);
        let mut streams = self.streams.iter_mut();
        if let Some((_, stream)) = streams.find(|(open, _)| **open == self.last_stream) {
            // A notice must not hide the position of the lines before it in the same block.
            stream
                .writer
                .notice(
                    &format!("plugin-output: {plugin}: {text}"),
                    Some(stream.checkpoint()),
                )
                .await?;
        }
        Ok(())
    }
}

/// A line that may be new.
struct NewLine<'a> {
    stream: &'a str,
    text: &'a [u8],
    /// With a newline; otherwise the next one continues it.
    ends: bool,
    channel: Channel,
    time_unix_us: i64,
    checkpoint: Option<String>,
}

/// For streams that the plugin cannot get wrong.
fn not_bad(error: StreamError) -> Interrupt {
    match error {
        StreamError::Bad(problem) => Interrupt::Source(SourceError::Setting(problem)),
        StreamError::Source(error) => Interrupt::Source(error),
        StreamError::Rewound => Interrupt::Rewound,
    }
}
