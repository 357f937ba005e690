//! Bounds around a plugin's process.
//!
//! The agent does not start a plugin itself but its own binary with the hidden sub-command `contain`, which
//! bounds itself and then becomes the plugin ([`become_contained`]). So the bounds hold before the plugin's first
//! instruction and for whatever it starts, with no `unsafe` between fork and exec.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal};
use tokio::process::{Child, Command};

use super::start::Start;

/// What a plugin may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Private memory of each of its processes, bytes (`RLIMIT_DATA`).
    pub memory_max_bytes: u64,
    /// Output that is read in a second; beyond it the plugin's pipe blocks. 0: no bound.
    pub max_bytes_per_second: u64,
    /// It is started again when it printed nothing for so long.
    pub stall_timeout: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_max_bytes: 512 << 20,
            max_bytes_per_second: 16 << 20,
            stall_timeout: None,
        }
    }
}

/// How long a plugin may take to end after SIGTERM.
pub(super) const STOP_WAIT: Duration = Duration::from_secs(5);

/// Exit status of `contain` when it could not become the plugin.
const CANNOT_EXEC: i32 = 127;

/// Starts a plugin contained, in a process group of its own.
///
/// # Errors
/// When the agent's own binary cannot be started. That the plugin's cannot is exit status 127 and a sentence on
/// standard error.
pub(super) fn spawn(agent_program: &Path, limits: &Limits, start: &Start) -> io::Result<Child> {
    let mut command = Command::new(agent_program);
    command
        .arg("contain")
        .arg("--memory-max-bytes")
        .arg(limits.memory_max_bytes.to_string())
        .arg("--parent")
        .arg(std::process::id().to_string())
        .arg("--")
        .args(&start.argv)
        .envs(start.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command.spawn()
}

/// Bounds this process and replaces it by `argv`. Returns only when that fails, with the exit status.
#[must_use]
pub fn become_contained(memory_max_bytes: u64, parent: i32, argv: &[String]) -> i32 {
    let fail = |what: &str, error: &dyn std::fmt::Display| {
        eprintln!("{what}: {error}");
        CANNOT_EXEC
    };
    let Some((program, arguments)) = argv.split_first() else {
        return fail("cannot start the plugin", &"its command is empty");
    };
    // Should the agent be killed, the plugin ends too: the next agent starts one of its own.
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        return fail("cannot tie the plugin to its agent", &error);
    }
    if rustix::process::getppid()
        .map(Pid::as_raw_nonzero)
        .map(std::num::NonZero::get)
        != Some(parent)
    {
        return fail("cannot start the plugin", &"its agent is gone");
    }
    for (resource, bytes) in [(Resource::Data, memory_max_bytes), (Resource::Core, 0)] {
        let current = rustix::process::getrlimit(resource);
        let allowed = current.maximum.map_or(bytes, |maximum| maximum.min(bytes));
        let limit = Rlimit {
            current: Some(allowed),
            maximum: Some(allowed),
        };
        if let Err(error) = rustix::process::setrlimit(resource, limit) {
            return fail("cannot bound the plugin's memory", &error);
        }
    }
    let mut command = std::process::Command::new(program);
    command.args(arguments);
    clean_environment(&mut command);
    let error = command.exec();
    match error.kind() {
        io::ErrorKind::NotFound => fail(program, &"command not found"),
        io::ErrorKind::PermissionDenied => fail(program, &"permission denied (is it executable?)"),
        io::ErrorKind::InvalidInput => fail(program, &error),
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => fail(
            program,
            &"not a program that the system can start (a script begins with #!/bin/sh or the like)",
        ),
        _ => fail(program, &error),
    }
}

/// Tokens and addresses of the relay are not a plugin's business.
pub(super) fn clean_environment(command: &mut std::process::Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("MILLSTREAM_") && !text.starts_with("MILLSTREAM_SETTING_") {
            command.env_remove(&name);
        }
    }
}

/// Ends a child and all of its group: SIGTERM, some time, SIGKILL.
pub(super) async fn stop(child: &mut Child) {
    let group = crate::sources::process::group_of(child);
    crate::sources::process::signal_group(group, Signal::TERM);
    if tokio::time::timeout(STOP_WAIT, child.wait()).await.is_err() {
        tracing::warn!(
            "a plugin ignored SIGTERM for {} s and is killed",
            STOP_WAIT.as_secs()
        );
    }
    // What it may have started, too.
    crate::sources::process::signal_group(group, Signal::KILL);
    let _ = child.wait().await;
}
