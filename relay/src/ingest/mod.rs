//! `IngestService`: sessions of agents.
//!
//! A session's task reads what the agent sends, checks it and queues it for the writer; the answers come
//! back through [`Session`]. Nothing is decided here about sequences: that is the writer's.

mod check;
mod identity;
mod push;
mod session;

pub(crate) use identity::check_agent;
pub(crate) use push::IngestApi;
pub(crate) use session::Session;
