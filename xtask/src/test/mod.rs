//! `cargo xtask test`: every check and test of the repository, section by section, with what each needs.

mod deny;
mod section;

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::build::{self, Profile, cargo};
use crate::{machine, root, step, target_dir, torture, web_client};
use section::Report;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Take the README's screenshot anew.
    #[arg(long)]
    update_screenshot: bool,
    /// Run only the sections whose name contains one of these.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let mut report = Report::new(options.only.clone());

    report.command("format", || Ok(cargo_with(&["fmt", "--all", "--check"])));
    web_client_sections(&mut report);
    report.command("clippy", || {
        Ok(cargo_with(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]))
    });
    report.step("binaries", || {
        build::binaries(Profile::Dev, &["xtask", "millstream-tests"]).map(|_| ())
    });
    report.command("cargo test", || {
        let mut test = cargo_with(&["test", "--workspace", "--no-fail-fast"]);
        test.env("MILLSTREAM_RUNS_AS", runs_as());
        Ok(test)
    });
    report.command("torture (short)", || Ok(torture::short(Profile::Dev)));
    report.command("python example", || {
        let python = python_environment()?;
        let mut test = cargo_with(&[
            "test",
            "-p",
            "millstream-tests",
            "--test",
            "python_example",
            "--",
            "--ignored",
        ]);
        test.env("MILLSTREAM_PYTHON", python);
        Ok(test)
    });
    report.command("demo", || {
        Ok(cargo_with(&[
            "test",
            "-p",
            "millstream-tests",
            "--test",
            "demo",
            "--",
            "--ignored",
        ]))
    });
    report.command("browser and gRPC-Web", || browser(options.update_screenshot));
    deny::sections(&mut report);
    Ok(report.finish())
}

fn web_client_sections(report: &mut Report) {
    let dir = root().join("web-client");
    let script = |name: &'static str| {
        let dir = dir.clone();
        move || {
            let mut npm = web_client::npm(&dir)?;
            npm.args(["run", "--silent", name]).env("CI", "true");
            Ok(npm)
        }
    };
    report.step("web client: packages", || web_client::install(&dir));
    report.command("web client: generate", script("generate"));
    report.command("web client: check", script("check"));
    report.command("web client: lint", script("lint"));
    report.command("web client: unit tests", script("test"));
    report.command("web client: build", script("build"));
}

fn cargo_with(args: &[&str]) -> Command {
    let mut cargo = cargo();
    cargo.args(args);
    cargo
}

fn runs_as() -> &'static str {
    if machine::is_root() { "root" } else { "user" }
}

/// A virtual environment with what the Python example needs; returns its interpreter.
fn python_environment() -> Result<std::path::PathBuf> {
    let requirements = root().join("examples/python/requirements.txt");
    let wanted =
        std::fs::read(&requirements).with_context(|| format!("{} is missing", requirements.display()))?;
    let venv = target_dir().join("python");
    let python = venv.join("bin/python");
    let stamp = venv.join("requirements.txt");
    if python.exists() && std::fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    let system = machine::need(&["python3"], "python3 python3-venv", "the Python example")?;
    let make = || {
        let mut make = Command::new(&system);
        make.args(["-m", "venv", "--clear"]).arg(&venv);
        make
    };
    let what = "making a virtual environment for the Python example";
    let cure = "install Python's venv module (on Debian or Ubuntu: `sudo apt-get install python3-venv`)";
    if step::run(what, &mut make(), cure).is_err() {
        // Debian ships `venv` without what it needs to make one.
        if machine::is_root() && machine::find(&["apt-get"]).is_some() {
            machine::apt_install("python3-venv")?;
        }
        step::run(what, &mut make(), cure)?;
    }
    step::run(
        "installing the Python example's packages (pip)",
        Command::new(&python)
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "-r",
            ])
            .arg(&requirements),
        "check that the Python package index can be reached",
    )?;
    std::fs::write(&stamp, wanted)?;
    Ok(python)
}

/// Playwright's tests in the system's Chromium.
fn browser(update_screenshot: bool) -> Result<Command> {
    let dir = root().join("tests/browser");
    web_client::install(&dir)?;
    let chromium = machine::chromium()?;
    let mut test = web_client::npm(&dir)?;
    test.args(["run", "--silent", "test"])
        .env("MILLSTREAM_CHROMIUM", chromium)
        .env("CI", "true");
    test.env("MILLSTREAM_TARGET_DIR", absolute(&target_dir()));
    if update_screenshot {
        test.env("MILLSTREAM_UPDATE_SCREENSHOT", "1");
    }
    Ok(test)
}

fn absolute(path: &Path) -> std::path::PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}
