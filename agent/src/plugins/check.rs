//! `millstream-agent sources check`: the test kit for authors of plugins.
//!
//! It runs a plugin as the agent would, within the same bounds, and says what is wrong: in the manifest or the
//! description, in the settings, in each line of output, at SIGTERM, and, for a plugin that says that it can
//! resume, in what it prints when it is started again from its last checkpoint. Nothing is sent anywhere.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use millstream_proto::v1::Channel;
use tokio::io::{AsyncRead, AsyncWriteExt};

use super::catalog::{self, EXECUTABLE_PREFIX, Plugin};
use super::containment::{self, Limits};
use super::position::{AfterCheckpoint, AtTime, Position, Taken, Tracker};
use super::protocol::{self, Message};
use super::reader::{LineReader, Part, Rate};
use super::schema::{Schema, Values};
use super::source::{Reading, decode};
use super::start::Start;
use crate::text::harmless;

/// Problems that are shown each.
const SHOWN: usize = 20;
const SHOWN_BYTES: usize = 200;

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    text: String,
    problems: Vec<String>,
    count: usize,
}

impl Report {
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.count == 0
    }

    fn note(&mut self, text: impl fmt::Display) {
        let _ = writeln!(self.text, "{text}");
    }

    fn problem(&mut self, problem: impl fmt::Display) {
        self.count += 1;
        if self.problems.len() < SHOWN {
            self.problems.push(problem.to_string());
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)?;
        for problem in &self.problems {
            writeln!(formatter, "problem: {problem}")?;
        }
        if self.count > self.problems.len() {
            writeln!(formatter, "… and {} more", self.count - self.problems.len())?;
        }
        match self.count {
            0 => writeln!(formatter, "ok: nothing is wrong with it"),
            1 => writeln!(formatter, "1 problem"),
            count => writeln!(formatter, "{count} problems"),
        }
    }
}

/// Checks the plugin in the file `path` with the settings, letting it run for `time`.
pub async fn run(path: &Path, settings: &[(String, String)], time: Duration) -> Report {
    let mut report = Report::default();
    if let Err(problem) = check(path, settings, time, &mut report).await {
        report.problem(problem);
    }
    report
}

async fn check(
    path: &Path,
    settings: &[(String, String)],
    time: Duration,
    report: &mut Report,
) -> Result<(), String> {
    let file_name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = match (
        file_name.strip_prefix(EXECUTABLE_PREFIX),
        file_name.strip_suffix(".toml"),
    ) {
        (Some(name), _) | (None, Some(name)) => name.to_owned(),
        (None, None) => {
            return Err(format!(
                "{file_name}: a plugin's file is called {EXECUTABLE_PREFIX}NAME, or NAME.toml for a manifest"
            ));
        }
    };
    let plugin = catalog::open(&name, path)?;
    let schema = plugin.settings()?;
    let given: toml::Table = settings
        .iter()
        .map(|(name, value)| (name.clone(), typed(schema, name, value)))
        .collect();
    let values = schema.values(&given)?;
    let can_resume = match &plugin {
        Plugin::Manifest(manifest) => {
            report.note(format_args!("manifest {name}, version {}", manifest.version));
            manifest.can_resume()
        }
        Plugin::Protocol(protocol) => {
            let description = protocol.description()?;
            report.note(format_args!(
                "{name} describes itself: version {}, {} settings, {}",
                harmless(description.version.as_bytes(), 40),
                description.settings.settings.len(),
                if description.can_resume {
                    "can resume"
                } else {
                    "cannot resume"
                },
            ));
            description.can_resume
        }
    };
    let mut trial = Trial {
        plugin: &plugin,
        values: &values,
        can_resume,
        streams: BTreeMap::new(),
        first_lines: BTreeMap::new(),
        report,
    };
    let first = trial.run(time).await?;
    trial.report.note(&first);
    if first.lines == 0 {
        let words = if first.last_words.is_empty() {
            String::new()
        } else {
            format!("; its last words: {}", first.last_words)
        };
        trial.report.note(format_args!(
            "it printed no line within {:.1} s{words}",
            time.as_secs_f64()
        ));
    }
    if first.exit_code == Some(127) {
        return Err(first.last_words);
    }
    if can_resume && first.lines > 0 {
        trial.resume(time).await?;
    }
    Ok(())
}

/// Plain text for a string setting, even when it looks like a number.
fn typed(schema: &Schema, name: &str, value: &str) -> toml::Value {
    use super::schema::SettingType;
    match schema.settings.get(name).map(|spec| spec.kind) {
        Some(SettingType::String) if !value.starts_with('"') => toml::Value::String(value.to_owned()),
        _ => Schema::parse_value(value),
    }
}

struct Trial<'a> {
    plugin: &'a Plugin,
    values: &'a Values,
    can_resume: bool,
    streams: BTreeMap<String, Tracker>,
    /// The first lines of each stream in the first run: text, and whether a checkpoint followed at once.
    first_lines: BTreeMap<String, Vec<u8>>,
    report: &'a mut Report,
}

/// What one run did.
#[derive(Debug, Default)]
struct Outcome {
    lines: u64,
    checkpoints: u64,
    repeated: u64,
    line_number: u64,
    exit_code: Option<i32>,
    ended_by_itself: Option<String>,
    last_words: String,
    /// Text of the first line that was new, a stream each.
    first_new: BTreeMap<String, Vec<u8>>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "it printed {} lines", self.lines)?;
        if self.checkpoints > 0 {
            write!(formatter, " and {} checkpoints", self.checkpoints)?;
        }
        match &self.ended_by_itself {
            Some(status) => write!(formatter, ", and ended by itself ({status})"),
            None => write!(formatter, ", and went on until it was stopped"),
        }
    }
}

impl Trial<'_> {
    /// Starts it again from where the first run ended.
    async fn resume(&mut self, time: Duration) -> Result<(), String> {
        for tracker in self.streams.values_mut() {
            tracker.restart();
        }
        let resumable = self
            .streams
            .values()
            .any(|tracker| tracker.position().resume_value().is_some());
        if !resumable && matches!(self.plugin, Plugin::Protocol(_)) {
            self.report.problem(
                "it says that it can resume, but gave no checkpoint; print {\"type\":\"checkpoint\",\"checkpoint\":\"…\"} \
                 after lines, or \"checkpoint\" within them",
            );
            return Ok(());
        }
        let again = self.run(time).await?;
        self.report.note(format_args!(
            "started again from its last checkpoint, it printed {} new lines and {} that were there before",
            again.lines, again.repeated
        ));
        for (stream, text) in &again.first_new {
            if self
                .first_lines
                .get(stream)
                .is_some_and(|first| first == text && !text.is_empty())
            {
                self.report.problem(format_args!(
                    "stream {stream:?}: started with a checkpoint, it began with its very first line again; go on \
                     after `checkpoints` of the request"
                ));
            }
        }
        Ok(())
    }

    async fn run(&mut self, time: Duration) -> Result<Outcome, String> {
        let mut outcome = Outcome::default();
        let positions = self
            .streams
            .iter()
            .map(|(name, tracker)| (name.as_str(), tracker.position().resume_value()));
        let start = Start::new(self.plugin, "check", self.values, positions, Vec::new());
        if matches!(self.plugin, Plugin::Manifest(_)) {
            let shown: Vec<String> = start
                .argv
                .iter()
                .map(|part| harmless(part.as_bytes(), SHOWN_BYTES))
                .collect();
            self.report.note(format_args!("runs {shown:?}"));
        }
        let limits = Limits::default();
        let mut child = containment::spawn(Path::new("/proc/self/exe"), &limits, &start)
            .map_err(|error| format!("cannot start it: {error}"))?;
        let (Some(mut stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err("its pipes are not there".to_owned());
        };
        let reading = Reading::of(self.plugin);
        let mut output = LineReader::new(
            stdout,
            reading.max_line_bytes(),
            Rate::new(limits.max_bytes_per_second),
        );
        let mut words = LineReader::new(stderr, 4096, Rate::new(1 << 20));
        let deadline = tokio::time::Instant::now() + time;
        let hand_over = async move {
            if stdin.write_all(&start.request).await.is_err() {
                // It is allowed not to look.
            }
        };
        tokio::pin!(hand_over);
        let (mut handing_over, mut output_open, mut words_open) = (true, true, true);
        while output_open || words_open {
            tokio::select! {
                () = &mut hand_over, if handing_over => handing_over = false,
                filled = output.fill(), if output_open => {
                    filled.map_err(|error| error.to_string())?;
                    output_open = self.take(&mut output, Channel::Stdout, &reading, &mut outcome);
                }
                filled = words.fill(), if words_open => {
                    filled.map_err(|error| error.to_string())?;
                    words_open = if reading.stderr_is_output() {
                        self.take(&mut words, Channel::Stderr, &reading, &mut outcome)
                    } else {
                        self.hear(&mut words, &mut outcome)
                    };
                }
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        match child.try_wait() {
            Ok(Some(status)) => {
                outcome.exit_code = status.code();
                outcome.ended_by_itself = Some(status.to_string());
            }
            _ if !output_open && !words_open => {
                // It closed its output and is about to end.
                if let Ok(Ok(status)) = tokio::time::timeout(containment::STOP_WAIT, child.wait()).await {
                    outcome.exit_code = status.code();
                    outcome.ended_by_itself = Some(status.to_string());
                }
            }
            _ => {}
        }
        let began = Instant::now();
        containment::stop(&mut child).await;
        if began.elapsed() >= containment::STOP_WAIT {
            self.report.problem(format_args!(
                "it did not end within {} s of SIGTERM and was killed",
                containment::STOP_WAIT.as_secs()
            ));
        }
        Ok(outcome)
    }

    fn hear<R: AsyncRead + Unpin>(&mut self, words: &mut LineReader<R>, outcome: &mut Outcome) -> bool {
        while let Some(part) = words.take() {
            match part {
                Part::Line(text) | Part::Open(text) => {
                    outcome.last_words = harmless(text, SHOWN_BYTES);
                    if !outcome.last_words.is_empty() {
                        self.report.note(format_args!("its log: {}", outcome.last_words));
                    }
                }
                Part::More { .. } => {}
                Part::End => return false,
            }
        }
        true
    }

    fn take<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut LineReader<R>,
        channel: Channel,
        reading: &Reading<'_>,
        outcome: &mut Outcome,
    ) -> bool {
        while let Some(part) = reader.take() {
            let text = match part {
                Part::End => return false,
                Part::More { .. } => continue,
                Part::Open(text) if !matches!(reading, Reading::Lines { .. }) => {
                    outcome.line_number += 1;
                    let what = if text.len() < reading.max_line_bytes() {
                        "the output ends in the middle of a line".to_owned()
                    } else {
                        format!("the line has more than {} bytes", reading.max_line_bytes())
                    };
                    self.report
                        .problem(format_args!("line {}: {what}", outcome.line_number));
                    continue;
                }
                Part::Line(text) | Part::Open(text) => text,
            };
            outcome.line_number += 1;
            if let Err(problem) = self.take_line(text, channel, reading, outcome) {
                let shown = harmless(text, SHOWN_BYTES);
                self.report.problem(format_args!(
                    "line {}: {problem}\n         {shown}",
                    outcome.line_number
                ));
            }
        }
        true
    }

    fn take_line(
        &mut self,
        text: &[u8],
        channel: Channel,
        reading: &Reading<'_>,
        outcome: &mut Outcome,
    ) -> Result<(), String> {
        match reading {
            Reading::Lines { time, .. } => {
                let timed = decode::time_prefix(text, *time);
                if timed.is_none() && self.can_resume {
                    return Err("it has no time in front, as [output] time says".to_owned());
                }
                let tracker = self.tracker("");
                let taken = tracker.take_at(channel, timed.as_ref().map(|time| (time.text, time.key)));
                count(outcome, &taken, "", timed.map_or(text, |time| time.rest));
            }
            Reading::Json(fields) => {
                let entry = decode::json(text, fields)?;
                let tracker = self.tracker("");
                let taken = tracker.take(&entry.text)?;
                if let Some(checkpoint) = entry.checkpoint {
                    tracker.checkpoint(checkpoint)?;
                    outcome.checkpoints += 1;
                }
                count(outcome, &taken, "", &entry.text);
            }
            Reading::Protocol => {
                if text.trim_ascii().is_empty() {
                    return Ok(());
                }
                self.take_message(protocol::parse(text)?, outcome)?;
            }
        }
        Ok(())
    }

    fn take_message(&mut self, message: Message, outcome: &mut Outcome) -> Result<(), String> {
        match message {
            Message::Line(line) => {
                let covered = line.checkpoint.is_some();
                if covered && !self.can_resume {
                    return Err("a checkpoint, but --describe says can_resume is false".to_owned());
                }
                let tracker = self.tracker(&line.stream);
                let taken = tracker.take(&line.text)?;
                count(outcome, &taken, &line.stream, &line.text);
                if let Some(checkpoint) = line.checkpoint {
                    tracker.checkpoint(checkpoint)?;
                    outcome.checkpoints += 1;
                }
                self.first_lines.entry(line.stream).or_insert(line.text);
            }
            Message::Checkpoint { stream, checkpoint } => {
                if !self.can_resume {
                    return Err("a checkpoint, but --describe says can_resume is false".to_owned());
                }
                self.tracker(&stream).checkpoint(checkpoint)?;
                outcome.checkpoints += 1;
            }
            Message::End { stream } => {
                self.streams.remove(&stream);
            }
            Message::Status { state, message } => {
                self.report.note(format_args!("status: {state:?} {message}"));
            }
        }
        Ok(())
    }

    fn tracker(&mut self, stream: &str) -> &mut Tracker {
        let by_time = matches!(self.plugin, Plugin::Manifest(manifest) if manifest.resumes_by_time());
        self.streams.entry(stream.to_owned()).or_insert_with(|| {
            Tracker::new(if by_time {
                Position::At(AtTime::default())
            } else {
                Position::After(AfterCheckpoint::default())
            })
        })
    }
}

fn count(outcome: &mut Outcome, taken: &Taken, stream: &str, text: &[u8]) {
    match taken {
        Taken::Skip => outcome.repeated += 1,
        Taken::New => {
            outcome.lines += 1;
            if !outcome.first_new.contains_key(stream) {
                outcome.first_new.insert(stream.to_owned(), text.to_vec());
            }
        }
    }
}
