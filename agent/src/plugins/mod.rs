//! Plugins: programs whose output is a source, without a line of code in the agent.
//!
//! There are two kinds. A *manifest* ([`manifest`]) is a TOML file that says how to run a command and how to
//! read what it prints. A *protocol plugin* is an executable `millstream-source-NAME` that describes itself
//! ([`describe`]) and speaks the plugin protocol ([`protocol`]). [`catalog`] finds both, [`schema`] checks the
//! settings that a user gives them, [`source`] runs one as a source with [`containment`] around its process,
//! [`streams`] and [`position`] keep its streams exact over restarts, and [`check`] is the test kit for authors.
//!
//! Nothing here trusts a plugin: what it prints is parsed with bounds, what it does is limited, and what is wrong
//! is reported and survived.

pub mod catalog;
pub mod check;
pub mod containment;
pub mod describe;
pub mod listing;
pub mod manifest;
mod position;
pub mod protocol;
mod reader;
pub mod schema;
pub mod source;
mod start;
mod streams;
mod template;
mod timestamp;
