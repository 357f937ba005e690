//! One Push call: hello, then everything that the outbox has, in flight within the relay's window.

use std::time::Duration;

use millstream_dial::{Bearer, DialError};
use millstream_proto::v1::ingest_service_client::IngestServiceClient;
use millstream_proto::v1::push_request::Message as Outgoing;
use millstream_proto::v1::push_response::Message as Incoming;
use millstream_proto::{retry, v1};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tracing::warn;

use super::compress::CompressorTask;
use crate::outbox::{Action, Limits, Outbox};

/// A relay that accepts a connection but does not answer is given up.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);

/// Messages between this task and the HTTP/2 connection, each at most a block. Full: the network is slower
/// than the sources, and blocks wait and grow in the outbox instead.
const REQUEST_QUEUE: usize = 4;

/// Why a session is over.
#[derive(Debug)]
pub(super) enum SessionEnd {
    Stopped,
    Closed(String),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("cannot connect: {}", root_cause(.0))]
    Connect(tonic::transport::Error),
    #[error("no welcome within {} s", WELCOME_TIMEOUT.as_secs())]
    NoWelcome,
    #[error("refused: {0}")]
    Refused(Status),
    #[error("connection failed: {}", .0.message())]
    Open(Status),
    #[error("connection lost: {}", .0.message())]
    Lost(Status),
}

impl SessionError {
    /// How long the relay asks to wait before the next attempt, at least.
    pub(super) fn retry_after(&self) -> Duration {
        match self {
            Self::Open(status) | Self::Lost(status) => retry::delay(status).unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }

    /// The relay had welcomed this agent, so trying again soon is right.
    pub(super) fn had_session(&self) -> bool {
        matches!(self, Self::Lost(_))
    }

    fn of(status: Status, welcomed: bool) -> Self {
        match status.code() {
            Code::Aborted
            | Code::FailedPrecondition
            | Code::InvalidArgument
            | Code::Unimplemented
            | Code::PermissionDenied
            | Code::Unauthenticated => Self::Refused(status),
            _ if welcomed => Self::Lost(status),
            _ => Self::Open(status),
        }
    }
}

/// tonic's own text is only "transport error"; the cause is what helps.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

pub(super) struct Session {
    requests: mpsc::Sender<v1::PushRequest>,
    answers: Streaming<v1::PushResponse>,
    welcome: v1::Welcome,
    throttled_until: Option<Instant>,
}

/// Says hello and waits for the welcome.
pub(super) async fn open(
    client: &mut IngestServiceClient<InterceptedService<Channel, Bearer>>,
    hello: v1::Hello,
) -> Result<Session, SessionError> {
    let (requests, receiver) = mpsc::channel(REQUEST_QUEUE);
    let hello = v1::PushRequest {
        message: Some(Outgoing::Hello(hello)),
    };
    requests
        .send(hello)
        .await
        .expect("the receiver is in this function");
    let exchange = async {
        let mut answers = client.push(ReceiverStream::new(receiver)).await?.into_inner();
        match answers.message().await?.and_then(|answer| answer.message) {
            Some(Incoming::Welcome(welcome)) => Ok((answers, welcome)),
            _ => Err(Status::invalid_argument(
                "the relay's first message is no welcome",
            )),
        }
    };
    let (answers, welcome) = tokio::time::timeout(WELCOME_TIMEOUT, exchange)
        .await
        .map_err(|_| SessionError::NoWelcome)?
        .map_err(|status| SessionError::of(status, false))?;
    Ok(Session {
        requests,
        answers,
        welcome,
        throttled_until: None,
    })
}

impl Session {
    pub(super) async fn run(
        mut self,
        outbox: &Outbox,
        compressor: &mut CompressorTask,
        stop: &CancellationToken,
    ) -> Result<SessionEnd, SessionError> {
        outbox.session_began();
        let compress = compressor.enabled() && self.welcome.codecs().any(|codec| codec == v1::Codec::Zstd);
        let max_in_flight_bytes = usize::try_from(self.welcome.max_unacked_bytes).unwrap_or(usize::MAX);
        // False: nothing to do until one of the other branches says that something changed.
        let mut may_act = true;
        loop {
            let timer = self.next_timer(outbox);
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(SessionEnd::Stopped),
                answer = self.answers.message() => match answer {
                    Ok(Some(answer)) => handle(outbox, answer, &mut self.throttled_until),
                    Ok(None) => return Ok(SessionEnd::Closed("end of call".to_owned())),
                    Err(status) if status.code() == Code::Unavailable => {
                        return Ok(SessionEnd::Closed(status.message().to_owned()));
                    }
                    Err(status) => return Err(SessionError::of(status, true)),
                },
                job = compressor.done() => outbox.compressed(job),
                permit = self.requests.reserve(), if may_act => {
                    let Ok(permit) = permit else {
                        // The call is over; the answers tell why.
                        may_act = false;
                        continue;
                    };
                    let limits = Limits {
                        max_in_flight_bytes,
                        compress,
                        compressor_free: compressor.free(),
                        throttled: self.throttled_until.is_some(),
                    };
                    match outbox.next_action(&limits) {
                        Action::Send(message) => permit.send(v1::PushRequest { message: Some(message) }),
                        Action::Compress(job) => compressor.start(job),
                        Action::Wait => may_act = false,
                    }
                    continue;
                }
                () = outbox.work() => {}
                () = sleep_until(timer) => {
                    let now = Instant::now();
                    outbox.reopen_due(now);
                    outbox.flush_due(now);
                    self.throttled_until = self.throttled_until.filter(|until| *until > now);
                }
            }
            may_act = true;
        }
    }

    fn next_timer(&self, outbox: &Outbox) -> Option<Instant> {
        [self.throttled_until, outbox.next_reopen(), outbox.next_flush()]
            .into_iter()
            .flatten()
            .min()
    }
}

fn handle(outbox: &Outbox, answer: v1::PushResponse, throttled_until: &mut Option<Instant>) {
    match answer.message {
        Some(Incoming::StreamOpened(opened)) => outbox.opened(&opened),
        Some(Incoming::Ack(ack)) => outbox.acked(&ack),
        Some(Incoming::Refusal(refusal)) => {
            if let Some(told) = outbox.refused(&refusal) {
                warn!("{told}");
            }
        }
        Some(Incoming::Throttle(throttle)) => {
            let wait = Duration::from_millis(throttle.wait_ms.into());
            if throttled_until.is_none() {
                warn!("relay asks to wait {} ms: {}", throttle.wait_ms, throttle.reason);
            }
            *throttled_until = Some(Instant::now() + wait);
        }
        Some(Incoming::Welcome(_)) | None => {}
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
