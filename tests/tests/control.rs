//! Builds that are started, stopped and changed from outside, through relay and agent as a person would do it; and
//! what a run's own log says of it.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::path::Path;

use millstream_proto::v1::{EndReason, Stream, StreamState};
use millstream_tests::agent::Agent;
use millstream_tests::cli;
use millstream_tests::corpus::assert_same;
use millstream_tests::process::Finished;
use millstream_tests::relay::Relay;
use millstream_tests::wait::{eventually, until};
use rustix::process::{Pid, test_kill_process};

/// A relay, and an agent on host `build-1` with one source `nightly` that runs `sh -c SCRIPT` on demand.
struct World {
    dir: tempfile::TempDir,
    relay: Relay,
    agent: Agent,
}

impl World {
    async fn start(script: &str, settings: &str, control: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let relay = Relay::start(dir.path()).await;
        let config = dir.path().join("agent.toml");
        let text = format!(
            "[sources.nightly]\nplugin = \"exec\"\ncommand = [\"sh\", \"-c\", {script:?}]\ncwd = {:?}\n{settings}\n\
             {control}\n",
            dir.path()
        );
        std::fs::write(&config, text).unwrap();
        let config = config.to_str().unwrap().to_owned();
        let agent = Agent::start(dir.path(), relay.url(), "build-1", &["--config", &config]).await;
        Self { dir, relay, agent }
    }

    async fn cli(&self, args: &[&str]) -> Finished {
        cli::run(&self.dir.path().join("logs"), self.relay.url(), args).await
    }

    /// The same, once the agent takes commands.
    async fn control(&self, args: &[&str]) -> Finished {
        eventually("the agent takes commands", async || {
            let finished = self.cli(args).await;
            let is_away =
                finished.stderr.contains("is away") || finished.stderr.contains("there is no agent");
            (!is_away).then_some(finished)
        })
        .await
    }

    /// Every notice of a stream, by kind and sentence.
    async fn notices(&self, stream: &Stream) -> Vec<String> {
        let id = stream.stream_id.to_string();
        let lines = self.cli(&["cat", &id, "-o", "json"]).await;
        let lines = lines.text();
        let notice = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            (line["channel"] == "notice").then(|| line["text"].as_str().unwrap().to_owned())
        };
        lines.lines().filter_map(notice).collect()
    }

    /// What the relay's audit says of one action, outcome by outcome, once there are so many.
    async fn outcomes(&self, action: &str, count: usize) -> Vec<String> {
        eventually("the audit says what became of it", async || {
            let audit = self.relay.streams("source=audit").await;
            let id = audit.first()?.stream_id.to_string();
            let text = self.cli(&["cat", &id]).await;
            let outcomes: Vec<String> = text
                .text()
                .lines()
                .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
                .filter(|event| event["event"] == "control-outcome" && event["action"] == action)
                .map(|event| {
                    assert!(!event["who"].as_str().unwrap().is_empty(), "{event}");
                    assert!(
                        event["from"].as_str().unwrap().starts_with("127.0.0.1:"),
                        "{event}"
                    );
                    event["outcome"].as_str().unwrap().to_owned()
                })
                .collect();
            (outcomes.len() >= count).then_some(outcomes)
        })
        .await
    }

    async fn runs(&self) -> Vec<Stream> {
        self.relay.streams("source=nightly").await
    }

    /// The newest run once there are so many.
    async fn run_number(&self, number: usize, wanted: impl Fn(&Stream) -> bool) -> Stream {
        eventually(&format!("run {number} in the state that is wanted"), async || {
            let runs = self.runs().await;
            runs.get(number - 1).filter(|run| wanted(run)).cloned()
        })
        .await
    }
}

fn is_ended(stream: &Stream) -> bool {
    stream.state() == StreamState::Ended
}

fn pid_in(path: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(path).ok()?;
    Pid::from_raw(text.strip_suffix('\n')?.parse().ok()?)
}

const EVERYTHING: &str = "run_at_start = false\n[control.nightly]\nallow = [\"start\", \"stop\", \"restart\", \
                          \"set_command\"]\ncommand_pattern = \"echo [a-z]+|false\"";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_is_started_stopped_with_its_grandchildren_edited_run_again_and_reverted() {
    // Its grandchild is in a session of its own, re-parented, and ignores what it can.
    let script = "(setsid sh -c 'trap \"\" INT TERM; echo $$ > far; while :; do sleep 1; done' >/dev/null 2>&1 &) ; \
                  echo building; sleep 1000";
    let world = World::start(script, "", EVERYTHING).await;
    let started = world.control(&["start", "build-1/nightly"]).await;
    assert_eq!(started.code(), 0, "{}", started.stderr);
    let run = world.run_number(1, |run| run.text_bytes > 0).await;
    let facts = run.run.clone().unwrap();
    assert!(started.text().contains(&facts.run_id), "{}", started.text());
    assert_eq!(facts.reason, "on demand");
    assert!(
        !facts.started_by.is_empty() && facts.started_by != "agent",
        "{facts:?}"
    );
    let far = world.dir.path().join("far");
    until("the grandchild runs", || pid_in(&far).is_some()).await;
    let grandchild = pid_in(&far).unwrap();

    let again = world.cli(&["start", "build-1/nightly"]).await;
    assert_eq!(again.code(), 1);
    assert!(again.stderr.contains("runs already"), "{}", again.stderr);

    let stopped = world.cli(&["stop", &facts.run_id]).await;
    assert_eq!(stopped.code(), 0, "{}", stopped.stderr);
    // The answer says that it is done, so nothing is waited for.
    assert!(
        test_kill_process(grandchild).is_err(),
        "the grandchild still lives"
    );
    let run = world.run_number(1, is_ended).await;
    let end = run.end.clone().unwrap();
    assert_eq!(end.reason(), EndReason::Exited);
    assert!(end.message.contains("asked for stop"), "{}", end.message);
    let notices = world.notices(&run).await;
    for expected in [
        "run-started: ",
        "asked for start; refused: it runs already",
        "asked for stop",
        "run-stopping: SIGINT",
        "run-stopping: SIGKILL",
        "run-ended: ",
    ] {
        assert!(
            notices.iter().any(|notice| notice.contains(expected)),
            "{expected:?} in {notices:#?}"
        );
    }
    assert_same(
        "what it printed",
        &world.relay.raw(run.stream_id).await,
        b"building\n",
    );

    let changed = world
        .cli(&["set-command", "build-1/nightly", "--", "echo", "edited"])
        .await;
    assert_eq!(changed.code(), 0, "{}", changed.stderr);
    assert!(
        changed.text().contains("sh -c"),
        "it says what it was: {}",
        changed.text()
    );
    let restarted = world.cli(&["restart", "build-1/nightly"]).await;
    assert_eq!(restarted.code(), 0, "{}", restarted.stderr);
    let run = world.run_number(2, is_ended).await;
    assert_same(
        "the edited command",
        &world.relay.raw(run.stream_id).await,
        b"edited\n",
    );
    assert!(run.run.unwrap().reason.contains("set this command"));

    // Kept over a restart of the agent, and reverted.
    let mut world = world;
    world.agent.stop().await;
    world.agent.start_again().await;
    let started = world.control(&["start", "build-1/nightly"]).await;
    assert_eq!(started.code(), 0, "{}", started.stderr);
    let run = world.run_number(3, is_ended).await;
    assert_same(
        "after a restart",
        &world.relay.raw(run.stream_id).await,
        b"edited\n",
    );
    let reverted = world.cli(&["set-command", "build-1/nightly"]).await;
    assert_eq!(reverted.code(), 0, "{}", reverted.stderr);
    world.cli(&["start", "build-1/nightly"]).await;
    let run = world.run_number(4, |run| run.run.is_some()).await;
    assert_eq!(run.run.unwrap().argv[0], "sh");
    assert_eq!(world.cli(&["stop", "build-1/nightly"]).await.code(), 0);
    assert_eq!(world.outcomes("stop", 2).await, ["done", "done"]);
    assert_eq!(world.outcomes("restart", 1).await, ["done"]);
    assert_eq!(world.outcomes("set_command", 2).await, ["done", "done"]);
    let starts = world.outcomes("start", 4).await;
    let refused = |outcome: &String| outcome.contains("runs already");
    assert_eq!(
        starts.iter().filter(|outcome| refused(outcome)).count(),
        1,
        "{starts:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_agent_does_not_allow_is_refused_with_the_setting_and_stands_in_the_log() {
    let script = "echo building; sleep 1000";
    let mut world = World::start(script, "stop_with_agent = true", "").await;
    let run = world.run_number(1, |run| run.text_bytes > 0).await;
    let run_id = run.run.clone().unwrap().run_id;
    for args in [
        ["stop", run_id.as_str()].as_slice(),
        &["restart", "build-1/nightly"],
        &["set-command", "build-1/nightly", "--", "reboot"],
    ] {
        let refused = world.control(args).await;
        assert_eq!(refused.code(), 1, "{args:?}");
        assert!(refused.stderr.contains("[control.nightly]"), "{}", refused.stderr);
    }
    eventually("every refusal stands in the run's log", async || {
        let notices = world.notices(&run).await;
        let of = |action: &str| format!("asked for {action}; refused");
        ["stop", "restart", "set_command"]
            .iter()
            .all(|action| notices.iter().any(|notice| notice.contains(&of(action))))
            .then_some(())
    })
    .await;
    for action in ["stop", "restart", "set_command"] {
        let outcomes = world.outcomes(action, 1).await;
        assert!(
            outcomes
                .iter()
                .any(|outcome| outcome.contains("[control.nightly]")),
            "{outcomes:?}"
        );
    }
    world.agent.stop().await;
    let away = world.cli(&["stop", &run_id]).await;
    assert_eq!(away.code(), 1);
    assert!(away.stderr.contains("away"), "{}", away.stderr);
    let outcomes = world.outcomes("stop", 2).await;
    assert!(outcomes.last().unwrap().contains("is away"), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_does_not_match_the_pattern_or_was_not_seen_is_refused() {
    let world = World::start("true", "", EVERYTHING).await;
    let refused = world
        .control(&["set-command", "build-1/nightly", "--", "sh", "-c", "reboot"])
        .await;
    assert_eq!(refused.code(), 1);
    assert!(refused.stderr.contains("command_pattern"), "{}", refused.stderr);
    let args = [
        "set-command",
        "build-1/nightly",
        "--expect",
        "make",
        "--",
        "echo",
        "hi",
    ];
    let refused = world.cli(&args).await;
    assert_eq!(refused.code(), 1);
    assert!(refused.stderr.contains("by now"), "{}", refused.stderr);
    let unknown = world.cli(&["start", "build-1/other"]).await;
    assert_eq!(unknown.code(), 1);
    assert!(unknown.stderr.contains("other"), "{}", unknown.stderr);
    let outcomes = world.outcomes("set_command", 2).await;
    assert!(
        outcomes.iter().any(|outcome| outcome.contains("command_pattern")),
        "{outcomes:?}"
    );
    assert!(outcomes.last().unwrap().contains("by now"), "{outcomes:?}");
    let outcomes = world.outcomes("start", 1).await;
    assert!(outcomes.last().unwrap().contains("other"), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_says_what_it_was_cost_and_why_it_was_stopped() {
    let script = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; echo done; sleep 1000";
    let settings = "time_limit = \"4s\"\nquiet_notice = \"500ms\"\nrecord_env = [\"FLAVOUR\"]\n\
                    env = { FLAVOUR = \"vanilla\", SECRET = \"no\" }";
    let world = World::start(script, settings, "").await;
    let run = world.run_number(1, is_ended).await;
    let facts = run.run.clone().unwrap();
    assert_eq!(facts.reason, "the agent started");
    assert_eq!(facts.env, [("FLAVOUR".to_owned(), "vanilla".to_owned())].into());
    assert_eq!(facts.time_limit_ms, 4_000);
    let end = run.end.clone().unwrap();
    assert!(end.message.contains("time limit of 4.0 s"), "{}", end.message);
    assert!(end.peak_memory_bytes > 100 << 10, "{end:?}");
    assert!(end.cpu_time_us > 0, "{end:?}");
    let notices = world.notices(&run).await;
    for expected in [
        "no-output: nothing was written for",
        "run-stopping: the time limit",
        "run-ended: signal",
    ] {
        assert!(
            notices.iter().any(|notice| notice.contains(expected)),
            "{expected:?} in {notices:#?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_starts_runs_and_a_source_runs_once_at_a_time() {
    let script = "echo x >> started; while test -e hold; do sleep 0.02; done";
    let world = World::start(script, "schedule = \"every 1s\"", "").await;
    std::fs::write(world.dir.path().join("hold"), "").unwrap();
    let started = || {
        let text = std::fs::read_to_string(world.dir.path().join("started")).unwrap_or_default();
        text.lines().count()
    };
    until("the schedule has started a run that holds", || started() >= 1).await;
    let skipped = eventually("a start is skipped while it runs", async || {
        let runs = world.runs().await;
        let live = runs.iter().find(|run| run.state() == StreamState::Live)?;
        let notices = world.notices(live).await;
        notices
            .into_iter()
            .find(|notice| notice.starts_with("run-skipped: schedule every 1s"))
    })
    .await;
    assert!(skipped.contains("still goes on"), "{skipped}");
    let before = started();
    std::fs::remove_file(world.dir.path().join("hold")).unwrap();
    until("it runs again by the clock", || started() > before).await;
    let runs = world.runs().await;
    assert!(
        runs.iter()
            .all(|run| run.run.as_ref().unwrap().reason == "schedule every 1s")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_starts_a_run_and_says_which_file_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let watched = dir.path().join("rules.mk");
    std::fs::write(&watched, "one").unwrap();
    let settings = format!(
        "on_change = [{:?}]\non_change_delay = \"50ms\"",
        watched.to_str().unwrap()
    );
    let world = World::start("echo built", &settings, "").await;
    // The agent looks at the files before it says that it is connected or soon after: write until it sees one.
    let mut turn = 0;
    let run = eventually("a change starts a run", async || {
        turn += 1;
        std::fs::write(&watched, format!("turn {turn}")).unwrap();
        world.runs().await.into_iter().next()
    })
    .await;
    assert!(run.run.unwrap().reason.contains("rules.mk changed"));
}
