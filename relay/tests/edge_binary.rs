//! The program itself: its ready line, its exit status, and what it says to people who made a mistake.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

fn relay(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream-relay"));
    // Nothing of the environment in which the tests run.
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("MILLSTREAM_") {
            command.env_remove(variable);
        }
    }
    command
        .env("MILLSTREAM_LISTEN", "127.0.0.1:0")
        .arg("--data-dir")
        .arg(data_dir)
        .stdin(Stdio::null());
    command
}

/// A relay that is ready; killed when it is dropped.
struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    address: String,
}

impl Running {
    fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[])
    }

    fn start_with(data_dir: &Path, flags: &[&str]) -> Self {
        let mut child = relay(data_dir)
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        stdout.read_line(&mut ready).unwrap();
        let address = ready
            .trim_end()
            .strip_prefix("millstream-relay listening on http://");
        let address = address.expect("the ready line").to_owned();
        Self {
            child,
            stdout,
            address,
        }
    }

    /// One request and its whole answer; `headers` are whole lines, each with its end.
    fn get(&self, path: &str, headers: &str) -> String {
        let port = self.address.rsplit(':').next().unwrap();
        let mut connection = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n{headers}\r\n");
        connection.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    }

    /// SIGTERM; what it had said on standard error.
    fn stop(&mut self) -> String {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        let mut log = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut log).unwrap();
        log
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command failed with the status, and its message has all the words.
fn assert_told(output: &Output, status: i32, words: &[&str]) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{message}");
    assert!(output.stdout.is_empty(), "{:?}", output.stdout);
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}

#[test]
fn the_ready_line_names_the_real_port_and_a_signal_stops_it_with_status_0() {
    for signal in ["-TERM", "-INT"] {
        let data = tempfile::tempdir().unwrap();
        let mut running = Running::start(data.path());
        let mut connection = TcpStream::connect(&running.address).unwrap();
        connection.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("200 OK"), "{answer}");
        let sent = Command::new("kill")
            .args([signal, &running.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
        assert_eq!(running.child.wait().unwrap().code(), Some(0));
        let mut rest = String::new();
        running.stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "", "one line only");
        let mut log = String::new();
        running
            .child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut log)
            .unwrap();
        assert!(log.contains("stopped"), "{log}");
        assert!(!log.contains('\u{1b}'), "no colours without a terminal: {log:?}");
    }
}

#[test]
fn a_data_directory_that_is_in_use_or_a_file_is_said_with_what_to_do() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path());
    let holder = format!("process {}", running.child.id());
    let path = data.path().to_str().unwrap();
    let second = relay(data.path()).output().unwrap();
    assert_told(&second, 1, &[path, &holder, "--data-dir"]);

    let file = data.path().join("file");
    std::fs::write(&file, "").unwrap();
    let output = relay(&file).output().unwrap();
    assert_told(&output, 1, &[file.to_str().unwrap(), "--data-dir"]);
}

#[test]
fn a_port_in_use_is_said_with_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_millstream-relay"))
        .args(["--listen", &address, "--data-dir"])
        .arg(data.path())
        .output()
        .unwrap();
    assert_told(&output, 1, &[&address, "--listen"]);
}

#[test]
fn a_wrong_command_line_or_configuration_is_status_2_and_names_its_place() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("relay.toml");
    std::fs::write(&file, "# ours\nfsnyc = \"never\"\n").unwrap();
    let with_file = relay(data.path()).arg("--config").arg(&file).output().unwrap();
    assert_told(&with_file, 2, &["relay.toml", "line 2", "`fsnyc`", "`fsync`"]);

    for (variable, value, words) in [
        ("MILLSTREAM_FSYNC", "often", &["fsync", "always"][..]),
        ("MILLSTREAM_CORS_ORIGINS", "*", &["cors_origins", "https://"]),
        (
            "MILLSTREAM_CONFIG",
            "/nonexistent/relay.toml",
            &["/nonexistent/relay.toml"],
        ),
    ] {
        let output = relay(data.path()).env(variable, value).output().unwrap();
        assert_told(&output, 2, words);
    }
    let output = relay(data.path()).arg("--no-such-flag").output().unwrap();
    assert_told(&output, 2, &["--no-such-flag"]);
}

#[test]
fn an_open_address_needs_flags_and_the_check_says_to_whom_it_is_open() {
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_millstream-relay"))
            .args(["--listen", "0.0.0.0:7171"])
            .args(arguments)
            .output()
            .unwrap()
    };
    assert_told(&run(&["check-config"]), 2, &["0.0.0.0:7171", "--insecure-no-tls"]);
    assert_told(
        &run(&["check-config", "--insecure-no-tls", "--auth=false"]),
        2,
        &["0.0.0.0:7171", "--insecure-no-auth"],
    );
    for (arguments, words) in [
        // A flag takes no value from the word after it.
        (
            &["--insecure-no-tls", "check-config"][..],
            "everybody needs a token",
        ),
        (&["check-config", "--insecure-no-tls"], "everybody needs a token"),
        (
            &["--insecure-no-tls=true", "check-config"],
            "can read and change logs and copy tokens",
        ),
        (
            &["--insecure-no-tls", "--insecure-no-auth", "check-config"],
            "nobody is asked for a token",
        ),
    ] {
        let output = run(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(text.contains(words) && text.contains("0.0.0.0:7171"), "{text}");
    }
}

/// What `token list` says, a row a line.
fn listed(data: &Path) -> String {
    let output = relay(data).args(["token", "list"]).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_token_is_printed_once_works_at_a_running_relay_and_stops_working_when_it_is_revoked() {
    let data = tempfile::tempdir().unwrap();
    let mut running = Running::start_with(data.path(), &["--auth"]);
    let create = |arguments: &[&str]| {
        let output = relay(data.path())
            .args(["token", "create"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let token = create(&["--name", "grafana", "--role", "viewer", "--expires", "30d"]);
    let token = token.trim_end();
    assert!(
        token.starts_with("mst_") && !token.contains('\n'),
        "the token and nothing else: {token}"
    );
    let metrics = |token: &str| running.get("/metrics", &format!("authorization: Bearer {token}\r\n"));
    eventually(|| metrics(token).starts_with("HTTP/1.1 200"));
    assert!(running.get("/metrics", "").starts_with("HTTP/1.1 401"));
    assert!(metrics("mst_wrong").starts_with("HTTP/1.1 401"));

    let list = listed(data.path());
    for words in ["grafana", "viewer", "all streams", "until 20"] {
        assert!(list.contains(words), "{words:?} is not in\n{list}");
    }
    let output = relay(data.path())
        .args(["token", "revoke", "grafana"])
        .output()
        .unwrap();
    assert!(output.status.success());
    eventually(|| metrics(token).starts_with("HTTP/1.1 401"));
    assert!(listed(data.path()).contains("revoked 20"));

    let agent = create(&[
        "--name", "build-7", "--role", "agent", "--host", "build-7", "--source", "npm",
    ]);
    let list = listed(data.path());
    assert!(
        list.contains("host=build-7,source in (npm)") && list.contains("until revoked"),
        "{list}"
    );
    // Nothing that a relay says holds a token.
    let log = running.stop();
    for secret in [token, agent.trim_end()] {
        assert!(!log.contains(secret) && !list.contains(secret));
    }
    assert!(log.contains("token grafana"), "{log}");
}

#[test]
fn bad_wishes_for_tokens_are_told_with_what_to_do() {
    let data = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| relay(data.path()).arg("token").args(arguments).output().unwrap();
    assert_told(
        &run(&["create", "--name", "x", "--role", "root"]),
        2,
        &["viewer, operator and admin"],
    );
    assert_told(
        &run(&["create", "--name", "x", "--role", "agent"]),
        1,
        &["--host"],
    );
    assert_told(
        &run(&["create", "--name", "x", "--role", "viewer", "--host", "a"]),
        1,
        &["--scope"],
    );
    assert_told(
        &run(&["create", "--name", "x y", "--role", "viewer"]),
        1,
        &["no name"],
    );
    assert_told(
        &run(&["create", "--name", "x", "--role", "viewer", "--scope", "host~a"]),
        1,
        &["scope", "position 4"],
    );
    for lifetime in ["1", "0d", "x", "", "1y", "99999999999d"] {
        let arguments = ["create", "--name", "x", "--role", "viewer", "--expires", lifetime];
        assert_told(&run(&arguments), 2, &["12h"]);
    }
    assert_told(&run(&["revoke", "nobody"]), 1, &["nobody", "token list"]);
}

#[test]
fn what_is_given_up_is_said_at_every_start() {
    let data = tempfile::tempdir().unwrap();
    let flags = ["--listen", "0.0.0.0:0", "--insecure-no-tls", "--insecure-no-auth"];
    let mut running = Running::start_with(data.path(), &flags);
    let log = running.stop();
    for words in [
        "--insecure-no-tls",
        "--insecure-no-auth",
        "everybody who reaches this relay",
    ] {
        assert!(log.contains(words), "{words:?} is not in\n{log}");
    }
}

fn eventually(mut holds: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !holds() {
        assert!(
            begin.elapsed() < std::time::Duration::from_secs(20),
            "it did not come true"
        );
        std::thread::yield_now();
    }
}
