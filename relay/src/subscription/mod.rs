//! A reader: a cursor over any number of streams, from stored history into live.
//!
//! Nothing is queued for a reader. It is woken when one of its streams has something new, and it takes
//! that (from memory, or from the store when it is behind) only when the transport asks for the next
//! frame. So a slow reader loses nothing, costs no memory and disturbs nobody.

mod cursor;
mod run;
mod slot;
mod start;

pub use cursor::{Cursor, CursorError, CursorScope};
pub(crate) use run::{ReadError, Sources, Subscription, in_store};
pub(crate) use start::{Plan, StartError};

#[cfg(test)]
mod resume_tests;
#[cfg(test)]
mod tests;
