//! Where the binaries under test are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The repository's root.
pub fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests crate lies in the workspace")
}

/// Path of one of Millstream's binaries. They are taken from the target directory that this test was built
/// into; what is missing there is built first (`cargo xtask test` builds them before any test starts).
pub fn binary(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let dir = profile_dir();
            let names = ["millstream-relay", "millstream-agent", "millstream"];
            if names.iter().any(|name| !dir.join(name).exists()) {
                build();
            }
            dir
        })
        .join(name)
}

/// `target/debug` or its like: the directory above the one that holds this test's executable.
fn profile_dir() -> PathBuf {
    let executable = std::env::current_exe().expect("a running test knows its executable");
    let dir = executable.parent().expect("an executable lies in a directory");
    let dir = if dir.ends_with("deps") {
        dir.parent().expect("deps lies in a directory")
    } else {
        dir
    };
    dir.to_path_buf()
}

fn build() {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace_root()).args(["build", "--bins"]);
    cargo.args([
        "-p",
        "millstream-relay",
        "-p",
        "millstream-agent",
        "-p",
        "millstream-client",
    ]);
    if profile_dir().ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo
        .status()
        .expect("cargo can be started: it is running this test");
    assert!(
        status.success(),
        "the binaries under test do not build: run `cargo build` to see why"
    );
}
