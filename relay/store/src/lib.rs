//! Durable storage of streams behind one contract, [`LogStore`].
//!
//! The contract is synchronous on purpose: the relay calls it from one writer thread and from a pool of
//! reader threads, never from an async task. Nothing here knows of gRPC, agents' sessions or readers.
//!
//! [`EmbeddedStore`] keeps everything in one directory, [`memory::MemoryStore`] in memory for tests, and
//! `conformance` (feature of that name) is what both of them must pass.

mod contract;
mod embedded;
pub mod memory;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;

pub use contract::{AppendOp, LogStore, StoreError, StreamRecord, WriteOp};
pub use embedded::{Clock, Disk, DiskChange, DiskFault, EmbeddedOptions, EmbeddedStore, FreeSpace};
