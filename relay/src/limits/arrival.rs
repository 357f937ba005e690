//! A request's body that has to arrive in time.
//!
//! Whoever sends a byte now and then would hold a call, and what it has sent so far, for ever. A request must be there as
//! a whole within its time. A session is different: it is silent for hours, but a message that was begun must be finished.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tonic::body::Body;
use tonic::{Code, Status};

use super::LimitReached;

/// In front of each gRPC message: a flag, and its length.
const PREFIX_BYTES: usize = 5;

/// What a request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// All of it within this time.
    Whole(Duration),
    /// Each of its messages within this time.
    Messages(Duration),
}

/// Bytes of requests that have arrived while their calls are not answered yet, over all callers.
#[derive(Debug)]
pub(crate) struct Held {
    bytes: AtomicU64,
    max_bytes: u64,
}

impl Held {
    pub(crate) fn new(max_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            bytes: AtomicU64::new(0),
            max_bytes,
        })
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct ArrivingBody {
    inner: Body,
    arrival: Arrival,
    /// Present while something has to come.
    deadline: Option<Pin<Box<Sleep>>>,
    message: Message,
    held: Arc<Held>,
    held_bytes: u64,
}

/// Where in a message of a session the bytes stand.
#[derive(Debug, Default)]
struct Message {
    prefix: [u8; PREFIX_BYTES],
    /// Bytes of the prefix that are there.
    prefix_bytes: usize,
    /// Bytes of the message that are not.
    missing: u64,
}

impl ArrivingBody {
    pub(crate) fn new(inner: Body, arrival: Arrival, held: &Arc<Held>) -> Self {
        let deadline = match arrival {
            Arrival::Whole(time) if !inner.is_end_stream() => Some(deadline(time)),
            _ => None,
        };
        Self {
            inner,
            arrival,
            deadline,
            message: Message::default(),
            held: Arc::clone(held),
            held_bytes: 0,
        }
    }

    fn arrived(&mut self, bytes: &[u8]) -> Result<(), Status> {
        match self.arrival {
            Arrival::Whole(_) => {
                let count = bytes.len() as u64;
                self.held_bytes += count;
                let all = self.held.bytes.fetch_add(count, Ordering::Relaxed) + count;
                if all > self.held.max_bytes {
                    return Err(LimitReached {
                        what: "requests that are not answered yet take all the memory that there is for them"
                            .to_owned(),
                        key: "max_request_bytes",
                        value: self.held.max_bytes,
                        wait: Duration::from_secs(5),
                    }
                    .to_status());
                }
            }
            Arrival::Messages(time) => {
                let is_another = self.message.take(bytes);
                if !self.message.is_begun() {
                    self.deadline = None;
                } else if is_another || self.deadline.is_none() {
                    self.deadline = Some(deadline(time));
                }
            }
        }
        Ok(())
    }
}

impl Message {
    /// Returns whether a message ended in these bytes.
    fn take(&mut self, mut bytes: &[u8]) -> bool {
        let mut has_ended = false;
        while !bytes.is_empty() {
            if self.missing > 0 {
                let here = self.missing.min(bytes.len() as u64);
                self.missing -= here;
                bytes = &bytes[usize::try_from(here).unwrap_or(bytes.len())..];
                has_ended |= self.missing == 0;
                continue;
            }
            self.prefix[self.prefix_bytes] = bytes[0];
            self.prefix_bytes += 1;
            bytes = &bytes[1..];
            if self.prefix_bytes == PREFIX_BYTES {
                let [_, length @ ..] = self.prefix;
                self.missing = u32::from_be_bytes(length).into();
                self.prefix_bytes = 0;
                has_ended |= self.missing == 0;
            }
        }
        has_ended
    }

    fn is_begun(&self) -> bool {
        self.missing > 0 || self.prefix_bytes > 0
    }
}

fn deadline(time: Duration) -> Pin<Box<Sleep>> {
    Box::pin(tokio::time::sleep_until(Instant::now() + time))
}

impl http_body::Body for ArrivingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        match Pin::new(&mut this.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(bytes) = frame.data_ref()
                    && let Err(status) = this.arrived(bytes)
                {
                    return Poll::Ready(Some(Err(status)));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(end) => {
                this.deadline = None;
                Poll::Ready(end)
            }
            Poll::Pending => {
                let Some(deadline) = &mut this.deadline else {
                    return Poll::Pending;
                };
                std::task::ready!(deadline.as_mut().poll(context));
                this.deadline = None;
                Poll::Ready(Some(Err(this.arrival.too_late())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for ArrivingBody {
    fn drop(&mut self) {
        self.held.bytes.fetch_sub(self.held_bytes, Ordering::Relaxed);
    }
}

impl Arrival {
    fn too_late(self) -> Status {
        let (what, time) = match self {
            Self::Whole(time) => ("the request did not arrive", time),
            Self::Messages(time) => ("a message that was begun was not finished", time),
        };
        Status::new(
            Code::DeadlineExceeded,
            format!(
                "{what} within {} s (limits.request_timeout_secs)",
                time.as_secs_f32()
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use proptest::prelude::*;
    use tokio::sync::mpsc;
    use tokio_stream::StreamExt as _;
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::*;

    const TIME: Duration = Duration::from_secs(30);

    fn body(arrival: Arrival, held: &Arc<Held>) -> (mpsc::UnboundedSender<Bytes>, ArrivingBody) {
        let (send, receive) = mpsc::unbounded_channel();
        let frames = UnboundedReceiverStream::new(receive).map(|bytes| Ok::<_, Status>(Frame::data(bytes)));
        let inner = Body::new(http_body_util::StreamBody::new(frames));
        (send, ArrivingBody::new(inner, arrival, held))
    }

    async fn next(body: &mut ArrivingBody) -> Result<Bytes, Status> {
        body.frame()
            .await
            .unwrap()
            .map(|frame| frame.into_data().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_dribbles_is_refused_when_its_time_is_over() {
        let (send, mut body) = body(Arrival::Whole(TIME), &Held::new(1 << 20));
        let begin = Instant::now();
        let mut bytes = 0;
        let error = loop {
            send.send(Bytes::from_static(b"x")).unwrap();
            match next(&mut body).await {
                Ok(_) => bytes += 1,
                Err(error) => break error,
            }
            tokio::time::sleep(Duration::from_secs(4)).await;
            // The sender is slower than the limit from here on.
            if bytes == 7 {
                let error = next(&mut body).await.unwrap_err();
                break error;
            }
        };
        assert_eq!(error.code(), Code::DeadlineExceeded);
        assert!(error.message().contains("limits.request_timeout_secs"), "{error}");
        assert_eq!(begin.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_may_be_silent_but_not_in_the_middle_of_a_message() {
        let (send, mut body) = body(Arrival::Messages(TIME), &Held::new(1 << 20));
        let message = b"\0\0\0\0\x03abc";
        for _ in 0..3 {
            send.send(Bytes::from_static(message)).unwrap();
            assert_eq!(next(&mut body).await.unwrap(), message[..]);
            let silence = tokio::time::timeout(100 * TIME, next(&mut body)).await;
            assert!(silence.is_err(), "nothing has to come");
        }
        send.send(Bytes::from_static(&message[..6])).unwrap();
        next(&mut body).await.unwrap();
        let begin = Instant::now();
        let error = next(&mut body).await.unwrap_err();
        assert_eq!((error.code(), begin.elapsed()), (Code::DeadlineExceeded, TIME));
    }

    #[tokio::test]
    async fn what_all_requests_hold_together_is_bounded_and_given_back() {
        let held = Held::new(64 << 20);
        let large = Bytes::from(vec![0; 40 << 20]);
        let (send, mut first) = body(Arrival::Whole(TIME), &held);
        send.send(large.clone()).unwrap();
        next(&mut first).await.unwrap();
        let (send, mut second) = body(Arrival::Whole(TIME), &held);
        send.send(large.clone()).unwrap();
        assert_eq!(
            next(&mut second).await.unwrap_err().code(),
            Code::ResourceExhausted
        );
        drop((first, second));
        let (send, mut third) = body(Arrival::Whole(TIME), &held);
        send.send(large).unwrap();
        next(&mut third).await.unwrap();
    }

    proptest! {
        #[test]
        fn however_messages_are_cut_their_ends_are_found(
            lengths in proptest::collection::vec(0_usize..40, 1..10), cut in 1_usize..50,
        ) {
            let bytes: Vec<u8> = lengths.iter().flat_map(|length| {
                let length_bytes = u32::try_from(*length).unwrap().to_be_bytes();
                [vec![0], length_bytes.to_vec(), vec![7; *length]].concat()
            }).collect();
            let mut ends = vec![0];
            for length in &lengths {
                ends.push(ends.last().unwrap() + PREFIX_BYTES + length);
            }
            let mut message = Message::default();
            let mut at = 0;
            for chunk in bytes.chunks(cut) {
                message.take(chunk);
                at += chunk.len();
                prop_assert_eq!(message.is_begun(), !ends.contains(&at));
            }
        }
    }
}
