//! What a reader has so far: number of lines, their hash, and their latencies where they carry stamps.

use serde_json::{Value, json};
use xxhash_rust::xxh3::Xxh3;

use crate::Goal;
use crate::latency::{Latencies, now_ns};

pub(crate) struct Tally {
    goal: Goal,
    lines: u64,
    bytes: u64,
    hash: Xxh3,
    latencies: Latencies,
    /// The begin of a line whose end has not been read.
    open_line: Vec<u8>,
}

impl Tally {
    pub(crate) fn new(goal: Goal) -> Self {
        let hash = Xxh3::new();
        Self {
            goal,
            lines: 0,
            bytes: 0,
            hash,
            latencies: Latencies::default(),
            open_line: Vec::new(),
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.lines >= self.goal.lines
    }

    /// Takes bytes as they were read; they may begin and end anywhere.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.lines += memchr::memchr_iter(b'\n', bytes).count() as u64;
        self.bytes += bytes.len() as u64;
        self.hash.update(bytes);
        if self.goal.latency {
            self.stamp(bytes);
        }
    }

    fn stamp(&mut self, bytes: &[u8]) {
        let now = now_ns();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if piece.ends_with(b"\n") && self.open_line.is_empty() {
                self.latencies.add(piece, now);
            } else {
                self.open_line.extend_from_slice(piece);
                if piece.ends_with(b"\n") {
                    self.latencies.add(&self.open_line, now);
                    self.open_line.clear();
                }
            }
        }
    }

    pub(crate) fn report(self) -> Value {
        json!({
            "lines": self.lines,
            "bytes": self.bytes,
            "xxh3": format!("{:016x}", self.hash.digest()),
            "latency": self.latencies.report(),
        })
    }
}
