//! A filter and a line that it looks at.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| millstream_fuzz::line_filter(data));
