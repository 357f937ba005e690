//! Acting on this host on behalf of the relay: the [`allow`]-list that decides, the [`desk`] that hands requests
//! to sources, the [`commands`] that people set in place of configured ones, and the [`attach`] call that
//! carries it all.
//!
//! Nothing is allowed that the configuration does not name. Commands run as words, never through a shell that
//! the configuration does not name itself.

pub mod allow;
pub mod attach;
pub mod commands;
pub mod desk;

pub use allow::{Action, AllowList, Allowed};
pub use desk::{Desk, Masks, Refused, Request};
