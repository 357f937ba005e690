//! `millstream-agent exec` and `pipe`: one command, or standard input, as a small agent of its own.
//!
//! While the relay is away the command runs on: up to [`WRAPPED_HOLD_BYTES`] of its output are held in
//! memory, then its pipe blocks until the relay is back.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::edge::EdgeSettings;
use crate::outbox::{Outbox, StreamSpec, Unsettled};
use crate::sources::exec::{new_run, open_run, shell_status};
use crate::sources::pipe;
use crate::sources::process::{self, CommandSpec, PtySize, Running, Tee};
use crate::uplink::{Uplink, UplinkConfig};

/// Output of a wrapped command that is held while the relay is away, bytes.
pub const WRAPPED_HOLD_BYTES: usize = 64 << 20;

/// Shells' exit status for a command that does not exist, and for one that cannot be executed.
const STATUS_NOT_FOUND: u8 = 127;
const STATUS_NOT_EXECUTABLE: u8 = 126;

/// One command to wrap.
#[derive(Debug)]
pub struct WrapConfig {
    pub uplink: UplinkConfig,
    /// Name of the source.
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// What is done to what is sent; the terminal shows it as it is.
    pub edge: EdgeSettings,
    /// How long to wait for acknowledgements after the end.
    pub drain_timeout: Duration,
}

/// Runs a command, shows its output here and sends it; returns the exit status that a shell would see.
///
/// # Errors
/// When signals or the terminal cannot be set up.
pub async fn exec(config: WrapConfig, argv: Vec<String>, pty: bool) -> io::Result<u8> {
    let command = CommandSpec {
        argv,
        cwd: None,
        env: BTreeMap::new(),
        pty: pty.then(own_size),
        // In a group of its own the command is not the terminal's foreground job and would be stopped when
        // it reads from it; --pty is for commands that ask.
        inherit_stdin: !rustix::termios::isatty(rustix::stdio::stdin()),
    };
    let link = Link::start(config.uplink.clone(), config.edge.clone());
    let run = new_run(&command, "person");
    let writer = open_run(&link.outbox, &config.name, config.labels, run, WRAPPED_HOLD_BYTES);
    let mut signals = Signals::new()?;
    let status = match process::spawn(&command) {
        Err(error) => {
            let message = process::explain_spawn_error(&command, &error);
            eprintln!("millstream-agent: {message}");
            writer.end(process::start_failed(message));
            if error.kind() == io::ErrorKind::NotFound {
                STATUS_NOT_FOUND
            } else {
                STATUS_NOT_EXECUTABLE
            }
        }
        Ok(mut running) => {
            let mut terminal = TerminalLink::new(&mut running)?;
            let group = running.group;
            let mut tee = Tee::own();
            let status = {
                let pump = process::pump(&mut running, &writer, &mut tee);
                tokio::pin!(pump);
                loop {
                    tokio::select! {
                        status = &mut pump => break status?,
                        received = signals.next() => match received {
                            Received::Forward(received) => process::signal_group(group, received),
                            Received::Resized => terminal.resize(),
                        },
                        () = terminal.copy_input() => {}
                    }
                }
            };
            drop(terminal);
            writer.end(process::end_of(status));
            shell_status(status)
        }
    };
    drop(writer);
    link.finish(config.drain_timeout, &mut signals).await;
    Ok(status)
}

/// Sends standard input to its end. True: everything was delivered.
///
/// # Errors
/// When the input cannot be read or the relay refuses the stream.
pub async fn pipe(config: WrapConfig) -> Result<bool, pipe::PipeError> {
    let link = Link::start(config.uplink.clone(), config.edge.clone());
    let writer = link.outbox.open(StreamSpec {
        source: config.name,
        instance: crate::identity::sortable_id(),
        labels: config.labels,
        run: None,
        path: None,
        resumable: false,
        hold_bytes: WRAPPED_HOLD_BYTES,
    });
    let mut signals = Signals::new()?;
    let result = tokio::select! {
        result = pipe::run(tokio::io::stdin(), &writer) => result,
        () = signals.asked_to_stop() => Ok(()),
    };
    drop(writer);
    let delivered = link.finish(config.drain_timeout, &mut signals).await;
    result.map(|()| delivered)
}

/// The uplink of a small agent.
struct Link {
    outbox: Outbox,
    relays: String,
    uplink: JoinSet<()>,
    hang_up: CancellationToken,
}

impl Link {
    fn start(config: UplinkConfig, edge: EdgeSettings) -> Self {
        let outbox = Outbox::new().with_edge(edge);
        let hang_up = CancellationToken::new();
        let relays = config.relays.join(", ");
        let mut uplink = JoinSet::new();
        uplink.spawn(Uplink::new(config, outbox.clone()).run(hang_up.clone()));
        Self {
            outbox,
            relays,
            uplink,
            hang_up,
        }
    }

    /// Waits for acknowledgements, says what is missing, hangs up. True: nothing is missing.
    async fn finish(mut self, limit: Duration, signals: &mut Signals) -> bool {
        tokio::select! {
            () = self.outbox.settled() => {}
            () = tokio::time::sleep(limit) => {}
            () = signals.asked_to_stop() => {}
        }
        let unsettled = self.outbox.unsettled();
        if unsettled.lines > 0 {
            eprintln!(
                "millstream-agent: {} lines were not delivered to {}",
                unsettled.lines, self.relays
            );
        } else if unsettled.ends > 0 {
            eprintln!(
                "millstream-agent: the end of the run was not delivered to {}",
                self.relays
            );
        }
        self.hang_up.cancel();
        while self.uplink.join_next().await.is_some() {}
        unsettled == Unsettled::default()
    }
}

enum Received {
    Forward(Signal),
    Resized,
}

struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
    resized: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            resized: signal(SignalKind::window_change())?,
        })
    }

    async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.interrupt.recv() => Received::Forward(Signal::INT),
            _ = self.terminate.recv() => Received::Forward(Signal::TERM),
            _ = self.hang_up.recv() => Received::Forward(Signal::HUP),
            _ = self.quit.recv() => Received::Forward(Signal::QUIT),
            _ = self.resized.recv() => Received::Resized,
        }
    }

    async fn asked_to_stop(&mut self) {
        while matches!(self.next().await, Received::Resized) {}
    }
}

/// This process's terminal and the command's pty: keys go in as they are typed, the size follows.
struct TerminalLink {
    input: Option<(tokio::io::Stdin, pty_process::OwnedWritePty)>,
    /// Read and not written yet.
    waiting: Vec<u8>,
    ended: bool,
    /// The terminal's modes before, to be put back.
    before: Option<rustix::termios::Termios>,
}

impl TerminalLink {
    fn new(running: &mut Running) -> io::Result<Self> {
        let input = running.pty_input.take().map(|pty| (tokio::io::stdin(), pty));
        let mut before = None;
        let stdin = rustix::stdio::stdin();
        if input.is_some() && rustix::termios::isatty(stdin) {
            let modes = rustix::termios::tcgetattr(stdin)?;
            let mut raw = modes.clone();
            raw.make_raw();
            rustix::termios::tcsetattr(stdin, rustix::termios::OptionalActions::Now, &raw)?;
            before = Some(modes);
        }
        Ok(Self {
            input,
            waiting: Vec::new(),
            ended: false,
            before,
        })
    }

    fn resize(&self) {
        if let Some((_, pty)) = &self.input {
            let size = own_size();
            if let Err(error) = pty.resize(pty_process::Size::new(size.rows, size.columns)) {
                tracing::warn!("cannot pass on the terminal's size: {error}");
            }
        }
    }

    /// Copies one piece of input; for ever pending without a pty and after the input's end. Safe to drop
    /// and call again: what was read stays until it is written.
    async fn copy_input(&mut self) {
        const END_OF_INPUT: u8 = 4;
        let Some((stdin, pty)) = &mut self.input else {
            return std::future::pending().await;
        };
        if self.waiting.is_empty() {
            if self.ended {
                return std::future::pending().await;
            }
            let mut piece = [0; 4096];
            let read = stdin.read(&mut piece).await.unwrap_or(0);
            self.waiting.extend_from_slice(&piece[..read]);
            if read == 0 {
                self.ended = true;
                self.waiting.push(END_OF_INPUT);
            }
        }
        match pty.write(&self.waiting).await {
            Ok(written) => {
                self.waiting.drain(..written);
            }
            // The command does not read any more; the pty stays open, closing it would hang the command up.
            Err(_) => {
                self.ended = true;
                self.waiting.clear();
            }
        }
    }
}

impl Drop for TerminalLink {
    fn drop(&mut self) {
        if let Some(modes) = &self.before
            && let Err(error) = rustix::termios::tcsetattr(
                rustix::stdio::stdin(),
                rustix::termios::OptionalActions::Flush,
                modes,
            )
        {
            eprintln!("millstream-agent: cannot restore the terminal ({error}); `reset` does");
        }
    }
}

fn own_size() -> PtySize {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout()).ok();
    size.filter(|size| size.ws_row > 0 && size.ws_col > 0).map_or(
        PtySize {
            rows: 24,
            columns: 80,
        },
        |size| PtySize {
            rows: size.ws_row,
            columns: size.ws_col,
        },
    )
}
