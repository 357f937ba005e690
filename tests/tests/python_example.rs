//! The Python subscriber in `examples/python`, as its README says to run it. Ignored in a plain `cargo test`;
//! `cargo xtask test` prepares its virtual environment and runs it.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::process::{Command, Stdio};

use millstream_tests::agent::Agent;
use millstream_tests::binaries::workspace_root;
use millstream_tests::process::Process;
use millstream_tests::relay::Relay;
use millstream_tests::wait::until;
use rustix::process::Signal;

/// A script of the example, unbuffered.
fn script(relay: &Relay, name: &str) -> Command {
    let python = std::env::var_os("MILLSTREAM_PYTHON").expect("`cargo xtask test` names the interpreter");
    let mut command = Command::new(python);
    command
        .current_dir(workspace_root().join("examples/python"))
        .stdin(Stdio::null());
    command
        .env("PYTHONUNBUFFERED", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(name);
    if name == "subscribe.py" {
        command.arg("--relay")
    } else {
        &mut command
    }
    .arg(relay.authority());
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the virtual environment that `cargo xtask test` makes"]
async fn the_python_example_prints_history_and_what_comes() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let path = dir.path().join("build.log");
    std::fs::write(&path, "first line\n").unwrap();
    let mut agent = Agent::start(
        dir.path(),
        relay.url(),
        "build-1",
        &["--file", path.to_str().unwrap()],
    )
    .await;
    relay.stream("", |stream| stream.next_sequence == 1).await;

    let mut command = script(&relay, "subscribe.py");
    command.args(["--selector", "host=build-*"]);
    let mut example = Process::start("python", &dir.path().join("logs"), &mut command);
    until("the example prints what was stored", || {
        text(&example).contains("first line")
    })
    .await;
    millstream_tests::files::append(&path, b"second line\n");
    until("the example prints what comes", || {
        text(&example).contains("second line")
    })
    .await;
    example.signal(Signal::INT);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the virtual environment that `cargo xtask test` makes"]
async fn the_relays_services_can_be_explored_and_called_through_reflection() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let logs = dir.path().join("logs");
    let listed = Process::run("list", &logs, script(&relay, "reflect.py").arg("list")).await;
    assert_eq!(listed.code(), 0, "{}", listed.stderr);
    for service in [
        "millstream.v1.IngestService",
        "millstream.v1.LogService",
        "grpc.health.v1.Health",
    ] {
        assert!(
            listed.text().contains(service),
            "{service} is not in {}",
            listed.text()
        );
    }
    let mut call = script(&relay, "reflect.py");
    let called = Process::run(
        "call",
        &logs,
        call.args(["call", "millstream.v1.LogService/ListStreams"]),
    )
    .await;
    assert_eq!(called.code(), 0, "{}", called.stderr);
}

fn text(process: &Process) -> String {
    String::from_utf8_lossy(&process.stdout()).into_owned()
}
