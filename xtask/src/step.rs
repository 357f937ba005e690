//! Set-up steps: each says what it does before it starts, shows the tool's own progress, and tells how to help
//! when it fails.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

/// Says what happens now.
pub(crate) fn say(what: &str) {
    eprintln!("==> {what}");
}

/// Runs `command` with its output on the terminal. `cure` is told when it fails.
///
/// # Errors
/// When it cannot be started or does not exit with 0.
pub(crate) fn run(what: &str, command: &mut Command, cure: &str) -> Result<()> {
    say(what);
    let began = Instant::now();
    let shown = show(command);
    let status = command
        .status()
        .with_context(|| format!("{shown} cannot be started; {cure}"))?;
    if !status.success() {
        bail!("{what} failed: `{shown}` ended with {status}; {cure}");
    }
    eprintln!("    done in {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// The command as one would type it.
pub(crate) fn show(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|part| part.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Standard output of a small command, trimmed; `None` when it is not there or fails.
pub(crate) fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
