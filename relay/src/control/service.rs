//! `ControlService`: finds the agent, sends the command, returns its answer.

use std::sync::Arc;
use std::time::Duration;

use millstream_proto::v1::{self, CommandAction, RefusalKind};
use tonic::{Request, Response, Status};

use super::attached::NoAnswer;
use crate::auth::Access;
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
        let access = Access::of(&request)?;
        let target = self.source(&access, request.into_inner().target)?;
        let result = self.ask(&access, target, CommandAction::Start, |_| {}).await?;
        Ok(Response::new(v1::StartResponse { run: result.run }))
    }

    async fn stop(&self, request: Request<v1::StopRequest>) -> Result<Response<v1::StopResponse>, Status> {
        use v1::stop_request::Target as Wire;
        let access = Access::of(&request)?;
        let target = match request.into_inner().target {
            Some(Wire::RunId(run_id)) => self.run(&access, run_id)?,
            Some(Wire::Source(source)) => self.source(&access, Some(source))?,
            None => self.source(&access, None)?,
        };
        let result = self.ask(&access, target, CommandAction::Stop, |_| {}).await?;
        Ok(Response::new(v1::StopResponse { end: result.end }))
    }

    async fn restart(
        &self,
        request: Request<v1::RestartRequest>,
    ) -> Result<Response<v1::RestartResponse>, Status> {
        use v1::restart_request::Target as Wire;
        let access = Access::of(&request)?;
        let target = match request.into_inner().target {
            // A run that is over can be run again too: restart is of its source then.
            Some(Wire::RunId(run_id)) => self.run(&access, run_id)?,
            Some(Wire::Source(source)) => self.source(&access, Some(source))?,
            None => self.source(&access, None)?,
        };
        let result = self.ask(&access, target, CommandAction::Restart, |_| {}).await?;
        Ok(Response::new(v1::RestartResponse { run: result.run }))
    }

    async fn set_command(
        &self,
        request: Request<v1::SetCommandRequest>,
    ) -> Result<Response<v1::SetCommandResponse>, Status> {
        let access = Access::of(&request)?;
        let request = request.into_inner();
        for argv in [&request.argv, &request.expected_argv] {
            check_argv(argv)?;
        }
        let target = self.source(&access, request.target)?;
        let fill = |command: &mut v1::Command| {
            command.argv = request.argv;
            command.expected_argv = request.expected_argv;
        };
        let result = self.ask(&access, target, CommandAction::SetCommand, fill).await?;
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

    async fn ask(
        &self,
        access: &Access,
        target: Target,
        action: CommandAction,
        fill: impl FnOnce(&mut v1::Command),
    ) -> Result<v1::CommandResult, Status> {
        let Target {
            agent_id,
            source,
            run_id,
        } = target;
        let mut command = v1::Command {
            action: action.into(),
            source: source.clone(),
            run_id,
            principal: access.who().to_owned(),
            ..v1::Command::default()
        };
        fill(&mut command);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.parts.attached.ask(&agent_id, command)).await;
        let outcome = match answer {
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
        };
        let outcome_text = outcome.as_ref().map_or_else(Status::message, |_| "done");
        tracing::info!(
            principal = access.who(),
            action = verb(action),
            agent = agent_id,
            source,
            outcome = outcome_text,
            "control"
        );
        outcome
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
