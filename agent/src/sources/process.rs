//! A child process: spawning it in a group of its own, on pipes or on a pty, and signalling the group. Used by the
//! supervisors of runs; knows nothing of configuration.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Stdio;
use std::time::{Duration, Instant};

use millstream_proto::v1;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tracing::warn;

use crate::config::TOKEN_VARIABLE;
use crate::outbox::now_unix_us;

/// Size of a pipe on Linux: one read takes all that a writer could put there.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;

/// A child has exited but something still holds its output open (a daemon it started): wait this long for
/// more, then let go.
pub(crate) const ORPHAN_WAIT: Duration = Duration::from_secs(2);

/// Stop ladder: interrupt, wait, terminate, wait, kill.
pub(crate) const INTERRUPT_WAIT: Duration = Duration::from_millis(7500);
pub(crate) const TERMINATE_WAIT: Duration = Duration::from_millis(2500);

/// What to run.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct CommandSpec {
    pub argv: Vec<String>,
    pub cwd: Option<PathBuf>,
    pub env: BTreeMap<String, String>,
    /// On a terminal of its own, so that it keeps colours and progress bars.
    pub pty: Option<PtySize>,
    /// Give it this process's standard input rather than an empty one; with a pty, what comes through that.
    pub inherit_stdin: bool,
}

/// Rows and columns of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PtySize {
    pub rows: u16,
    pub columns: u16,
}

pub(crate) type Reader = Pin<Box<dyn AsyncRead + Send>>;

/// A running child.
pub struct Running {
    pub child: Child,
    /// The leader of its group, for signals.
    pub group: Option<Pid>,
    pub(crate) stdout: Option<Reader>,
    pub(crate) stderr: Option<Reader>,
    /// Input side of the pty.
    pub pty_input: Option<pty_process::OwnedWritePty>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Running")
            .field("child", &self.child)
            .finish_non_exhaustive()
    }
}

/// Starts a command in a process group of its own.
///
/// # Errors
/// As the system gives them; `NotFound` when there is no such program (or no such `cwd`).
pub fn spawn(spec: &CommandSpec) -> io::Result<Running> {
    let (program, arguments) = spec
        .argv
        .split_first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the command is empty"))?;
    if let Some(size) = spec.pty {
        return spawn_on_pty(spec, program, arguments, size);
    }
    let mut child = spawn_plain(spec)?;
    let stdout = child.stdout.take().map(|pipe| Box::pin(pipe) as Reader);
    let stderr = child.stderr.take().map(|pipe| Box::pin(pipe) as Reader);
    Ok(Running {
        group: group_of(&child),
        child,
        stdout,
        stderr,
        pty_input: None,
    })
}

/// Starts a command on pipes.
pub(super) fn spawn_plain(spec: &CommandSpec) -> io::Result<Child> {
    let (program, arguments) = spec
        .argv
        .split_first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the command is empty"))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_remove(TOKEN_VARIABLE)
        .envs(&spec.env)
        .stdin(if spec.inherit_stdin {
            Stdio::inherit()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    if let Some(cwd) = &spec.cwd {
        command.current_dir(cwd);
    }
    command.spawn()
}

fn spawn_on_pty(
    spec: &CommandSpec,
    program: &str,
    arguments: &[String],
    size: PtySize,
) -> io::Result<Running> {
    let (pty, pts) = pty_process::open().map_err(io::Error::other)?;
    pty.resize(pty_process::Size::new(size.rows, size.columns))
        .map_err(io::Error::other)?;
    let mut command = pty_process::Command::new(program)
        .args(arguments)
        .env_remove(TOKEN_VARIABLE)
        .envs(&spec.env);
    if let Some(cwd) = &spec.cwd {
        command = command.current_dir(cwd);
    }
    let child = command.spawn(pts).map_err(|error| match error {
        pty_process::Error::Io(error) => error,
        error => io::Error::other(error),
    })?;
    let (output, input) = pty.into_split();
    let stdout = Some(Box::pin(output) as Reader);
    Ok(Running {
        group: group_of(&child),
        child,
        stdout,
        stderr: None,
        pty_input: Some(input),
    })
}

pub(crate) fn group_of(child: &Child) -> Option<Pid> {
    child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw)
}

/// Signals every process of the group; one that is gone already is no error.
pub fn signal_group(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group
        && let Err(error) = rustix::process::kill_process_group(group, signal)
        && error != rustix::io::Errno::SRCH
    {
        warn!("cannot signal process group {}: {error}", group.as_raw_nonzero());
    }
}

/// 0 at the end. A pty whose other side is closed answers with an error; it means the same.
pub(crate) async fn read_some(reader: &mut Option<Reader>, buffer: &mut [u8]) -> usize {
    match reader {
        Some(reader) => reader.read(buffer).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

pub(crate) async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at.into()).await;
    }
}

/// The end of a run whose process could not be started.
#[must_use]
pub fn start_failed(message: String) -> v1::StreamEnd {
    v1::StreamEnd {
        reason: v1::EndReason::StartFailed.into(),
        end_unix_us: now_unix_us(),
        message,
        ..v1::StreamEnd::default()
    }
}

/// Why a program did not start, with what to do.
#[must_use]
pub fn explain_spawn_error(spec: &CommandSpec, error: &io::Error) -> String {
    let program = spec.argv.first().map_or("", String::as_str);
    if let Some(cwd) = &spec.cwd
        && !cwd.is_dir()
    {
        return format!(
            "cannot run {program}: its working directory {} does not exist",
            cwd.display()
        );
    }
    match error.kind() {
        io::ErrorKind::NotFound => format!("{program}: command not found"),
        io::ErrorKind::PermissionDenied => format!("{program}: permission denied (is it executable?)"),
        _ => format!("cannot run {program}: {error}"),
    }
}
