//! `millstream-agent exec` and `pipe`: one command, or standard input, as a small agent of its own.
//!
//! A supervisor holds the command and writes what it says to a spool in the data directory; this process shows
//! that on the terminal and sends it, and passes on signals ([`signals`]), keys and the terminal's size
//! ([`terminal`]). Killed, it leaves a command that runs on, and output that the next agent or wrapper of the
//! data directory delivers. While the relay is away the command runs on until the spool is full.

mod signals;
mod terminal;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio_util::sync::CancellationToken;

use crate::edge::EdgeSettings;
use crate::leftover::Deliveries;
use crate::link::Link;
use crate::runs::follow::{Beside, Follow, Followed, shell_status, undelivered_lines};
use crate::runs::show::{Tee, show};
use crate::runs::supervise::Control;
use crate::runs::wrapped::{Claimed, MAX_LEFT, Wrapped};
use crate::runs::{Description, End, How, RunDir, Sender, Work, ci};
use crate::sources::process::CommandSpec;
use crate::spool::Bound;
use crate::uplink::UplinkConfig;
use signals::{Received, Signals};
use terminal::{Keys, own_size};

/// After its own output is delivered, a wrapper goes on this long with what earlier ones left.
const LEFT_WAIT: Duration = Duration::from_secs(5);

/// So many signals that ask to stop end this process at once.
const STOPS_TO_ABANDON: u32 = 3;

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
    pub data_dir: PathBuf,
    pub spool: Bound,
    /// The binary to start the supervisor from.
    pub program: PathBuf,
}

/// Why a command was not wrapped.
#[derive(Debug, thiserror::Error)]
pub enum WrapError {
    #[error(
        "cannot hold a run in the data directory {}: {error}; choose one that this user can write with --data-dir \
         or MILLSTREAM_DATA_DIR", .path.display()
    )]
    DataDir { path: PathBuf, error: io::Error },
    #[error("cannot set up signals or the terminal: {0}")]
    Terminal(io::Error),
    #[error("cannot read the run's spool: {0}")]
    Spool(io::Error),
}

/// Runs a command, shows its output here and sends it; returns the exit status that a shell would see.
///
/// # Errors
/// When the data directory or the terminal cannot be used.
pub async fn exec(config: WrapConfig, argv: Vec<String>, pty: bool) -> Result<u8, WrapError> {
    let command = CommandSpec {
        argv,
        cwd: None,
        env: BTreeMap::new(),
        pty: pty.then(own_size),
        // In a session of its own the command is not the terminal's foreground job and cannot read from it;
        // --pty is for commands that ask.
        inherit_stdin: pty || !rustix::termios::isatty(rustix::stdio::stdin()),
    };
    let input = match (pty, command.inherit_stdin) {
        (true, _) => Stdio::piped(),
        (false, true) => Stdio::inherit(),
        (false, false) => Stdio::null(),
    };
    let wrapping = Wrapping::start(config, Work::Command(command), input)?;
    let mut status = 1;
    let run = wrapping.run(Tee::own(), |shown| match shown {
            Shown::Ended(end) => {
                if let How::StartFailed { message, .. } = &end.how {
                    eprintln!("millstream-agent: {message}");
                }
                status = shell_status(end);
            }
            Shown::Lost => eprintln!(
                "millstream-agent: the process that held the command is gone (was it killed?); the command's exit \
                 status is not known"
            ),
            Shown::Abandoned(signal) => {
                eprintln!("millstream-agent: told to stop again and again; the command is killed if it does not end");
                status = 128_u8.saturating_add(u8::try_from(signal.as_raw()).unwrap_or_default());
            }
        });
    Box::pin(run).await?;
    Ok(status)
}

/// Sends standard input to its end. True: everything was read and delivered.
///
/// # Errors
/// When the data directory cannot be used.
pub async fn pipe(config: WrapConfig) -> Result<bool, WrapError> {
    let wrapping = Wrapping::start(config, Work::Input, Stdio::inherit())?;
    let mut read_whole = true;
    let run = wrapping.run(Tee::none(), |shown| match shown {
        Shown::Ended(end) => {
            if let How::InputFailed { message } = &end.how {
                eprintln!("millstream-agent: {message}");
                read_whole = false;
            }
        }
        Shown::Lost => {
            eprintln!("millstream-agent: the process that read standard input is gone (was it killed?)");
            read_whole = false;
        }
        Shown::Abandoned(_) => read_whole = false,
    });
    let delivered = Box::pin(run).await?;
    Ok(delivered && read_whole)
}

/// How the showing of a run ended.
enum Shown<'a> {
    Ended(&'a End),
    /// Its supervisor is gone, and with it how it ended.
    Lost,
    /// Told to stop so often that waiting is not wanted.
    Abandoned(Signal),
}

/// A run that is held, shown and sent.
struct Wrapping {
    config: WrapConfig,
    claimed: Claimed,
    control: Control,
    keys: Keys,
    signals: Signals,
    wrapped: Wrapped,
    left: Deliveries,
    /// Ends every delivery.
    stop: CancellationToken,
}

impl Wrapping {
    fn start(config: WrapConfig, work: Work, input: Stdio) -> Result<Self, WrapError> {
        let data_dir = |error| WrapError::DataDir {
            path: config.data_dir.clone(),
            error,
        };
        let wrapped = Wrapped::open(&config.data_dir).map_err(data_dir)?;
        let mut labels = ci::labels(|variable| std::env::var(variable).ok());
        labels.extend(config.labels.clone());
        let mut description = Description::new(&config.name, labels, work, config.spool);
        "person".clone_into(&mut description.started_by);
        description.sender = Some(Sender {
            agent_id: config.uplink.agent_id.clone(),
            host: config.uplink.host.clone(),
            labels: config.uplink.labels.clone(),
        });
        let signals = Signals::new().map_err(WrapError::Terminal)?;
        let (control, there) = Control::pair().map_err(WrapError::Terminal)?;
        let stop = CancellationToken::new();
        let mut left = Deliveries::new(
            wrapped.clone(),
            config.uplink.clone(),
            config.edge.clone(),
            stop.clone(),
        );
        left.look().map_err(data_dir)?;
        let claimed = wrapped.create(description).map_err(data_dir)?;
        // Dropped, not waited for: it lives on without this process.
        let started = claimed.run.start_supervisor(&config.program, input, Some(there));
        let input = match started {
            Ok(mut supervisor) => supervisor.stdin.take(),
            Err(error) => {
                claimed.run.remove().map_err(data_dir)?;
                return Err(data_dir(error));
            }
        };
        Ok(Self {
            keys: Keys::new(input).map_err(WrapError::Terminal)?,
            config,
            claimed,
            control,
            signals,
            wrapped,
            left,
            stop,
        })
    }

    /// Shows and sends everything; `at_end` is told how it ended before the rest is delivered. True: all of it
    /// was.
    async fn run(self, mut tee: Tee, at_end: impl FnOnce(Shown<'_>)) -> Result<bool, WrapError> {
        let Self {
            config,
            claimed,
            control,
            mut keys,
            mut signals,
            wrapped,
            mut left,
            stop,
        } = self;
        let run = &claimed.run;
        let link = Link::start(config.uplink.clone(), config.edge.clone());
        let outbox = link.outbox.clone();
        let beside = Beside::default();
        let follow = Follow {
            beside: Some(&beside),
            gives_up: true,
            ..Follow::new(run, &outbox)
        };
        let mut follow = pin!(follow.follow(&stop));
        let mut followed = None;
        let (mut stops, mut last_stop) = (0, None);
        let mut show = pin!(show(run, &mut tee, &beside));
        let end = loop {
            tokio::select! {
                end = &mut show => break end.map_err(WrapError::Spool)?,
                done = &mut follow, if followed.is_none() => {
                    if let Followed::Refused(reason) = &done {
                        eprintln!(
                            "millstream-agent: the relay refuses this run, its output is only shown here: {reason}"
                        );
                        beside.nobody_sends();
                    }
                    followed = Some(done);
                }
                received = signals.next() => match received {
                    Received::Resized => control.resize(own_size()),
                    Received::Stop(signal) => {
                        control.signal(signal);
                        (stops, last_stop) = (stops + 1, Some(signal));
                    }
                },
                () = keys.copy() => {}
            }
            if stops >= STOPS_TO_ABANDON {
                break None;
            }
        };
        keys.restore();
        at_end(match (&end, last_stop) {
            (Some(end), _) => Shown::Ended(end),
            (None, Some(signal)) if stops >= STOPS_TO_ABANDON => Shown::Abandoned(signal),
            (None, _) => Shown::Lost,
        });
        if followed.is_none() && stops < STOPS_TO_ABANDON {
            tokio::select! {
                done = &mut follow => followed = Some(done),
                () = tokio::time::sleep(config.drain_timeout) => {}
                () = signals.asked_to_stop() => {}
            }
        }
        let relays = config.uplink.relays.join(", ");
        let delivered = match &followed {
            Some(Followed::Ended(_) | Followed::Lost | Followed::Refused(_)) => {
                run.remove().map_err(WrapError::Spool)?;
                !matches!(followed, Some(Followed::Refused(_)))
            }
            Some(Followed::Left) | None => {
                let checkpoint = outbox.durable_checkpoint(&config.name, run.description.instance());
                say_undelivered(run, &checkpoint, &relays, &wrapped).map_err(WrapError::Spool)?;
                false
            }
        };
        if delivered {
            left.finish_ended(LEFT_WAIT).await;
        }
        stop.cancel();
        left.finish().await;
        link.hang_up().await;
        Ok(delivered)
    }
}

/// What the relay lacks, and where it waits.
fn say_undelivered(run: &RunDir, checkpoint: &[u8], relays: &str, wrapped: &Wrapped) -> io::Result<()> {
    let lines = undelivered_lines(run, checkpoint)?;
    let what = match lines {
        0 => "the end of the run was not delivered".to_owned(),
        lines => format!("{lines} lines were not delivered"),
    };
    if wrapped.count()? > MAX_LEFT {
        run.remove()?;
        eprintln!(
            "millstream-agent: {what} to {relays} and will not be: {MAX_LEFT} runs wait in the data directory already"
        );
        return Ok(());
    }
    eprintln!(
        "millstream-agent: {what} to {relays}; the next millstream-agent with this data directory sends what waits \
         in {}",
        run.path.display()
    );
    Ok(())
}
