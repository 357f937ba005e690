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
        .args(["--listen", "127.0.0.1:0", "--data-dir"])
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
        let mut child = relay(data_dir)
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
fn an_open_address_needs_a_flag_and_the_check_says_to_whom_it_is_open() {
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_millstream-relay"))
            .args(["--listen", "0.0.0.0:7171"])
            .args(arguments)
            .output()
            .unwrap()
    };
    assert_told(&run(&["check-config"]), 2, &["0.0.0.0:7171", "--insecure-listen"]);
    // The flag takes no value from the word after it.
    for arguments in [
        &["--insecure-listen", "check-config"][..],
        &["check-config", "--insecure-listen"],
        &["--insecure-listen=true", "check-config"],
    ] {
        let output = run(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            text.contains("everybody") && text.contains("0.0.0.0:7171"),
            "{text}"
        );
    }
}

#[test]
fn tokens_are_said_not_to_be_there_yet() {
    let data = tempfile::tempdir().unwrap();
    for verb in ["create", "list", "revoke"] {
        let output = relay(data.path()).args(["token", verb]).output().unwrap();
        assert_told(&output, 1, &["not available in this version"]);
    }
}
