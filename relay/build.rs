//! Puts the built web client where the relay embeds it from.
//!
//! The web client is built by npm into `web-client/dist`. Without it the relay still builds; its page
//! then says how to build the real one.

use std::path::{Path, PathBuf};

const PLACEHOLDER: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Millstream</title>
<h1>Millstream is running</h1>
<p>This relay was built without its web client. Build all with <code>cargo xtask build</code> and start it again.</p>
<p>Programs and the command line work: <code>millstream tail -f</code>.</p>
</html>
"#;

fn main() -> std::io::Result<()> {
    let dist = Path::new("../web-client/dist");
    // A path that does not exist counts as changed, always: without the folder every build would compile
    // the relay again. Where it cannot be made, that is all that is lost.
    if Path::new("../web-client").is_dir() {
        let _ = std::fs::create_dir_all(dist);
    }
    println!("cargo::rerun-if-changed={}", dist.display());
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default()).join("web-client");
    if out.exists() {
        std::fs::remove_dir_all(&out)?;
    }
    std::fs::create_dir_all(&out)?;
    if dist.join("index.html").exists() {
        copy(dist, &out)
    } else {
        std::fs::write(out.join("index.html"), PLACEHOLDER)
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir_all(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
