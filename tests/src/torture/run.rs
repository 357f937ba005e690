//! Runs of an `exec` source that write numbered lines. The writer is this binary's own `write-lines`: it asks the
//! [`Register`] for its orders through a socket, so that what it has written is known from outside, whoever holds it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::source::{Lines, Order};

/// What is known of one run.
#[derive(Debug, Clone)]
pub struct Run {
    pub run_id: String,
    /// Which of the world's `exec` sources it is of.
    pub source: usize,
    pub lines: Lines,
    /// Its directory.
    pub directory: PathBuf,
    pub supervisor: Pid,
    pub state: State,
}

/// What has to arrive of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It writes.
    Writing,
    /// It rests after so many lines of so many bytes.
    Resting { lines: u64, bytes: u64 },
    /// Its supervisor was killed when so many bytes were in the spool.
    Lost { bytes: u64 },
    /// It was told to end, and ended with this many.
    Ended { lines: u64, bytes: u64 },
}

impl State {
    /// Nothing is written any more.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Ended { .. })
    }
}

/// Every run of a world, by run id.
#[derive(Debug, Clone, Default)]
pub struct Register {
    runs: Arc<Mutex<BTreeMap<String, Run>>>,
}

impl Register {
    pub fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Run>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The run of a source that goes on.
    pub fn living(&self, source: usize) -> Option<Run> {
        let runs = self.lock();
        let mut of_source = runs.values().rev().filter(|run| run.source == source);
        of_source
            .next()
            .filter(|run| matches!(run.state, State::Writing | State::Resting { .. }))
            .cloned()
    }

    fn set(&self, run_id: &str, state: State) {
        if let Some(run) = self.lock().get_mut(run_id)
            && !matches!(run.state, State::Lost { .. })
        {
            run.state = state;
        }
    }
}

impl Run {
    /// `kill -9` of its supervisor, and how much it had put into the spool. Nobody may read the spool meanwhile.
    pub async fn kill_supervisor(&self) -> u64 {
        kill_process(self.supervisor, Signal::KILL).expect("a supervisor lives as long as its run");
        crate::wait::until("the supervisor is gone", || {
            // A zombie is dead: who could reap it may be stopped.
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.supervisor.as_raw_nonzero()));
            stat.map_or(true, |stat| stat.contains(") Z "))
        })
        .await;
        self.spooled()
    }

    /// Bytes of standard output that were ever put into the spool.
    fn spooled(&self) -> u64 {
        use millstream_agent::spool::reader::{Next, Place, SpoolReader};
        let segments = millstream_agent::spool::segments(&self.directory).expect("the spool can be listed");
        let Some(last) = segments.last() else {
            return 0;
        };
        let mut reader = SpoolReader::new(self.directory.clone(), Place::start_of(*last));
        while reader.next(true).expect("the spool can be read") != Next::End {}
        reader.totals()[0].bytes
    }
}

/// Where the writers of a world ask.
#[derive(Debug)]
pub struct Desk {
    pub register: Register,
    pub socket: PathBuf,
    _task: JoinSet<()>,
}

impl Desk {
    /// `runs_of` finds the directories of each source's runs.
    pub fn open(
        dir: &Path,
        runs_of: Vec<PathBuf>,
        orders: watch::Receiver<Order>,
        first_seed: usize,
    ) -> Self {
        let socket = dir.join("orders");
        let listener = UnixListener::bind(&socket).expect("a socket can be made");
        let register = Register::default();
        let mut task = JoinSet::new();
        task.spawn(serve(listener, register.clone(), runs_of, orders, first_seed));
        Self {
            register,
            socket,
            _task: task,
        }
    }
}

async fn serve(
    listener: UnixListener,
    register: Register,
    runs_of: Vec<PathBuf>,
    orders: watch::Receiver<Order>,
    first_seed: usize,
) {
    let mut writers = JoinSet::new();
    for seed in first_seed.. {
        let (socket, _) = listener.accept().await.expect("a writer can connect");
        let (register, runs_of, orders) = (register.clone(), runs_of.clone(), orders.clone());
        // A broken connection is a killed writer; what was written of it is its run's matter.
        writers.spawn(async move { order_about(socket, register, &runs_of, orders, seed).await.ok() });
    }
}

/// One writer, from its first word to its end.
async fn order_about(
    socket: UnixStream,
    register: Register,
    runs_of: &[PathBuf],
    mut orders: watch::Receiver<Order>,
    seed: usize,
) -> std::io::Result<()> {
    let mut socket = BufReader::new(socket);
    let hello = numbers(&mut socket).await?;
    let (source, supervisor) = (usize::try_from(hello[0]).expect("small"), hello[1]);
    let directory = directory_of(&runs_of[source], supervisor);
    let run_id = directory
        .file_name()
        .expect("it has a name")
        .to_string_lossy()
        .into_owned();
    let run = Run {
        run_id: run_id.clone(),
        source,
        lines: Lines { seed },
        directory,
        supervisor: Pid::from_raw(i32::try_from(supervisor).expect("it is a process id")).expect("it is one"),
        state: State::Writing,
    };
    // Before the writer knows what to write, so that nobody can see a line of an unknown run.
    register.lock().insert(run_id.clone(), run);
    socket.write_all(format!("{seed}\n").as_bytes()).await?;
    loop {
        let order = *orders.borrow_and_update();
        let word = match order {
            Order::Begin | Order::Write => "write\n",
            Order::Rest => "rest\n",
            Order::Stop => "stop\n",
        };
        if order == Order::Write || order == Order::Begin {
            register.set(&run_id, State::Writing);
        }
        socket.write_all(word.as_bytes()).await?;
        if matches!(order, Order::Rest | Order::Stop) {
            let written = numbers(&mut socket).await?;
            let (lines, bytes) = (written[0], written[1]);
            let state = match order {
                Order::Rest => State::Resting { lines, bytes },
                _ => State::Ended { lines, bytes },
            };
            register.set(&run_id, state);
        }
        if order == Order::Stop || orders.changed().await.is_err() {
            return Ok(());
        }
    }
}

async fn numbers(socket: &mut BufReader<UnixStream>) -> std::io::Result<Vec<u64>> {
    let mut line = String::new();
    socket.read_line(&mut line).await?;
    let numbers: Vec<u64> = line
        .split_whitespace()
        .filter_map(|number| number.parse().ok())
        .collect();
    match numbers.len() {
        2 => Ok(numbers),
        _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The directory of the run that this process supervises.
fn directory_of(runs: &Path, supervisor: u64) -> PathBuf {
    let wanted = format!("{supervisor}\n");
    let entries = std::fs::read_dir(runs)
        .expect("the runs can be listed")
        .filter_map(Result::ok);
    entries
        .map(|entry| entry.path())
        .find(|path| std::fs::read_to_string(path.join("supervisor.pid")).is_ok_and(|pid| pid == wanted))
        .expect("a writer's parent is the supervisor of a run")
}

/// The writer: what `millstream-torture write-lines` does.
///
/// # Errors
/// When whoever gives orders, or takes the lines, is gone.
pub fn write_lines(socket: &Path, source: usize) -> std::io::Result<()> {
    let socket = StdStream::connect(socket)?;
    let mut orders = std::io::BufReader::new(socket.try_clone()?);
    let parent = rustix::process::getppid().map_or(0, |parent| parent.as_raw_nonzero().get());
    writeln!(&socket, "{source} {parent}")?;
    let mut word = String::new();
    let mut hear = |orders: &mut std::io::BufReader<StdStream>| -> std::io::Result<String> {
        word.clear();
        match std::io::BufRead::read_line(orders, &mut word)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(word.trim_end().to_owned()),
        }
    };
    let seed = hear(&mut orders)?.parse().map_err(std::io::Error::other)?;
    let lines = Lines { seed };
    let mut random = fastrand::Rng::with_seed(seed as u64);
    let mut output = std::io::stdout().lock();
    let (mut waiting, mut number, mut bytes) = (Vec::new(), 0_u64, 0_u64);
    let mut order = hear(&mut orders)?;
    loop {
        let writes = order == "write";
        let piece = if writes {
            random.usize(1..12_000)
        } else {
            waiting.len()
        };
        while waiting.len() < piece {
            lines.append(number, &mut waiting);
            number += 1;
        }
        if writes && waiting.len() == piece {
            lines.append(number, &mut waiting);
            number += 1;
        }
        output.write_all(&waiting[..piece])?;
        output.flush()?;
        waiting.drain(..piece);
        bytes += piece as u64;
        if !writes {
            writeln!(&socket, "{number} {bytes}")?;
            if order == "stop" {
                return Ok(());
            }
            order = hear(&mut orders)?;
            continue;
        }
        // How fast a build writes, not something that is waited for; an order may come meanwhile.
        socket.set_read_timeout(Some(Duration::from_millis(random.u64(1..25))))?;
        match hear(&mut orders) {
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) => {}
            heard => order = heard?,
        }
        socket.set_read_timeout(None)?;
    }
}
