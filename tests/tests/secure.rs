//! A relay with TLS and tokens, as an operator sets one up: certificates and tokens made by its own commands, an
//! agent and the CLI that verify it and say who they are.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::path::{Path, PathBuf};

use millstream_tests::agent::Agent;
use millstream_tests::binaries::binary;
use millstream_tests::cli;
use millstream_tests::process::{Finished, Process};
use millstream_tests::relay::Relay;
use millstream_tests::wait::eventually;

struct Installation {
    directory: tempfile::TempDir,
    relay: Relay,
    ca: PathBuf,
}

/// `millstream-relay ARGS` on the installation's data.
async fn admin(directory: &Path, args: &[&str]) -> Finished {
    let mut command = std::process::Command::new(binary("millstream-relay"));
    command.arg("--data-dir").arg(directory.join("relay")).args(args);
    let finished = Process::run("relay-admin", &directory.join("logs"), &mut command).await;
    assert_eq!(finished.code(), 0, "{args:?}: {}", finished.stderr);
    finished
}

impl Installation {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path();
        admin(dir, &["certs", "init"]).await;
        admin(
            dir,
            &["certs", "issue", "--name", "127.0.0.1", "--name", "localhost"],
        )
        .await;
        let certs = dir.join("relay/certs");
        let [cert, key] =
            ["127.0.0.1.pem", "127.0.0.1-key.pem"].map(|name| certs.join(name).display().to_string());
        let flags = ["--auth", "--tls-cert", &cert, "--tls-key", &key];
        let relay = Relay::start_with(dir, &dir.join("relay"), &flags).await;
        assert!(relay.url().starts_with("https://"), "{}", relay.url());
        let ca = certs.join("ca.pem");
        Self { directory, relay, ca }
    }

    fn dir(&self) -> &Path {
        self.directory.path()
    }

    /// A new token in a file of its own.
    async fn token(&self, name: &str, args: &[&str]) -> PathBuf {
        let made = admin(self.dir(), &[&["token", "create", "--name", name], args].concat()).await;
        let path = self.dir().join(format!("{name}.token"));
        std::fs::write(&path, made.stdout).unwrap();
        path
    }

    fn agent_args(&self, token: &Path, more: &[&str]) -> Vec<String> {
        let paths = [
            "--ca",
            self.ca.to_str().unwrap(),
            "--token-file",
            token.to_str().unwrap(),
        ];
        paths.iter().chain(more).map(|arg| (*arg).to_owned()).collect()
    }

    async fn cli(&self, args: &[&str]) -> Finished {
        cli::run(&self.dir().join("logs"), self.relay.url(), args).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_go_from_a_file_to_the_cli_over_tls_with_tokens() {
    let installation = Installation::new().await;
    let dir = installation.dir();
    let agent_token = installation
        .token("build-7", &["--role", "agent", "--host", "build-7"])
        .await;
    let viewer_token = installation.token("me", &["--role", "viewer"]).await;
    let log = dir.join("app.log");
    std::fs::write(&log, "first\nsecond\n").unwrap();
    let args = installation.agent_args(&agent_token, &["--file", log.to_str().unwrap()]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut agent = Agent::start(dir, installation.relay.url(), "build-7", &args).await;

    let (ca, viewer) = (installation.ca.to_str().unwrap(), viewer_token.to_str().unwrap());
    let text = eventually("the CLI shows both lines", async || {
        let finished = installation
            .cli(&[
                "--ca",
                ca,
                "--token-file",
                viewer,
                "tail",
                "-n",
                "all",
                "-o",
                "raw",
            ])
            .await;
        assert_eq!(finished.code(), 0, "{}", finished.stderr);
        (finished.text().lines().count() >= 2).then(|| finished.text())
    })
    .await;
    assert_eq!(text, "first\nsecond\n");

    // Without the authority, without a token, with the agent's.
    for (args, words) in [
        (&["--token-file", viewer, "ls", "streams"][..], ""),
        (&["--ca", ca, "ls", "streams"], "token"),
        (
            &[
                "--ca",
                ca,
                "--token-file",
                agent_token.to_str().unwrap(),
                "ls",
                "streams",
            ],
            "role viewer",
        ),
    ] {
        let finished = installation.cli(args).await;
        assert_eq!(finished.code(), 1, "{args:?}");
        assert!(finished.stderr.contains(words), "{}", finished.stderr);
    }
    // A revocation is seen by the agent, which says so and keeps its lines.
    admin(dir, &["token", "revoke", "build-7"]).await;
    agent.process().stderr_says("refuses this agent").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_watch_a_build_may_not_stop_it() {
    let installation = Installation::new().await;
    let dir = installation.dir();
    let agent_token = installation
        .token("build-7", &["--role", "agent", "--host", "build-7"])
        .await;
    let [viewer, elsewhere, operator, admin] = [
        installation.token("watcher", &["--role", "viewer"]).await,
        installation
            .token("elsewhere", &["--role", "operator", "--scope", "host=build-8"])
            .await,
        installation.token("on-call", &["--role", "operator"]).await,
        installation.token("boss", &["--role", "admin"]).await,
    ];
    let config = dir.join("agent.toml");
    std::fs::write(
        &config,
        "[sources.nightly]\nplugin = \"exec\"\ncommand = [\"sleep\", \"1000\"]\nstop_with_agent = true\n\
         [control.nightly]\nallow = [\"stop\"]\n",
    )
    .unwrap();
    let args = installation.agent_args(&agent_token, &["--config", config.to_str().unwrap()]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let _agent = Agent::start(dir, installation.relay.url(), "build-7", &args).await;
    let call = async |token: &Path, args: &[&str]| {
        let ca = installation.ca.to_str().unwrap();
        let who = ["--ca", ca, "--token-file", token.to_str().unwrap()];
        installation.cli(&[&who, args].concat()).await
    };
    eventually("it runs, and its agent takes commands", async || {
        let runs = call(&viewer, &["ls", "runs", "-o", "json"]).await.text();
        let away = call(&operator, &["start", "build-7/nightly"]).await;
        (runs.contains("\"live\"") && !away.stderr.contains("away")).then_some(())
    })
    .await;

    let refused = call(&viewer, &["stop", "build-7/nightly"]).await;
    assert_eq!(refused.code(), 1);
    assert!(refused.stderr.contains("role operator"), "{}", refused.stderr);
    // Of what is outside of one's scope one does not even learn that it is there.
    let unseen = call(&elsewhere, &["stop", "build-7/nightly"]).await;
    assert_eq!(unseen.code(), 1);
    assert!(unseen.stderr.contains("no agent"), "{}", unseen.stderr);
    let runs = call(&viewer, &["ls", "runs", "-o", "json"]).await.text();
    assert!(runs.contains("\"live\""), "it still runs: {runs}");
    let stopped = call(&operator, &["stop", "build-7/nightly"]).await;
    assert_eq!(stopped.code(), 0, "{}", stopped.stderr);

    let told = eventually("the audit has each of them", async || {
        let streams = call(&admin, &["ls", "streams", "source=audit", "-o", "json"])
            .await
            .text();
        let stream: serde_json::Value = serde_json::from_str(streams.lines().next()?).unwrap();
        let text = call(&admin, &["cat", &stream["stream"].to_string()]).await.text();
        text.contains("\"outcome\":\"done\"").then_some(text)
    })
    .await;
    let line = |words: &[&str]| {
        told.lines()
            .any(|line| words.iter().all(|word| line.contains(word)))
    };
    assert!(
        line(&["\"refused\"", "ControlService/Stop", "watcher", "role operator"]),
        "{told}"
    );
    assert!(
        line(&["\"control-outcome\"", "\"stop\"", "elsewhere", "no agent"]),
        "{told}"
    );
    assert!(
        line(&["\"control-outcome\"", "\"stop\"", "on-call", "\"done\""]),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_does_not_get_the_agents_token() {
    let installation = Installation::new().await;
    let dir = installation.dir();
    let token = installation
        .token("build-7", &["--role", "agent", "--host", "build-7"])
        .await;
    let secret = std::fs::read_to_string(token).unwrap();
    for flags in [
        &["exec", "--name", "x", "--", "env"][..],
        &["exec", "--name", "x", "--pty", "--", "env"],
    ] {
        let mut command = Agent::command(installation.relay.url(), "build-7", &dir.join("agent"));
        command
            .args(["--ca", installation.ca.to_str().unwrap()])
            .args(flags)
            .env("MILLSTREAM_TOKEN", secret.trim());
        let finished = Process::run("exec", &dir.join("logs"), &mut command).await;
        assert_eq!(finished.code(), 0, "{}", finished.stderr);
        assert!(finished.text().contains("PATH="), "{}", finished.text());
        assert!(!finished.text().contains(secret.trim()), "{}", finished.text());
        assert!(!finished.stderr.contains(secret.trim()), "{}", finished.stderr);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_does_not_send_its_token_over_a_plain_network_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let run = async |args: &[&str], address: &str| {
        let mut command = Agent::command(address, "build-7", &dir.path().join("agent"));
        command
            .args(args)
            .arg("check-config")
            .env("MILLSTREAM_TOKEN", "mst_secret");
        Process::run("agent", &dir.path().join("logs"), &mut command).await
    };
    let refused = run(&[], "http://relay.example:7171").await;
    assert_eq!(refused.code(), 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("--insecure-no-tls"), "{}", refused.stderr);
    for finished in [
        run(&["--insecure-no-tls"], "http://relay.example:7171").await,
        run(
            &["--pin", &format!("sha256:{}", "0".repeat(64))],
            "https://relay.example:7171",
        )
        .await,
        run(&[], "http://127.0.0.1:7171").await,
    ] {
        assert_eq!(finished.code(), 0, "{}", finished.stderr);
        assert!(!format!("{}{}", finished.text(), finished.stderr).contains("mst_secret"));
    }
    let missing = run(&["--ca", "/nowhere/ca.pem"], "https://relay.example").await;
    assert_eq!(missing.code(), 2);
    assert!(missing.stderr.contains("/nowhere/ca.pem"), "{}", missing.stderr);
}
