//! What an agent says of lines and streams where it is told to: how bad a line is, and labels out of JSON lines. Text
//! stays as it was produced.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::io::Write as _;
use std::path::Path;

use millstream_proto::v1::{HistogramRequest, Stream};
use millstream_tests::agent::Agent;
use millstream_tests::cli;
use millstream_tests::corpus::count_lines;
use millstream_tests::relay::Relay;

/// Writes the agent's configuration: one source `app` that reads `app.log`.
fn configure(dir: &Path, settings: &str) -> (String, std::path::PathBuf) {
    let config = dir.join("agent.toml");
    let log = dir.join("app.log");
    let source = format!("[sources.app]\nplugin = \"file\"\npaths = [{log:?}]\n{settings}");
    std::fs::write(&config, source).unwrap();
    (config.display().to_string(), log)
}

fn append(path: &Path, text: &str) {
    let mut file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

async fn stored(relay: &Relay, selector: &str, text: &str) -> Stream {
    let lines = count_lines(text.as_bytes());
    relay
        .stream(selector, |stream| stream.next_sequence == lines)
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_agent_says_of_a_line_wins_over_its_looks_in_search_and_histogram() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let (config, log) = configure(
        dir.path(),
        "severity = { none = ['expected'], error = ['^E '], warning = ['^W '] }\n",
    );
    let text =
        "all is well\nE disk gone\nerror: this is expected\nW slow\nwarning: looks like one\n".repeat(20);
    append(&log, &text);
    let mut agent = Agent::start(dir.path(), relay.url(), "build-1", &["--config", &config]).await;
    let stream = stored(&relay, "host=build-1", &text).await;
    let search = async |severity: &str| {
        let args = [
            "search",
            "",
            "--severity",
            severity,
            "--oldest-first",
            "-o",
            "json",
        ];
        let found = cli::run(dir.path(), relay.url(), &args).await;
        let lines: Vec<serde_json::Value> = found
            .text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let one = |line: &serde_json::Value| {
            let field = |name: &str| line[name].as_str().unwrap().to_owned();
            (
                line["sequence"].as_u64().unwrap(),
                field("severity"),
                field("text"),
            )
        };
        lines.iter().map(one).collect::<Vec<_>>()
    };
    let expected = |wanted: &str, severity: &str| -> Vec<(u64, String, String)> {
        text.lines()
            .zip(0..)
            .filter(|(line, _)| wanted.split('|').any(|start| line.starts_with(start)))
            .map(|(line, sequence)| (sequence, severity.to_owned(), line.to_owned()))
            .collect()
    };
    assert_eq!(search("error").await, expected("E ", "error"));
    assert_eq!(search("warning").await, expected("W |warning", "warning"));
    let histogram = async || {
        let request = HistogramRequest {
            stream_ids: vec![stream.stream_id],
            ..Default::default()
        };
        let answer = relay.log_service().histogram(request).await.unwrap().into_inner();

        answer
            .buckets
            .iter()
            .fold((0, 0, 0), |(lines, warnings, errors), bucket| {
                (
                    lines + bucket.lines,
                    warnings + bucket.warnings,
                    errors + bucket.errors,
                )
            })
    };
    assert_eq!(histogram().await, (100, 40, 20));
    assert_eq!(
        cli::cat(dir.path(), relay.url(), stream.stream_id).await,
        text.as_bytes(),
        "text is as it was"
    );

    // Lines of before and after a change of the configuration stand side by side in one stream.
    agent.stop().await;
    configure(dir.path(), "");
    let guessed = "E not for everybody\nerror: plain\n";
    append(&log, guessed);
    agent.start_again().await;
    stored(&relay, "host=build-1", &format!("{text}{guessed}")).await;
    assert_eq!(histogram().await, (102, 40, 21));
}

fn entry(service: &str, number: usize) -> String {
    format!("{{\"service\":\"{service}\",\"meta\":{{\"version\":\"1.4\"}},\"n\":{number}}}\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_out_of_the_first_lines_stay_and_no_line_is_lost_or_doubled_over_kills() {
    let dir = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(dir.path()).await;
    let (config, log) = configure(
        dir.path(),
        "json_labels = { service = \"service\", version = \"meta.version\" }\nlabels = { team = \"core\" }\n",
    );
    let mut agent = Agent::start(dir.path(), relay.url(), "build-1", &["--config", &config]).await;
    // The agent follows a file without lines: nobody knows its labels yet, and nobody has seen a stream without them.
    append(&log, "");
    let mut text = String::new();
    for round in 0..4 {
        let service = if round == 0 { "api" } else { "worker" };
        let lines: String = (0..500)
            .map(|number| entry(service, round * 500 + number))
            .collect();
        append(&log, &lines);
        text.push_str(&lines);
        match round {
            0 => {}
            1 => {
                agent.kill();
                agent.start_again().await;
            }
            2 => {
                relay.kill();
                relay.start_again().await;
            }
            _ => {
                agent.kill();
                relay.kill();
                relay.start_again().await;
                agent.start_again().await;
            }
        }
        let stream = stored(&relay, "service=api,version=1.4,team=core", &text).await;
        assert_eq!(
            cli::cat(dir.path(), relay.url(), stream.stream_id).await,
            text.as_bytes()
        );
    }
    assert_eq!(relay.streams("").await.len(), 1, "one file is one stream");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_plain_text_waits_for_no_label_that_does_not_come() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let (config, log) = configure(dir.path(), "json_labels = [\"service\"]\n");
    append(&log, "one line of text\n");
    let _agent = Agent::start(dir.path(), relay.url(), "build-1", &["--config", &config]).await;
    let stream = stored(&relay, "host=build-1", "one line of text\n").await;
    assert!(!stream.labels.contains_key("service"), "{:?}", stream.labels);
}

/// A run is over before the wait for its labels is: its end decides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_has_labels_out_of_its_own_output() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let config = dir.path().join("agent.toml");
    let source = "[sources.job]\nplugin = \"exec\"\ncommand = [\"sh\", \"-c\", \
                  \"echo begin; echo '{\\\"service\\\":\\\"api\\\"}'\"]\njson_labels = [\"service\", \"never\"]\n";
    std::fs::write(&config, source).unwrap();
    let config = config.display().to_string();
    let _agent = Agent::start(dir.path(), relay.url(), "build-1", &["--config", &config]).await;
    let stream = relay.stream("service=api", |stream| stream.end.is_some()).await;
    assert_eq!(
        cli::cat(dir.path(), relay.url(), stream.stream_id).await,
        b"begin\n{\"service\":\"api\"}\n"
    );
}
