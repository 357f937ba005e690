//! Searching with the real binaries: a log that an agent sends, the relay's search, the command line.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use millstream_proto::v1::{Filter, SearchOrder, SearchRequest, search_response::Message};
use millstream_tests::agent::Agent;
use millstream_tests::cli;
use millstream_tests::corpus::{count_lines, log};
use millstream_tests::relay::Relay;

/// The lines of a log that contain the text, each with its number.
fn containing(content: &[u8], needle: &str) -> Vec<(usize, String)> {
    content
        .split(|byte| *byte == b'\n')
        .enumerate()
        .filter(|(_, line)| memchr::memmem::find(line, needle.as_bytes()).is_some())
        .map(|(number, line)| (number, String::from_utf8_lossy(line).into_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_finds_what_grep_finds_in_a_real_build_log() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let path = dir.path().join("build.log");
    let content = log("cpython-build-1.log");
    std::fs::write(&path, &content).unwrap();
    let _agent = Agent::start(
        dir.path(),
        relay.url(),
        "build-1",
        &["--file", path.to_str().unwrap()],
    )
    .await;
    let lines = count_lines(&content);
    let stream = relay
        .stream("host=build-1", |stream| stream.next_sequence == lines)
        .await;
    let search = async |args: &[&str]| {
        let args = [&["search"], args].concat();
        cli::run(dir.path(), relay.url(), &args).await
    };

    let mut expected = containing(&content, "warning:");
    assert_eq!(expected.len(), 75);
    let oldest_first = search(&["warning:", "--oldest-first", "-n"]).await;
    assert_eq!(oldest_first.code(), 0, "{}", oldest_first.stderr);
    let numbered: String = expected
        .iter()
        .map(|(number, line)| format!("{number}: {line}\n"))
        .collect();
    // What a terminal could obey is shown, not sent; this log's warnings have none of it.
    assert_eq!(oldest_first.text(), numbered);
    expected.reverse();
    let newest_first = search(&["warning:", "host=build-*", "-o", "raw"]).await;
    let raw: String = expected.iter().map(|(_, line)| format!("{line}\n")).collect();
    assert_eq!(newest_first.text(), raw);

    let by_severity = search(&["", "--severity", "warning", "-o", "json"]).await;
    let lines: Vec<serde_json::Value> = by_severity
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 75);
    assert_eq!(lines[0]["sequence"], expected[0].0);
    assert_eq!(lines[0]["hit"], true);
    assert_eq!(lines[0]["stream"], stream.stream_id);

    let (hit, _) = expected[0];
    let with_context = search(&["warning:", "--max-hits", "1", "-C", "2", "-n", "-F"]).await;
    let numbers: Vec<_> = with_context
        .text()
        .lines()
        .map(|line| line.split([':', '-']).next().unwrap().parse::<usize>().unwrap())
        .collect();
    assert_eq!(numbers, (hit - 2..=hit + 2).collect::<Vec<_>>());
    assert!(
        with_context.stderr.contains("--max-hits"),
        "{}",
        with_context.stderr
    );

    let of_nobody = search(&["warning:", "host=somebody-else"]).await;
    assert_eq!((of_nobody.code(), of_nobody.stderr.as_str()), (1, ""));
    let nothing = search(&["there is no such line"]).await;
    assert_eq!(
        (nothing.code(), nothing.stdout.len(), nothing.stderr.as_str()),
        (1, 0, "")
    );
    let wrong = search(&["(unclosed"]).await;
    assert_eq!(wrong.code(), 2);
    assert!(wrong.stderr.contains("unclosed group"), "{}", wrong.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_that_are_cut_off_leave_nothing_behind_and_lines_come_in_beside_them() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(dir.path()).await;
    let path = dir.path().join("build.log");
    let content = log("cpython-build-1.log").repeat(40);
    std::fs::write(&path, &content).unwrap();
    let _agent = Agent::start(
        dir.path(),
        relay.url(),
        "build-1",
        &["--file", path.to_str().unwrap()],
    )
    .await;
    // While lines come in, searches begin and are dropped after their first messages.
    let lines = count_lines(&content);
    let request = SearchRequest {
        filter: Some(Filter {
            regex: "(?i)checking.*(yes|no)$".into(),
            ..Default::default()
        }),
        order: SearchOrder::OldestFirst.into(),
        max_hits: 1_000_000,
        ..Default::default()
    };
    for _ in 0..50 {
        let mut log = relay.log_service();
        let mut search = log.search(request.clone()).await.unwrap().into_inner();
        search.message().await.unwrap();
    }
    let stream = relay
        .stream("host=build-1", |stream| stream.next_sequence == lines)
        .await;
    assert_eq!(stream.next_sequence, lines);
    millstream_tests::wait::eventually("no search is open", async || {
        let (_, metrics) = relay.get("/metrics").await;
        String::from_utf8(metrics)
            .unwrap()
            .lines()
            .any(|line| line == "millstream_searches 0")
            .then_some(())
    })
    .await;
    // And a whole one finds everything, once.
    let mut search = relay.log_service().search(request).await.unwrap().into_inner();
    let (mut hits, mut last) = (0, None);
    while let Some(response) = search.message().await.unwrap() {
        match response.message.unwrap() {
            Message::Hits(block) => hits += u64::from(block.block.unwrap().line_count),
            Message::Progress(progress) => last = Some(progress),
            _ => {}
        }
    }
    let is_hit = |line: &&[u8]| {
        let line = line.to_ascii_lowercase();
        memchr::memmem::find(&line, b"checking").is_some()
            && (line.ends_with(b"yes") || line.ends_with(b"no"))
    };
    let expected = content.split(|byte| *byte == b'\n').filter(is_hit).count() as u64;
    assert!(expected > 1000, "the log has such lines");
    let last = last.unwrap();
    assert_eq!(
        (hits, last.hits, last.done, last.limit_reached),
        (expected, expected, true, false)
    );
}
