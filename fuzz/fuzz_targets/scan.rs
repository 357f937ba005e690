//! A filter and a text that it looks through.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| millstream_fuzz::scan(data));
