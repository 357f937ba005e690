//! The follower against random operations on a file, agent restarts and broken connections: what arrives is
//! what was written, byte for byte and in order.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use support::agent::{RunningAgent, file_config};
use support::{FakeRelay, Listening};

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
    /// The agent has read something of the file that has the path now. A file that was written and rotated
    /// away unseen cannot be found again; chains of rotations are a later chapter.
    seen: bool,
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
        self.seen = self.writer.metadata().unwrap().len() > 0;
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
            85..92 => {
                if !self.seen {
                    self.append();
                    self.catch_up().await;
                }
                self.rotations += 1;
                fs::rename(
                    &self.path,
                    self.path.with_extension(format!("log.{}", self.rotations)),
                )
                .unwrap();
                self.writer = open(&self.path);
                self.seen = false;
            }
            92..96 => {
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

async fn run(seed: u64) {
    println!("seed {seed}");
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
        seen: false,
        agent: None,
    };
    model.start();
    for _ in 0..STEPS {
        model.step().await;
    }
    model.catch_up().await;
    model.kill().await;
}

#[tokio::test]
async fn what_is_written_arrives_whatever_happens_to_file_agent_and_connection() {
    let mut seeds: Vec<u64> = vec![1, 2, 3, 4];
    seeds.push(fastrand::u64(..1 << 32));
    for seed in seeds {
        run(seed).await;
    }
}
