//! What the real agent does to text before it leaves the host: masks, joins, drops.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use base64::Engine as _;
use support::agent::binary;
use support::stage::{Stage, texts};

const TOKEN: &str = "s3cr3t-token/42";

/// Everything that a relay was told, as one text without line ends.
fn told(stage: &Stage) -> String {
    let streams = stage.relay.streams();
    let text = format!("{streams:?}");
    let lines = streams
        .iter()
        .flat_map(|stream| stream.lines.iter().map(|line| line.text.clone()));
    let lines: Vec<u8> = lines.flatten().collect();
    format!("{text}{}", String::from_utf8_lossy(&lines))
}

#[tokio::test]
async fn a_wrapped_build_shows_its_secret_to_nobody_but_its_terminal() {
    let stage = Stage::new().await;
    let config = format!(
        "[mask]\nenv = [\"*_TOKEN\"]\nfiles = [{:?}]\n",
        stage.path("password")
    );
    std::fs::write(stage.path("agent.toml"), config).unwrap();
    std::fs::write(stage.path("password"), "correct horse\n").unwrap();
    let script = r#"
echo "token: $DEPLOY_TOKEN"
printf '%s' "user:$DEPLOY_TOKEN" | base64
printf 's3cr3t-'; sleep 0.4; printf '\033[1mtoken/4'; sleep 0.4; printf '2\033[0m\n'
printf 's3cr3t-\ntoken/42\n'
echo 'url?t=s3cr3t-token%2F42'
echo 'correct horse on stderr' >&2
echo '::add-mask::hunter2!'
echo 'hunter2! hunter3!'
echo '##vso[task.setsecret]azure-secret'
echo 'azure-secret'
echo '::add-mask::abc'
"#;
    // In a file: what a build asks to mask later is not known when its command line is told.
    let build = stage.path("build.sh");
    std::fs::write(&build, script).unwrap();
    let output = binary(&stage.listening.url(), &stage.path("data"))
        .env("DEPLOY_TOKEN", TOKEN)
        .args(["--config", stage.path("agent.toml").to_str().unwrap()])
        .args([
            "exec",
            "--name",
            "build",
            "--",
            "sh",
            build.to_str().unwrap(),
            TOKEN,
        ])
        .output()
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        String::from_utf8_lossy(&output.stdout).contains(TOKEN),
        "the terminal is the user's own"
    );
    let stream = stage.relay.streams().remove(0);
    let told = told(&stage);
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("user:{TOKEN}"));
    for secret in [
        TOKEN,
        "correct horse",
        "hunter2!",
        "azure-secret",
        "s3cr3t-token%2F42",
        &encoded,
    ] {
        assert!(!told.contains(secret), "{secret}: {told}");
    }
    assert_eq!(stream.open.run.as_ref().unwrap().argv.last().unwrap(), "***");
    let lines = texts(&stream);
    assert!(lines.contains(&"token: ***".to_owned()), "{lines:#?}");
    assert!(lines.contains(&"*** hunter3!".to_owned()), "{lines:#?}");
    assert!(lines.contains(&"::add-mask::***".to_owned()), "{lines:#?}");
    let refused = stream
        .notices()
        .into_iter()
        .filter(|notice| notice.starts_with("mask-refused:"))
        .count();
    assert_eq!(refused, 1, "{:?}", stream.notices());
}

#[tokio::test]
async fn a_file_is_masked_joined_and_thinned_out_exactly_once_over_kills() {
    let mut stage = Stage::new().await;
    let path = stage.path("app.log");
    stage.config(&format!(
        "[mask]\npatterns = ['ghp_[A-Za-z0-9]{{12}}']\n[sources.app]\nplugin = 'file'\npaths = [{path:?}]\n\
         join = {{ start = '^\\d+ ', separator = ' | ' }}\ndrop = [{{ pattern = 'healthz' }}]\n"
    ));
    let record =
        |number: usize| format!("{number} begins\n  at ghp_0123456789ab\n  done\n{number} GET /healthz\n");
    let mut file = std::fs::File::create(&path).unwrap();
    let mut written = 0;
    for kill_at in [40, 90, 140] {
        use std::io::Write as _;
        for _ in 0..50 {
            file.write_all(record(written).as_bytes()).unwrap();
            written += 1;
        }
        stage.start();
        stage
            .stream_until(path.to_str().unwrap(), |stream| texts(stream).len() >= kill_at)
            .await;
        stage.kill().await;
    }
    stage.start();
    let stream = stage
        .stream_until(path.to_str().unwrap(), |stream| texts(stream).len() >= written)
        .await;
    let expected: Vec<String> = (0..written)
        .map(|number| format!("{number} begins |   at *** |   done"))
        .collect();
    assert_eq!(texts(&stream), expected);
    stage.stop().await;
    let stream = stage.relay.stream(path.to_str().unwrap()).unwrap();
    assert_eq!(texts(&stream), expected, "a stop sends nothing twice");
}

#[tokio::test]
async fn masks_that_cannot_be_had_are_errors_and_short_values_are_warned_of() {
    let stage = Stage::new().await;
    for (config, status, expected) in [
        (
            "[mask]\nfiles = ['/does/not/exist']\n",
            2,
            "files: /does/not/exist",
        ),
        ("[mask]\npatterns = ['(']\n", 2, "patterns: regex parse error"),
        ("[mask]\nenvs = ['X']\n", 2, "unknown field `envs`"),
        (
            "[sources.a]\nplugin = 'exec'\ncommand = ['x']\njoin = {}\n",
            2,
            "where a record begins",
        ),
        (
            "[sources.a]\nplugin = 'exec'\ncommand = ['x']\nenv = { PIN = '1234' }\nmask = { env = ['PIN'] }\n",
            0,
            "the value of the environment variable PIN has fewer than 6 bytes and is not masked",
        ),
    ] {
        std::fs::write(stage.path("agent.toml"), config).unwrap();
        let output = binary(&stage.listening.url(), &stage.path("data"))
            .args([
                "--config",
                stage.path("agent.toml").to_str().unwrap(),
                "check-config",
            ])
            .output()
            .await
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{config}: {words}");
        assert!(words.contains(expected), "{config}: {words}");
        assert!(!words.contains("1234"), "the value itself is not shown");
    }
}
