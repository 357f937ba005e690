//! A wire between agent, relay and readers that says more than was said: blocks that come again (which has to do
//! no harm), and the lies of some [mutants](Mutant).

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyStream, StreamBody};
use millstream_proto::block::{BlockBuilder, OpenBlock};
use millstream_proto::v1::{self, push_request, push_response};
use prost::Message;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::dice::Dice;
use crate::mutant::Mutant;

/// Stands in front of the relay's services.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    pub(crate) dice: Dice,
    /// Blocks come again now and then, whole or together with the one behind.
    pub(crate) repeats_blocks: bool,
    pub(crate) mutant: Option<Mutant>,
}

impl<S> Layer<S> for Wire {
    type Service = Tamper<S>;

    fn layer(&self, inner: S) -> Tamper<S> {
        let wire = self.clone();
        Tamper { inner, wire }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Tamper<S> {
    inner: S,
    wire: Wire,
}

impl<S> Service<Request<Body>> for Tamper<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let (is_push, is_tail) = (path.ends_with("/Push"), path.ends_with("/Tail"));
        let mutant = self.wire.mutant;
        let shift = match mutant {
            Some(Mutant::ResumesEarly) => -1,
            Some(Mutant::ResumesLate) => 1,
            _ => 0,
        };
        let is_stuttering = self.wire.repeats_blocks || mutant == Some(Mutant::StoresReplays);
        let request = if is_tail && shift != 0 {
            request.map(|body| rewritten(body, move |tail| vec![shifted(tail, shift)]))
        } else if is_push && is_stuttering {
            let mut stutter = Stutter {
                dice: self.wire.dice.fork(),
                is_renumbering: mutant == Some(Mutant::StoresReplays),
                handles: BTreeMap::new(),
            };
            request.map(|body| rewritten(body, move |push| stutter.pass(push)))
        } else {
            request
        };
        let response = self.inner.call(request);
        let boasts = is_push && mutant == Some(Mutant::AcknowledgesTooMuch);
        Box::pin(async move {
            let response = response.await?;
            Ok(if boasts {
                response.map(|body| rewritten(body, |push| vec![boast(push)]))
            } else {
                response
            })
        })
    }
}

fn shifted(mut tail: v1::TailRequest, by: i64) -> v1::TailRequest {
    for position in &mut tail.positions {
        position.next_sequence = position.next_sequence.saturating_add_signed(by);
    }
    tail
}

fn boast(mut push: v1::PushResponse) -> v1::PushResponse {
    if let Some(push_response::Message::Ack(ack)) = &mut push.message {
        for stream in &mut ack.streams {
            stream.next_sequence += 1;
        }
    }
    push
}

/// One session's blocks, some of which are said twice.
struct Stutter {
    dice: Dice,
    /// Gives what comes again the next numbers, so that the relay cannot know it.
    is_renumbering: bool,
    handles: BTreeMap<u32, Said>,
}

/// What was said of one stream.
#[derive(Default)]
struct Said {
    last: Option<v1::PushBlock>,
    /// Lines that were stored twice.
    doubled: u64,
}

impl Stutter {
    fn pass(&mut self, push: v1::PushRequest) -> Vec<v1::PushRequest> {
        let mut message = match push.message {
            Some(push_request::Message::Block(block)) => block,
            other => return vec![v1::PushRequest { message: other }],
        };
        let said = self.handles.entry(message.handle).or_default();
        let before = said.last.replace(message.clone());
        if let Some(block) = &mut message.block {
            block.first_sequence += said.doubled;
        }
        let mut messages = Vec::new();
        match self.dice.below(0..6) {
            0 if self.is_renumbering => {
                let mut again = message.clone();
                if let Some(block) = &mut again.block {
                    let lines = u64::from(block.line_count);
                    said.doubled += lines;
                    block.first_sequence += lines;
                }
                messages.extend([message, again]);
            }
            _ if self.is_renumbering => messages.push(message),
            0 => messages.extend([message.clone(), message]),
            1 => messages.extend(before.into_iter().chain([message])),
            2 => match before.and_then(|before| joined(&before, &message)) {
                Some(both) => messages.push(both),
                None => messages.push(message),
            },
            _ => messages.push(message),
        }
        messages
            .into_iter()
            .map(|block| v1::PushRequest {
                message: Some(push_request::Message::Block(block)),
            })
            .collect()
    }
}

/// Both blocks in one, when the second follows the first.
fn joined(first: &v1::PushBlock, second: &v1::PushBlock) -> Option<v1::PushBlock> {
    let blocks =
        [first, second].map(|push| push.block.as_ref().and_then(|block| OpenBlock::open(block).ok()));
    let [Some(one), Some(other)] = blocks else {
        return None;
    };
    if one.next_sequence() != other.first_sequence() {
        return None;
    }
    let mut builder = BlockBuilder::new();
    for line in one.lines().chain(other.lines()) {
        if !builder.push(&line) {
            return None;
        }
    }
    Some(v1::PushBlock {
        block: builder.finish(one.first_sequence()),
        ..second.clone()
    })
}

/// The messages of a gRPC body, each changed into any number of messages.
fn rewritten<M: Message + Default>(body: Body, mut change: impl FnMut(M) -> Vec<M> + Send + 'static) -> Body {
    let mut buffer = BytesMut::new();
    let frames = BodyStream::new(body).map(move |frame| {
        let data = match frame?.into_data() {
            Ok(data) => data,
            Err(trailers) => return Ok(trailers),
        };
        buffer.extend_from_slice(&data);
        let mut changed = BytesMut::new();
        while let Some(message) = take_message(&mut buffer) {
            let message = M::decode(message).map_err(|error| Status::internal(error.to_string()))?;
            for message in change(message) {
                changed.put_u8(0);
                changed.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
                message.encode_raw(&mut changed);
            }
        }
        Ok::<_, Status>(Frame::data(changed.freeze()))
    });
    Body::new(StreamBody::new(frames))
}

/// A message that is there in full, without its prefix; both ends send uncompressed messages only.
fn take_message(buffer: &mut BytesMut) -> Option<Bytes> {
    let prefix = buffer.get(1..5)?;
    let length = u32::from_be_bytes(prefix.try_into().ok()?) as usize;
    if buffer.len() < 5 + length {
        return None;
    }
    buffer.advance(5);
    Some(buffer.split_to(length).freeze())
}
