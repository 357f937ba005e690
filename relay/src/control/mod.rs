//! Acting on build hosts: which agents take commands now ([`attached`]), the call that they hold open
//! ([`attach`]), and the service that people and programs call ([`service`]).
//!
//! The relay only carries commands and answers. Whether something is done is the agent's own decision, by its
//! allow-list; a command to an agent that is away fails at once and is never kept for later.

mod attach;
mod attached;
mod service;

pub(crate) use attach::AttachApi;
pub(crate) use attached::Attached;
pub(crate) use service::ControlApi;
