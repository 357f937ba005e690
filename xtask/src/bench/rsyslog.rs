//! rsyslog as Debian ships it, with a configuration and state of its own: one instance follows the file (imfile)
//! and sends it over TCP, a second one receives (imtcp) and writes a file (omfile). No system service is touched.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::measure::Measured;

/// What is set beyond the defaults: control characters stay as they are, as everywhere else here.
const GLOBAL: &str = "global(workDirectory=\"DIR\" parser.escapeControlCharactersOnReceive=\"off\")\n";

/// Starts the receiving instance, which writes to `output`.
pub(super) fn start_receiver(rsyslogd: &Path, dir: &Path, port: u16, output: &Path) -> Result<Measured> {
    std::fs::write(output, "")?;
    let rules = format!(
        "module(load=\"imtcp\")\n\
         template(name=\"line\" type=\"string\" string=\"%rawmsg-after-pri%\\n\")\n\
         input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\" ruleset=\"write\")\n\
         ruleset(name=\"write\") {{ action(type=\"omfile\" file=\"{}\" template=\"line\") }}\n",
        output.display()
    );
    start("rsyslogd (receiver)", rsyslogd, &dir.join("receiver"), &rules)
}

/// Starts the sending instance, which follows `input` from its beginning.
pub(super) fn start_sender(rsyslogd: &Path, dir: &Path, input: &Path, port: u16) -> Result<Measured> {
    let rules = format!(
        "module(load=\"imfile\")\n\
         template(name=\"line\" type=\"string\" string=\"<13>%msg%\\n\")\n\
         input(type=\"imfile\" file=\"{}\" tag=\"bench\" ruleset=\"send\")\n\
         ruleset(name=\"send\") {{ action(type=\"omfwd\" target=\"127.0.0.1\" port=\"{port}\" protocol=\"tcp\" template=\"line\") }}\n",
        input.display()
    );
    start("rsyslogd (sender)", rsyslogd, &dir.join("sender"), &rules)
}

fn start(name: &'static str, rsyslogd: &Path, dir: &Path, rules: &str) -> Result<Measured> {
    std::fs::create_dir_all(dir)?;
    let config: PathBuf = dir.join("rsyslog.conf");
    std::fs::write(&config, GLOBAL.replace("DIR", &dir.display().to_string()) + rules)?;
    let mut command = Command::new(rsyslogd);
    command
        .arg("-n")
        .arg("-f")
        .arg(&config)
        .arg("-i")
        .arg(dir.join("rsyslog.pid"));
    Measured::start(name, &mut command, &dir.join("log"), None)
}
