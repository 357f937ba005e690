//! The calls that the small relay answers.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;
use millstream_client::v1;
use millstream_proto::retry;
use millstream_proto::v1::log_service_server::LogService;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use super::{BUSY_WAIT, FIRST_LINE_UNIX_US, FakeRelay, Faults, decode_cursor, encode_cursor, line_time};

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl LogService for FakeRelay {
    type TailStream = Responses<v1::TailResponse>;
    type SearchStream = Responses<v1::SearchResponse>;
    type WatchStream = Responses<v1::WatchResponse>;

    async fn tail(&self, request: Request<v1::TailRequest>) -> Result<Response<Self::TailStream>, Status> {
        self.note(&request);
        let request = request.into_inner();
        let (faults, starts) = {
            let mut state = self.state();
            state.tail_requests.push(request.clone());
            state.select(&request.selector)?;
            if state.faults.hang_ups == 0 && state.faults.busy_calls > 0 {
                state.faults.busy_calls -= 1;
                let message = "too many subscriptions are open";
                return Err(retry::status(Code::ResourceExhausted, message, BUSY_WAIT));
            }
            let cursor = match &request.start {
                Some(v1::tail_request::Start::Cursor(cursor)) => decode_cursor(state.store, cursor)?,
                _ => BTreeMap::new(),
            };
            let mut starts = BTreeMap::new();
            for (id, stream) in &state.streams {
                let head = stream.lines.len() as u64;
                let start = match &request.start {
                    Some(v1::tail_request::Start::FromBeginning(_)) => 0,
                    Some(v1::tail_request::Start::LastLines(count)) => head.saturating_sub(*count),
                    Some(v1::tail_request::Start::SinceUnixUs(time)) => (0..head)
                        .find(|sequence| line_time(*sequence) >= *time)
                        .unwrap_or(head),
                    Some(v1::tail_request::Start::Cursor(_)) => cursor.get(id).copied().unwrap_or(0),
                    Some(v1::tail_request::Start::FromNow(_)) | None => head,
                };
                starts.insert(*id, start);
            }
            for position in &request.positions {
                starts.insert(position.stream_id, position.next_sequence);
            }
            for start in starts.values_mut() {
                *start = start.saturating_sub(state.faults.repeat_lines);
            }
            let faults = state.faults.clone();
            state.faults.silent_calls = faults.silent_calls.saturating_sub(1);
            state.faults.hang_ups = faults.hang_ups.saturating_sub(1);
            (faults, starts)
        };
        // Small, so that a cut finds messages on the way.
        let (sender, receiver) = mpsc::channel(2);
        let fake = self.clone();
        self.tasks.spawn(async move {
            let stop = fake.stop.clone();
            tokio::select! {
                () = stop.cancelled() => {}
                () = sender.closed(), if faults.silent_calls > 0 => {}
                _ = fake.deliver(request, faults.clone(), starts, &sender), if faults.silent_calls == 0 => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<v1::ReadResponse>, Status> {
        self.note(&request);
        let request = request.into_inner();
        let state = self.state();
        if !state.streams.contains_key(&request.stream_id) {
            return Err(Status::not_found(format!(
                "there is no stream {}",
                request.stream_id
            )));
        }
        let stream = state.describe(request.stream_id);
        let Some(v1::read_request::From::FromSequence(from)) = request.from else {
            return Err(Status::unimplemented("from_unix_us"));
        };
        let to = if request.to_sequence == 0 {
            u64::MAX
        } else {
            request.to_sequence
        };
        let to = to.min(stream.next_sequence).min(from + 7);
        let block = state.block(request.stream_id, from, to, request.filter.as_ref());
        Ok(Response::new(v1::ReadResponse {
            blocks: block.into_iter().collect(),
            next_sequence: to.max(from),
            stream: Some(stream),
            gap: None,
        }))
    }

    async fn list_streams(
        &self,
        request: Request<v1::ListStreamsRequest>,
    ) -> Result<Response<v1::ListStreamsResponse>, Status> {
        self.note(&request);
        let request = request.into_inner();
        let state = self.state();
        let after: usize = request.page_token.parse().unwrap_or(0);
        let ids = state.select(&request.selector)?;
        // Two a page, to make callers page.
        let page: Vec<_> = ids
            .iter()
            .rev()
            .skip(after)
            .take(2)
            .map(|id| state.describe(*id))
            .collect();
        let next = after + page.len();
        let next_page_token = if next < ids.len() {
            next.to_string()
        } else {
            String::new()
        };
        Ok(Response::new(v1::ListStreamsResponse {
            streams: page,
            next_page_token,
        }))
    }

    async fn list_agents(
        &self,
        _: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        let agent = v1::Agent {
            agent_id: "a1".to_owned(),
            host: "build-1".to_owned(),
            version: "0.1.0".to_owned(),
            state: v1::AgentState::Connected.into(),
            connected_unix_us: FIRST_LINE_UNIX_US,
            ..v1::Agent::default()
        };
        Ok(Response::new(v1::ListAgentsResponse {
            agents: vec![agent],
            next_page_token: String::new(),
        }))
    }

    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let state = self.state();
        let mut messages: Vec<_> = state
            .streams
            .keys()
            .map(|id| v1::watch_response::Message::Stream(state.describe(*id)))
            .collect();
        messages.push(v1::watch_response::Message::SnapshotDone(
            v1::WatchSnapshotDone {},
        ));
        let messages = messages.into_iter().map(|message| {
            Ok(v1::WatchResponse {
                message: Some(message),
            })
        });
        Ok(Response::new(Box::pin(futures_util::stream::iter(messages))))
    }

    async fn search(&self, _: Request<v1::SearchRequest>) -> Result<Response<Self::SearchStream>, Status> {
        Err(Status::unimplemented("searching is not there yet"))
    }

    async fn histogram(
        &self,
        _: Request<v1::HistogramRequest>,
    ) -> Result<Response<v1::HistogramResponse>, Status> {
        Err(Status::unimplemented("not there"))
    }

    async fn list_runs(
        &self,
        _: Request<v1::ListRunsRequest>,
    ) -> Result<Response<v1::ListRunsResponse>, Status> {
        Err(Status::unimplemented("not there"))
    }
}

impl FakeRelay {
    /// The body of one `Tail`; ends when the caller is gone.
    async fn deliver(
        &self,
        request: v1::TailRequest,
        faults: Faults,
        mut next: BTreeMap<u64, u64>,
        sender: &mpsc::Sender<Result<v1::TailResponse, Status>>,
    ) -> Option<()> {
        use v1::tail_response::Message;
        let send = async |message: Message| {
            sender
                .send(Ok(v1::TailResponse {
                    message: Some(message),
                }))
                .await
                .ok()
        };
        let mut changed = self.changed.subscribe();
        let (mut announced, mut ended) = (BTreeSet::new(), BTreeSet::new());
        let mut caught_up = false;
        // The real relay cannot say where it begins by time before it has looked.
        if !matches!(request.start, Some(v1::tail_request::Start::SinceUnixUs(_))) {
            let cursor = encode_cursor(self.state().store, &next);
            send(Message::Heartbeat(v1::Heartbeat {
                cursor,
                ..v1::Heartbeat::default()
            }))
            .await?;
        }
        if faults.hang_ups > 0 {
            return Some(());
        }
        loop {
            let mut messages = Vec::new();
            {
                let state = self.state();
                for id in state.select(&request.selector).ok()? {
                    if !request.stream_ids.is_empty() && !request.stream_ids.contains(&id) {
                        continue;
                    }
                    let head = state.streams[&id].lines.len() as u64;
                    let from = next.entry(id).or_insert(0);
                    let has_news = *from < head || state.streams[&id].end.is_some();
                    if (request.follow || has_news) && announced.insert(id) {
                        messages.push(Message::Stream(state.describe(id)));
                    }
                    if *from < faults.gap_below.min(head) {
                        let to = faults.gap_below.min(head);
                        let message = "retention removed them".to_owned();
                        messages.push(Message::Gap(v1::Gap {
                            stream_id: id,
                            first_sequence: *from,
                            next_sequence: to,
                            message,
                            reason: v1::GapReason::Retention.into(),
                        }));
                        *from = to;
                    }
                    while *from < head {
                        if faults.skip_sequence == Some(*from) {
                            *from += 1;
                            continue;
                        }
                        let stop = faults.skip_sequence.filter(|skip| skip > from).unwrap_or(head);
                        let to = (*from + fastrand::u64(1..=20)).min(head).min(stop);
                        let block = state.block(id, *from, to, request.filter.as_ref());
                        if block.is_some() {
                            messages.push(Message::Block(v1::StreamBlock { stream_id: id, block }));
                        }
                        *from = to;
                    }
                    if state.streams[&id].end.is_some() && ended.insert(id) {
                        messages.push(Message::StreamEnded(v1::StreamEnded {
                            stream_id: id,
                            next_sequence: head,
                            end: state.streams[&id].end.clone(),
                        }));
                    }
                }
                let cursor = encode_cursor(state.store, &next);
                if caught_up {
                    messages.push(Message::Heartbeat(v1::Heartbeat {
                        cursor,
                        ..v1::Heartbeat::default()
                    }));
                } else {
                    messages.push(Message::CaughtUp(v1::CaughtUp { cursor }));
                    caught_up = true;
                }
            }
            for message in messages {
                send(message).await?;
            }
            if !request.follow {
                return Some(());
            }
            tokio::select! {
                () = sender.closed() => return None,
                result = changed.changed() => result.ok()?,
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
            }
        }
    }
}
