//! Bytes as a block, opened the way relay and readers open it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| millstream_fuzz::block_open(data));
