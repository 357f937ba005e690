//! Code generated from `proto/millstream/v1/*.proto` and the OTLP log service; never edited.

#![allow(
    clippy::all,
    clippy::pedantic,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    rust_2018_idioms,
    reason = "generated code is not held to the lint table"
)]

include!(concat!(env!("OUT_DIR"), "/protocol.rs"));
