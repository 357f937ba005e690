//! The configurations that the documentation shows are taken by the binaries as they stand there.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use millstream_tests::binaries::{binary, workspace_root};

/// The TOML examples of a document.
fn examples(document: &str) -> Vec<String> {
    let text = std::fs::read_to_string(workspace_root().join(document)).unwrap();
    let examples: Vec<String> = text
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap().to_owned())
        .collect();
    assert!(!examples.is_empty(), "{document} shows no configuration any more");
    examples
}

fn is_taken(program: &str, args: &[&str], dir: &Path, document: &str) {
    let output = Command::new(binary(program))
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{document}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn what_the_documentation_shows_is_a_configuration() {
    for document in [
        "README.md",
        "docs/builds.md",
        "docs/limits.md",
        "docs/processing.md",
        "docs/tail-a-fleet.md",
        "docs/watch-your-ci.md",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let secrets = dir.path().join("secrets");
        std::fs::create_dir(&secrets).unwrap();
        std::fs::write(secrets.join("deploy-key"), "correct horse battery staple").unwrap();
        let (relays, agents): (Vec<_>, Vec<_>) = examples(document)
            .into_iter()
            .filter(|example| example.starts_with(['[', '#']) || example.contains("\n["))
            .partition(|example| example.starts_with("# relay.toml"));
        // What a document adds to its first example belongs into the same file; lines without a table of their own
        // are other ways to write one of its keys.
        for (program, configuration) in [
            ("millstream-relay", relays.concat()),
            ("millstream-agent", agents.concat()),
        ] {
            if configuration.is_empty() {
                continue;
            }
            // A secret that is not there is refused, rather than sent.
            let configuration = configuration.replace("/run/secrets", secrets.to_str().unwrap());
            std::fs::write(dir.path().join("config.toml"), configuration).unwrap();
            is_taken(
                program,
                &["check-config", "--config", "config.toml"],
                dir.path(),
                document,
            );
        }
    }
}

#[test]
fn each_way_in_and_each_limit_is_a_configuration_of_its_own() {
    for document in ["docs/login.md", "docs/limits.md"] {
        for example in examples(document) {
            let dir = tempfile::tempdir().unwrap();
            let secret = dir.path().join("oidc-secret");
            std::fs::write(&secret, "correct horse battery staple").unwrap();
            std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
            let configuration = example.replace("/etc/millstream/oidc-secret", secret.to_str().unwrap());
            std::fs::write(dir.path().join("relay.toml"), configuration).unwrap();
            let args = ["check-config", "--config", "relay.toml", "--data-dir", "data"];
            is_taken("millstream-relay", &args, dir.path(), document);
        }
    }
}

#[test]
fn the_plugin_of_ten_minutes_works_as_written() {
    let document = "docs/write-a-plugin.md";
    let dir = tempfile::tempdir().unwrap();
    let examples = examples(document);
    let (manifest, agent) = (&examples[0], &examples[1]);
    std::fs::create_dir(dir.path().join("plugins")).unwrap();
    std::fs::write(dir.path().join("plugins/uptime.toml"), manifest).unwrap();
    std::fs::write(dir.path().join("agent.toml"), agent).unwrap();
    // Debian's procps has it.
    if Command::new("vmstat").arg("-V").output().is_ok() {
        is_taken(
            "millstream-agent",
            &["sources", "check", "plugins/uptime.toml"],
            dir.path(),
            document,
        );
    }
    is_taken(
        "millstream-agent",
        &["check-config", "--config", "agent.toml"],
        dir.path(),
        document,
    );
}
