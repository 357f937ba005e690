//! Mistakes people make, and what they are told: each message names the thing, the place and the cure.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use millstream_proto::block::BlockBuilder;
use millstream_proto::v1::ingest_service_client::IngestServiceClient;
use millstream_proto::v1::push_request::Message;
use millstream_proto::v1::{Channel, Hello, PushBlock, PushRequest, ReadRequest, TailRequest, tail_request};
use millstream_tests::agent::Agent;
use millstream_tests::files;
use millstream_tests::process::{Finished, Process};
use millstream_tests::reader::{Reader, follow};
use millstream_tests::relay::Relay;
use millstream_tests::{cli, wait};
use tonic::{Code, Status};

/// The process failed with `code` and its message contains every one of `parts`.
fn assert_told(finished: &Finished, code: i32, parts: &[&str]) {
    assert_eq!(finished.code(), code, "{}{}", finished.text(), finished.stderr);
    for part in parts {
        assert!(
            finished.stderr.contains(part),
            "{part:?} is not in: {}",
            finished.stderr
        );
    }
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
}

fn assert_status(status: &Status, code: Code, parts: &[&str]) {
    assert_eq!(status.code(), code, "{status:?}");
    for part in parts {
        assert!(
            status.message().contains(part),
            "{part:?} is not in: {}",
            status.message()
        );
    }
}

async fn run(dir: &Path, command: &mut Command) -> Finished {
    Process::run("under-test", &dir.join("logs"), command).await
}

#[tokio::test]
async fn an_unknown_key_in_the_relays_configuration_is_named_with_the_nearest_known_one() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("relay.toml");
    std::fs::write(&config, "listne = \"127.0.0.1:0\"\n").unwrap();
    let finished = run(
        dir.path(),
        Relay::command("127.0.0.1:0", dir.path())
            .arg("--config")
            .arg(&config),
    )
    .await;
    assert_told(&finished, 2, &["listne", "listen", "relay.toml"]);
}

#[tokio::test]
async fn an_unknown_key_in_the_agents_configuration_is_named_with_the_nearest_known_one() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("agent.toml");
    std::fs::write(&config, "rellay = \"http://127.0.0.1:1\"\n").unwrap();
    let mut command = Agent::command("http://127.0.0.1:1", "host-1", &dir.path().join("agent"));
    let finished = run(dir.path(), command.arg("--config").arg(&config)).await;
    assert_told(&finished, 2, &["rellay", "relay", "agent.toml"]);
}

#[tokio::test]
async fn a_selector_that_does_not_parse_is_refused_with_its_position() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let status = Reader::start(relay.log_service(), follow("host=a,,source in (b"))
        .await
        .unwrap_err();
    assert_status(&status, Code::InvalidArgument, &["position 7"]);
    let finished = cli::run(&dir.path().join("logs"), relay.url(), &["tail", "host in (a"]).await;
    assert_told(&finished, 2, &["host in (a"]);
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_with_an_example() {
    let dir = tempfile::tempdir().unwrap();
    let finished = run(
        dir.path(),
        &mut Relay::command("localhost", &dir.path().join("relay")),
    )
    .await;
    assert_told(&finished, 2, &["localhost", "127.0.0.1:7171"]);
    let finished = run(
        dir.path(),
        &mut Agent::command("ftp//relay", "host-1", &dir.path().join("agent")),
    )
    .await;
    assert_told(&finished, 2, &["ftp//relay", "https://"]);
    let finished = cli::run(&dir.path().join("logs"), "not a url", &["ls", "streams"]).await;
    assert_told(&finished, 2, &["not a url", "https://"]);
}

#[tokio::test]
async fn a_relay_that_does_not_answer_is_said_by_the_cli() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let url = relay.url().to_owned();
    drop(relay);
    let finished = cli::run(&dir.path().join("logs"), &url, &["ls", "streams"]).await;
    assert_told(&finished, 1, &[&url]);
}

#[tokio::test]
async fn a_port_in_use_is_said_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let finished = run(
        dir.path(),
        &mut Relay::command(relay.authority(), &dir.path().join("other")),
    )
    .await;
    assert_told(&finished, 1, &[relay.authority(), "in use", "--listen"]);
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_written_is_said() {
    let dir = tempfile::tempdir().unwrap();
    // A file where the directory should be stops root too, whom permissions do not.
    let taken = dir.path().join("taken");
    std::fs::write(&taken, "a file").unwrap();
    let finished = run(dir.path(), &mut Relay::command("127.0.0.1:0", &taken)).await;
    assert_told(&finished, 1, &[taken.to_str().unwrap(), "director"]);
    let mut agent = Agent::command("http://127.0.0.1:1", "host-1", &taken);
    let finished = run(dir.path(), agent.arg("--file").arg(&taken)).await;
    assert_told(&finished, 1, &[taken.to_str().unwrap()]);
}

#[tokio::test]
async fn a_data_directory_without_permission_is_said_to_an_ordinary_user() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut command) = as_ordinary_user(&Relay::command("127.0.0.1:0", &dir.path().join("relay")))
    else {
        return;
    };
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o555)).unwrap();
    let logs = tempfile::tempdir().unwrap();
    let finished = run(logs.path(), &mut command).await;
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    assert_told(
        &finished,
        1,
        &[dir.path().join("relay").to_str().unwrap(), "ermission denied"],
    );
}

#[tokio::test]
async fn a_data_directory_that_another_relay_uses_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let finished = run(dir.path(), &mut Relay::command("127.0.0.1:0", relay.data_dir())).await;
    assert_told(&finished, 1, &[relay.data_dir().to_str().unwrap(), "another"]);
}

#[tokio::test]
async fn a_data_directory_that_another_agent_uses_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let path = dir.path().join("build.log");
    std::fs::write(&path, "one\n").unwrap();
    let _first = Agent::start(
        dir.path(),
        relay.url(),
        "host-1",
        &["--file", path.to_str().unwrap()],
    )
    .await;
    let data_dir = dir.path().join("agent-host-1");
    let finished = run(
        dir.path(),
        Agent::command(relay.url(), "host-1", &data_dir)
            .arg("--file")
            .arg(&path),
    )
    .await;
    assert_told(&finished, 1, &[data_dir.to_str().unwrap(), "another agent"]);
}

#[tokio::test]
async fn a_file_that_may_not_be_read_is_reported_and_read_once_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let path = dir.path().join("secret.log");
    std::fs::write(&path, "now it can be read\n").unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
    // The ordinary user needs a place for the agent's data, and a way to the file.
    let data_dir = dir.path().join("agent");
    std::fs::create_dir(&data_dir).unwrap();
    for dir in [dir.path(), data_dir.as_path()] {
        std::fs::set_permissions(dir, Permissions::from_mode(0o777)).unwrap();
    }
    let mut command = Agent::command(relay.url(), "host-1", &data_dir);
    let Some(mut command) = as_ordinary_user(command.arg("--file").arg(&path)) else {
        return;
    };
    let mut agent = Process::start("agent", &dir.path().join("logs"), &mut command);
    agent.stderr_says("secret.log").await;
    agent.stderr_says("ermission denied").await;
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let stream = relay_stream(&relay).await;
    assert_eq!(relay.raw(stream).await, b"now it can be read\n");
}

#[tokio::test]
async fn a_file_whose_permission_is_lost_and_regained_goes_on_at_the_same_byte() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let path = dir.path().join("a.log");
    let data_dir = dir.path().join("agent");
    std::fs::create_dir(&data_dir).unwrap();
    for dir in [dir.path(), data_dir.as_path()] {
        std::fs::set_permissions(dir, Permissions::from_mode(0o777)).unwrap();
    }
    let may_be_read = |mode: u32| {
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    };
    files::append(&path, b"before\n");
    may_be_read(0o644);
    let start = || {
        let mut command = Agent::command(relay.url(), "host-1", &data_dir);
        let mut command = as_ordinary_user(command.arg("--file").arg(&path))?;
        Some(Process::start("agent", &dir.path().join("logs"), &mut command))
    };
    let Some(mut agent) = start() else {
        return;
    };
    let stream = relay_stream(&relay).await;
    let mut expected = b"before\n".to_vec();
    assert_eq!(relay.raw_of(stream, expected.len()).await, expected);
    // Lost while it is followed, and while the agent is away.
    for (word, is_killed) in [("one", false), ("two", true), ("three", true)] {
        may_be_read(0o000);
        if is_killed {
            agent.kill();
        }
        let text = format!("half {word}");
        files::append(&path, text.as_bytes());
        expected.extend(text.into_bytes());
        if is_killed {
            agent = start().unwrap();
            agent.stderr_says("ermission denied").await;
        }
        may_be_read(0o644);
        let text = format!(" and half {word}\n");
        files::append(&path, text.as_bytes());
        expected.extend(text.into_bytes());
        assert_eq!(relay.raw_of(stream, expected.len()).await, expected, "{word}");
    }
    // Rotated, and the new file cannot be read for a while.
    let new = dir.path().join("new");
    files::append(&new, b"new\n");
    std::fs::set_permissions(&new, Permissions::from_mode(0o000)).unwrap();
    std::fs::rename(&path, dir.path().join("a.log.1")).unwrap();
    std::fs::rename(&new, &path).unwrap();
    wait::until("that the new file cannot be read is said, too", || {
        agent.stderr().matches("ermission denied").count() == 2
    })
    .await;
    may_be_read(0o644);
    expected.extend(b"new\n");
    assert_eq!(relay.raw_of(stream, expected.len()).await, expected);
}

async fn relay_stream(relay: &Relay) -> u64 {
    wait::eventually("the file is read", async || {
        relay
            .streams("")
            .await
            .iter()
            .find(|stream| stream.text_bytes > 0)
            .map(|stream| stream.stream_id)
    })
    .await
}

/// `command` as an ordinary user: as it is, or through `setpriv` when root runs the tests, whom permissions do
/// not stop. None, and a note, where that cannot be done.
fn as_ordinary_user(command: &Command) -> Option<Command> {
    if !rustix::process::geteuid().is_root() {
        let mut same = Command::new(command.get_program());
        same.args(command.get_args());
        return Some(same);
    }
    let nobody = "65534";
    let mut dropped = Command::new("setpriv");
    dropped.args(["--reuid", nobody, "--regid", nobody, "--clear-groups", "--"]);
    // The binary must be reachable for that user, too.
    let mut probe = Command::new("setpriv");
    probe.args(["--reuid", nobody, "--regid", nobody, "--clear-groups", "--"]);
    if !probe
        .arg(command.get_program())
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
    {
        eprintln!("skipped: root runs this test and cannot run the binary as another user");
        return None;
    }
    dropped.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            dropped.env(name, value);
        }
    }
    Some(dropped)
}

#[tokio::test]
async fn an_unknown_stream_is_not_found() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let request = ReadRequest {
        stream_id: 4711,
        ..Default::default()
    };
    let status = relay.log_service().read(request).await.unwrap_err();
    assert_status(&status, Code::NotFound, &["4711"]);
    let (code, body) = relay.get("/api/streams/4711/raw").await;
    assert_eq!(code, 404);
    assert!(
        String::from_utf8_lossy(&body).contains("4711"),
        "{}",
        String::from_utf8_lossy(&body)
    );
    let finished = cli::run(&dir.path().join("logs"), relay.url(), &["cat", "4711"]).await;
    assert_told(&finished, 1, &["4711", "ls streams"]);
}

#[tokio::test]
async fn a_cursor_of_another_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (
        Relay::start(&dir.path().join("one")).await,
        Relay::start(&dir.path().join("other")).await,
    );
    let mut reader = Reader::start(one.log_service(), follow("")).await.unwrap();
    reader.until(|reader| reader.caught_up).await;
    let request = |cursor| TailRequest {
        start: Some(tail_request::Start::Cursor(cursor)),
        ..follow("")
    };
    let status = Reader::start(other.log_service(), request(reader.cursor))
        .await
        .unwrap_err();
    assert_status(&status, Code::FailedPrecondition, &["cursor", "store"]);
    let status = Reader::start(other.log_service(), request("nonsense".into()))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
}

/// Sends `messages` after each other as one agent session; the status that ends it.
async fn push(relay: &Relay, messages: Vec<Message>) -> Status {
    let mut client = IngestServiceClient::new(relay.channel());
    let requests = messages.into_iter().map(|message| PushRequest {
        message: Some(message),
    });
    let outcome = client.push(tokio_stream::iter(requests)).await;
    let mut responses = match outcome {
        Ok(responses) => responses.into_inner(),
        Err(status) => return status,
    };
    loop {
        match responses.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Status::ok("the session ended in peace"),
            Err(status) => return status,
        }
    }
}

fn hello(protocol_version: u32) -> Message {
    let hello = Hello {
        protocol_version,
        agent_id: "agent-1".into(),
        host: "host-1".into(),
        ..Default::default()
    };
    Message::Hello(hello)
}

#[tokio::test]
async fn a_protocol_version_that_is_too_new_is_refused_with_those_that_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let status = push(&relay, vec![hello(2)]).await;
    assert_status(&status, Code::FailedPrecondition, &["2", "1"]);
}

#[tokio::test]
async fn a_session_that_does_not_begin_with_hello_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let mut builder = BlockBuilder::new();
    builder.push_line(b"text", 1, Channel::Stdout, false);
    let block = PushBlock {
        handle: 1,
        block: builder.finish(0),
        ..Default::default()
    };
    let status = push(&relay, vec![Message::Block(block)]).await;
    assert_status(&status, Code::InvalidArgument, &["ello"]);
}

#[tokio::test]
async fn a_message_over_four_mebibytes_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let block = PushBlock {
        handle: 1,
        checkpoint: vec![7; 5 << 20].into(),
        ..Default::default()
    };
    let status = push(&relay, vec![hello(1), Message::Block(block)]).await;
    assert!(
        matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted),
        "{status:?}"
    );
    assert_eq!(relay.get("/healthz").await.0, 200, "the relay itself goes on");
}
