//! `cargo xtask bench pipeline`: throughput of a whole file and latency of live lines, for Millstream, the floor
//! and rsyslog in turn, as Markdown on standard output.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use super::systems::{Input, Outcome, Programs, System};
use super::{Pipeline, latency};
use crate::{build, machine, root, step};

const GIB: f64 = (1_u64 << 30) as f64;
const MIB: f64 = (1_u64 << 20) as f64;
const LOGS: [&str; 4] = [
    "cpython-build-1.log",
    "cpython-build-2.log",
    "cargo-build-failed.ansi.log",
    "pip-progress.ansi.log",
];

pub(super) fn run(options: &Pipeline) -> Result<ExitCode> {
    let rsyslogd = machine::need(&["rsyslogd"], "rsyslog", "the comparison with rsyslog")?;
    let bin_dir = match options.prebuilt {
        true => options.profile.dir(),
        false => build::binaries(options.profile, &["millstream-tests"])?,
    };
    let programs = Programs { bin_dir, rsyslogd };
    let dir = tempfile::Builder::new().prefix("millstream-bench-").tempdir()?;
    let bulk = bulk(&programs, dir.path(), options.gib)?;
    let latency = latency::measure(&programs, dir.path(), options.seconds)?;
    println!(
        "{}\n{bulk}\n## Live latency: line written → line at the reader\n\n{latency}",
        heading(options, &programs)
    );
    Ok(ExitCode::SUCCESS)
}

/// Every system on the same complete file.
fn bulk(programs: &Programs, dir: &Path, gib: f64) -> Result<String> {
    let file = dir.join("bulk.log");
    step::say(&format!("writing {gib} GiB of build-log lines"));
    let (lines, bytes) = generate(&file, gib)?;
    let mut outcomes = Vec::new();
    for (number, system) in System::ALL.into_iter().enumerate() {
        let dir = dir.join(format!("bulk-{number}"));
        let outcome = system.run(
            programs,
            &dir,
            &Input {
                file: &file,
                lines,
                rate: None,
            },
        )?;
        std::fs::remove_dir_all(&dir)?;
        outcomes.push(outcome);
    }
    std::fs::remove_file(&file)?;
    let hash = |system: System| {
        outcomes
            .iter()
            .find(|outcome| outcome.system == system)
            .map(|outcome| outcome.report["xxh3"].clone())
    };
    if hash(System::Millstream) != hash(System::Floor) {
        bail!("what the subscriber got is not what the file holds: {outcomes:?}");
    }
    Ok(bulk_table(&outcomes, lines, bytes))
}

fn bulk_table(outcomes: &[Outcome], lines: u64, bytes: u64) -> String {
    let gib = bytes as f64 / GIB;
    let rate = |outcome: &Outcome| lines as f64 / outcome.seconds;
    let of = |system: System| {
        outcomes
            .iter()
            .find(|outcome| outcome.system == system)
            .map_or(f64::NAN, rate)
    };
    let mut table = format!(
        "## Bulk: a file of {gib:.2} GiB, {lines} lines → reader\n\n\
         | system | time | MiB/s | lines/s | ÷ floor | ÷ rsyslog | CPU-s/GiB | by process: CPU-s/GiB, peak memory |\n\
         |---|---:|---:|---:|---:|---:|---:|---|\n"
    );
    for outcome in outcomes {
        let cpu: f64 = outcome.usage.iter().map(|usage| usage.cpu_seconds).sum();
        let processes: Vec<String> = outcome
            .usage
            .iter()
            .map(|usage| {
                let memory = usage.peak_memory_bytes as f64 / MIB;
                format!("{} {:.2}, {memory:.0} MiB", usage.name, usage.cpu_seconds / gib)
            })
            .collect();
        table.push_str(&format!(
            "| {} | {:.2} s | {:.0} | {:.0} | {:.2} | {:.1} | {:.2} | {} |\n",
            outcome.system.name(),
            outcome.seconds,
            bytes as f64 / MIB / outcome.seconds,
            rate(outcome),
            rate(outcome) / of(System::Floor),
            rate(outcome) / of(System::Rsyslog),
            cpu / gib,
            processes.join("; "),
        ));
    }
    table
}

/// Interleaves and repeats the recorded builds up to `gib` GiB; returns the number of lines and bytes. Empty lines
/// are left out, because rsyslog leaves them out.
pub(super) fn generate(path: &Path, gib: f64) -> Result<(u64, u64)> {
    let mut recorded = Vec::new();
    for name in LOGS {
        let log = root().join("tests/data").join(name);
        let bytes = std::fs::read(&log).with_context(|| format!("{} cannot be read", log.display()))?;
        let lines = bytes.split_inclusive(|byte| *byte == b'\n');
        recorded.extend(
            lines
                .filter(|line| line.ends_with(b"\n") && line.len() > 2)
                .map(<[u8]>::to_vec),
        );
    }
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let (mut lines, mut bytes) = (0_u64, 0_u64);
    for number in 0_usize.. {
        if bytes as f64 >= gib * GIB {
            break;
        }
        // Two places of the recordings in turns of a few lines, as parallel jobs write.
        let place = number / 5 % 2 * recorded.len() / 2;
        let line = &recorded[(number + place) % recorded.len()];
        file.write_all(line)?;
        lines += 1;
        bytes += line.len() as u64;
    }
    file.flush()?;
    Ok((lines, bytes))
}

/// What was run against what, where.
fn heading(options: &Pipeline, programs: &Programs) -> String {
    let first_line = |program: &str, args: &[&str]| {
        let text = step::output(program, args).unwrap_or_default();
        // rsyslogd goes on with how it was compiled.
        let line = text.lines().next().unwrap_or_default();
        line.split("compiled with")
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory_kib = memory
        .lines()
        .next()
        .and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    let relay = programs.bin_dir.join("millstream-relay");
    format!(
        "# Pipeline benchmark\n\n\
         `cargo xtask bench pipeline --gib {} --seconds {}`, profile `{}`, everything on loopback of one machine: \
         {} cores, {:.1} GiB of memory, Linux {}.\n\n\
         - Millstream: {}; file → agent → relay (durable store) → gRPC subscriber; order and content verified.\n\
         - floor: {}, `tail -n +1 -F FILE` whose standard output is a TCP connection; nothing is stored; content verified.\n\
         - rsyslog: {}; imfile → TCP → omfile, two instances, nothing synced to disk; number of lines verified.\n\
         - The input is real build logs without empty lines (rsyslog leaves those out). CPU is that of the processes \
         listed, without writer and reader. The reader looks at rsyslog's file every 0.2 ms.\n",
        options.gib,
        options.seconds,
        format!("{:?}", options.profile).to_lowercase(),
        std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        memory_kib.unwrap_or(0.0) / MIB,
        first_line("uname", &["-r"]),
        first_line(&relay.display().to_string(), &["--version"]),
        first_line("tail", &["--version"]),
        first_line(&programs.rsyslogd.display().to_string(), &["-v"]),
    )
}
