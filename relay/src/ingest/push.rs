//! The bidirectional call of one agent.

use std::collections::{BTreeMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use millstream_proto::v1::{self, push_request, push_response};
use millstream_proto::{PROTOCOL_VERSION, block};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming};

use super::Session;
use super::check;
use super::identity::check_agent;
use crate::auth::{Access, Report};
use crate::clock::now_unix_us;
use crate::core::CoreParts;
use crate::limits::Pace;
use crate::streams::{StreamHandle, StreamKey};
use crate::writer::{Append, Command, End, OpenStream, Stopped};

/// Direct answers (Welcome, StreamOpened) that may wait to be sent; when an agent opens streams without
/// reading the answers, its session stops reading.
const ANSWERS: usize = 64;

/// Streams that one session may have open.
const MAX_OPEN_STREAMS: usize = 100_000;

/// Streams of one session whose refusal is remembered, so that an agent that asks again is in the audit once; beyond
/// that the audit's own limit holds.
const MAX_AUDITED: usize = 1000;

/// The generated service's implementation.
#[derive(Clone, Debug)]
pub(crate) struct IngestApi {
    pub(crate) parts: Arc<CoreParts>,
}

type Answer = Result<push_response::Message, Status>;

#[tonic::async_trait]
impl v1::ingest_service_server::IngestService for IngestApi {
    type PushStream = Pin<Box<dyn Stream<Item = Result<v1::PushResponse, Status>> + Send>>;

    async fn push(
        &self,
        request: Request<Streaming<v1::PushRequest>>,
    ) -> Result<Response<Self::PushStream>, Status> {
        let access = Access::of(&request)?;
        // There is none where a test or simulation lets everybody in.
        let report = request.extensions().get::<Arc<Report>>().cloned();
        let mut incoming = request.into_inner();
        let first = incoming.message().await?.and_then(|request| request.message);
        let Some(push_request::Message::Hello(hello)) = first else {
            return Err(Status::invalid_argument(
                "the first message of a session must be Hello",
            ));
        };
        check_agent(
            &self.parts,
            &access,
            hello.protocol_version,
            &hello.agent_id,
            &hello.host,
        )?;
        check::check_labels(&hello.labels).map_err(|error| Status::invalid_argument(error.to_string()))?;
        // A new session needs a write of its own, so it would wait without a word. The agent keeps its lines,
        // says why and comes again.
        if let Some(trouble) = self.parts.trouble() {
            return Err(Status::unavailable(trouble));
        }
        let session = Arc::new(Session::new(hello.agent_id.clone()));
        let agent = v1::Agent {
            agent_id: hello.agent_id.clone(),
            host: hello.host.clone(),
            labels: hello.labels.clone(),
            version: hello.agent_version.clone(),
            state: v1::AgentState::Connected.into(),
            connected_unix_us: now_unix_us(),
            disconnected_unix_us: 0,
            ..v1::Agent::default()
        };
        let parts = Arc::clone(&self.parts);
        let epoch = parts
            .writer
            .open_session(Arc::clone(&session), agent)
            .await
            .map_err(stopping)?;
        tracing::info!(
            agent = hello.agent_id,
            host = hello.host,
            epoch,
            "agent connected"
        );

        let (answers, to_send) = mpsc::channel(ANSWERS);
        let welcome = v1::Welcome {
            protocol_version: PROTOCOL_VERSION,
            relay_version: env!("CARGO_PKG_VERSION").to_owned(),
            store_id: parts.store.store_id().to_owned(),
            epoch,
            max_unacked_bytes: parts.options.max_unacked_bytes,
            codecs: vec![v1::Codec::None.into(), v1::Codec::Zstd.into()],
        };
        // The channel is empty and its receiver is alive: this cannot fail.
        let _ = answers.try_send(Ok(push_response::Message::Welcome(welcome)));

        let hung_up = CancellationToken::new();
        let reader = Reader {
            parts: Arc::clone(&parts),
            hello,
            session: Arc::clone(&session),
            access,
            share: Arc::new(Semaphore::new(share_of_queue(&parts))),
            pace: parts.paces.of(&session.agent_id, Instant::now()),
            report,
            audited: HashSet::new(),
            open: BTreeMap::new(),
            answers,
        };
        parts.tasks.spawn(reader.run(incoming, hung_up.clone()));
        let responses = Responses {
            session,
            to_send,
            parts,
            _hang_up: hung_up.drop_guard(),
        };
        Ok(Response::new(Box::pin(responses.into_stream())))
    }
}

impl IngestApi {}

/// The side that sends. Dropped by the server when the agent is gone, which stops the reader.
struct Responses {
    session: Arc<Session>,
    to_send: mpsc::Receiver<Answer>,
    parts: Arc<CoreParts>,
    _hang_up: DropGuard,
}

impl Responses {
    fn into_stream(self) -> impl Stream<Item = Result<v1::PushResponse, Status>> + Send {
        let state = (Some(self), std::collections::VecDeque::new());
        futures_util::stream::unfold(state, |(responses, mut pending)| async move {
            let mut responses = responses?;
            loop {
                if let Some(message) = pending.pop_front() {
                    let response = v1::PushResponse {
                        message: Some(message),
                    };
                    return Some((Ok(response), (Some(responses), pending)));
                }
                tokio::select! {
                    // Direct answers first, so that an agent learns of an opened stream before the
                    // acknowledgements in it.
                    biased;
                    answer = responses.to_send.recv() => match answer {
                        Some(Ok(message)) => pending.push_back(message),
                        Some(Err(status)) => return Some((Err(status), (None, pending))),
                        // The agent closed its side: hand out what is acknowledged until then.
                        None => {
                            pending.extend(responses.session.take());
                            if pending.is_empty() && responses.parts.drained.is_cancelled() {
                                return Some((Err(stopping(Stopped)), (None, pending)));
                            }
                            if pending.is_empty() {
                                return None;
                            }
                        }
                    },
                    () = responses.session.changed() => {
                        if responses.session.is_fenced() {
                            let status = Status::aborted(format!(
                                "a later session of agent {} took over; if two agents run with the same data \
                                 directory or a copy of it, give one an id of its own",
                                responses.session.agent_id
                            ));
                            return Some((Err(status), (None, pending)));
                        }
                        pending.extend(responses.session.take());
                    }
                    () = responses.parts.drained.cancelled() => {
                        // Everything that was accepted is durable now: say so before hanging up.
                        pending.extend(responses.session.take());
                        if pending.is_empty() {
                            return Some((Err(stopping(Stopped)), (None, pending)));
                        }
                    }
                }
            }
        })
    }
}

/// The side that reads.
struct Reader {
    parts: Arc<CoreParts>,
    hello: v1::Hello,
    session: Arc<Session>,
    access: Arc<Access>,
    /// Bytes of its blocks that may wait for the writer.
    share: Arc<Semaphore>,
    /// `None`: the agent may be as fast as it can.
    pace: Option<Arc<Pace>>,
    report: Option<Arc<Report>>,
    /// Streams whose refusal is in the audit.
    audited: HashSet<StreamKey>,
    open: BTreeMap<u32, Arc<StreamHandle>>,
    answers: mpsc::Sender<Answer>,
}

impl Reader {
    async fn run(mut self, incoming: Streaming<v1::PushRequest>, hung_up: CancellationToken) {
        self.parts.metrics.sessions.add(1);
        let stop = self.parts.stop.clone();
        let result = tokio::select! {
            biased;
            () = hung_up.cancelled() => Ok(()),
            () = stop.cancelled() => Ok(()),
            result = self.read(incoming) => result,
        };
        for stream in self.open.values() {
            stream.closed();
        }
        // When the writer has stopped there is nothing left to tell it.
        let _ = self
            .parts
            .writer
            .send(Command::CloseSession {
                session: Arc::clone(&self.session),
            })
            .await;
        self.parts.metrics.sessions.subtract(1);
        match result {
            Ok(()) => tracing::info!(agent = self.hello.agent_id, "agent disconnected"),
            Err(status) => {
                tracing::warn!(
                    agent = self.hello.agent_id,
                    error = status.message(),
                    "session ended"
                );
                // An agent that hung up does not read the answer.
                let _ = self.answers.send(Err(status)).await;
            }
        }
        if stop.is_cancelled() {
            // Keeps the sending side open until everything accepted is durable and acknowledged.
            self.parts.drained.cancelled().await;
        } else if !hung_up.is_cancelled() {
            self.drain(&hung_up).await;
        }
    }

    /// After the agent closed its side: waits until the writer is through what was queued before.
    async fn drain(&self, hung_up: &CancellationToken) {
        let (reply, answer) = tokio::sync::oneshot::channel();
        if self.parts.writer.send(Command::Barrier { reply }).await.is_ok() {
            tokio::select! {
                _ = answer => {}
                () = hung_up.cancelled() => {}
            }
        }
    }

    async fn read(&mut self, mut incoming: Streaming<v1::PushRequest>) -> Result<(), Status> {
        while let Some(request) = incoming.message().await? {
            let Some(message) = request.message else {
                return Err(Status::invalid_argument("a PushRequest without message"));
            };
            match message {
                push_request::Message::Hello(_) => {
                    return Err(Status::invalid_argument(
                        "Hello may only be the first message of a session",
                    ));
                }
                push_request::Message::OpenStream(open) => self.open_stream(open).await?,
                push_request::Message::Block(block) => self.append(block).await?,
                push_request::Message::EndStream(end) => self.end(end).await?,
            }
        }
        Ok(())
    }

    async fn open_stream(&mut self, open: v1::OpenStream) -> Result<(), Status> {
        let handle = open.handle;
        let labels = match check::compose_labels(&self.hello, &open) {
            Ok(labels) => labels,
            Err(error) => {
                self.refuse(handle, v1::RefusalReason::BadLabel, error.to_string());
                return Ok(());
            }
        };
        let key = StreamKey {
            agent_id: self.hello.agent_id.clone(),
            source: open.source,
            instance: open.instance,
        };
        if open.only_if_known && self.parts.registry.find(&key).is_none() {
            let unknown = v1::StreamOpened {
                handle,
                ..v1::StreamOpened::default()
            };
            self.answer(unknown).await;
            return Ok(());
        }
        // Who only asks does not know all labels; those of the stream decide below.
        if !open.only_if_known && !self.access.sees(&labels) {
            self.refuse_scope(handle, &key);
            return Ok(());
        }
        if self.open.len() >= MAX_OPEN_STREAMS {
            let message = format!("the session has {MAX_OPEN_STREAMS} streams open, the limit");
            self.refuse(handle, v1::RefusalReason::Limit, message);
            return Ok(());
        }
        let asked = key.clone();
        let open = OpenStream {
            session: Arc::clone(&self.session),
            key,
            labels,
            run: open.run,
        };
        match self.parts.writer.open_stream(open).await.map_err(stopping)? {
            // A stream keeps the labels with which it was made; these are of the request only.
            Ok(opened) if !self.access.sees(&opened.stream.labels) => {
                self.refuse_scope(handle, &asked);
            }
            Ok(opened) => {
                let answer = v1::StreamOpened {
                    handle,
                    stream_id: opened.stream.stream_id,
                    next_sequence: opened.next_sequence,
                    checkpoint: opened.checkpoint,
                    ended: opened.is_ended,
                };
                if let Some(earlier) = self.open.insert(handle, Arc::clone(&opened.stream)) {
                    earlier.closed();
                }
                opened.stream.opened();
                self.answer(answer).await;
            }
            Err(message) => self.refuse(handle, v1::RefusalReason::Limit, message),
        }
        Ok(())
    }

    async fn answer(&self, answer: v1::StreamOpened) {
        // Fails only when the agent is gone, and then the reader is stopped anyway.
        let _ = self
            .answers
            .send(Ok(push_response::Message::StreamOpened(answer)))
            .await;
    }

    async fn append(&mut self, push: v1::PushBlock) -> Result<(), Status> {
        let handle = push.handle;
        let Some(stream) = self.open.get(&handle) else {
            return Err(not_open(handle));
        };
        let problem = match &push.block {
            None => Some("a PushBlock without block".to_owned()),
            Some(block) if !block.sequences.is_empty() => {
                Some("an agent's block must be dense; it has a column of sequences".to_owned())
            }
            Some(block) => block::validate(block)
                .err()
                .map(|error| error.to_string())
                .or_else(|| {
                    check::check_checkpoint(&push.checkpoint)
                        .err()
                        .map(|error| error.to_string())
                }),
        };
        if let Some(problem) = problem {
            self.refuse(handle, v1::RefusalReason::Malformed, problem);
            return Ok(());
        }
        let block = push.block.unwrap_or_default();
        let (bytes, lines) = (u64::from(block.text_bytes), u64::from(block.line_count));
        // Compressed as it came; an agent that sends on beyond what it was welcomed with waits here.
        let waiting = block.text.len().clamp(1, share_of_queue(&self.parts));
        let share = Arc::clone(&self.share)
            .acquire_many_owned(u32::try_from(waiting).unwrap_or(u32::MAX))
            .await
            .map_err(|_| stopping(Stopped))?;
        let append = Append {
            session: Arc::clone(&self.session),
            handle,
            stream: Arc::clone(stream),
            block,
            checkpoint: push.checkpoint,
            share: Some(share),
        };
        self.parts.writer.append(append).await.map_err(stopping)?;
        self.keep_pace(bytes, lines).await;
        Ok(())
    }

    /// Tells an agent that is too fast to wait, and reads nothing of it until then: what it sends all the same waits in
    /// its windows, so nothing is refused or lost.
    async fn keep_pace(&self, bytes: u64, lines: u64) {
        let Some(pace) = &self.pace else { return };
        let Some(wait) = self.parts.paces.take(pace, bytes, lines, Instant::now()) else {
            return;
        };
        self.parts.metrics.throttles_total.add(1);
        self.session.throttle(v1::Throttle {
            wait_ms: u32::try_from(wait.time.as_millis()).unwrap_or(u32::MAX),
            reason: format!(
                "it sends faster than it may (limits.{} = {})",
                wait.key, wait.value
            ),
        });
        tokio::time::sleep(wait.time).await;
    }

    async fn end(&mut self, end: v1::EndStream) -> Result<(), Status> {
        let Some(stream) = self.open.get(&end.handle) else {
            return Err(not_open(end.handle));
        };
        let command = Command::End(End {
            session: Arc::clone(&self.session),
            handle: end.handle,
            stream: Arc::clone(stream),
            next_sequence: end.next_sequence,
            end: end.end.unwrap_or_default(),
        });
        self.parts.writer.send(command).await.map_err(stopping)
    }

    fn refuse_scope(&mut self, handle: u32, key: &StreamKey) {
        if let Some(report) = &self.report
            && !self.audited.contains(key)
        {
            let why = format!(
                "agent {} of host {} may not send source {}, {}: the scope is {}",
                self.hello.agent_id,
                self.hello.host,
                key.source,
                key.instance,
                self.access.scope()
            );
            report.refused_within(&self.access, &why);
            if self.audited.len() < MAX_AUDITED {
                self.audited.insert(key.clone());
            }
        }
        let message = format!(
            "{} may not send this stream: its scope is {}",
            self.access.who(),
            self.access.scope()
        );
        self.refuse(handle, v1::RefusalReason::NotAllowed, message);
    }

    fn refuse(&self, handle: u32, reason: v1::RefusalReason, message: String) {
        self.parts.metrics.refusals_total.add(1);
        let next_sequence = self
            .open
            .get(&handle)
            .map_or(0, |stream| stream.bounds().next_sequence);
        self.session.refuse(v1::Refusal {
            handle,
            reason: reason.into(),
            message,
            next_sequence,
        });
    }
}

/// What one session may have waiting for the writer: what it may send beyond what was acknowledged, and never all that
/// there is for all of them.
fn share_of_queue(parts: &CoreParts) -> usize {
    let unacked = usize::try_from(parts.options.max_unacked_bytes).unwrap_or(usize::MAX);
    let quarter = parts.options.writer_queue_bytes / 4;
    unacked.min(quarter).clamp(1, Semaphore::MAX_PERMITS)
}

fn not_open(handle: u32) -> Status {
    Status::invalid_argument(format!(
        "stream handle {handle} is not open; send OpenStream first"
    ))
}

fn stopping(stopped: Stopped) -> Status {
    Status::unavailable(format!("{stopped}; reconnect"))
}
