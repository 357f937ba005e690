//! The relay: takes lines from agents, stores them durably, and serves them to any number of readers.
//!
//! In the order in which data flows: [`ingest`] checks what agents send, [`writer`] commits and
//! acknowledges it, [`streams`] holds the newest of it in memory, [`subscription`] follows it from history
//! into live, [`search`] looks through it, [`services`] speaks gRPC to readers, [`control`] carries commands to agents,
//! [`limits`] is what one caller may take of it, and [`server`] is the one port that all of it is reached through. [`core`] puts the parts together. The store is a
//! crate of its own, `millstream-store`; it and everything up to `search` know nothing of HTTP.

pub mod auth;
pub mod certs;
mod clock;
pub mod config;
mod control;
mod core;
pub mod filter;
mod ingest;
pub mod limits;
mod metrics;
mod own_stream;
mod reads;
pub mod search;
pub mod selector;
pub mod server;
mod services;
mod streams;
mod subscription;
mod writer;

pub use core::{Core, CoreOptions, Work};
pub use metrics::{Metric, Metrics};
pub use subscription::{Cursor, CursorError, CursorScope};
pub use writer::Fsync;
