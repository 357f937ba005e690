//! Ending calls that run when the right to make them ends.
//!
//! A call's body asks one atomic flag when it is polled and is woken when the flag changes, so a frame of a
//! subscription costs nothing that threads would contend for.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

use super::Access;

/// The calls of one access.
#[derive(Debug, Default)]
pub(super) struct Calls {
    next_id: u64,
    running: HashMap<u64, Arc<Flag>>,
    /// With what status, and why.
    ended: Option<(Code, &'static str)>,
}

#[derive(Debug, Default)]
struct Flag {
    is_cut: AtomicBool,
    waker: AtomicWaker,
}

impl Flag {
    fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
        self.waker.wake();
    }
}

impl Calls {
    fn add(&mut self, flag: &Arc<Flag>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        if self.ended.is_some() {
            flag.cut();
        } else {
            self.running.insert(id, Arc::clone(flag));
        }
        id
    }

    pub(super) fn ended(&self) -> Option<&'static str> {
        self.ended.map(|(_, reason)| reason)
    }

    pub(super) fn end(&mut self, code: Code, reason: &'static str) {
        self.ended.get_or_insert((code, reason));
        for (_, flag) in self.running.drain() {
            flag.cut();
        }
    }
}

/// One call of an access, from its begin to the end of its answer.
#[derive(Debug)]
pub(crate) struct Call {
    access: Arc<Access>,
    id: u64,
    flag: Arc<Flag>,
}

impl Call {
    pub(super) fn begin(access: Arc<Access>) -> Self {
        let flag = Arc::<Flag>::default();
        let id = access.lock().add(&flag);
        Self { access, id, flag }
    }

    /// Ready once the access was withdrawn.
    fn poll_cut(&self, context: &mut Context<'_>) -> Poll<Status> {
        if !self.flag.is_cut.load(Ordering::Acquire) {
            self.flag.waker.register(context.waker());
            if !self.flag.is_cut.load(Ordering::Acquire) {
                return Poll::Pending;
            }
        }
        let ended = self.access.lock().ended;
        let (code, reason) = ended.unwrap_or((Code::Unauthenticated, "the access was withdrawn"));
        Poll::Ready(Status::new(code, reason))
    }

    /// The future's result, unless the access is withdrawn before it is there.
    pub(crate) async fn guard<T>(&self, future: impl Future<Output = T>) -> Result<T, Status> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|context| match self.poll_cut(context) {
            Poll::Ready(status) => Poll::Ready(Err(status)),
            Poll::Pending => future.as_mut().poll(context).map(Ok),
        })
        .await
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.access.lock().running.remove(&self.id);
    }
}

/// How a body that is cut off ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CutEnd {
    /// With trailers that hold a gRPC status.
    GrpcStatus,
    /// With an error, so that the reader sees that it is not whole.
    Error,
}

/// A body that ends when its call is cut.
#[derive(Debug)]
pub(crate) struct CutBody {
    inner: Option<Body>,
    call: Call,
    end: CutEnd,
}

impl CutBody {
    pub(crate) fn new(inner: Body, call: Call, end: CutEnd) -> Self {
        Self {
            inner: Some(inner),
            call,
            end,
        }
    }
}

impl http_body::Body for CutBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(status) = this.call.poll_cut(context) {
            // What produces the answer stops at once, not when the connection is done with it.
            this.inner = None;
            let frame = match this.end {
                CutEnd::Error => Err(status),
                CutEnd::GrpcStatus => {
                    let mut trailers = HeaderMap::new();
                    status
                        .add_header(&mut trailers)
                        .map(|()| Frame::trailers(trailers))
                }
            };
            return Poll::Ready(Some(frame));
        }
        Pin::new(inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(SizeHint::default, http_body::Body::size_hint)
    }
}
