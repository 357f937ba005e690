//! `ControlService`: finds the agent, sends the command, returns its answer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use millstream_proto::v1::{self, CommandAction, RefusalKind};
use tonic::{Request, Response, Status};

use super::attached::NoAnswer;
use crate::auth::{Access, Trail};
use crate::core::CoreParts;

/// Longest that an agent may take: the stop ladder needs 10 s, and a little for a tree that dies slowly.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Bounds of a new command: what the system itself would take is more, but nobody types that.
const MAX_ARGV_WORDS: usize = 1024;
const MAX_ARGV_BYTES: usize = 64 << 10;

/// The generated service's implementation.
#[derive(Clone, Debug)]
pub(crate) struct ControlApi {
    pub(crate) parts: Arc<CoreParts>,
}

/// Who asks, and where it is written down.
struct Caller {
    access: Arc<Access>,
    /// None: nobody is asked who they are, not even for the audit (tests of the core).
    trail: Option<Trail>,
}

impl Caller {
    fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        Ok(Self {
            access: Access::of(request)?,
            trail: request.extensions().get::<Trail>().cloned(),
        })
    }
}

/// What a command is to act on, in the caller's words.
enum Wanted {
    Source(Option<v1::SourceTarget>),
    Run(String),
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(Some(target)) => write!(f, "{}/{}", target.agent_id, target.source),
            Self::Source(None) => f.write_str("nothing"),
            Self::Run(run_id) => write!(f, "run {run_id}"),
        }
    }
}

/// What a command acts on, looked up and within the caller's scope.
struct Target {
    agent_id: String,
    source: String,
    /// Empty: whatever run the source has.
    run_id: String,
}

#[tonic::async_trait]
impl v1::control_service_server::ControlService for ControlApi {
    async fn start(&self, request: Request<v1::StartRequest>) -> Result<Response<v1::StartResponse>, Status> {
        let caller = Caller::of(&request)?;
        let wanted = Wanted::Source(request.into_inner().target);
        let result = self.ask(&caller, wanted, CommandAction::Start, |_| {}).await?;
        Ok(Response::new(v1::StartResponse { run: result.run }))
    }

    async fn stop(&self, request: Request<v1::StopRequest>) -> Result<Response<v1::StopResponse>, Status> {
        use v1::stop_request::Target as Wire;
        let caller = Caller::of(&request)?;
        let wanted = match request.into_inner().target {
            Some(Wire::RunId(run_id)) => Wanted::Run(run_id),
            Some(Wire::Source(source)) => Wanted::Source(Some(source)),
            None => Wanted::Source(None),
        };
        let result = self.ask(&caller, wanted, CommandAction::Stop, |_| {}).await?;
        Ok(Response::new(v1::StopResponse { end: result.end }))
    }

    async fn restart(
        &self,
        request: Request<v1::RestartRequest>,
    ) -> Result<Response<v1::RestartResponse>, Status> {
        use v1::restart_request::Target as Wire;
        let caller = Caller::of(&request)?;
        let wanted = match request.into_inner().target {
            // A run that is over can be run again too: restart is of its source then.
            Some(Wire::RunId(run_id)) => Wanted::Run(run_id),
            Some(Wire::Source(source)) => Wanted::Source(Some(source)),
            None => Wanted::Source(None),
        };
        let result = self.ask(&caller, wanted, CommandAction::Restart, |_| {}).await?;
        Ok(Response::new(v1::RestartResponse { run: result.run }))
    }

    async fn set_command(
        &self,
        request: Request<v1::SetCommandRequest>,
    ) -> Result<Response<v1::SetCommandResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        for argv in [&request.argv, &request.expected_argv] {
            check_argv(argv)?;
        }
        let wanted = Wanted::Source(request.target);
        let fill = |command: &mut v1::Command| {
            command.argv = request.argv;
            command.expected_argv = request.expected_argv;
        };
        let result = self.ask(&caller, wanted, CommandAction::SetCommand, fill).await?;
        Ok(Response::new(v1::SetCommandResponse {
            previous_argv: result.previous_argv,
        }))
    }
}

impl ControlApi {
    fn source(&self, access: &Access, target: Option<v1::SourceTarget>) -> Result<Target, Status> {
        let target = target.filter(|target| !target.agent_id.is_empty() && !target.source.is_empty());
        let Some(v1::SourceTarget { agent_id, source }) = target else {
            return Err(Status::invalid_argument(
                "the request names no target: set agent_id and source, or run_id where there is one",
            ));
        };
        // Outside of the caller's scope an agent does not exist.
        let agent = self.parts.agents.get(&agent_id);
        let agent = agent.filter(|agent| access.sees_source(agent, &source));
        if agent.is_none() {
            return Err(Status::not_found(format!(
                "there is no agent {agent_id:?} with a source {source:?}; `millstream ls agents` shows which there are"
            )));
        }
        Ok(Target {
            agent_id,
            source,
            run_id: String::new(),
        })
    }

    fn run(&self, access: &Access, run_id: String) -> Result<Target, Status> {
        let stream = self
            .parts
            .registry
            .find_run(&run_id)
            .filter(|stream| access.sees(&stream.labels));
        let Some(stream) = stream else {
            return Err(Status::not_found(format!(
                "there is no run {run_id:?}; `millstream ls runs` shows which there are"
            )));
        };
        let record = stream.record();
        Ok(Target {
            agent_id: record.agent_id,
            source: record.source,
            run_id,
        })
    }

    /// Sends the command, and writes down who asked for what, and what became of it.
    async fn ask(
        &self,
        caller: &Caller,
        wanted: Wanted,
        action: CommandAction,
        fill: impl FnOnce(&mut v1::Command),
    ) -> Result<v1::CommandResult, Status> {
        let described = wanted.to_string();
        let mut command = v1::Command {
            action: action.into(),
            principal: caller.access.who().to_owned(),
            ..v1::Command::default()
        };
        fill(&mut command);
        let argv = command.argv.join(" ");
        let outcome = match self.target(&caller.access, wanted) {
            Ok(target) => self.ask_agent(target, command).await,
            Err(refused) => Err(refused),
        };
        let outcome_text = outcome.as_ref().map_or_else(Status::message, |_| "done");
        tracing::info!(
            principal = caller.access.who(),
            action = verb(action),
            target = described,
            outcome = outcome_text,
            "control"
        );
        if let Some(trail) = &caller.trail {
            trail.controlled(&caller.access, verb(action), &described, &argv, outcome_text);
        }
        outcome
    }

    fn target(&self, access: &Access, wanted: Wanted) -> Result<Target, Status> {
        match wanted {
            Wanted::Source(target) => self.source(access, target),
            Wanted::Run(run_id) => self.run(access, run_id),
        }
    }

    async fn ask_agent(&self, target: Target, mut command: v1::Command) -> Result<v1::CommandResult, Status> {
        let Target {
            agent_id,
            source,
            run_id,
        } = target;
        command.source = source;
        command.run_id = run_id;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.parts.attached.ask(&agent_id, command)).await;
        match answer {
            Ok(Ok(result)) => refusal(result),
            Ok(Err(NoAnswer::Away)) => Err(Status::unavailable(format!(
                "agent {agent_id} is away, so nothing was done; the command is not kept for later"
            ))),
            Ok(Err(NoAnswer::Lost)) => Err(Status::unavailable(format!(
                "the connection to agent {agent_id} was lost before it answered; look whether it was done \
                 before you try again"
            ))),
            Ok(Err(NoAnswer::Busy)) => Err(Status::resource_exhausted(format!(
                "agent {agent_id} has not answered many commands yet; try again in some seconds"
            ))),
            Err(_elapsed) => Err(Status::deadline_exceeded(format!(
                "agent {agent_id} did not answer within {} s; it may still do it, look at the run",
                ANSWER_TIMEOUT.as_secs()
            ))),
        }
    }
}

fn refusal(result: v1::CommandResult) -> Result<v1::CommandResult, Status> {
    if result.refusal.is_empty() {
        return Ok(result);
    }
    let message = result.refusal.clone();
    Err(match result.refusal_kind() {
        RefusalKind::Forbidden => Status::permission_denied(message),
        RefusalKind::UnknownSource => Status::not_found(message),
        RefusalKind::WrongState => Status::failed_precondition(message),
        RefusalKind::Conflict => Status::aborted(message),
        RefusalKind::Failed | RefusalKind::Unspecified => Status::unknown(message),
    })
}

fn check_argv(argv: &[String]) -> Result<(), Status> {
    let bytes: usize = argv.iter().map(String::len).sum();
    if argv.len() > MAX_ARGV_WORDS || bytes > MAX_ARGV_BYTES {
        return Err(Status::invalid_argument(format!(
            "the command has {} words and {bytes} bytes; the limits are {MAX_ARGV_WORDS} and {MAX_ARGV_BYTES}",
            argv.len()
        )));
    }
    if argv.iter().any(|word| word.contains('\0')) {
        return Err(Status::invalid_argument(
            "a word of the command has a NUL byte, which no command can have",
        ));
    }
    if argv.first().is_some_and(String::is_empty) {
        return Err(Status::invalid_argument(
            "the first word of the command, the program, is empty",
        ));
    }
    Ok(())
}

/// As the agent's allow-list calls it.
fn verb(action: CommandAction) -> &'static str {
    match action {
        CommandAction::Start => "start",
        CommandAction::Stop => "stop",
        CommandAction::Restart => "restart",
        CommandAction::SetCommand => "set_command",
        CommandAction::Unspecified => "nothing",
    }
}
