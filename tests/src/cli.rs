//! The CLI `millstream` under test.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::binaries::binary;
use crate::process::{Finished, Process};

/// `millstream --relay URL ARGS…`.
pub fn command(relay_url: &str, args: &[&str]) -> Command {
    let mut command = Command::new(binary("millstream"));
    command
        .args(["--relay", relay_url])
        .args(args)
        .stdin(Stdio::null());
    command
}

/// Runs the CLI to its end.
pub async fn run(log_dir: &Path, relay_url: &str, args: &[&str]) -> Finished {
    Process::run("millstream", log_dir, &mut command(relay_url, args)).await
}

/// Starts the CLI and leaves it running, for example a `tail --follow`.
pub fn start(log_dir: &Path, relay_url: &str, args: &[&str]) -> Process {
    Process::start("millstream", log_dir, &mut command(relay_url, args))
}

/// A whole stream by `millstream cat`.
///
/// # Panics
/// When the CLI fails.
pub async fn cat(log_dir: &Path, relay_url: &str, stream_id: u64) -> Vec<u8> {
    let finished = run(log_dir, relay_url, &["cat", &stream_id.to_string()]).await;
    assert_eq!(
        finished.code(),
        0,
        "millstream cat {stream_id}: {}",
        finished.stderr
    );
    finished.stdout
}
