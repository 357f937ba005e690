//! The wire protocol of Millstream: what agent, relay and programs agree on, and nothing else.
//!
//! In the order in which data flows: [`protocol`] is the code generated from the `.proto` files (which
//! are its documentation), [`limits`] the sizes that both sides keep to, and [`block`] the codec that
//! turns lines into blocks and blocks into lines; [`retry`] says when to ask again. Nothing here does I/O.

pub mod block;
pub mod limits;
pub mod protocol;
pub mod retry;

pub use protocol::millstream::v1;
pub use protocol::opentelemetry;

/// Version of the push protocol that this crate speaks ([`v1::Hello::protocol_version`]).
pub const PROTOCOL_VERSION: u32 = 1;

/// Every service and message as an encoded `google.protobuf.FileDescriptorSet`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
