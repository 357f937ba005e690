//! gRPC frames of `Tail`, encoded once and shared by every subscriber.
//!
//! A frame is the length-prefixed message of the gRPC protocol over HTTP/2
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>): one byte 0 (not compressed), the
//! length as 32 bits big-endian, the message. gRPC-Web uses the same frames.

use bytes::{BufMut, Bytes, BytesMut};
use millstream_proto::v1::{self, tail_response};
use prost::Message;

const PREFIX_BYTES: usize = 5;

/// One message as a frame.
pub(crate) fn message_frame(message: tail_response::Message) -> Bytes {
    let response = v1::TailResponse {
        message: Some(message),
    };
    let length = response.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).expect("messages are limited to 4 MiB"));
    response.encode_raw(&mut frame);
    frame.freeze()
}

/// A block of a stream as a frame.
pub(crate) fn block_frame(stream_id: u64, block: v1::Block) -> Bytes {
    message_frame(tail_response::Message::Block(v1::StreamBlock {
        stream_id,
        block: Some(block),
    }))
}

/// The block of a frame that [`block_frame`] made; its columns share the frame's memory.
pub(crate) fn decode_block_frame(frame: &Bytes) -> v1::Block {
    let response = v1::TailResponse::decode(frame.slice(PREFIX_BYTES..));
    match response.expect("the frame was encoded by block_frame").message {
        Some(tail_response::Message::Block(v1::StreamBlock {
            block: Some(block), ..
        })) => block,
        _ => unreachable!("block_frame makes nothing else"),
    }
}
