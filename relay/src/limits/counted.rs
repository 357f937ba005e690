//! An answer's body that counts for as long as it is being sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::Permit;
use crate::server::OnLine;

/// What an open call has of the limits.
#[derive(Debug)]
pub(crate) struct OpenCall {
    #[expect(dead_code, reason = "it is held, not read")]
    pub(crate) permit: Permit,
    /// `None`: it did not come through the port.
    pub(crate) on_line: Option<OnLine>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct CountedBody {
    inner: Body,
    call: OpenCall,
    /// A message of it was sent.
    has_begun: bool,
}

impl CountedBody {
    pub(crate) fn new(inner: Body, call: OpenCall) -> Self {
        Self {
            inner,
            call,
            has_begun: false,
        }
    }

    fn complete(&mut self) {
        if let Some(on_line) = &mut self.call.on_line {
            on_line.complete();
        }
    }
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(context));
        let is_last = frame
            .as_ref()
            .is_none_or(|frame| frame.as_ref().is_ok_and(Frame::is_trailers));
        if is_last {
            self.complete();
        } else if std::mem::replace(&mut self.has_begun, true)
            && let Some(on_line) = &mut self.call.on_line
        {
            on_line.goes_on();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for CountedBody {
    fn drop(&mut self) {
        // An answer without a body is not asked for one.
        if self.inner.is_end_stream() {
            self.complete();
        }
    }
}
