//! A token that a subscriber says is its cursor.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| millstream_fuzz::cursor(data));
