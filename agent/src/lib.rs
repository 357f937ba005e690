//! The Millstream agent: sends the lines of files and commands of one host to a relay.
//!
//! In the order in which data flows: [`sources`] read files and processes, [`runs`] holds processes
//! apart from the agent with their output in a [`spool`], [`lines`] cuts bytes into lines,
//! [`plugins`] makes sources of other programs,
//! [`edge`] joins, thins out and masks, [`outbox`] builds blocks and holds them until they are durable, [`uplink`] carries them to the relay.
//! Around them, [`config`] turns flags, environment and file into validated settings, [`identity`] says who
//! this agent is, [`supervisor`] keeps sources running and [`health`] knows how they are, and [`agent`] puts it
//! together; [`wrap`] does the same for one command or one pipe with a [`link`] of its own, and [`leftover`]
//! delivers what one of those left. The agent knows nothing of the relay but the protocol.

pub mod agent;
pub mod backoff;
pub mod config;
pub mod control;
pub mod edge;
pub mod health;
pub mod identity;
pub mod leftover;
pub mod lines;
pub mod link;
pub mod outbox;
pub mod plugins;
mod replace;
pub mod runs;
pub mod sources;
pub mod spool;
pub mod supervisor;
mod text;
pub mod uplink;
pub mod wrap;
