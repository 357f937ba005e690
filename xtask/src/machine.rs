//! What this machine has, and what can be installed on it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::step;

const OLDEST_NODE: u32 = 20;

/// The first of `names` that the PATH has.
pub(crate) fn find(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    // Daemons live where an ordinary user's PATH does not reach.
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    names.iter().find_map(|name| {
        dirs.iter()
            .chain(&more)
            .map(|dir| dir.join(name))
            .find(|file| file.is_file())
    })
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Finds one of `names`, installing Debian's `package` where this runs as root and has apt.
///
/// # Errors
/// When it is not there afterwards; the message says what to install and `what_for`.
pub(crate) fn need(names: &[&str], package: &str, what_for: &str) -> Result<PathBuf> {
    if let Some(found) = find(names) {
        return Ok(found);
    }
    if is_root() && find(&["apt-get"]).is_some() {
        apt_install(package)?;
        if let Some(found) = find(names) {
            return Ok(found);
        }
    }
    bail!(
        "{what_for} needs {} on the PATH, and there is none: install it \
         (on Debian or Ubuntu: `sudo apt-get install {package}`) and try again",
        names.join(" or "),
    );
}

/// Installs Debian packages.
///
/// # Errors
/// When apt fails.
pub(crate) fn apt_install(package: &str) -> Result<()> {
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    let cure = format!("install {package} by hand, or see what apt says above");
    step::run(
        "updating apt's package lists",
        apt().args(["update", "-qq"]),
        &cure,
    )?;
    let mut install = apt();
    install
        .args(["install", "-y", "--no-install-recommends", "-qq"])
        .args(package.split(' '));
    // A daemon that comes with a package is not started here: it is wanted as a program only.
    install.env("RUNLEVEL", "1");
    step::run(&format!("installing {package} through apt"), &mut install, &cure)
}

/// Finds npm with a Node.js that is new enough.
///
/// # Errors
/// When there is none, or an older one.
pub(crate) fn npm() -> Result<PathBuf> {
    let cure = format!("install Node.js {OLDEST_NODE} or later, with npm (https://nodejs.org)");
    let Some(version) = step::output("node", &["--version"]) else {
        bail!("building the web client needs Node.js, and `node` is not on the PATH: {cure}");
    };
    let major = version
        .trim_start_matches('v')
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < OLDEST_NODE) {
        bail!("this machine has Node.js {version}, which is too old: {cure}");
    }
    match find(&["npm"]) {
        Some(npm) => Ok(npm),
        None => bail!("`node` is here, but `npm` is not on the PATH: {cure}"),
    }
}

/// A Chromium for the browser tests.
///
/// # Errors
/// When there is none and none can be installed.
pub(crate) fn chromium() -> Result<PathBuf> {
    need(
        &["chromium", "chromium-browser", "google-chrome"],
        "chromium",
        "the browser test",
    )
}
