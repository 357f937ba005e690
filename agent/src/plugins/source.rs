//! A plugin as a source: starts its process, takes what it prints, starts it again.
//!
//! [`run`] is the life of the source, [`Run`] one life of the process. Whatever a plugin does, the source goes on:
//! its output is bounded in line length and rate, what cannot be understood is counted and said, a process that
//! ends is started again with growing waits, one that hangs is killed.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_proto::v1::{Channel, SourceState};
use tokio::io::AsyncWriteExt;
use tokio::process::Child;
use tracing::{info, warn};

use super::catalog::Plugin;
use super::containment::{self, Limits};
use super::manifest::RestartRules;
use super::position::{AfterCheckpoint, AtTime, Position, ScopeOfTime};
use super::reader::{LineReader, Rate};
use super::schema::Values;
use super::start::Start;
use super::streams::Streams;
use crate::backoff::Backoff;
use crate::lines::OPEN_LINE_WAIT;
use crate::sources::exec::Restart;
use crate::sources::process::{ORPHAN_WAIT, sleep_until};
use crate::sources::{SourceContext, SourceError};

pub(super) mod decode;
mod take;
mod words;

pub(super) use take::Reading;

use take::Interrupt;
use words::{Complaints, PluginLog};

/// A process that lived this long failed for a new reason.
const STEADY: Duration = Duration::from_secs(60);

/// How often the relay's wish to go back is looked for while the plugin is quiet.
const LOOK_AT_RELAY: Duration = Duration::from_secs(2);

/// Standard error is for people.
const MAX_LOG_LINE_BYTES: usize = 4096;
const LOG_BYTES_PER_SECOND: u64 = 1 << 20;

/// A plugin with a user's settings.
#[derive(Debug)]
pub struct PluginSettings {
    pub plugin: Arc<Plugin>,
    /// What the user gave; checked when the plugin could be asked, and again when it runs.
    pub given: toml::Table,
    pub limits: Limits,
    /// Instead of the plugin's own policy.
    pub restart: Option<Restart>,
}

/// What of a plugin's process is over.
#[derive(Debug)]
enum Ended {
    Exited(ExitStatus),
    Stalled(Duration),
    /// The relay wants a stream from an earlier place.
    Rewound,
    /// The agent stops.
    Stopped,
}

/// Runs the plugin until its policy says that it is done, or the context's stop is cancelled.
pub(crate) async fn run(context: SourceContext, settings: &PluginSettings) -> Result<(), SourceError> {
    let schema = settings.plugin.settings().map_err(SourceError::Setting)?;
    let values = schema.values(&settings.given).map_err(SourceError::Setting)?;
    let mut streams = open_streams(&context, settings, &values)?;
    let opening = async {
        match &*settings.plugin {
            Plugin::Manifest(_) => streams.open_only().await,
            Plugin::Protocol(_) => streams.open_known().await,
        }
    };
    tokio::select! {
        () = context.stop.cancelled() => return Ok(()),
        opened = opening => opened?,
    }
    let rules = restart_rules(settings);
    let mut backoff = Backoff::new(rules.delay, rules.limit.max(rules.delay));
    let mut log = PluginLog::new(context.name.clone());
    loop {
        let began = Instant::now();
        let mut run = Run {
            context: &context,
            settings,
            values: &values,
            streams: &mut streams,
            complaints: Complaints::default(),
            log: &mut log,
            last_stream: String::new(),
        };
        let ended = run.once().await?;
        let (state, message) = match &ended {
            Ended::Stopped => return Ok(()),
            Ended::Rewound => (
                SourceState::Running,
                "going back to where the relay's store ends".to_owned(),
            ),
            Ended::Exited(status) => {
                let again = match rules.policy {
                    Restart::Never => false,
                    Restart::OnFailure => !status.success(),
                    Restart::Always => true,
                };
                let done = streams.all_ended() && status.success();
                if done || !again {
                    let message = format!("ended ({status}){}", log.last_words());
                    context
                        .health
                        .update(&context.name, |health| health.message = message);
                    return Ok(());
                }
                (
                    SourceState::Retrying,
                    format!("ended ({status}){}", log.last_words()),
                )
            }
            Ended::Stalled(timeout) => (
                SourceState::Retrying,
                format!("printed nothing for {} s and was killed", timeout.as_secs()),
            ),
        };
        if began.elapsed() >= STEADY || matches!(ended, Ended::Rewound) {
            backoff.reset();
        }
        let wait = backoff.next_wait();
        if !matches!(ended, Ended::Rewound) {
            warn!(
                "source {}: plugin {} {message}; starting it again in {:.1} s",
                context.name,
                settings.plugin.name(),
                wait.as_secs_f64()
            );
            say_gap(&mut streams, settings.plugin.name(), &message).await?;
        }
        context.health.update(&context.name, |health| {
            health.state = state;
            health.message = message;
            health.restarts += 1;
        });
        tokio::select! {
            () = context.stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn open_streams(
    context: &SourceContext,
    settings: &PluginSettings,
    values: &Values,
) -> Result<Streams, SourceError> {
    let names_dir = context.runs.plugins_directory();
    Ok(match &*settings.plugin {
        Plugin::Manifest(manifest) => {
            let beginning = if manifest.resumes_by_time() {
                let scope = match manifest.scope_of_time() {
                    ScopeOfTime::Ever => String::new(),
                    ScopeOfTime::Boot => boot_id().map_err(|error| {
                        SourceError::Setting(format!("cannot tell which boot this is: {error}"))
                    })?,
                };
                Position::At(AtTime::new(scope))
            } else {
                Position::After(AfterCheckpoint::default())
            };
            let instance = manifest.stream(values).unwrap_or_else(|| context.name.clone());
            Streams::new(context.clone(), manifest.can_resume(), beginning, instance, None)
        }
        Plugin::Protocol(plugin) => {
            let can_resume = plugin.description().map_err(SourceError::Setting)?.can_resume;
            Streams::new(
                context.clone(),
                can_resume,
                Position::After(AfterCheckpoint::default()),
                context.name.clone(),
                can_resume.then_some(names_dir.as_path()),
            )
        }
    })
}

fn boot_id() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

fn restart_rules(settings: &PluginSettings) -> RestartRules {
    let mut rules = match &*settings.plugin {
        Plugin::Manifest(manifest) => manifest.restart,
        Plugin::Protocol(_) => RestartRules {
            policy: Restart::Always,
            delay: Duration::from_millis(500),
            limit: Duration::from_secs(60),
        },
    };
    if let Some(policy) = settings.restart {
        rules.policy = policy;
    }
    rules
}

/// Says in every stream that has lines since the last time that some may be missing now.
async fn say_gap(streams: &mut Streams, plugin: &str, message: &str) -> Result<(), SourceError> {
    if streams.is_resumable() {
        return Ok(());
    }
    let text = format!(
        "plugin-restarted: {plugin} {message} and is started again; it cannot resume, so what it did not print \
         meanwhile is missing"
    );
    for (_, stream) in streams.iter_mut() {
        if std::mem::take(&mut stream.is_fresh) {
            stream
                .writer
                .notice(&text, None)
                .await
                .map_err(|error| SourceError::Refused(error.to_string()))?;
        }
    }
    Ok(())
}

/// One life of the plugin's process.
struct Run<'a> {
    context: &'a SourceContext,
    settings: &'a PluginSettings,
    values: &'a Values,
    streams: &'a mut Streams,
    complaints: Complaints,
    log: &'a mut PluginLog,
    /// Where the plugin printed last: what is wrong with its output is said there.
    last_stream: String,
}

impl Run<'_> {
    async fn once(&mut self) -> Result<Ended, SourceError> {
        if self.streams.rewind_if_asked()? {
            return Ok(Ended::Rewound);
        }
        self.streams.restart_trackers();
        let positions = self.streams.iter().map(|(name, stream)| {
            let position = stream.tracker.position();
            (name.as_str(), position.resume_value())
        });
        let ended = self.streams.ended().collect();
        let plugin = &self.settings.plugin;
        let start = Start::new(plugin, &self.context.name, self.values, positions, ended);
        let program = self.context.runs.program();
        let mut child = containment::spawn(program, &self.settings.limits, &start).map_err(|error| {
            SourceError::Spawn {
                program: start.argv.first().cloned().unwrap_or_default(),
                error,
            }
        })?;
        info!(
            "source {}: plugin {} started",
            self.context.name,
            self.settings.plugin.name()
        );
        self.context.health.update(&self.context.name, |health| {
            health.state = SourceState::Running;
            health.message.clear();
        });
        let ended = self.pump(&mut child, start.request).await;
        containment::stop(&mut child).await;
        match ended {
            Ok(ended) => Ok(ended),
            Err(Interrupt::Rewound) => Ok(Ended::Rewound),
            Err(Interrupt::Source(error)) => Err(error),
        }
    }

    /// Takes the output until the process or its agent ends.
    async fn pump(&mut self, child: &mut Child, request: Vec<u8>) -> Result<Ended, Interrupt> {
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(SourceError::Setting("the plugin's pipes are not there".to_owned()).into());
        };
        let reading = Reading::of(&self.settings.plugin);
        let limits = self.settings.limits;
        let (max_word_bytes, word_rate) = match reading.stderr_is_output() {
            true => (reading.max_line_bytes(), limits.max_bytes_per_second),
            false => (MAX_LOG_LINE_BYTES, LOG_BYTES_PER_SECOND),
        };
        let rate = Rate::new(limits.max_bytes_per_second);
        let mut output = LineReader::new(stdout, reading.max_line_bytes(), rate);
        let mut words = LineReader::new(stderr, max_word_bytes, Rate::new(word_rate));
        // Beside the reading: a plugin may print before it reads.
        let hand_over = async move {
            let mut stdin = stdin;
            // A plugin that does not read its request is its own affair.
            let _ = stdin.write_all(&request).await;
        };
        tokio::pin!(hand_over);
        let (mut handing_over, mut output_open, mut words_open) = (true, true, true);
        let mut exited: Option<(ExitStatus, Instant)> = None;
        let mut last_output = Instant::now();
        let mut look_at_relay = tokio::time::interval(LOOK_AT_RELAY);
        loop {
            if let Some((status, _)) = exited
                && !output_open
                && !words_open
            {
                return Ok(Ended::Exited(status));
            }
            let open_line = reading.sends_open_lines() && output_open && output.open_bytes() > 0;
            let stall_at = limits
                .stall_timeout
                .filter(|_| exited.is_none())
                .map(|timeout| last_output + timeout);
            let orphan_at = exited.map(|(_, at)| at.max(last_output) + ORPHAN_WAIT);
            tokio::select! {
                () = &mut hand_over, if handing_over => handing_over = false,
                filled = output.fill(), if output_open => {
                    last_output = Instant::now();
                    output_open = filled.is_ok() && self.take(&mut output, Channel::Stdout, &reading).await?;
                    self.report_throttling(&mut output.throttled);
                    // The uplink and other sources get their turn.
                    tokio::task::yield_now().await;
                }
                filled = words.fill(), if words_open => {
                    words_open = filled.is_ok() && if reading.stderr_is_output() {
                        last_output = Instant::now();
                        self.take(&mut words, Channel::Stderr, &reading).await?
                    } else {
                        self.log.take(&mut words)
                    };
                    tokio::task::yield_now().await;
                }
                status = child.wait(), if exited.is_none() => {
                    let status = status.map_err(|error| SourceError::Setting(error.to_string()))?;
                    exited = Some((status, Instant::now()));
                }
                () = sleep_until(orphan_at), if orphan_at.is_some() => {
                    // It ended, but something that it started still holds its output.
                    return Ok(exited.map_or(Ended::Stopped, |(status, _)| Ended::Exited(status)));
                }
                () = sleep_until(stall_at), if stall_at.is_some() => {
                    return Ok(Ended::Stalled(limits.stall_timeout.unwrap_or_default()));
                }
                () = tokio::time::sleep(OPEN_LINE_WAIT), if open_line => {
                    if let Some(part) = output.take_open() {
                        self.take_part(part, Channel::Stdout, &reading).await?;
                    }
                }
                _ = look_at_relay.tick() => {
                    if self.streams.rewind_if_asked()? {
                        return Ok(Ended::Rewound);
                    }
                }
                () = self.context.stop.cancelled() => {
                    if !self.streams.is_resumable() {
                        // What is in the pipe cannot be had again.
                        containment::stop(child).await;
                        while output_open && matches!(tokio::time::timeout(ORPHAN_WAIT, output.fill()).await, Ok(Ok(()))) {
                            output_open = self.take(&mut output, Channel::Stdout, &reading).await?;
                        }
                    }
                    return Ok(Ended::Stopped);
                }
            }
        }
    }

    fn report_throttling(&mut self, throttled: &mut bool) {
        if std::mem::take(throttled) {
            let limit = self.settings.limits.max_bytes_per_second;
            self.context.health.update(&self.context.name, |health| {
                health.message = format!(
                    "prints more than {limit} bytes a second and is slowed down (max_bytes_per_second)"
                );
            });
        }
    }
}
