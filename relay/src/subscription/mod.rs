//! A reader: a cursor over any number of streams, from stored history into live.
//!
//! Nothing is queued for a reader. It is woken when one of its streams has something new, and it takes
//! that (from memory, or from the store when it is behind) only when the transport asks for the next
//! frame, and only when the reader has taken most of what it got before. So a slow reader loses nothing, costs
//! little memory and disturbs nobody.

mod cursor;
mod cut;
mod outbox;
mod run;
mod slot;
mod start;

pub use cursor::{Cursor, CursorError, CursorScope};
pub(crate) use run::{ReadError, Sources, Subscription};
pub(crate) use start::{Plan, StartError};

#[cfg(test)]
mod resume_tests;
#[cfg(test)]
mod tests;
