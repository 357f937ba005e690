//! What appends cost: throughput with one sync for each group of blocks, and the latency of a commit and
//! sync of one line. Prints a table; takes some seconds and about 1 GiB of disk while it runs.
//!
//! `cargo run --profile dist -p millstream-store --example append_cost [DIR]`

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use millstream_proto::block::BlockBuilder;
use millstream_proto::v1;
use millstream_store::{
    AppendOp, EmbeddedOptions, EmbeddedStore, LogStore, StoreError, StreamRecord, WriteOp,
};

const TOTAL_BYTES: usize = 256 << 20;
const GROUP: u64 = 8;
const SINGLE_LINES: usize = 3000;

fn main() -> Result<(), StoreError> {
    let parent = std::env::args_os()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = parent.join(format!("millstream-append-cost-{}", std::process::id()));
    let result = measure(&dir);
    if let Err(error) = std::fs::remove_dir_all(&dir) {
        eprintln!("{}: cannot be removed: {error}", dir.display());
    }
    result
}

fn measure(dir: &Path) -> Result<(), StoreError> {
    println!(
        "{:>22} {:>9} {:>10} {:>12}",
        "uncompressed block", "blocks", "MiB/s", "CPU-s/GiB"
    );
    for kib in [16, 256] {
        let store = EmbeddedStore::open(&dir.join(kib.to_string()), EmbeddedOptions::default())?;
        store.commit(vec![WriteOp::PutStream(stream())])?;
        let template = block(kib << 10);
        let lines = u64::from(template.line_count);
        let blocks = (TOTAL_BYTES / template.text.len()) as u64;
        let (start, cpu) = (Instant::now(), cpu_time());
        for group in 0..blocks / GROUP {
            let ops = (0..GROUP)
                .map(|index| append(&template, (group * GROUP + index) * lines))
                .collect();
            store.commit(ops)?;
            store.sync()?;
        }
        let (wall, cpu) = (start.elapsed(), cpu_time().saturating_sub(cpu));
        let mib = (template.text.len() as f64 * blocks as f64) / f64::from(1 << 20);
        println!(
            "{:>18} KiB {blocks:>9} {:>10.0} {:>12.2}",
            kib,
            mib / wall.as_secs_f64(),
            cpu.as_secs_f64() / (mib / 1024.0),
        );
    }
    let store = EmbeddedStore::open(&dir.join("single"), EmbeddedOptions::default())?;
    store.commit(vec![WriteOp::PutStream(stream())])?;
    let template = block(80);
    let mut latencies = Vec::with_capacity(SINGLE_LINES);
    for sequence in 0..SINGLE_LINES as u64 {
        let start = Instant::now();
        store.commit(vec![append(&template, sequence)])?;
        store.sync()?;
        latencies.push(start.elapsed());
    }
    latencies.sort_unstable();
    println!(
        "one line, commit and sync: p50 {:.3} ms, p99 {:.3} ms",
        latencies[SINGLE_LINES / 2].as_secs_f64() * 1e3,
        latencies[SINGLE_LINES * 99 / 100].as_secs_f64() * 1e3,
    );
    Ok(())
}

/// Lines of 80 bytes, terminator included, up to `text_bytes`.
fn block(text_bytes: usize) -> v1::Block {
    let mut builder = BlockBuilder::new();
    let mut number = 0_u64;
    while builder.text_bytes() + 80 <= text_bytes {
        let line = format!("{number:>20} {:>58}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        assert!(builder.push_line(line.as_bytes(), 1, v1::Channel::Stdout, false));
        number += 1;
    }
    builder.finish(0).expect("text_bytes is at least one line")
}

fn append(template: &v1::Block, first_sequence: u64) -> WriteOp {
    WriteOp::Append(AppendOp {
        stream_id: 1,
        block: v1::Block {
            first_sequence,
            ..template.clone()
        },
        checkpoint: Bytes::from_static(b"inode 1234567 offset 1234567890"),
        last_line_unix_us: 1,
    })
}

fn stream() -> StreamRecord {
    StreamRecord {
        stream_id: 1,
        agent_id: "a".to_owned(),
        source: "s".to_owned(),
        instance: "i".to_owned(),
        labels: std::collections::BTreeMap::new(),
        created_unix_us: 1,
        first_sequence: 0,
        next_sequence: 0,
        text_bytes: 0,
        last_line_unix_us: 0,
        checkpoint: Bytes::new(),
        run: None,
        end: None,
    }
}

/// Processor time of this process so far, all threads.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}
