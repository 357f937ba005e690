//! `AgentService.Attach`: the call through which an agent takes commands and says how its sources are.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use millstream_proto::v1::{self, attach_request, attach_response};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming};

use super::attached::Attachment;
use crate::auth::Access;
use crate::core::CoreParts;
use crate::ingest::check_agent;

/// What one agent may report, encoded, over all its sources: it goes to readers in one message. More is not shown.
const MAX_REPORT_BYTES: usize = 1 << 20;

/// The generated service's implementation.
#[derive(Clone, Debug)]
pub(crate) struct AttachApi {
    pub(crate) parts: Arc<CoreParts>,
}

#[tonic::async_trait]
impl v1::agent_service_server::AgentService for AttachApi {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<v1::AttachResponse, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let access = Access::of(&request)?;
        let mut incoming = request.into_inner();
        let first = incoming.message().await?.and_then(|request| request.message);
        let Some(attach_request::Message::Hello(hello)) = first else {
            return Err(Status::invalid_argument(
                "the first message of Attach must be Hello",
            ));
        };
        check_agent(
            &self.parts,
            &access,
            hello.protocol_version,
            &hello.agent_id,
            &hello.host,
        )?;
        let (attachment, commands) = self.parts.attached.attach(&hello.agent_id);
        tracing::info!(agent = hello.agent_id, "agent takes commands");
        let hung_up = CancellationToken::new();
        let reader = Reader {
            parts: Arc::clone(&self.parts),
            attachment: Arc::clone(&attachment),
            sources: BTreeMap::new(),
        };
        reader.report();
        self.parts.tasks.spawn(reader.run(incoming, hung_up.clone()));
        let responses = Responses {
            attachment,
            commands,
            stop: self.parts.stop.clone(),
            welcome: Some(v1::AttachWelcome {
                protocol_version: millstream_proto::PROTOCOL_VERSION,
            }),
            hung_up: hung_up.clone(),
            _hang_up: hung_up.drop_guard(),
        };
        Ok(Response::new(Box::pin(responses.into_stream())))
    }
}

/// The side that sends commands. Dropped by the server when the agent is gone, which stops the reader.
struct Responses {
    attachment: Arc<Attachment>,
    commands: mpsc::Receiver<v1::Command>,
    stop: CancellationToken,
    welcome: Option<v1::AttachWelcome>,
    hung_up: CancellationToken,
    _hang_up: DropGuard,
}

impl Responses {
    fn into_stream(self) -> impl Stream<Item = Result<v1::AttachResponse, Status>> + Send {
        futures_util::stream::unfold(Some(self), |responses| async move {
            let mut responses = responses?;
            let message = if let Some(welcome) = responses.welcome.take() {
                attach_response::Message::Welcome(welcome)
            } else {
                tokio::select! {
                    () = responses.stop.cancelled() => {
                        return Some((Err(Status::unavailable("the relay is stopping; reconnect")), None));
                    }
                    () = responses.attachment.replaced.cancelled(), if !responses.hung_up.is_cancelled() => {
                        let status = Status::aborted(format!(
                            "a later call of agent {} took over; if two agents run with the same data directory \
                             or a copy of it, give one an id of its own",
                            responses.attachment.agent_id
                        ));
                        return Some((Err(status), None));
                    }
                    () = responses.hung_up.cancelled() => return None,
                    command = responses.commands.recv() => attach_response::Message::Command(command?),
                }
            };
            let response = v1::AttachResponse {
                message: Some(message),
            };
            Some((Ok(response), Some(responses)))
        })
    }
}

/// The side that reads what the agent says.
struct Reader {
    parts: Arc<CoreParts>,
    attachment: Arc<Attachment>,
    sources: BTreeMap<String, v1::SourceStatus>,
}

impl Reader {
    async fn run(mut self, mut incoming: Streaming<v1::AttachRequest>, hung_up: CancellationToken) {
        let agent = self.attachment.agent_id.clone();
        let (stop, replaced) = (self.parts.stop.clone(), self.attachment.replaced.clone());
        tokio::select! {
            () = hung_up.cancelled() => {}
            () = stop.cancelled() => {}
            () = replaced.cancelled() => {}
            result = self.read(&mut incoming) => if let Err(status) = result {
                tracing::warn!(agent, error = status.message(), "control call ended");
            }
        }
        if self.parts.attached.detach(&self.attachment) {
            self.parts.agents.set_detached(&agent);
        }
        hung_up.cancel();
        tracing::info!(agent, "agent takes no commands any more");
    }

    async fn read(&mut self, incoming: &mut Streaming<v1::AttachRequest>) -> Result<(), Status> {
        while let Some(request) = incoming.message().await? {
            match request.message {
                Some(attach_request::Message::SourceStatus(status)) => self.learn(status),
                Some(attach_request::Message::CommandResult(result)) => self.attachment.answered(result),
                Some(attach_request::Message::Hello(_)) => {
                    return Err(Status::invalid_argument(
                        "Hello may only be the first message of Attach",
                    ));
                }
                // A message of a later version of the protocol.
                None => {}
            }
        }
        Ok(())
    }

    fn learn(&mut self, status: v1::SourceStatus) {
        let others = self
            .sources
            .values()
            .filter(|known| known.source != status.source);
        let bytes: usize = others.chain([&status]).map(prost::Message::encoded_len).sum();
        if bytes > MAX_REPORT_BYTES {
            tracing::warn!(
                agent = self.attachment.agent_id,
                source = status.source,
                "the status of a source is not shown: the agent's sources have more than {MAX_REPORT_BYTES} bytes"
            );
            return;
        }
        self.sources.insert(status.source.clone(), status);
        self.report();
    }

    fn report(&self) {
        let sources = self.sources.values().cloned().collect();
        self.parts.agents.set_attached(&self.attachment.agent_id, sources);
    }
}
