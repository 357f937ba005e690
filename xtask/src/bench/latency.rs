//! Live latency, line written → line at the reader, as a table.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::systems::{Input, Outcome, Programs, System};

const RATES: [u64; 2] = [1_000, 50_000];

/// Runs every system at every rate and returns the table.
pub(super) fn measure(programs: &Programs, dir: &Path, seconds: u64) -> Result<String> {
    let mut table = String::from(
        "| lines/s | system | p50 | p99 | max | p50 ÷ floor | p99 ÷ floor |\n|---:|---|---:|---:|---:|---:|---:|\n",
    );
    for rate in RATES {
        let mut outcomes = Vec::new();
        for (number, system) in System::ALL.into_iter().enumerate() {
            let dir = dir.join(format!("latency-{rate}-{number}"));
            std::fs::create_dir_all(&dir)?;
            let file = dir.join("live.log");
            std::fs::write(&file, "")?;
            let input = Input {
                file: &file,
                lines: rate * seconds,
                rate: Some(rate),
            };
            outcomes.push(system.run(programs, &dir.join("run"), &input)?);
            std::fs::remove_dir_all(&dir)?;
        }
        let floor = outcomes
            .iter()
            .find(|outcome| outcome.system == System::Floor)
            .context("the floor was run")?;
        for outcome in &outcomes {
            let (p50, p99) = (ms(outcome, "p50_ns"), ms(outcome, "p99_ns"));
            table.push_str(&format!(
                "| {rate} | {} | {p50:.2} ms | {p99:.2} ms | {:.2} ms | {:.2} | {:.2} |\n",
                outcome.system.name(),
                ms(outcome, "max_ns"),
                p50 / ms(floor, "p50_ns"),
                p99 / ms(floor, "p99_ns"),
            ));
        }
    }
    Ok(table)
}

fn ms(outcome: &Outcome, key: &str) -> f64 {
    outcome.report["latency"][key].as_f64().unwrap_or(f64::NAN) / 1e6
}
