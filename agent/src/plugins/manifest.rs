//! Manifests: TOML files that make a command a plugin.
//!
//! The format is documented in `docs/write-a-plugin.md`. Parsing refuses whatever it does not know, with the
//! nearest name that it does.

use std::time::Duration;

use serde::Deserialize;

use super::position::ScopeOfTime;
use super::schema::{Schema, Values};
use super::template::{self, Part};
use crate::sources::exec::Restart;

/// A manifest is a page, not a book.
pub const MAX_MANIFEST_BYTES: usize = 256 << 10;

/// Manifests that are part of the agent: name of the file, text.
pub const BUNDLED: &[(&str, &str)] = &[
    ("dmesg.toml", include_str!("../../../plugins/dmesg.toml")),
    ("docker.toml", include_str!("../../../plugins/docker.toml")),
    ("journald.toml", include_str!("../../../plugins/journald.toml")),
    ("kubectl.toml", include_str!("../../../plugins/kubectl.toml")),
    ("podman.toml", include_str!("../../../plugins/podman.toml")),
    ("ssh-tail.toml", include_str!("../../../plugins/ssh-tail.toml")),
];

/// A command as a plugin, checked.
#[derive(Debug, Clone)]
pub struct Manifest {
    pub name: String,
    pub version: String,
    pub doc: String,
    pub settings: Schema,
    command: Command,
    pub(super) output: Output,
    pub(super) resume: Option<Resume>,
    pub(super) restart: RestartRules,
    stream: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Command {
    Argv(Vec<Part>),
    /// Text for `sh -c`; settings reach it as environment variables only.
    Shell(String),
}

/// What the command prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Output {
    /// Lines of text, each with the time in front that this says.
    Lines { time: LineTime, stderr_is_output: bool },
    /// One JSON object a line.
    Json(JsonFields),
}

/// The time at the front of a line; it is taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum LineTime {
    /// There is none.
    #[default]
    None,
    /// RFC 3339, then one space.
    Rfc3339,
    /// `[    1.457490] `, seconds since the machine started.
    SinceBoot,
}

/// Which fields of an object are what.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JsonFields {
    pub(super) text: String,
    /// Fields whose values stand before the text, each with the separator behind it.
    #[serde(default)]
    pub(super) prefix: Vec<PrefixField>,
    /// Microseconds since the Unix epoch, or RFC 3339.
    pub(super) time: Option<String>,
    pub(super) checkpoint: Option<String>,
}

/// A field in front of the text.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PrefixField {
    /// The first of these that an object has.
    pub(super) fields: Vec<String>,
    #[serde(default)]
    pub(super) before: String,
    #[serde(default)]
    pub(super) after: String,
}

/// How the command goes on where it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resume {
    pub(super) by: ResumeBy,
    args: Vec<Part>,
    /// Instead of `args` when there is nothing to resume from.
    first_args: Vec<Part>,
}

/// What a command resumes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ResumeBy {
    /// The time of the last line; the command repeats lines of that time, and may repeat earlier ones.
    Time,
    /// The checkpoint of the last line; the command begins after it.
    Checkpoint,
    /// It always repeats everything that it still has; earlier times are skipped.
    Everything,
}

/// When the command is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RestartRules {
    pub(super) policy: Restart,
    pub(super) delay: Duration,
    pub(super) limit: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    version: String,
    #[serde(default)]
    doc: String,
    #[serde(default)]
    shell: bool,
    command: RawCommand,
    stream: Option<String>,
    #[serde(default)]
    settings: Schema,
    #[serde(default)]
    output: RawOutput,
    resume: Option<RawResume>,
    #[serde(default)]
    restart: RawRestart,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawCommand {
    Parts(Vec<Part>),
    Text(String),
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOutput {
    #[serde(default)]
    time: LineTime,
    #[serde(default)]
    stderr: RawStderr,
    json: Option<JsonFields>,
}

#[derive(Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawStderr {
    /// The command's own words, for the agent's log.
    #[default]
    Log,
    /// Output like the other, on the channel stderr.
    Lines,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawResume {
    by: ResumeBy,
    #[serde(default)]
    args: Vec<Part>,
    #[serde(default)]
    first_args: Vec<Part>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRestart {
    policy: Option<Restart>,
    delay: Option<String>,
    limit: Option<String>,
}

impl Manifest {
    /// Parses and checks a manifest's text.
    ///
    /// # Errors
    /// A sentence for its author, with the line where that helps.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_MANIFEST_BYTES {
            return Err(format!(
                "it has {} bytes; the limit is {MAX_MANIFEST_BYTES}",
                text.len()
            ));
        }
        let raw: Raw = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        check_plugin_name(&raw.name)?;
        raw.settings.check()?;
        let command = match (raw.command, raw.shell) {
            (RawCommand::Parts(parts), false) => {
                if !matches!(parts.first(), Some(Part::Element(program)) if !program.is_empty()) {
                    return Err("command: the first element is the program's name".to_owned());
                }
                template::check(&parts, &raw.settings, false)
                    .map_err(|problem| format!("command: {problem}"))?;
                Command::Argv(parts)
            }
            (RawCommand::Text(text), true) => Command::Shell(text),
            (RawCommand::Text(_), false) => {
                return Err(
                    "command: write a list, for example [\"tail\", \"-F\", \"${path}\"]; a text is run by a \
                            shell, and only with shell = true"
                        .to_owned(),
                );
            }
            (RawCommand::Parts(_), true) => {
                return Err(
                    "command: with shell = true it is one text, and settings are environment variables \
                            (MILLSTREAM_SETTING_NAME)"
                        .to_owned(),
                );
            }
        };
        let stderr_is_output = raw.output.stderr == RawStderr::Lines;
        let output = match raw.output.json {
            None => Output::Lines {
                time: raw.output.time,
                stderr_is_output,
            },
            Some(_) if raw.output.time != LineTime::None => {
                return Err(
                    "output: with json the time is a field of it: [output.json] time = \"…\"".to_owned(),
                );
            }
            Some(_) if stderr_is_output => {
                return Err("output: with json, stderr can only be \"log\"".to_owned());
            }
            Some(fields) => Output::Json(fields),
        };
        let resume = raw.resume.map(|raw_resume| {
            check_resume(&raw_resume, &output, &command)?;
            template::check(&raw_resume.args, &raw.settings, true)
                .map_err(|problem| format!("resume.args: {problem}"))?;
            template::check(&raw_resume.first_args, &raw.settings, false)
                .map_err(|problem| format!("resume.first_args: {problem}"))?;
            Ok::<_, String>(Resume {
                by: raw_resume.by,
                args: raw_resume.args,
                first_args: raw_resume.first_args,
            })
        });
        if let Some(stream) = &raw.stream {
            template::check(&[Part::Element(stream.clone())], &raw.settings, false)
                .map_err(|problem| format!("stream: {problem}"))?;
        }
        let duration = |name: &str, value: Option<String>, default: &str| {
            crate::config::parse_duration(value.as_deref().unwrap_or(default))
                .map_err(|problem| format!("restart.{name}: {problem}"))
        };
        Ok(Self {
            name: raw.name,
            version: raw.version,
            doc: raw.doc,
            settings: raw.settings,
            command,
            output,
            resume: resume.transpose()?,
            restart: RestartRules {
                policy: raw.restart.policy.unwrap_or(Restart::Always),
                delay: duration("delay", raw.restart.delay, "500ms")?,
                limit: duration("limit", raw.restart.limit, "1m")?,
            },
            stream: raw.stream,
        })
    }

    /// The command for these settings, going on at `resume`. The program's name is as written, looked up in
    /// `PATH` by the system.
    #[must_use]
    pub fn argv(&self, values: &Values, resume: Option<&str>) -> Vec<String> {
        match &self.command {
            Command::Shell(text) => ["sh", "-c", text].map(str::to_owned).to_vec(),
            Command::Argv(parts) => {
                let (program, arguments) = parts.split_at(1);
                let mut argv = template::expand(program, values, None);
                if let Some(rules) = &self.resume {
                    let parts = match resume {
                        Some(_) => &rules.args,
                        None => &rules.first_args,
                    };
                    // Options come before what the command ends with, which may be positional.
                    let (options, last) = split_options(arguments);
                    argv.extend(template::expand(options, values, None));
                    argv.extend(template::expand(parts, values, resume));
                    argv.extend(template::expand(last, values, None));
                } else {
                    argv.extend(template::expand(arguments, values, None));
                }
                argv
            }
        }
    }

    /// Environment variables by which a shell command gets its settings.
    #[must_use]
    pub fn environment(&self, values: &Values) -> Vec<(String, String)> {
        if matches!(self.command, Command::Argv(_)) {
            return Vec::new();
        }
        values
            .iter()
            .map(|(name, value)| {
                (
                    format!("MILLSTREAM_SETTING_{}", name.to_uppercase()),
                    template::text(value),
                )
            })
            .collect()
    }

    /// Name of the stream for these settings, when the manifest gives one.
    #[must_use]
    pub fn stream(&self, values: &Values) -> Option<String> {
        let element = Part::Element(self.stream.clone()?);
        template::expand(&[element], values, None).into_iter().next()
    }

    #[must_use]
    pub fn can_resume(&self) -> bool {
        self.resume.is_some()
    }

    /// Its lines have times, and it goes on by them.
    pub(super) fn resumes_by_time(&self) -> bool {
        self.resume.is_some() && matches!(self.output, Output::Lines { .. })
    }

    /// What the times of its lines count from.
    pub(super) fn scope_of_time(&self) -> ScopeOfTime {
        match self.output {
            Output::Lines {
                time: LineTime::SinceBoot,
                ..
            } => ScopeOfTime::Boot,
            _ => ScopeOfTime::Ever,
        }
    }
}

/// Splits behind the last element before a literal `--`, or before the last element when there is none.
fn split_options(arguments: &[Part]) -> (&[Part], &[Part]) {
    let end = arguments
        .iter()
        .position(|part| *part == Part::Element("--".to_owned()))
        .unwrap_or(arguments.len());
    arguments.split_at(end)
}

/// Checks a plugin's name, which is part of file names.
///
/// # Errors
/// What a name is.
pub(super) fn check_plugin_name(name: &str) -> Result<(), String> {
    let is_name = !name.is_empty()
        && name.len() <= 64
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_');
    if is_name {
        Ok(())
    } else {
        Err(format!(
            "name {name:?}: a plugin's name has 1 to 64 of a-z, 0-9, - and _"
        ))
    }
}

fn check_resume(resume: &RawResume, output: &Output, command: &Command) -> Result<(), String> {
    if matches!(command, Command::Shell(_)) {
        return Err("resume: a shell command cannot resume; write the command as a list".to_owned());
    }
    let has_time = matches!(output, Output::Lines { time, .. } if *time != LineTime::None);
    let has_checkpoint = matches!(output, Output::Json(fields) if fields.checkpoint.is_some());
    match resume.by {
        ResumeBy::Time | ResumeBy::Everything if !has_time => {
            Err("resume: by time needs lines with times in front ([output] time = \"rfc3339\")".to_owned())
        }
        ResumeBy::Checkpoint if !has_checkpoint => Err(
            "resume: by checkpoint needs a field that holds it ([output.json] checkpoint = \"…\")".to_owned(),
        ),
        ResumeBy::Everything => Ok(()),
        ResumeBy::Time | ResumeBy::Checkpoint if resume.args.is_empty() => {
            Err("resume.args is empty; write for example [\"--since\", \"${resume}\"]".to_owned())
        }
        ResumeBy::Time | ResumeBy::Checkpoint => Ok(()),
    }
}

#[cfg(test)]
mod tests;
