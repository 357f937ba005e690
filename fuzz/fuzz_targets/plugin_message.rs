#![no_main]

#[allow(dead_code, reason = "each target calls its own of the bodies in it")]
#[path = "../src/agent.rs"]
mod agent;

libfuzzer_sys::fuzz_target!(|data: &[u8]| agent::plugin_message(data));
