//! One `exec` source: the task that owns its runs.
//!
//! It alone starts and stops them, one request or cause after the other, so that two people who press a button at
//! the same moment cannot start twice what is to run once. Following a run to its end is a task each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::ZonedDateTime;
use millstream_proto::v1::{self, RefusalKind, SourceState};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::cause::Cause;
use super::changes::Changes;
use super::{ExecSettings, Restart};
use crate::backoff::Backoff;
use crate::control::desk::{Reply, SourceDesk};
use crate::control::{Refused, Request};
use crate::outbox::{PROCESS_HOLD_BYTES, StreamSpec};
use crate::runs::follow::{Follow, Followed, stop_supervisor};
use crate::runs::{Description, Note, RunDir, Work};
use crate::sources::process::{self, CommandSpec};
use crate::sources::{SourceContext, process::sleep_until};

/// A run of at least this length starts the waits between restarts over.
const STEADY_RUN: Duration = Duration::from_secs(60);

/// The wall clock is looked at this often while a schedule waits: it may be set, and hosts sleep.
const CLOCK_LOOK: Duration = Duration::from_secs(30);

/// A run that goes on.
struct Running {
    run: Arc<RunDir>,
    began: Instant,
    /// Left by an earlier agent, so it is this start's run.
    is_adopted: bool,
    is_stopping: bool,
    /// Who waits for its end.
    stops: Vec<Reply<v1::StreamEnd>>,
    /// Who wants it to run again after that.
    restarts: Vec<(String, Reply<v1::Run>)>,
}

/// The task's state.
pub(super) struct Source<'a> {
    context: &'a SourceContext,
    settings: &'a ExecSettings,
    desk: SourceDesk,
    follows: JoinSet<(String, Followed)>,
    running: BTreeMap<String, Running>,
    backoff: Backoff,
    /// When the restart policy wants the next start, and why.
    restart_at: Option<(Instant, Cause)>,
    /// Files that changed while everything that may run did.
    queued: Option<Cause>,
    changes: Option<Changes<'a>>,
    schedule_at: Option<ZonedDateTime>,
}

impl<'a> Source<'a> {
    pub(super) fn new(context: &'a SourceContext, settings: &'a ExecSettings) -> Self {
        Self {
            context,
            settings,
            desk: context.desk.open(&context.name, &settings.command.argv),
            follows: JoinSet::new(),
            running: BTreeMap::new(),
            backoff: Backoff::new(
                settings.restart_delay,
                settings.restart_limit.max(settings.restart_delay),
            ),
            restart_at: None,
            queued: None,
            changes: settings.changes.as_ref().map(Changes::new),
            schedule_at: None,
        }
    }

    /// Until the agent stops, or nothing can ask for another run.
    pub(super) async fn run(mut self) {
        self.adopt();
        if self.running.is_empty() && self.settings.at_start {
            self.start_if_free(&Cause::AgentStart);
        }
        self.plan();
        while !self.context.stop.is_cancelled() && !self.is_done() {
            self.report();
            let restart_at = self.restart_at.as_ref().map(|(at, _)| *at);
            let clock = self
                .schedule_at
                .as_ref()
                .map(|at| Instant::now() + until(at).min(CLOCK_LOOK));
            tokio::select! {
                () = self.context.stop.cancelled() => break,
                request = self.desk.next() => self.serve(request).await,
                Some(followed) = self.follows.join_next() => self.followed(followed),
                () = sleep_until(restart_at), if restart_at.is_some() => {
                    if let Some((_, cause)) = self.restart_at.take() {
                        self.start_if_free(&cause);
                    }
                }
                () = sleep_until(clock), if clock.is_some() => self.look_at_clock(),
                path = changed(&mut self.changes) => self.start_or_queue(Cause::Changed(path)),
            }
        }
        // Each ends by itself: it was told to stop with the agent, or it leaves its run to the next start.
        while let Some(followed) = self.follows.join_next().await {
            self.followed(followed);
        }
        self.desk.set_running("");
    }

    /// Runs that an earlier agent left are followed first.
    fn adopt(&mut self) {
        let name = &self.context.name;
        let is_ours = |left: &Description| left.source == *name && matches!(left.work, Work::Command(_));
        for left in self.context.runs.take_left(is_ours) {
            info!("source {name}: adopts run {}", left.description.run_id);
            self.follow(left, true);
        }
    }

    fn is_done(&self) -> bool {
        self.running.is_empty()
            && self.restart_at.is_none()
            && self.queued.is_none()
            && self.settings.schedule.is_none()
            && self.settings.changes.is_none()
            && !self.desk.may_start()
    }

    fn follow(&mut self, run: RunDir, is_adopted: bool) {
        let run = Arc::new(run);
        let run_id = run.description.run_id.clone();
        let running = Running {
            run: Arc::clone(&run),
            began: Instant::now(),
            is_adopted,
            is_stopping: false,
            stops: Vec::new(),
            restarts: Vec::new(),
        };
        self.running.insert(run_id.clone(), running);
        let (outbox, stop) = (self.context.outbox.clone(), self.context.stop.clone());
        let stops_run = self.settings.stop_with_agent;
        self.follows.spawn(async move {
            let follow = Follow {
                stops_run,
                ..Follow::new(&run, &outbox)
            };
            let followed = follow.follow(&stop).await;
            (run_id, followed)
        });
    }

    /// A run's following ended: tell who waits, and see what comes next.
    fn followed(&mut self, followed: Result<(String, Followed), tokio::task::JoinError>) {
        let (run_id, followed) = match followed {
            Ok(followed) => followed,
            Err(error) => {
                warn!("following a run panicked, which is a bug in Millstream: {error}");
                return;
            }
        };
        let name = &self.context.name;
        info!("source {name}: run {run_id}: {followed}");
        let Some(ended) = self.running.remove(&run_id) else {
            return;
        };
        for reply in ended.stops {
            // Who asked may have hung up.
            let _ = reply.send(stopped(&followed));
        }
        if followed == Followed::Left {
            return;
        }
        let was_stopped = ended.is_stopping;
        let mut again = ended.restarts.into_iter();
        if let Some((principal, reply)) = again.next() {
            let started = self.start(&Cause::Person {
                principal,
                is_restart: true,
            });
            let others = started.clone();
            let _ = reply.send(started);
            for (_, reply) in again {
                let _ = reply.send(others.clone());
            }
        }
        if let Some(cause) = self.queued.take() {
            self.start_if_free(&cause);
        }
        // What a person stopped stays stopped until somebody starts it.
        if was_stopped || !self.running.is_empty() || self.context.stop.is_cancelled() {
            return;
        }
        if ended.is_adopted && followed == Followed::Lost && self.settings.at_start {
            self.start_if_free(&Cause::AgentStart);
            return;
        }
        let again = match self.settings.restart {
            Restart::Never => false,
            Restart::OnFailure => !followed.is_success(),
            Restart::Always => true,
        };
        if again {
            if ended.began.elapsed() >= STEADY_RUN {
                self.backoff.reset();
            }
            let cause = Cause::Restart(in_words(&followed));
            self.restart_at = Some((Instant::now() + self.backoff.next_wait(), cause));
        }
    }

    /// Does what somebody asks, or says why not.
    async fn serve(&mut self, request: Request) {
        match request {
            Request::Start { principal, reply } => {
                let result = if self.has_room() {
                    self.restart_at = None;
                    self.start(&Cause::Person {
                        principal,
                        is_restart: false,
                    })
                } else {
                    let running: Vec<&str> = self.running.keys().map(String::as_str).collect();
                    let message = format!("{} runs already: {}", self.context.name, running.join(", "));
                    self.note_all(&format!(
                        "control: {principal} asked for start; refused: it runs already"
                    ));
                    Err(Refused::new(RefusalKind::WrongState, message))
                };
                let _ = reply.send(result);
            }
            Request::Stop {
                principal,
                run_id,
                reply,
            } => match self.stop(&run_id, &principal, "stop").await {
                Ok(run_id) => {
                    if let Some(running) = self.running.get_mut(&run_id) {
                        running.stops.push(reply);
                    }
                }
                Err(refused) => drop(reply.send(Err(refused))),
            },
            Request::Restart {
                principal,
                run_id,
                reply,
            } => {
                let is_over =
                    self.running.is_empty() || (!run_id.is_empty() && !self.running.contains_key(&run_id));
                if is_over && self.has_room() {
                    let cause = Cause::Person {
                        principal,
                        is_restart: true,
                    };
                    self.restart_at = None;
                    let _ = reply.send(self.start(&cause));
                    return;
                }
                match self.stop(&run_id, &principal, "restart").await {
                    Ok(run_id) => {
                        if let Some(running) = self.running.get_mut(&run_id) {
                            running.restarts.push((principal, reply));
                        }
                    }
                    Err(refused) => drop(reply.send(Err(refused))),
                }
            }
            Request::Note(text) => self.note_all(&text),
        }
    }

    /// Has the run climb the stop ladder, whose steps its own log shows; returns which run that is.
    async fn stop(&mut self, run_id: &str, principal: &str, action: &str) -> Result<String, Refused> {
        let wrong = |message: String| Err(Refused::new(RefusalKind::WrongState, message));
        let name = &self.context.name;
        let run_id = match (run_id, self.running.len()) {
            ("", 0) => return wrong(format!("nothing of {name} runs")),
            ("", 1) => self.running.keys().next().cloned().unwrap_or_default(),
            ("", several) => return wrong(format!("{several} runs of {name} go on; name one")),
            (run_id, _) => run_id.to_owned(),
        };
        let Some(running) = self.running.get_mut(&run_id) else {
            return wrong(format!("run {run_id} of {name} is over"));
        };
        let was_stopping = std::mem::replace(&mut running.is_stopping, true);
        let note = Note {
            text: format!("control: {principal} asked for {action}"),
            stop_reason: (!was_stopping).then(|| format!("stopped: {principal} asked for {action}")),
        };
        let told = running.run.note(&note);
        if let Err(error) = told {
            warn!("source {name}: run {run_id}: the request of {principal} cannot be noted: {error}");
        }
        match stop_supervisor(&running.run).await {
            // Without a supervisor it is over, or about to be told as lost.
            Ok(_) => Ok(run_id),
            Err(error) => {
                // It goes on, and its state says so.
                running.is_stopping = was_stopping;
                Err(Refused::new(
                    RefusalKind::Failed,
                    format!("run {run_id} cannot be stopped: {error}"),
                ))
            }
        }
    }

    fn note_all(&self, text: &str) {
        for (run_id, running) in &self.running {
            if let Err(error) = running.run.note(&Note::new(text)) {
                warn!("run {run_id}: cannot note {text:?}: {error}");
            }
        }
    }

    fn has_room(&self) -> bool {
        self.running.len() < self.settings.max_runs
    }

    /// For causes that pass when it runs already.
    fn start_if_free(&mut self, cause: &Cause) {
        if self.has_room() {
            // What keeps it from starting is in the run's stream and in the log.
            let _ = self.start(cause);
        } else {
            let reason = cause.reason();
            info!(
                "source {}: not started ({reason}): it runs already",
                self.context.name
            );
            self.note_all(&format!("run-skipped: {reason}; this run still goes on"));
        }
    }

    /// Files that changed while it runs are not in that run: one more follows.
    fn start_or_queue(&mut self, cause: Cause) {
        if self.has_room() {
            let _ = self.start(&cause);
        } else {
            self.queued.get_or_insert(cause);
        }
    }

    fn start(&mut self, cause: &Cause) -> Result<v1::Run, Refused> {
        let name = &self.context.name;
        let (argv, set) = self.desk.argv();
        let command = CommandSpec {
            argv,
            ..self.settings.command.clone()
        };
        let mut description = Description::new(
            name,
            self.context.labels.clone(),
            Work::Command(command),
            self.settings.spool,
        );
        cause.started_by().clone_into(&mut description.started_by);
        description.reason = match set {
            Some(set) => format!("{}; {} set this command", cause.reason(), set.principal),
            None => cause.reason(),
        };
        description.limits = self.settings.limits.clone();
        description.env = self.recorded_env();
        let facts = description.to_run().unwrap_or_default();
        match self.context.runs.start(description.clone()) {
            Ok(run) => {
                info!(
                    "source {name}: run {} started: {}",
                    facts.run_id, description.reason
                );
                self.follow(run, false);
                Ok(facts)
            }
            Err(error) => {
                let message = format!("cannot hold a run in the data directory: {error}");
                warn!("source {name}: {message}");
                let writer = self.context.outbox.open(StreamSpec {
                    source: name.clone(),
                    instance: facts.run_id.clone(),
                    labels: self.context.labels.clone(),
                    run: Some(facts),
                    path: None,
                    resumable: false,
                    outlives: false,
                    hold_bytes: PROCESS_HOLD_BYTES,
                });
                writer.end(process::start_failed(message.clone()));
                if self.settings.restart != Restart::Never {
                    let cause = Cause::Restart("could not be held".to_owned());
                    self.restart_at = Some((Instant::now() + self.backoff.next_wait(), cause));
                }
                Err(Refused::new(RefusalKind::Failed, message))
            }
        }
    }

    fn recorded_env(&self) -> BTreeMap<String, String> {
        let set = &self.settings.command.env;
        let value = |name: &String| {
            let value = set.get(name).cloned().or_else(|| std::env::var(name).ok());
            value.map(|value| (name.clone(), value))
        };
        self.settings.record_env.iter().filter_map(value).collect()
    }

    /// The schedule's next time, from now on.
    fn plan(&mut self) {
        let now = ZonedDateTime::now();
        let next = self.settings.schedule.as_ref().and_then(|schedule| {
            let wait = schedule.wait_from(&now)?;
            now.checked_add(wait).ok()
        });
        self.schedule_at = next;
    }

    fn look_at_clock(&mut self) {
        let is_time = self.schedule_at.as_ref().is_some_and(|at| until(at).is_zero());
        if let Some(schedule) = self.settings.schedule.as_ref().filter(|_| is_time) {
            self.start_if_free(&Cause::Schedule(schedule.text().to_owned()));
            self.plan();
        }
    }

    /// How the source is, for whoever asks the agent.
    fn report(&self) {
        let newest = self.running.keys().next_back().cloned().unwrap_or_default();
        let stopping = self.running.values().find(|running| running.is_stopping);
        let (state, message) = match (stopping, &self.restart_at) {
            (Some(running), _) => {
                let run_id = &running.run.description.run_id;
                (
                    SourceState::Stopping,
                    format!("stopping run {run_id}; its log shows each step"),
                )
            }
            (None, _) if !self.running.is_empty() => (SourceState::Running, String::new()),
            (None, Some((at, cause))) => {
                let wait = at.saturating_duration_since(Instant::now());
                let message = format!("runs again in {:.0} s: {}", wait.as_secs_f64(), cause.reason());
                (SourceState::Retrying, message)
            }
            (None, None) => {
                let waits = self
                    .schedule_at
                    .as_ref()
                    .map(|at| format!("next run at {}", at.strftime("%F %T %Z")));
                (SourceState::Idle, waits.unwrap_or_default())
            }
        };
        self.context
            .health
            .set(&self.context.name, "exec", state, message);
        self.desk.set_running(&newest);
    }
}

/// Zero when it is over.
fn until(at: &ZonedDateTime) -> Duration {
    Duration::try_from(ZonedDateTime::now().duration_until(at)).unwrap_or_default()
}

async fn changed(changes: &mut Option<Changes<'_>>) -> std::path::PathBuf {
    match changes {
        Some(changes) => changes.next().await,
        None => std::future::pending().await,
    }
}

fn stopped(followed: &Followed) -> Result<v1::StreamEnd, Refused> {
    match followed {
        Followed::Ended(end) => Ok((**end).clone()),
        Followed::Lost => Ok(v1::StreamEnd {
            reason: v1::EndReason::Lost.into(),
            ..v1::StreamEnd::default()
        }),
        Followed::Left | Followed::Refused(_) => Err(Refused::new(
            RefusalKind::Failed,
            "the agent stopped before the run did; it goes on",
        )),
    }
}

/// "exited with 2": how a run ended, for the reason of the next one.
fn in_words(followed: &Followed) -> String {
    match followed {
        Followed::Ended(end) => match (end.exit_code, end.signal) {
            (Some(code), _) => format!("exited with {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "did not start".to_owned(),
        },
        Followed::Lost => "was lost".to_owned(),
        Followed::Left | Followed::Refused(_) => "is unknown".to_owned(),
    }
}
