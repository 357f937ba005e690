//! A file that is written, in pieces that end anywhere, and rotated while it is. What stands in it is a function of
//! its seed, so that nothing has to be kept to know what must arrive.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::corpus;

/// The lines of one file over all its generations: a number that tells what is missing, and real log text.
#[derive(Debug, Clone, Copy)]
pub struct Lines {
    pub seed: usize,
}

impl Lines {
    /// Appends line `number`, with its `\n`.
    pub fn append(self, number: u64, to: &mut Vec<u8>) {
        write!(to, "{number:08} ").expect("memory can be written");
        let at = usize::try_from(number).unwrap_or(usize::MAX).wrapping_mul(7);
        to.extend_from_slice(corpus::line(self.seed.wrapping_mul(1_237).wrapping_add(at)));
    }
}

/// What a writer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Write into the first file. One that is rotated away before a line of its stream is stored was never the
    /// stream's.
    Begin,
    /// Write and rotate.
    Write,
    /// Finish the line and wait.
    Rest,
    Stop,
}

/// What is known of a source from outside.
#[derive(Debug)]
pub struct Source {
    pub path: PathBuf,
    pub lines: Lines,
    /// Lines and bytes that are complete in the file.
    pub written_lines: AtomicU64,
    pub written_bytes: AtomicU64,
    pub rotations: AtomicU64,
    rests: watch::Sender<bool>,
}

impl Source {
    pub fn new(path: PathBuf, seed: usize) -> Arc<Self> {
        Arc::new(Self {
            path,
            lines: Lines { seed },
            written_lines: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            rotations: AtomicU64::new(0),
            rests: watch::channel(false).0,
        })
    }

    /// Waits until the writer rests at the end of a line.
    pub async fn rests(&self) {
        // An error cannot be: this value holds the sender.
        let _ = self.rests.subscribe().wait_for(|rests| *rests).await;
    }

    /// Writes until it is told to stop.
    pub async fn write(self: Arc<Self>, mut random: fastrand::Rng, mut orders: watch::Receiver<Order>) {
        let mut file = open(&self.path);
        let mut waiting = Vec::new();
        let mut number = 0;
        let is_numbered = random.bool();
        loop {
            let order = *orders.borrow_and_update();
            let bytes = match order {
                Order::Begin | Order::Write => random.usize(1..12_000),
                // The line that is begun.
                Order::Rest | Order::Stop => waiting.len(),
            };
            while waiting.len() < bytes {
                self.lines.append(number, &mut waiting);
                number += 1;
            }
            if matches!(order, Order::Begin | Order::Write) && waiting.len() == bytes {
                self.lines.append(number, &mut waiting);
                number += 1;
            }
            file.write_all(&waiting[..bytes]).expect("the disk has room");
            waiting.drain(..bytes);
            self.written_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            match order {
                Order::Stop => return,
                Order::Rest => {
                    self.written_lines.store(number, Ordering::Relaxed);
                    self.rests.send_replace(true);
                    if orders.changed().await.is_err() {
                        return;
                    }
                    self.rests.send_replace(false);
                    continue;
                }
                Order::Begin | Order::Write => {}
            }
            if order == Order::Write && random.u8(..64) == 0 {
                self.rotate(is_numbered);
                file = open(&self.path);
            }
            // How fast a build writes, not something that is waited for.
            tokio::time::sleep(Duration::from_millis(random.u64(1..25))).await;
        }
    }

    fn rotate(&self, is_numbered: bool) {
        let count = self.rotations.fetch_add(1, Ordering::Relaxed) + 1;
        let name = |mark: String| {
            let mut name = self.path.clone().into_os_string();
            name.push(mark);
            PathBuf::from(name)
        };
        let rename = |from: &Path, to: &Path| std::fs::rename(from, to).expect("a file can be renamed");
        if is_numbered {
            for number in (1..count).rev() {
                rename(&name(format!(".{number}")), &name(format!(".{}", number + 1)));
            }
            rename(&self.path, &name(".1".to_owned()));
        } else {
            rename(&self.path, &name(format!("-20261124-{count:06}")));
        }
    }
}

fn open(path: &Path) -> File {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .expect("the file can be opened")
}
