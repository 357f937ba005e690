//! What the relay holds in memory of each stream and agent, and who wants to hear of changes.
//!
//! The writer thread alone changes heads and records; everybody else reads through [`StreamHandle`] and
//! [`Registry`]. Locks here are held for a few instructions, never across I/O or an `await`.

mod agents;
mod frame;
mod handle;
mod interest;
mod registry;
mod ring;

pub(crate) use agents::Agents;
pub(crate) use frame::{block_frame, decode_block_frame, message_frame};
pub(crate) use handle::{Published, StreamHandle};
pub(crate) use interest::{Interest, Ready, Watcher};
pub(crate) use registry::{Registry, StreamKey};
pub(crate) use ring::{RingBudget, RingRead};
