//! `cargo deny`: licences, sources and bans always; advisories when their database can be reached.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::section::Report;
use crate::build::cargo;
use crate::{machine, root, step, target_dir};

/// The version that is installed where there is none.
const VERSION: &str = "0.20.2";

const ADVISORIES: &str = "cargo deny: advisories";

pub(super) fn sections(report: &mut Report) {
    report.command("cargo deny: licences, sources, bans", || {
        let mut deny = Command::new(cargo_deny()?);
        // Without the graph, which says for each crate in two versions who needs it: pages of it.
        deny.args(["check", "--hide-inclusion-graph", "licenses", "sources", "bans"])
            .current_dir(root());
        Ok(deny)
    });
    if !report.wanted(ADVISORIES) {
        return;
    }
    let database = match cargo_deny() {
        Ok(deny) => fetch_database(deny),
        Err(_) => Err("cargo-deny could not be installed".to_owned()),
    };
    match database {
        Ok(deny) => report.command(ADVISORIES, move || {
            let mut check = Command::new(deny);
            check
                .args(["check", "--disable-fetch", "advisories"])
                .current_dir(root());
            Ok(check)
        }),
        Err(why) => report.skip(
            ADVISORIES,
            &format!("{why}: known vulnerabilities were NOT looked for in this run"),
        ),
    }
}

fn fetch_database(deny: PathBuf) -> Result<PathBuf, String> {
    let fetched = Command::new(&deny)
        .args(["fetch", "db"])
        .current_dir(root())
        .output()
        .map_err(|error| format!("cargo-deny does not start ({error})"))?;
    // Its exit status does not tell (0.20.2); its log does.
    let log = String::from_utf8_lossy(&fetched.stderr);
    if fetched.status.success() && !log.contains("failed to fetch") {
        return Ok(deny);
    }
    Err("the advisory database cannot be reached from here".to_owned())
}

/// Where cargo-deny is; installs it below the target directory when the machine has none, which takes minutes once.
fn cargo_deny() -> Result<PathBuf> {
    let tools = target_dir().join("tools");
    let own = tools.join("bin/cargo-deny");
    if own.is_file() {
        return Ok(own);
    }
    if let Some(found) = machine::find(&["cargo-deny"]).or_else(in_cargo_home) {
        return Ok(found);
    }
    step::run(
        "installing cargo-deny (once; it takes some minutes)",
        cargo()
            .args([
                "install",
                "--locked",
                "--quiet",
                "cargo-deny",
                "--version",
                VERSION,
                "--root",
            ])
            .arg(&tools),
        "install it by hand: `cargo install --locked cargo-deny`",
    )?;
    Ok(own)
}

fn in_cargo_home() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))?;
    let found = home.join("bin/cargo-deny");
    found.is_file().then_some(found)
}
