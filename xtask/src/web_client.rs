//! The web client's tool chain: npm packages, generated code, build. Also installs the packages of the browser
//! tests, which work the same way.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{machine, root, step, target_dir};

/// `npm` in `dir`, ready to be given arguments.
///
/// # Errors
/// When there is no Node.js that is new enough.
pub(crate) fn npm(dir: &Path) -> Result<Command> {
    let mut npm = Command::new(machine::npm()?);
    npm.current_dir(dir)
        .env("NO_UPDATE_NOTIFIER", "1")
        .env("npm_config_fund", "false")
        .env("npm_config_audit", "false");
    Ok(npm)
}

/// Installs the packages of `dir` as its lock file says, unless that was done since the lock file changed.
///
/// # Errors
/// When npm fails.
pub(crate) fn install(dir: &Path) -> Result<()> {
    let lock = dir.join("package-lock.json");
    let wanted = std::fs::read(&lock)
        .with_context(|| format!("{} is missing; it belongs to the repository", lock.display()))?;
    let name = dir
        .file_name()
        .unwrap_or(OsStr::new("npm"))
        .to_string_lossy()
        .into_owned();
    let stamp = target_dir()
        .join("xtask")
        .join(format!("{name}.package-lock.json"));
    if dir.join("node_modules").is_dir() && std::fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    step::run(
        &format!("installing the npm packages of {name} (npm ci)"),
        npm(dir)?.args(["ci", "--no-fund", "--no-audit"]),
        "check that the npm registry can be reached",
    )?;
    std::fs::create_dir_all(target_dir().join("xtask"))?;
    std::fs::write(&stamp, wanted).with_context(|| format!("{} cannot be written", stamp.display()))
}

/// Runs one of the scripts of the web client's package.json.
///
/// # Errors
/// When it fails.
pub(crate) fn script(name: &str) -> Result<()> {
    step::run(
        &format!("web client: npm run {name}"),
        npm(&root().join("web-client"))?.args(["run", "--silent", name]),
        "see its message above",
    )
}

/// Builds the web client into `web-client/dist`, which the relay embeds. Nothing is done when no source is newer
/// than the last build.
///
/// # Errors
/// When a tool is missing or fails.
pub(crate) fn build() -> Result<()> {
    let dir = root().join("web-client");
    install(&dir)?;
    let built = modified(&dir.join("dist/index.html"));
    let newest = [
        "src",
        "public",
        "index.html",
        "package-lock.json",
        "package.json",
        "vite.config.ts",
    ]
    .iter()
    .filter_map(|part| newest(&dir.join(part), &dir.join("src/gen")))
    .chain(newest(&root().join("proto/millstream"), Path::new("")))
    .max();
    if built.is_some() && built >= newest {
        return Ok(());
    }
    script("build")
}

fn modified(path: &Path) -> Option<std::time::SystemTime> {
    path.metadata().ok()?.modified().ok()
}

/// When the newest file at or below `path` changed, leaving out what is below `except`.
fn newest(path: &Path, except: &Path) -> Option<std::time::SystemTime> {
    if path == except {
        return None;
    }
    let Ok(entries) = path.read_dir() else {
        return modified(path);
    };
    entries
        .flatten()
        .filter_map(|entry| newest(&entry.path(), except))
        .max()
}
