//! A method, a path and a query, asked of the plain HTTP side.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| millstream_fuzz::http_path(data));
