//! Where the program takes its settings from, seen through `check-config`, which says what it understood.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::{Command, Output};

/// `check-config` with nothing of the environment in which the tests run.
fn check_config() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream-relay"));
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("MILLSTREAM_") {
            command.env_remove(variable);
        }
    }
    command.arg("check-config");
    command
}

fn understood(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn file(directory: &Path, text: &str) -> std::path::PathBuf {
    let path = directory.join("relay.toml");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn without_settings_the_check_says_the_defaults_in_plain_words() {
    let text = understood(&mut check_config());
    for words in [
        "127.0.0.1:7171: only programs on this machine can connect",
        "only the relay's own web page may call it from a browser",
        "millstream-data",
        "acknowledged lines survive a power failure",
        "1000000 streams",
    ] {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
}

#[test]
fn the_environment_wins_over_the_file_and_a_flag_over_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(
        directory.path(),
        "listen = \"127.0.0.1:1001\"\nfsync = \"never\"\nmax_streams = 11\ncors_origins = [\"https://a.example\"]\n",
    );
    let from_file = || {
        let mut command = check_config();
        command.arg("--config").arg(&path);
        command
    };
    let text = understood(&mut from_file());
    for words in ["127.0.0.1:1001", "may take", "11 streams", "https://a.example"] {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
    let with_environment = || {
        let mut command = from_file();
        command
            .env("MILLSTREAM_LISTEN", "127.0.0.1:1002")
            .env("MILLSTREAM_MAX_STREAMS", "12")
            .env("MILLSTREAM_CORS_ORIGINS", "https://b.example,https://c.example");
        command
    };
    let text = understood(&mut with_environment());
    for words in [
        "127.0.0.1:1002",
        "12 streams",
        "https://b.example, https://c.example",
    ] {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
    let text = understood(with_environment().args(["--listen", "127.0.0.1:1003", "--max-streams", "13"]));
    for words in ["127.0.0.1:1003", "13 streams", "https://b.example"] {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
}

#[test]
fn a_bad_address_is_status_2_wherever_it_comes_from() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), "listen = \"build-host\"\n");
    for command in [
        check_config().args(["--listen", "7171"]),
        check_config().env("MILLSTREAM_LISTEN", "127.0.0.1:99999"),
        check_config().arg("--config").arg(&path),
    ] {
        let output = command.output().unwrap();
        let message = told(&output);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(
            message.contains("listen") && message.contains("127.0.0.1:7171"),
            "{message}"
        );
    }
}

#[test]
fn a_value_of_the_wrong_kind_names_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), "fsync = \"never\"\nmax_streams = \"many\"\n");
    let output = check_config().arg("--config").arg(&path).output().unwrap();
    let message = told(&output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(
        message.contains("relay.toml") && message.contains("line 2") && message.contains("max_streams"),
        "{message}"
    );
    let output = check_config()
        .env("MILLSTREAM_MAX_STREAMS", "many")
        .output()
        .unwrap();
    let message = told(&output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("--max-streams"), "{message}");
}

#[test]
fn a_link_template_that_could_run_something_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "link_templates = [\"javascript:{path}\"]\n");
    let output = check_config().arg("--config").arg(&path).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(
        told(&output).contains("begin it with one of https"),
        "{}",
        told(&output)
    );
    let good = "https://git.example.com/{label.commit}/{path}#L{line}";
    let path = file(dir.path(), &format!("link_templates = [\"{good}\"]\n"));
    let text = understood(check_config().arg("--config").arg(&path));
    assert!(text.contains(good), "{text}");
}
