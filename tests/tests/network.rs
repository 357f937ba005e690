//! Networks that fail between agent and relay: lines arrive all the same, once and in order.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::path::Path;

use millstream_tests::agent::Agent;
use millstream_tests::corpus::{assert_same, variant};
use millstream_tests::files;
use millstream_tests::proxy::{Proxy, Weather};
use millstream_tests::relay::Relay;

/// An agent that knows two ways to the relay and follows `build.log`.
async fn agent_with_two_addresses(dir: &Path, first: &str, second: &str) -> Agent {
    let path = dir.join("build.log");
    std::fs::write(&path, b"").unwrap();
    let flags = ["--relay", second, "--file", path.to_str().unwrap()];
    Agent::start(dir, first, "build-1", &flags).await
}

async fn stored(relay: &Relay, content: &[u8]) {
    let stream = relay
        .stream("", |stream| stream.text_bytes >= content.len() as u64)
        .await;
    let stored = relay.raw_of(stream.stream_id, content.len()).await;
    assert_same("what is stored", &stored, content);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_address_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let (dead, alive) = (
        Proxy::start(relay.authority()).await,
        Proxy::start(relay.authority()).await,
    );
    dead.set(Weather::Refusing);
    let _agent = agent_with_two_addresses(dir.path(), &dead.url(), &alive.url()).await;
    let content = variant(1, 2_000);
    let (first, second) = content.split_at(content.len() / 2);
    let path = dir.path().join("build.log");
    files::append(&path, first);
    stored(&relay, first).await;
    // The other way round while it runs.
    dead.set(Weather::Clear);
    alive.set(Weather::Refusing);
    alive.cut();
    files::append(&path, second);
    stored(&relay, &content).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_whose_relay_falls_silent_moves_to_the_next_address() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let (silent, alive) = (
        Proxy::start(relay.authority()).await,
        Proxy::start(relay.authority()).await,
    );
    let _agent = agent_with_two_addresses(dir.path(), &silent.url(), &alive.url()).await;
    let content = variant(2, 2_000);
    let (first, second) = content.split_at(content.len() / 2);
    let path = dir.path().join("build.log");
    files::append(&path, first);
    stored(&relay, first).await;
    // No FIN, no RST: the agent's own pings have to find out. The old session still stands at the relay.
    silent.set(Weather::Stalled);
    files::append(&path, second);
    stored(&relay, &content).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_reset_in_the_middle_of_blocks_lose_and_double_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let proxy = Proxy::start(relay.authority()).await;
    let path = dir.path().join("build.log");
    std::fs::write(&path, b"").unwrap();
    let flags = ["--file", path.to_str().unwrap()];
    let _agent = Agent::start(dir.path(), &proxy.url(), "build-1", &flags).await;
    let content = variant(3, 40_000);
    // Whatever a session gets through before it is reset is progress.
    proxy.set(Weather::ResetAfter(300_000));
    files::append_in_pieces(&path, &content).await;
    stored(&relay, &content).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_network_delivers_everything() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let proxy = Proxy::start(relay.authority()).await;
    let path = dir.path().join("build.log");
    let content = variant(4, 2_000);
    std::fs::write(&path, &content).unwrap();
    proxy.set(Weather::Slow(200_000));
    let flags = ["--file", path.to_str().unwrap()];
    let _agent = Agent::start(dir.path(), &proxy.url(), "build-1", &flags).await;
    stored(&relay, &content).await;
}
