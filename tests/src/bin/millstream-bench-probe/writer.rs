//! A writer that appends stamped lines at a steady rate.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use millstream_tests::corpus;
use serde_json::{Value, json};

use crate::latency::{STAMP_DIGITS, now_ns};

/// The clock of the writer: what is due is written at once, in one write.
const TICK: Duration = Duration::from_millis(1);

/// Appends `lines` lines, `rate` a second, each a stamp and a line of a real build.
pub(crate) fn write(path: &Path, rate: u64, lines: u64) -> Result<Value> {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("{} cannot be opened", path.display()))?;
    let recorded = corpus::variant(0, 10_000);
    let mut recorded = recorded.split_inclusive(|byte| *byte == b'\n').cycle();
    // A channel that nobody sends to: its timed receive is a wait.
    let (_sender, never) = mpsc::channel::<()>();
    let began = Instant::now();
    let mut written = 0;
    let mut batch = Vec::new();
    while written < lines {
        let due = (began.elapsed().as_micros() * u128::from(rate) / 1_000_000).min(u128::from(lines));
        let due = u64::try_from(due)?;
        batch.clear();
        let stamp = format!("{:0STAMP_DIGITS$} ", now_ns());
        for _ in written..due {
            batch.extend_from_slice(stamp.as_bytes());
            batch.extend_from_slice(recorded.next().context("a cycle never ends")?);
        }
        file.write_all(&batch)?;
        written = due;
        never.recv_timeout(TICK).ok();
    }
    Ok(json!({ "lines": written, "seconds": began.elapsed().as_secs_f64() }))
}
