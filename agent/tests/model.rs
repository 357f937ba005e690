//! The follower against random operations on a file, agent restarts and broken connections: what arrives is
//! what was written, byte for byte and in order. A truncation without a copy comes only once everything is read:
//! what was not is lost with any follower.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use support::agent::{RunningAgent, file_config};
use support::{FakeRelay, Listening};
use tokio::task::JoinSet;

const STEPS: usize = 60;

struct Model {
    random: fastrand::Rng,
    relay: FakeRelay,
    listening: Listening,
    path: PathBuf,
    writer: File,
    /// Everything that was ever written, in the order in which it has to arrive.
    expected: Vec<u8>,
    rotations: usize,
    /// Rotated files are numbered, the youngest first, rather than dated.
    numbered: bool,
    agent: Option<RunningAgent>,
}

fn open(path: &PathBuf) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}

impl Model {
    fn start(&mut self) {
        let config = file_config(&self.path, "");
        self.agent = Some(RunningAgent::start(&self.listening.url(), "model", &config));
    }

    async fn kill(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.kill().await;
        }
    }

    async fn catch_up(&mut self) {
        if self.agent.is_none() {
            self.start();
        }
        self.relay
            .until_raw(self.path.to_str().unwrap(), &self.expected)
            .await;
    }

    /// Gives the file its name as a rotated one, and the older ones theirs.
    fn name_for_rotated(&mut self) -> PathBuf {
        self.rotations += 1;
        let name = |mark: String| self.path.with_extension(format!("log{mark}"));
        if !self.numbered {
            return name(format!("-20261124-{:06}", self.rotations));
        }
        for number in (1..self.rotations).rev() {
            let _ = fs::rename(name(format!(".{number}")), name(format!(".{}", number + 1)));
        }
        name(".1".to_owned())
    }

    /// Waits until the file system's clock, which ticks some hundred times a second, has passed the last write
    /// to a file.
    fn until_later_than(&self, path: &PathBuf) {
        let written = fs::metadata(path).unwrap().modified().unwrap();
        let probe = self.path.with_extension("probe");
        while {
            fs::write(&probe, b"x").unwrap();
            fs::metadata(&probe).unwrap().modified().unwrap() <= written
        } {}
    }

    fn rotate(&mut self) {
        let rotated = self.name_for_rotated();
        fs::rename(&self.path, rotated).unwrap();
        self.writer = open(&self.path);
    }

    fn append(&mut self) {
        const SAMPLES: [&[u8]; 6] = [
            b"a line\n",
            b"half ",
            b"\n",
            b"\r\n",
            b"\xff\0\n",
            b"progress 10%\r",
        ];
        let mut bytes = Vec::new();
        for _ in 0..self.random.usize(1..20) {
            bytes.extend_from_slice(SAMPLES[self.random.usize(..SAMPLES.len())]);
        }
        if self.random.usize(..10) == 0 {
            bytes = bytes.repeat(3000);
        }
        self.writer.write_all(&bytes).unwrap();
        self.expected.extend(bytes);
    }

    async fn step(&mut self) {
        match self.random.usize(..100) {
            0..60 => self.append(),
            60..70 => self.catch_up().await,
            70..80 => {
                self.kill().await;
                if self.random.bool() {
                    self.append();
                }
                self.start();
            }
            80..85 => self.relay.set_faults(|faults| faults.drop_after = Some(2)),
            85..91 => {
                for _ in 0..self.random.usize(1..5) {
                    self.rotate();
                    if self.random.bool() {
                        self.append();
                    }
                }
            }
            91..94 => {
                // While the agent is away everything stays where it can be found.
                self.append();
                self.catch_up().await;
                self.kill().await;
                self.append();
                let copy = self.name_for_rotated();
                fs::copy(&self.path, &copy).unwrap();
                self.until_later_than(&copy);
                self.writer.set_len(0).unwrap();
                self.append();
                self.catch_up().await;
            }
            94..97 => {
                // What was not read before a truncation is lost with any follower.
                self.append();
                self.catch_up().await;
                let notices = |relay: &FakeRelay, path: &PathBuf| {
                    relay
                        .stream(path.to_str().unwrap())
                        .map_or(0, |stream| stream.notices().len())
                };
                let (before, path) = (notices(&self.relay, &self.path), self.path.clone());
                self.writer.set_len(0).unwrap();
                let said = |relay: &FakeRelay| (notices(relay, &path) > before).then_some(());
                self.relay.until("the notice of a truncation", said).await;
                self.append();
                self.catch_up().await;
            }
            _ => {
                self.append();
                self.catch_up().await;
                fs::remove_file(&self.path).unwrap();
                self.writer = open(&self.path);
                self.append();
                self.catch_up().await;
            }
        }
    }
}

struct Failing(u64);

impl Drop for Failing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {}", self.0);
        }
    }
}

async fn run(seed: u64) {
    // Shown by a failure, in front of what it says.
    let _seed = Failing(seed);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.log");
    let relay = FakeRelay::new();
    let mut model = Model {
        random: fastrand::Rng::with_seed(seed),
        listening: relay.listen().await,
        relay,
        writer: open(&path),
        path,
        expected: Vec::new(),
        rotations: 0,
        numbered: seed.is_multiple_of(2),
        agent: None,
    };
    model.start();
    // A file that is rotated away before anything of the stream is stored was never the stream's.
    model.append();
    model.catch_up().await;
    for _ in 0..STEPS {
        model.step().await;
    }
    model.catch_up().await;
    model.kill().await;
}

/// Seeds that nobody chose, besides the fixed ones; more with `MILLSTREAM_MODEL_SEEDS`.
fn random_seeds() -> usize {
    let wanted = std::env::var("MILLSTREAM_MODEL_SEEDS");
    wanted.map_or(2, |wanted| {
        wanted
            .parse()
            .expect("MILLSTREAM_MODEL_SEEDS is a number of seeds")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_arrives_whatever_happens_to_file_agent_and_connection() {
    let random = std::iter::repeat_with(|| fastrand::u64(..1 << 32)).take(random_seeds());
    let mut seeds: VecDeque<u64> = (1..=4).chain(random).collect();
    let mut running = JoinSet::new();
    loop {
        while running.len() < 6
            && let Some(seed) = seeds.pop_front()
        {
            running.spawn(run(seed));
        }
        match running.join_next().await {
            Some(ended) => ended.unwrap(),
            None => break,
        }
    }
}
