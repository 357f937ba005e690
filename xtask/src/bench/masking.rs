//! `cargo xtask bench masking`: what taking secrets out costs, side by side with taking none out, as Markdown on
//! standard output. The measurement itself is `agent/examples/masking_cost.rs`.

use std::process::ExitCode;

use anyhow::{Result, bail};

use super::{Masking, pipeline};
use crate::{build, step};

pub(super) fn run(options: &Masking) -> Result<ExitCode> {
    let dir = tempfile::Builder::new().prefix("millstream-bench-").tempdir()?;
    let program = build::example(options.profile, "millstream-agent", "masking_cost")?;
    let file = dir.path().join("bulk.log");
    step::say(&format!("writing {} GiB of build-log lines", options.gib));
    let (lines, bytes) = pipeline::generate(&file, options.gib)?;
    println!(
        "# Masking benchmark\n\n`cargo xtask bench masking --gib {} --rounds {}`, profile `{}`, {} cores: a file of \
         {lines} lines of real build logs ({:.2} GiB) → file source → masks → blocks that are acknowledged at once.\n",
        options.gib,
        options.rounds,
        format!("{:?}", options.profile).to_lowercase(),
        std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        bytes as f64 / f64::from(1 << 30),
    );
    let mut command = std::process::Command::new(program);
    command.arg(&file).arg(options.rounds.to_string());
    step::say("measuring");
    if !command.status()?.success() {
        bail!("the measurement failed");
    }
    Ok(ExitCode::SUCCESS)
}
