//! Plugins as sources of the real agent: the examples, exactly once over kills, and plugins that misbehave.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use rustix::process::{Pid, Signal};
use support::agent::binary;
use support::stage::{Stage, example, have, processes_with, texts, until_gone, until_there};

#[tokio::test]
async fn the_python_example_counts_exactly_once_over_kills_of_the_agent() {
    if !have("python3") {
        return;
    }
    let mut stage = Stage::new().await;
    std::fs::copy(
        example("millstream-source-counter"),
        stage.path("plugins/millstream-source-counter"),
    )
    .unwrap();
    stage.config("[sources.count]\nplugin = 'counter'\nto = 300\nper_second = 100\n");
    for kill_at in [30, 90, 180] {
        stage.start();
        stage
            .stream_until("count", |stream| stream.lines.len() >= kill_at)
            .await;
        stage.kill().await;
    }
    stage.start();
    let stream = stage.stream_until("count", |stream| stream.end.is_some()).await;
    let expected: Vec<String> = (1..=300).map(|number| format!("number {number}")).collect();
    assert_eq!(texts(&stream), expected);
    stage.log_says(&["source count is done"], 1).await;
    assert!(stage.stop().await.success());
    // Once more: the agent knows that it is over, and so does the plugin.
    stage.start();
    stage.log_says(&["source count (counter) starts"], 2).await;
    stage.stop().await;
    assert_eq!(texts(&stage.relay.stream("count").unwrap()), expected);
}

#[tokio::test]
async fn checkpoints_now_and_then_are_enough_for_exactly_once() {
    let mut stage = Stage::new().await;
    // A checkpoint after each seventh line of two streams, from lines that are numbered.
    stage.protocol_plugin(
        "seven",
        true,
        "",
        r#"read -r request
at() { printf '%s' "$request" | sed -n "s/.*\"$1\":\"\([0-9]*\)\".*/\1/p"; }
a=$(at one); a=${a:-0}; b=$(at two); b=${b:-0}
while [ $a -lt 200 ] || [ $b -lt 200 ]; do
    if [ $a -lt 200 ]; then a=$((a + 1)); printf '{"type":"line","stream":"one","text":"%s"}\n' $a; fi
    if [ $b -lt 200 ]; then b=$((b + 1)); printf '{"type":"line","stream":"two","text":"%s"}\n' $b; fi
    if [ $((a % 7)) = 0 ]; then printf '{"type":"checkpoint","stream":"one","checkpoint":"%s"}\n' $a; fi
    if [ $((b % 5)) = 0 ]; then printf '{"type":"checkpoint","stream":"two","checkpoint":"%s"}\n' $b; fi
    sleep 0.005
done
while :; do sleep 1; done"#,
    );
    stage.config("[sources.seven]\nplugin = 'seven'\n");
    for kill_at in [20, 75, 120] {
        stage.start();
        stage
            .stream_until("two", |stream| stream.lines.len() >= kill_at)
            .await;
        stage.kill().await;
    }
    // A plugin that is killed by somebody is the same to it.
    stage.start();
    stage
        .stream_until("two", |stream| stream.lines.len() >= 150)
        .await;
    for pid in processes_with("plugins/millstream-source-seven") {
        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).ok();
    }
    let expected: Vec<String> = (1..=200).map(|number| number.to_string()).collect();
    for instance in ["one", "two"] {
        let stream = stage
            .stream_until(instance, |stream| stream.lines.len() >= 200)
            .await;
        assert_eq!(texts(&stream), expected, "{instance}");
        assert_eq!(stream.open.labels["stream"], instance);
    }
    stage.log_says(&["plugin seven ended (signal: 9"], 1).await;
    stage.stop().await;
}

#[tokio::test]
async fn the_shell_example_prints_the_load_and_its_restart_is_said() {
    let mut stage = Stage::new().await;
    std::fs::copy(
        example("millstream-source-load"),
        stage.path("plugins/millstream-source-load"),
    )
    .unwrap();
    stage.config("[sources.load]\nplugin = 'load'\nevery = 1\n");
    stage.start();
    let stream = stage
        .stream_until("load", |stream| !stream.lines.is_empty())
        .await;
    let words: Vec<String> = texts(&stream)[0].split(' ').map(str::to_owned).collect();
    assert_eq!((words.len(), words[0].as_str()), (4, "load"));
    assert!(words[1].parse::<f64>().is_ok(), "{words:?}");
    for pid in processes_with(stage.path("plugins").to_str().unwrap()) {
        if pid != stage.pid().as_raw_nonzero().get() {
            rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).ok();
        }
    }
    let stream = stage
        .stream_until("load", |stream| !stream.notices().is_empty())
        .await;
    assert!(
        stream.notices()[0].starts_with("plugin-restarted: load ended"),
        "{:?}",
        stream.notices()
    );
    stage.stop().await;
    until_gone(stage.path("plugins/").to_str().unwrap()).await;
}

#[tokio::test]
async fn bad_json_on_every_second_line_is_reported_and_does_not_stop_the_source() {
    let mut stage = Stage::new().await;
    stage.protocol_plugin(
        "liar",
        false,
        "",
        r#"i=0; while [ $i -lt 100 ]; do i=$((i + 1)); printf '{"type":"line","text":"good %s"}\nbad \033[31m%s\n' $i $i; done
echo '{"type":"end"}'"#,
    );
    stage.config("[sources.liar]\nplugin = 'liar'\n");
    stage.start();
    let stream = stage.stream_until("liar", |stream| stream.end.is_some()).await;
    let expected: Vec<String> = (1..=100).map(|number| format!("good {number}")).collect();
    assert_eq!(texts(&stream), expected);
    let notices = stream.notices();
    assert_eq!(notices.len(), 10 + 3, "ten, then at 16, 32 and 64: {notices:#?}");
    assert!(
        notices[0].starts_with("plugin-output: liar: line 2 of its output: expected value"),
        "{notices:#?}"
    );
    assert!(
        notices[12].contains("line 128 of its output") && notices[12].contains("64 lines were not taken")
    );
    stage.log_says(&["plugin liar: line 2 of its output"], 1).await;
    stage.stop().await;
}

#[tokio::test]
async fn a_gibibyte_without_a_newline_costs_neither_memory_nor_the_other_sources() {
    let mut stage = Stage::new().await;
    stage.protocol_plugin(
        "flood",
        false,
        "",
        r#"echo '{"type":"line","text":"before"}'; head -c 1073741824 /dev/zero; echo; echo '{"type":"line","text":"after"}'; echo '{"type":"end"}'"#,
    );
    stage.config(&format!(
        "[sources.flood]\nplugin = 'flood'\nmax_bytes_per_second = 0\n[sources.logs]\nplugin = 'file'\npaths = [{:?}]\n",
        stage.path("app.log")
    ));
    std::fs::write(stage.path("app.log"), "unharmed\n").unwrap();
    stage.start();
    let path = stage.path("app.log");
    stage.relay.until_raw(path.to_str().unwrap(), b"unharmed\n").await;
    let long = std::time::Duration::from_secs(120);
    let ended = tokio::time::timeout(long, async {
        loop {
            if let Some(stream) = stage.relay.stream("flood").filter(|stream| stream.end.is_some()) {
                return stream;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    let stream = ended.await.unwrap();
    assert_eq!(texts(&stream), ["before", "after"]);
    assert!(
        stream.notices()[0].contains("line 2 of its output: the line has more than"),
        "{:?}",
        stream.notices()
    );
    let status = std::fs::read_to_string(format!("/proc/{}/status", stage.pid().as_raw_nonzero())).unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kib < 64 << 10, "{peak_kib} KiB");
    stage.stop().await;
}

#[tokio::test]
async fn a_plugin_that_exits_at_once_for_ever_is_started_less_and_less_often() {
    let mut stage = Stage::new().await;
    stage.protocol_plugin("dead", false, "", "echo 'no such device' >&2; exit 3");
    stage.config("[sources.dead]\nplugin = 'dead'\n");
    stage.start();
    let found = stage
        .log_says(
            &[
                "plugin dead ended (exit status: 3): no such device",
                "starting it again in",
            ],
            4,
        )
        .await;
    let waits: Vec<f64> = found
        .iter()
        .map(|line| {
            let (_, rest) = line.rsplit_once("again in ").unwrap();
            rest.trim_end_matches(" s").parse().unwrap()
        })
        .collect();
    assert!(waits[3] >= waits[0] * 2.0, "{waits:?}");
    assert!(
        stage.relay.streams().is_empty(),
        "nothing was printed, so there is no stream"
    );
    assert!(stage.stop().await.success());
}

#[tokio::test]
async fn a_plugin_that_ignores_sigterm_is_killed_with_its_children() {
    let mut stage = Stage::new().await;
    stage.protocol_plugin(
        "stubborn",
        false,
        "",
        r#"trap '' TERM INT; echo '{"type":"line","text":"here"}'; sleep 98765 & while :; do wait; done"#,
    );
    stage.config("[sources.stubborn]\nplugin = 'stubborn'\n");
    stage.start();
    stage
        .stream_until("stubborn", |stream| !stream.lines.is_empty())
        .await;
    assert!(stage.stop().await.success());
    until_gone("millstream-source-stubborn").await;
    until_gone("sleep\x0098765").await;
    stage.log_says(&["ignored SIGTERM"], 1).await;
}

#[tokio::test]
async fn a_plugin_ends_with_an_agent_that_is_killed() {
    let mut stage = Stage::new().await;
    stage.protocol_plugin(
        "tied",
        false,
        "",
        r#"echo '{"type":"line","text":"here"}'; exec sleep 87654"#,
    );
    stage.config("[sources.tied]\nplugin = 'tied'\n");
    stage.start();
    stage
        .stream_until("tied", |stream| !stream.lines.is_empty())
        .await;
    // The shell becomes `sleep` after its line.
    until_there("sleep\x0087654").await;
    stage.kill().await;
    until_gone("sleep\x0087654").await;
}

#[tokio::test]
async fn a_plugin_that_hangs_is_started_again_where_that_is_asked_for() {
    let mut stage = Stage::new().await;
    stage.protocol_plugin(
        "hang",
        false,
        "",
        r#"echo '{"type":"line","text":"here"}'; while :; do sleep 1; done"#,
    );
    stage.config("[sources.hang]\nplugin = 'hang'\nstall_timeout = '300ms'\n");
    stage.start();
    stage.log_says(&["plugin hang printed nothing"], 2).await;
    let stream = stage
        .stream_until("hang", |stream| texts(stream).len() >= 2)
        .await;
    assert!(
        stream.notices()[0].contains("it cannot resume"),
        "{:?}",
        stream.notices()
    );
    stage.stop().await;
}

#[tokio::test]
async fn memory_beyond_the_bound_is_refused_to_a_plugin_and_to_what_it_starts() {
    if !have("python3") {
        return;
    }
    let mut stage = Stage::new().await;
    stage.protocol_plugin("greedy", false, "", "exec python3 -c 'x = bytearray(300 << 20)'");
    stage.config("[sources.greedy]\nplugin = 'greedy'\nmemory_max_bytes = 67108864\n");
    stage.start();
    stage.log_says(&["plugin greedy ended", "MemoryError"], 1).await;
    stage.stop().await;
}

#[tokio::test]
async fn a_plugin_that_cannot_even_describe_itself_leaves_the_other_sources_alone() {
    let mut stage = Stage::new().await;
    stage.executable(
        "plugins/millstream-source-broken",
        "#!/bin/sh\necho what >&2; exit 1\n",
    );
    let path = stage.path("app.log");
    std::fs::write(&path, "unharmed\n").unwrap();
    stage.config(&format!(
        "[sources.broken]\nplugin = 'broken'\n[sources.logs]\nplugin = 'file'\npaths = [{path:?}]\n"
    ));
    stage.start();
    stage
        .log_says(
            &["source broken failed", "--describe failed (exit status: 1): what"],
            1,
        )
        .await;
    stage.relay.until_raw(path.to_str().unwrap(), b"unharmed\n").await;
    stage.stop().await;
}

#[tokio::test]
async fn settings_reach_the_plugin_typed_and_secrets_of_the_agent_do_not() {
    let mut stage = Stage::new().await;
    stage.protocol_plugin(
        "echo",
        false,
        r#""a":{"type":"integer","default":7},"b":{"type":"list"}"#,
        r#"read -r request; printf '{"type":"line","text":"%s"}\n' "$(printf '%s' "$request" | sed 's/["\\]/\\&/g')"
printf '{"type":"line","text":"[%s]"}\n' "$MILLSTREAM_RELAY$MILLSTREAM_DATA_DIR"; echo '{"type":"end"}'"#,
    );
    stage.config("[sources.echo]\nplugin = 'echo'\nb = ['x y', \"it's\"]\n");
    stage.start();
    let stream = stage.stream_until("echo", |stream| stream.end.is_some()).await;
    let lines = texts(&stream);
    let request: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(request["protocol"], 1);
    assert_eq!(request["settings"]["a"], 7);
    assert_eq!(request["settings"]["b"], serde_json::json!(["x y", "it's"]));
    assert_eq!(lines[1], "[]");
    stage.stop().await;
}

#[tokio::test]
async fn a_wrong_setting_is_an_error_with_its_line_and_the_nearest() {
    let stage = Stage::new().await;
    stage.protocol_plugin("echo", false, r#""count":{"type":"integer"}"#, "");
    for (source, expected) in [
        (
            "plugin = 'docker'\ncontainr = 'x'",
            "agent.toml:4: unknown key `containr` for plugin docker; did you mean `container`?",
        ),
        ("plugin = 'docker'", "container is missing"),
        ("plugin = 'dokcer'\ncontainer = 'x'", "did you mean `docker`?"),
        ("plugin = 'echo'\ncuont = 1", "did you mean `count`?"),
        ("plugin = 'echo'\ncount = 'x'", "count has to be an integer"),
        ("plugin = 'echo'\nmemory_max_bytes = 5", "16 MiB"),
    ] {
        stage.config(&format!("[sources.x]\n{source}\n"));
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
        assert_eq!(output.status.code(), Some(2), "{source}");
        assert!(words.contains(expected), "{source}: {words}");
    }
}

/// `sources check` of a plugin: its exit status and what it says.
async fn check(stage: &Stage, file: &str, more: &[&str]) -> (Option<i32>, String) {
    let path = stage.path(file);
    let output = binary(&stage.listening.url(), &stage.path("data"))
        .args(["sources", "check", path.to_str().unwrap(), "--time", "2s"])
        .args(more)
        .output()
        .await
        .unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

#[tokio::test]
async fn the_test_kit_finds_nothing_wrong_with_the_examples() {
    if !have("python3") {
        return;
    }
    let stage = Stage::new().await;
    for name in ["counter", "load"] {
        let file = format!("plugins/millstream-source-{name}");
        std::fs::copy(example(&format!("millstream-source-{name}")), stage.path(&file)).unwrap();
    }
    let (code, said) = check(
        &stage,
        "plugins/millstream-source-counter",
        &["--setting", "per_second=20"],
    )
    .await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("version 1, 2 settings, can resume"), "{said}");
    assert!(said.contains("new lines and 0 that were there before"), "{said}");
    let (code, said) = check(
        &stage,
        "plugins/millstream-source-load",
        &["--setting", "every=1"],
    )
    .await;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("cannot resume") && said.contains("went on until it was stopped"),
        "{said}"
    );
}

#[tokio::test]
async fn the_test_kit_tells_an_author_what_is_wrong() {
    let stage = Stage::new().await;
    stage.protocol_plugin(
        "mixed",
        false,
        "",
        "echo hello; echo '{\"type\":\"line\",\"txt\":\"x\"}'; trap '' TERM; sleep 60 & wait; wait; sleep 60",
    );
    let (code, said) = check(&stage, "plugins/millstream-source-mixed", &[]).await;
    assert_eq!(code, Some(1), "{said}");
    for expected in [
        "line 1: expected value",
        "standard error",
        "line 2: unknown field `txt`",
        "of SIGTERM",
        "3 problems",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    // It says that it can resume, and begins anew.
    stage.protocol_plugin(
        "amnesia",
        true,
        "",
        "for i in 1 2 3; do echo \"{\\\"type\\\":\\\"line\\\",\\\"text\\\":\\\"$i\\\",\\\"checkpoint\\\":\\\"$i\\\"}\"; done; sleep 60",
    );
    let (_, said) = check(&stage, "plugins/millstream-source-amnesia", &[]).await;
    assert!(
        said.contains("it began with its very first line again") && said.contains("1 problem"),
        "{said}"
    );
    stage.executable(
        "plugins/broken.toml",
        "name = 'broken'\nversion = '1'\ncommand = ['x', '--a=${b}']\n",
    );
    let (_, said) = check(&stage, "plugins/broken.toml", &[]).await;
    assert!(
        said.contains("has to be a whole element of the command"),
        "{said}"
    );
    stage.executable(
        "plugins/absent.toml",
        "name = 'absent'\nversion = '1'\ncommand = ['no-such-program']\n",
    );
    let (code, said) = check(&stage, "plugins/absent.toml", &[]).await;
    assert!(
        code == Some(1) && said.contains("no-such-program: command not found"),
        "{said}"
    );
    let (_, said) = check(&stage, "plugins/millstream-source-nothing", &[]).await;
    assert!(said.contains("No such file"), "{said}");
}

#[tokio::test]
async fn sources_lists_plugins_with_their_settings_and_what_is_not_used() {
    let stage = Stage::new().await;
    stage.protocol_plugin(
        "echo",
        true,
        r#""count":{"type":"integer","default":3,"doc":"How often."}"#,
        "",
    );
    stage.executable("plugins/bad.toml", "name = 'bad'\n");
    stage.executable("plugins/file.toml", "");
    let output = binary(&stage.listening.url(), &stage.path("data"))
        .args([
            "sources",
            "--plugin-path",
            stage.path("plugins").to_str().unwrap(),
        ])
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for expected in [
        "docker (bundled manifest, version 1, resumes)",
        "container = \"text\" (required)",
        "millstream-source-echo, version 1, resumes)",
        "count = 1 (default 3)\n        How often.",
        "bad (cannot be used)",
        "file is a plugin of the agent itself",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}
