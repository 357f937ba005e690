//! This process's terminal while a command has one of its own: keys go there as they are typed, and the size is
//! passed on.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::ChildStdin;

use crate::sources::process::PtySize;

const END_OF_INPUT: u8 = 4;

/// What is typed here, on its way to the supervisor, which has the command's pty.
pub(super) struct Keys {
    input: Option<(tokio::io::Stdin, ChildStdin)>,
    /// Read and not written yet.
    waiting: Vec<u8>,
    ended: bool,
    /// The terminal's modes before, to be put back.
    before: Option<rustix::termios::Termios>,
}

impl Keys {
    /// Without a supervisor that takes keys there are none.
    pub(super) fn new(supervisor: Option<ChildStdin>) -> io::Result<Self> {
        let input = supervisor.map(|supervisor| (tokio::io::stdin(), supervisor));
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

    /// Copies one piece of input; for ever pending without a pty and after the input's end. Safe to drop
    /// and call again: what was read stays until it is written.
    pub(super) async fn copy(&mut self) {
        let Some((stdin, supervisor)) = &mut self.input else {
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
        match supervisor.write(&self.waiting).await {
            Ok(written) => {
                self.waiting.drain(..written);
            }
            // The command does not read any more.
            Err(_) => {
                self.ended = true;
                self.waiting.clear();
            }
        }
    }

    /// The terminal is as it was before; nothing is read from it any more.
    pub(super) fn restore(&mut self) {
        self.input = None;
        if let Some(modes) = self.before.take()
            && let Err(error) = rustix::termios::tcsetattr(
                rustix::stdio::stdin(),
                rustix::termios::OptionalActions::Flush,
                &modes,
            )
        {
            eprintln!("millstream-agent: cannot restore the terminal ({error}); `reset` does");
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.restore();
    }
}

/// The size of this process's terminal, or the customary one.
pub(super) fn own_size() -> PtySize {
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
