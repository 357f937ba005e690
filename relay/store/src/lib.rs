//! Durable storage of streams behind one contract, [`LogStore`].
//!
//! The contract is synchronous on purpose: the relay calls it from one writer thread and from a pool of
//! reader threads, never from an async task. Nothing here knows of gRPC, agents' sessions or readers.

mod contract;

pub use contract::{AppendOp, LogStore, StoreError, StreamRecord, WriteOp};
