//! The agent's fuzz targets without a fuzzer: every seed, and seeded random changes of it, on every `cargo test`.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

#[path = "../../fuzz/src/agent.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "it is part of a library where it comes from"
)]
mod targets;

/// Changes tried of each seed.
const ROUNDS: u64 = 300;

fn run(name: &str, target: fn(&[u8])) {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/seeds")
        .join(name);
    let mut paths: Vec<_> = std::fs::read_dir(seeds)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "there are seeds");
    for path in paths {
        let seed = std::fs::read(&path).unwrap();
        target(&seed);
        for round in 0..ROUNDS {
            // A failure names seed file and round, and comes again.
            let mut random = fastrand::Rng::with_seed(round);
            let mut data = seed.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(0..data.len().max(1));
                match random.u8(0..5) {
                    0 if at < data.len() => data[at] = random.u8(..),
                    1 if at < data.len() => data[at] ^= 1 << random.u8(0..8),
                    2 if at < data.len() => {
                        data.remove(at);
                    }
                    3 => data.truncate(at),
                    _ => data.insert(at.min(data.len()), random.u8(..)),
                }
            }
            let outcome = std::panic::catch_unwind(|| target(&data));
            assert!(outcome.is_ok(), "{} in round {round}", path.display());
        }
    }
}

#[test]
fn nothing_that_is_nearly_a_message_breaks_a_promise() {
    run("plugin_message", targets::plugin_message);
}

#[test]
fn nothing_that_is_nearly_a_manifest_breaks_a_promise() {
    run("plugin_manifest", targets::plugin_manifest);
}
