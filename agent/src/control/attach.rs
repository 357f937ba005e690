//! The call through which the relay commands this agent: a connection of its own, so that control never waits
//! behind logs. Kept open for ever, like the uplink's; that one does the complaining when the relay is away.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_proto::retry;
use millstream_proto::v1::agent_service_client::AgentServiceClient;
use millstream_proto::v1::{self, attach_request, attach_response};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use tracing::{debug, error, info};

use super::Desk;
use crate::backoff::Backoff;
use crate::health::HealthBoard;
use crate::uplink::{self, UplinkConfig};

const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// After an answer that another attempt is unlikely to change: a relay without control, or another agent with
/// this one's id.
const REFUSED_WAIT: Duration = Duration::from_secs(60);
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);

/// Messages that wait for the connection: statuses and results, a few hundred bytes each. Full: the call waits.
const QUEUE: usize = 16;

/// Commands that are being carried out. The relay has a bound of its own; beyond this one, commands wait.
const MAX_RUNNING: usize = 64;

/// What is reported and asked.
#[derive(Debug)]
pub struct Attach {
    pub config: UplinkConfig,
    pub desk: Desk,
    pub health: HealthBoard,
}

impl Attach {
    /// Keeps the call open; returns when `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        for url in self.config.relays.iter().cycle() {
            let result = tokio::select! {
                () = stop.cancelled() => return,
                result = self.one_call(url) => result,
            };
            let wait = match result {
                Ok(()) => {
                    backoff.reset();
                    backoff.next_wait()
                }
                Err(status) if is_final(status.code()) => {
                    error!(
                        "relay {url} does not let this agent be controlled: {}",
                        status.message()
                    );
                    REFUSED_WAIT.mul_f64(0.75 + fastrand::f64() * 0.5)
                }
                Err(status) => {
                    debug!("control call to {url}: {}", status.message());
                    retry::delay(&status).unwrap_or_default() + backoff.next_wait()
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One call, to its end. `Ok`: there was one.
    async fn one_call(&self, url: &str) -> Result<(), Status> {
        let (channel, bearer) = uplink::connect(&self.config, url).await?;
        let mut client = AgentServiceClient::with_interceptor(channel, bearer);
        let (requests, receiver) = mpsc::channel(QUEUE);
        let hello = v1::AttachHello {
            protocol_version: millstream_proto::PROTOCOL_VERSION,
            agent_id: self.config.agent_id.clone(),
            host: self.config.host.clone(),
        };
        let open = async {
            send(&requests, attach_request::Message::Hello(hello)).await;
            let mut answers = client.attach(ReceiverStream::new(receiver)).await?.into_inner();
            match answers.message().await?.and_then(|answer| answer.message) {
                Some(attach_response::Message::Welcome(_)) => Ok(answers),
                _ => Err(Status::invalid_argument(
                    "the relay's first message is no welcome",
                )),
            }
        };
        let answers = tokio::time::timeout(WELCOME_TIMEOUT, open)
            .await
            .map_err(|_| Status::deadline_exceeded("no welcome"))??;
        info!("takes commands from {url}");
        match self.serve(&requests, answers).await {
            Err(status) if is_final(status.code()) => Err(status),
            Err(status) => {
                debug!("control call to {url} ended: {}", status.message());
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    async fn serve(
        &self,
        requests: &mpsc::Sender<v1::AttachRequest>,
        mut answers: Streaming<v1::AttachResponse>,
    ) -> Result<(), Status> {
        let mut reported = BTreeMap::new();
        let (mut health, mut desk) = (self.health.watch(), self.desk.watch());
        // Dropped with the call: a command that was begun goes on in its source, only its answer is lost.
        let mut running: JoinSet<v1::CommandResult> = JoinSet::new();
        loop {
            // Marked as seen before it is read, so that no change falls between.
            health.mark_unchanged();
            desk.mark_unchanged();
            for status in self.changed(&mut reported) {
                send(requests, attach_request::Message::SourceStatus(status)).await;
            }
            tokio::select! {
                answer = answers.message(), if running.len() < MAX_RUNNING => match answer? {
                    None => return Ok(()),
                    Some(answer) => if let Some(attach_response::Message::Command(command)) = answer.message {
                        let desk = self.desk.clone();
                        running.spawn(async move { desk.handle(command).await });
                    },
                },
                Some(result) = running.join_next() => match result {
                    Ok(result) => send(requests, attach_request::Message::CommandResult(result)).await,
                    Err(failure) => error!("a command panicked, which is a bug in Millstream: {failure}"),
                },
                _ = health.changed() => {}
                _ = desk.changed() => {}
            }
        }
    }

    /// Statuses that are not what the relay has.
    fn changed(&self, reported: &mut BTreeMap<String, v1::SourceStatus>) -> Vec<v1::SourceStatus> {
        let mut changed = Vec::new();
        for mut status in self.health.statuses() {
            self.desk.complete(&mut status);
            if reported.get(&status.source) != Some(&status) {
                reported.insert(status.source.clone(), status.clone());
                changed.push(status);
            }
        }
        changed
    }
}

/// When the call is over nobody takes the message; the answers say so next.
async fn send(requests: &mpsc::Sender<v1::AttachRequest>, message: attach_request::Message) {
    let request = v1::AttachRequest {
        message: Some(message),
    };
    let _ = requests.send(request).await;
}

fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::Unimplemented
            | Code::Aborted
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unauthenticated
    )
}
