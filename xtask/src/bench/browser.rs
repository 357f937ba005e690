//! `cargo xtask bench browser`: runs `tests/browser/bench` in the system's Chromium and prints what it measured, as
//! Markdown.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::Browser;
use crate::{build, machine, root, step, web_client};

pub(super) fn run(options: &Browser) -> Result<ExitCode> {
    let chromium = machine::chromium()?;
    let bin_dir = match options.prebuilt {
        true => options.profile.dir(),
        false => {
            // What the relay serves is in its binary, and the page's code is what the measurement speaks the protocol with.
            web_client::build()?;
            build::binaries(options.profile, &["millstream-tests"])?
        }
    };
    let dir = root().join("tests/browser");
    web_client::install(&dir)?;
    let scratch = tempfile::Builder::new().prefix("millstream-bench-").tempdir()?;
    let output = scratch.path().join("browser.md");
    let mut bench = web_client::npm(&dir)?;
    bench
        .args([
            "exec",
            "--",
            "playwright",
            "test",
            "--config",
            "bench/playwright.config.ts",
        ])
        .env("MILLSTREAM_CHROMIUM", chromium)
        .env("MILLSTREAM_BIN_DIR", std::path::absolute(bin_dir)?)
        .env("BENCH_DIR", scratch.path())
        .env("BENCH_OUTPUT", &output)
        .env("BENCH_OPEN_LINES", options.open_lines.to_string())
        .env("BENCH_SECONDS", options.seconds.to_string())
        .env("BENCH_HOUR_LINES", options.hour_lines.to_string())
        .stdout(std::io::stderr());
    step::run("measuring in the browser", &mut bench, "see its message above")?;
    let report = std::fs::read_to_string(&output)
        .with_context(|| format!("the benchmark did not write {}", output.display()))?;
    println!(
        "# Browser benchmark\n\n`cargo xtask bench browser --open-lines {} --seconds {} --hour-lines {}`, profile `{}`, \
         {} cores, Linux {}.\n\n{report}",
        options.open_lines,
        options.seconds,
        options.hour_lines,
        format!("{:?}", options.profile).to_lowercase(),
        std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        step::output("uname", &["-r"]).unwrap_or_default().trim(),
    );
    Ok(ExitCode::SUCCESS)
}
