//! The demo, as a new user runs it. Ignored in a plain `cargo test`, since it compiles a crate;
//! `cargo xtask test` runs it.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use millstream_proto::v1::ListStreamsRequest;
use millstream_proto::v1::log_service_client::LogServiceClient;
use millstream_tests::binaries::{binary, workspace_root};
use millstream_tests::http;
use millstream_tests::process::Process;
use millstream_tests::wait::{eventually, eventually_within};
use rustix::process::Signal;
use tonic::transport::Endpoint;

/// After the URL is printed, every host must have said something within this time.
const FIRST_LINES_LIMIT: Duration = Duration::from_secs(20);

/// Processes in whose environment or command line `text` stands, other than this one.
fn processes_with(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("Linux has /proc").flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        if !name.bytes().all(|byte| byte.is_ascii_digit()) || name == std::process::id().to_string() {
            continue;
        }
        for file in ["cmdline", "environ"] {
            let bytes = std::fs::read(entry.path().join(file)).unwrap_or_default();
            if memchr::memmem::find(&bytes, text.as_bytes()).is_some() {
                found.push(format!(
                    "{name}: {}",
                    String::from_utf8_lossy(&bytes).replace('\0', " ")
                ));
            }
        }
    }
    found
}

fn demo_dirs(below: &std::path::Path) -> Vec<PathBuf> {
    std::fs::read_dir(below)
        .expect("the test made it")
        .flatten()
        .map(|entry| entry.path())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "builds a crate again and again; `cargo xtask test` runs it"]
async fn the_demo_shows_three_hosts_at_once_and_leaves_nothing_behind() {
    let logs = tempfile::tempdir().unwrap();
    // A place of its own for the demo's temporary directory shows what is left there.
    let temp = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary("xtask"));
    command
        .args(["demo", "--no-open", "--prebuilt", "dev"])
        .current_dir(workspace_root())
        .stdin(Stdio::null());
    command.env("TMPDIR", temp.path());
    let mut demo = Process::start("demo", logs.path(), &mut command);
    let page = demo.stdout_line("Open ").await;
    let url = page.split("/streams/").next().unwrap().to_owned();

    let (status, page) = http::get(url.trim_start_matches("http://"), "/").await;
    assert_eq!(status, 200);
    assert!(
        String::from_utf8_lossy(&page)
            .to_lowercase()
            .contains("<!doctype html"),
        "the page is embedded"
    );

    let channel = Endpoint::from_shared(url.clone()).unwrap().connect_lazy();
    let mut service = LogServiceClient::new(channel);
    eventually_within(FIRST_LINES_LIMIT, "lines of all three hosts", async || {
        let streams = service
            .list_streams(ListStreamsRequest::default())
            .await
            .ok()?
            .into_inner()
            .streams;
        let hosts: BTreeSet<&str> = streams
            .iter()
            .filter(|stream| stream.next_sequence > 0)
            .filter_map(|stream| stream.labels.get("host").map(String::as_str))
            .collect();
        (hosts == BTreeSet::from(["build-arm", "build-linux", "ci-runner"])).then_some(())
    })
    .await;

    demo.signal(Signal::INT);
    let finished = demo.finish().await;
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    let mark = temp.path().to_str().unwrap();
    eventually("no process of the demo is left", async || {
        processes_with(mark).is_empty().then_some(())
    })
    .await;
    assert_eq!(
        demo_dirs(temp.path()),
        Vec::<PathBuf>::new(),
        "the temporary directory is gone"
    );
}
