//! The harness of the end-to-end tests: starts the real binaries as a user would and watches them from
//! outside. What a test asserts lives in `tests/tests/`, one file a subject; no assertion about Millstream's
//! behaviour lives here, except that a [`reader::Copy`] refuses lines that come out of order.
//!
//! Helpers wait for conditions ([`wait::eventually`]), never for time. Every process of a test writes its
//! output into files, and a test that fails prints their ends.

pub mod agent;
pub mod binaries;
pub mod cli;
pub mod corpus;
pub mod files;
pub mod http;
pub mod process;
pub mod proxy;
pub mod reader;
pub mod relay;
pub mod stalls;
pub mod torture;
pub mod wait;
