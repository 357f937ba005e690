//! The build that waits for a person: its script, and what its agent lets others do with it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::scratch::Scratch;

/// Builds from the ground up, so that there is time to stop it, in a target directory for which nobody else waits.
const SCRIPT: &str = r#"#!/bin/sh
set -eu
unset CARGO CARGO_MANIFEST_DIR RUSTFLAGS NO_COLOR CI
export CARGO_TARGET_DIR="$PWD/target" CARGO_TERM_COLOR=always
rm -rf "$CARGO_TARGET_DIR"
exec cargo "$1" --offline -j 1 -p millstream-proto
"#;

/// Writes the script and the agent's configuration into the scratch folder; returns the configuration's path.
///
/// # Errors
/// When a file cannot be written.
pub(super) fn configure(scratch: &Scratch) -> Result<PathBuf> {
    let script = scratch.dir().join("ci.sh");
    fs::write(&script, SCRIPT).with_context(|| format!("{} cannot be written", script.display()))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    // A JSON string is a TOML string.
    let cwd = serde_json::to_string(scratch.dir()).context("the temporary directory's name is no text")?;
    let config = format!(
        r#"[sources.on-demand]
plugin = "exec"
command = ["./ci.sh", "build"]
cwd = {cwd}
pty = true
run_at_start = false
stop_with_agent = true

[control.on-demand]
allow = ["start", "stop", "restart", "set_command"]
command_pattern = '\./ci\.sh (build|check|doc)'
"#
    );
    let path = scratch.dir().join("agent.toml");
    fs::write(&path, config).with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(path)
}
