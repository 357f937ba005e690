//! One subscription: its connection, and its return after the connection is lost.

use std::time::Duration;

use millstream_proto::v1::tail_response::Message;
use millstream_proto::{retry, v1};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Code, Status, Streaming};

use crate::client::Dialer;
use crate::error::{Error, describe, is_transient};
use crate::tail::progress::Progress;
use crate::tail::{Event, ResumePoint, TailOptions};

/// Streams followed with automatic resume: every line once and in order, or an error or [`Event::Gap`]
/// that says what is missing.
#[derive(Debug)]
pub struct Subscription {
    dialer: Dialer,
    options: TailOptions,
    progress: Progress,
    state: State,
    /// Attempts since the last message.
    attempts: u32,
    last_message: Instant,
}

#[derive(Debug)]
enum State {
    Live(Box<Streaming<v1::TailResponse>>),
    /// Not connected; the next attempt is at this time.
    Waiting(Instant),
    Done,
}

/// Why one attempt failed.
enum Failure {
    /// A new connection may work.
    Transient(Error),
    /// The relay said how long to wait.
    Busy(Error, Duration),
    Final(Error),
}

impl Subscription {
    pub(crate) async fn start(dialer: Dialer, options: TailOptions) -> Result<Self, Error> {
        let mut subscription = Self {
            dialer,
            progress: Progress::new(&options),
            options,
            state: State::Done,
            attempts: 0,
            last_message: Instant::now(),
        };
        match subscription.call().await {
            Ok(messages) => subscription.state = State::Live(Box::new(messages)),
            Err(Failure::Transient(error) | Failure::Busy(error, _) | Failure::Final(error)) => {
                return Err(error);
            }
        }
        Ok(subscription)
    }

    /// The next event; none when a subscription that does not follow is complete. Safe to cancel: an
    /// event is never lost.
    ///
    /// # Errors
    /// What resuming cannot cure, after which there are no more events: a request that the relay refuses,
    /// a hole in the lines ([`Error::MissingLines`]), a block that cannot be read, or a relay that stayed
    /// away for longer than [`TailOptions::give_up_after`].
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            let failure = match &mut self.state {
                State::Done => return Ok(None),
                State::Live(messages) => {
                    match timeout(self.options.silence_limit, messages.message()).await {
                        Ok(Ok(Some(response))) => {
                            self.attempts = 0;
                            self.last_message = Instant::now();
                            match self.accept(response) {
                                Ok(Some(event)) => return Ok(Some(event)),
                                Ok(None) => continue,
                                Err(error) => Failure::Final(error),
                            }
                        }
                        Ok(Ok(None)) if self.options.follow => {
                            Failure::Transient(self.lost("the relay closed the subscription".to_owned()))
                        }
                        Ok(Ok(None)) => {
                            self.state = State::Done;
                            return Ok(None);
                        }
                        Ok(Err(status)) => self.classify(&status),
                        Err(_) => Failure::Transient(self.silent()),
                    }
                }
                State::Waiting(until) => {
                    sleep_until(*until).await;
                    match self.call().await {
                        Ok(messages) => {
                            self.state = State::Live(Box::new(messages));
                            return Ok(Some(Event::Resumed {
                                attempts: self.attempts,
                            }));
                        }
                        Err(failure) => failure,
                    }
                }
            };
            return self.fail(failure).map(Some);
        }
    }

    /// Where the subscription stands after the last event, to be kept and given to
    /// [`crate::Start::Resume`] later. Lines of an event count as handled once `next` has returned them.
    pub fn resume_point(&self) -> ResumePoint {
        self.progress.resume_point()
    }

    /// Lines that the relay sent again and that were dropped; above 0 means that a relay resumes less
    /// exactly than it should.
    pub fn repeated_lines(&self) -> u64 {
        self.progress.repeated_lines()
    }

    /// The events as a `Stream`, for combinators. It ends after an error.
    pub fn into_stream(self) -> impl futures_util::Stream<Item = Result<Event, Error>> {
        futures_util::stream::unfold(self, |mut subscription| async move {
            let item = subscription.next().await.transpose()?;
            Some((item, subscription))
        })
    }

    fn accept(&mut self, response: v1::TailResponse) -> Result<Option<Event>, Error> {
        Ok(match response.message {
            Some(Message::Stream(stream)) => {
                let (stream, is_new) = self.progress.announce(stream);
                is_new.then_some(Event::StreamAnnounced(stream))
            }
            Some(Message::Block(block)) => self.progress.accept_block(&block)?.map(Event::Lines),
            Some(Message::Gap(gap)) => self
                .progress
                .accept_gap(gap)?
                .map(|(stream, gap)| Event::Gap { stream, gap }),
            Some(Message::CaughtUp(caught_up)) => {
                self.progress.accept_cursor(caught_up.cursor);
                self.progress.accept_caught_up().then_some(Event::CaughtUp)
            }
            Some(Message::Heartbeat(heartbeat)) => {
                self.progress.accept_cursor(heartbeat.cursor);
                Some(Event::Heartbeat {
                    server_unix_us: heartbeat.server_unix_us,
                    heads: heartbeat.heads,
                })
            }
            Some(Message::StreamEnded(ended)) => {
                self.progress
                    .accept_end(&ended)?
                    .map(|stream| Event::StreamEnded {
                        stream,
                        next_sequence: ended.next_sequence,
                        end: ended.end,
                    })
            }
            // A kind of message that this version does not know.
            None => None,
        })
    }

    /// Calls the relay on a new connection, from where the subscription stands.
    async fn call(&self) -> Result<Streaming<v1::TailResponse>, Failure> {
        let positions = self.progress.positions().into_iter();
        let request = v1::TailRequest {
            selector: self.options.selector.clone(),
            stream_ids: self.options.stream_ids.clone(),
            start: Some(self.progress.request_start()),
            positions: positions
                .map(|(stream_id, next_sequence)| v1::Position {
                    stream_id,
                    next_sequence,
                })
                .collect(),
            follow: self.options.follow,
            filter: self.options.filter.clone(),
            codecs: vec![v1::Codec::None.into(), v1::Codec::Zstd.into()],
            // What is too long, the relay refuses with words.
            batch_interval_ms: self
                .options
                .batch_interval
                .as_millis()
                .try_into()
                .unwrap_or(u32::MAX),
        };
        let channel = self.dialer.channel().await.map_err(|error| match error {
            Error::Unreachable { .. } => Failure::Transient(error),
            _ => Failure::Final(error),
        })?;
        let mut client = self.dialer.log(channel);
        match timeout(self.options.silence_limit, client.tail(request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.classify(&status)),
            Err(_) => Err(Failure::Transient(self.silent())),
        }
    }

    fn classify(&self, status: &Status) -> Failure {
        if let Some(wait) = retry::delay(status) {
            let error = Error::from_status(status, "tailing", &self.dialer.address);
            return Failure::Busy(error, wait);
        }
        if is_transient(status) {
            return Failure::Transient(self.lost(describe(status)));
        }
        Failure::Final(match status.code() {
            Code::FailedPrecondition => Error::CursorOfAnotherStore {
                message: status.message().to_owned(),
            },
            _ => Error::from_status(status, "tailing", &self.dialer.address),
        })
    }

    /// Plans the next attempt, or ends the subscription.
    fn fail(&mut self, failure: Failure) -> Result<Event, Error> {
        let (reason, at_least) = match failure {
            Failure::Final(error) => {
                self.state = State::Done;
                return Err(error);
            }
            Failure::Transient(error) => (error, Duration::ZERO),
            Failure::Busy(error, wait) => (error, wait),
        };
        if self
            .options
            .give_up_after
            .is_some_and(|limit| self.last_message.elapsed() >= limit)
        {
            self.state = State::Done;
            return Err(reason);
        }
        // Never earlier than the relay asks for, and those that were told the same do not come in step.
        let wait = at_least + self.options.backoff.wait(self.attempts);
        self.attempts = self.attempts.saturating_add(1);
        self.state = State::Waiting(Instant::now() + wait);
        Ok(Event::Reconnecting {
            reason,
            attempt: self.attempts,
            wait,
        })
    }

    fn lost(&self, reason: String) -> Error {
        Error::Lost {
            address: self.dialer.address.clone(),
            reason,
        }
    }

    fn silent(&self) -> Error {
        let limit: Duration = self.options.silence_limit;
        self.lost(format!("nothing came for {} s", limit.as_secs_f32()))
    }
}
