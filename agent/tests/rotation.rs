//! Rotation, truncation and replacement of followed files: nothing is lost that can still be found, nothing is
//! sent twice, and what cannot be known is said in the stream.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use support::agent::{RunningAgent, file_config};
use support::{FakeRelay, Listening, PATIENCE};

const POLLING: &str = "watch = \"poll\"\npoll_interval = \"20ms\"";

struct Scene {
    relay: FakeRelay,
    listening: Listening,
    directory: tempfile::TempDir,
    settings: &'static str,
    pattern: &'static str,
}

impl Scene {
    async fn new(settings: &'static str) -> Self {
        let relay = FakeRelay::new();
        Self {
            listening: relay.listen().await,
            relay,
            directory: tempfile::tempdir().unwrap(),
            settings,
            pattern: "a.log",
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn agent(&self) -> RunningAgent {
        let config = file_config(&self.path(self.pattern), self.settings);
        RunningAgent::start(&self.listening.url(), "a", &config)
    }

    fn append(&self, name: &str, bytes: &[u8]) {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path(name))
            .unwrap();
        file.write_all(bytes).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// Waits until the stream of `a.log` is exactly this; returns its notices.
    async fn until(&self, expected: &[u8]) -> Vec<String> {
        let instance = self.path("a.log").to_str().unwrap().to_owned();
        self.relay.until_raw(&instance, expected).await.notices()
    }

    async fn until_notice(&self, kind: &str) -> String {
        let instance = self.path("a.log").to_str().unwrap().to_owned();
        let find = |relay: &FakeRelay| {
            let notices = relay.stream(&instance)?.notices();
            notices.into_iter().find(|notice| notice.starts_with(kind))
        };
        self.relay.until("a notice", find).await
    }
}

/// Waits for what no relay tells of.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain until {what}");
}

/// The agent, which runs in this process, holds the file open.
fn is_open(file: &File) -> bool {
    let wanted = file.metadata().unwrap().ino();
    let handles = fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
    let same = handles.filter(|handle| fs::metadata(handle.path()).is_ok_and(|found| found.ino() == wanted));
    // One handle is the caller's own.
    same.count() > 1
}

#[tokio::test]
async fn rotations_while_the_agent_is_away_are_read_in_order() {
    for names in [
        ["a.log.3", "a.log.2", "a.log.1"],
        ["a.log-20261121", "a.log-20261122", "a-20261123.log"],
    ] {
        for settings in ["", POLLING] {
            let scene = Scene::new(settings).await;
            scene.append("a.log", b"zero\n");
            let agent = scene.agent();
            scene.until(b"zero\n").await;
            agent.kill().await;
            scene.append("a.log", b"one\n");
            for (name, text) in names.iter().zip(["two\n", "three\n", "four\n"]) {
                scene.rename("a.log", name);
                scene.append("a.log", text.as_bytes());
            }
            let agent = scene.agent();
            let notices = scene.until(b"zero\none\ntwo\nthree\nfour\n").await;
            assert_eq!(notices, Vec::<String>::new());
            agent.stop().await;
        }
    }
}

#[tokio::test]
async fn a_rotated_file_that_is_gone_is_said_and_those_after_it_are_read() {
    let scene = Scene::new("").await;
    scene.append("a.log", b"zero\n");
    let agent = scene.agent();
    scene.until(b"zero\n").await;
    agent.kill().await;
    scene.rename("a.log", "a.log.2");
    scene.append("a.log", b"one\n");
    scene.rename("a.log", "a.log.1");
    scene.append("a.log", b"two\n");
    fs::remove_file(scene.path("a.log.2")).unwrap();
    let agent = scene.agent();
    let notices = scene.until(b"zero\none\ntwo\n").await;
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].starts_with("gap: "), "{notices:?}");
    agent.stop().await;
}

#[tokio::test]
async fn rotations_faster_than_the_agent_looks_are_complete() {
    for settings in ["", POLLING] {
        let scene = Scene::new(settings).await;
        let mut expected = b"first\n".to_vec();
        scene.append("a.log", &expected);
        let agent = scene.agent();
        scene.until(&expected).await;
        for round in 0..40 {
            scene.rename("a.log", &format!("a.log.20261124-{round:04}"));
            let text = format!("round {round}\nand half ");
            scene.append("a.log", text.as_bytes());
            expected.extend(text.as_bytes());
        }
        assert_eq!(scene.until(&expected).await, Vec::<String>::new());
        agent.stop().await;
    }
}

#[tokio::test]
async fn generations_that_are_deleted_while_the_relay_is_away_are_complete() {
    let Scene {
        relay,
        listening,
        directory,
        ..
    } = Scene::new("").await;
    let path = directory.path().join("a.log");
    fs::write(&path, b"zero\n").unwrap();
    let address = listening.address;
    let agent = RunningAgent::start(&listening.url(), "a", &file_config(&path, ""));
    let instance = path.to_str().unwrap();
    relay.until_raw(instance, b"zero\n").await;
    listening.stop().await;
    let mut expected = b"zero\n".to_vec();
    for round in 0..10 {
        fs::remove_file(&path).unwrap();
        let mut writer = File::create_new(&path).unwrap();
        writer.write_all(format!("round {round}\n").as_bytes()).unwrap();
        expected.extend(format!("round {round}\n").as_bytes());
        eventually("the agent opens the new file", || is_open(&writer)).await;
    }
    let _listening = relay.listen_on(address).await;
    let stream = relay.until_raw(instance, &expected).await;
    assert_eq!(stream.notices(), Vec::<String>::new());
    agent.stop().await;
}

#[tokio::test]
async fn a_file_rewritten_to_the_same_size_is_read_again_and_said() {
    for away in [false, true] {
        for settings in ["", POLLING] {
            let scene = Scene::new(settings).await;
            let head = "the same beginning ".repeat(100);
            scene.append("a.log", format!("{head}\nold end\n").as_bytes());
            let mut agent = Some(scene.agent());
            let mut expected = format!("{head}\nold end\n").into_bytes();
            scene.until(&expected).await;
            if away {
                agent.take().unwrap().kill().await;
            }
            let rewritten = format!("{head}\nnew end\n").into_bytes();
            let file = OpenOptions::new().write(true).open(scene.path("a.log")).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &rewritten, 0).unwrap();
            let agent = agent.unwrap_or_else(|| scene.agent());
            expected.extend(rewritten);
            let notices = scene.until(&expected).await;
            assert_eq!(notices.len(), 1, "{notices:?}");
            assert!(notices[0].starts_with("file-truncated: "), "{notices:?}");
            agent.stop().await;
        }
    }
}

#[tokio::test]
async fn what_was_copied_before_a_truncation_is_read_from_the_copy() {
    let scene = Scene::new("").await;
    scene.append("a.log", b"zero\n");
    let agent = scene.agent();
    scene.until(b"zero\n").await;
    agent.kill().await;
    scene.append("a.log", b"one\n");
    fs::copy(scene.path("a.log"), scene.path("a.log.1")).unwrap();
    OpenOptions::new()
        .write(true)
        .open(scene.path("a.log"))
        .unwrap()
        .set_len(0)
        .unwrap();
    scene.append("a.log", b"two\n");
    let agent = scene.agent();
    let notices = scene.until(b"zero\none\ntwo\n").await;
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].starts_with("file-truncated: "), "{notices:?}");
    agent.stop().await;
}

#[tokio::test]
async fn a_pattern_that_matches_rotated_names_sends_nothing_twice() {
    let mut scene = Scene::new("").await;
    scene.pattern = "a.log*";
    scene.append("a.log", b"zero\n");
    let agent = scene.agent();
    scene.until(b"zero\n").await;
    scene.rename("a.log", "a.log.1");
    scene.append("a.log", b"one\n");
    scene.until(b"zero\none\n").await;
    agent.kill().await;
    scene.rename("a.log.1", "a.log.2");
    scene.rename("a.log", "a.log.1");
    scene.append("a.log", b"two\n");
    let agent = scene.agent();
    scene.until(b"zero\none\ntwo\n").await;
    // Found by the same scan as the new file, had it been followed.
    scene.append("a.logs", b"another log\n");
    let other = scene.path("a.logs");
    scene
        .relay
        .until_raw(other.to_str().unwrap(), b"another log\n")
        .await;
    for rotated in ["a.log.1", "a.log.2"] {
        let instance = scene.path(rotated);
        assert!(
            scene.relay.stream(instance.to_str().unwrap()).is_none(),
            "{rotated}"
        );
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_symbolic_link_that_is_swapped_is_followed_to_its_new_target() {
    let scene = Scene::new("").await;
    scene.append("build-1", b"one\n");
    scene.append("build-2", b"two\n");
    let link = |target: &str| {
        std::os::unix::fs::symlink(scene.path(target), scene.path("new")).unwrap();
        scene.rename("new", "a.log");
    };
    link("build-1");
    let agent = scene.agent();
    scene.until(b"one\n").await;
    link("build-2");
    scene.until(b"one\ntwo\n").await;
    agent.kill().await;
    scene.append("build-2", b"more\n");
    link("build-1");
    let agent = scene.agent();
    // The old target is finished, and the new one is read from its start: it is another file again.
    scene.until(b"one\ntwo\nmore\none\n").await;
    agent.stop().await;
}

#[tokio::test]
async fn a_file_that_becomes_a_directory_and_a_file_again_goes_on() {
    let scene = Scene::new("").await;
    scene.append("a.log", b"one\n");
    let agent = scene.agent();
    scene.until(b"one\n").await;
    scene.rename("a.log", "a.log.1");
    fs::create_dir(scene.path("a.log")).unwrap();
    scene.append("a.log.1", b"two\n");
    scene.until(b"one\ntwo\n").await;
    fs::remove_dir(scene.path("a.log")).unwrap();
    scene.append("a.log", b"three\n");
    assert_eq!(scene.until(b"one\ntwo\nthree\n").await, Vec::<String>::new());
    agent.stop().await;
}

#[tokio::test]
async fn a_truncation_that_nothing_was_copied_of_is_said() {
    let scene = Scene::new("").await;
    scene.append("a.log", b"long enough\n");
    let agent = scene.agent();
    scene.until(b"long enough\n").await;
    fs::write(scene.path("a.log"), b"cut\n").unwrap();
    scene.until(b"long enough\ncut\n").await;
    let notice = scene.until_notice("file-truncated: ").await;
    assert!(notice.contains(scene.path("a.log").to_str().unwrap()), "{notice}");
    agent.stop().await;
}

/// Names that come and go: each is complete, whoever looks at the directory meanwhile.
#[tokio::test]
async fn a_thousand_files_that_come_and_go_are_complete() {
    let mut scene = Scene::new("").await;
    scene.pattern = "*.log";
    let agent = scene.agent();
    let name = |number: usize| format!("{number}.log");
    for number in 0..1000 {
        scene.append(&name(number), format!("line of {number}\n").as_bytes());
        if number >= 100 {
            let old = number - 100;
            let path = scene.path(&name(old));
            let expected = format!("line of {old}\n");
            scene
                .relay
                .until_raw(path.to_str().unwrap(), expected.as_bytes())
                .await;
            fs::remove_file(path).unwrap();
        }
    }
    for number in 900..1000 {
        let path = scene.path(&name(number));
        let expected = format!("line of {number}\n");
        scene
            .relay
            .until_raw(path.to_str().unwrap(), expected.as_bytes())
            .await;
    }
    let handles = || fs::read_dir("/proc/self/fd").unwrap().count();
    // The directory, the connection and such; the files that are still there, each once.
    eventually("files that are gone are let go", || handles() < 300).await;
    agent.stop().await;
}

/// Followers of paths that are gone do not stay for ever, and whoever has a path later is read without a word of
/// something missing.
#[tokio::test]
async fn a_path_that_is_gone_for_long_is_let_go_and_found_again() {
    let mut scene = Scene::new("forget_after = \"50ms\"").await;
    scene.pattern = "*.log";
    let agent = scene.agent();
    let mut expected = Vec::new();
    for round in 0_u32.. {
        let text = format!("round {round}\n");
        scene.append("a.log", text.as_bytes());
        expected.extend(text.as_bytes());
        let notices = scene.until(&expected).await;
        assert_eq!(notices, Vec::<String>::new());
        let instance = scene.path("a.log");
        let opens = scene.relay.stream(instance.to_str().unwrap()).unwrap().opens;
        // It was opened anew: the follower of before was let go.
        if opens > 2 {
            break;
        }
        assert!(round < 40, "it is never let go");
        fs::remove_file(instance).unwrap();
        // Longer each time, so that it will be long enough on any machine.
        tokio::time::sleep(Duration::from_millis(200 * u64::from(round + 1))).await;
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_file_with_holes_arrives_with_every_zero_of_them() {
    let scene = Scene::new("").await;
    let mut expected = b"head\n".to_vec();
    scene.append("a.log", &expected);
    let agent = scene.agent();
    scene.until(&expected).await;
    let file = OpenOptions::new().write(true).open(scene.path("a.log")).unwrap();
    let text = b"behind the hole\n";
    let at = expected.len() + (3 << 20) + 17;
    std::os::unix::fs::FileExt::write_all_at(&file, text, at as u64).unwrap();
    expected.resize(at, 0);
    expected.extend(text);
    assert_eq!(scene.until(&expected).await, Vec::<String>::new());
    agent.stop().await;
}

#[tokio::test]
async fn a_writer_that_never_rests_and_rotates_is_followed_to_the_last_byte() {
    for settings in ["", POLLING] {
        let scene = Scene::new(settings).await;
        scene.append("a.log", b"first\n");
        let agent = scene.agent();
        scene.until(b"first\n").await;
        let (path, rotated) = (scene.path("a.log"), scene.path("a.log-"));
        // Three megabytes as fast as they can be written, in pieces that end anywhere, in four files.
        let writer = std::thread::spawn(move || {
            let mut written = Vec::new();
            let mut file = OpenOptions::new().append(true).open(&path).unwrap();
            for number in 0..40_000_u32 {
                let line = format!("{number:08} {}\n", "x".repeat(number as usize % 140));
                let (one, two) = line.split_at(line.len() / 2);
                file.write_all(one.as_bytes()).unwrap();
                file.write_all(two.as_bytes()).unwrap();
                written.extend(line.into_bytes());
                if number % 11_000 == 10_999 {
                    let mut name = rotated.clone().into_os_string();
                    name.push(format!("20261124-{number:06}"));
                    fs::rename(&path, name).unwrap();
                    file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
                }
            }
            written
        });
        let written = tokio::task::spawn_blocking(|| writer.join().unwrap())
            .await
            .unwrap();
        let expected = [b"first\n".as_slice(), &written].concat();
        assert_eq!(scene.until(&expected).await, Vec::<String>::new());
        agent.stop().await;
    }
}

/// As a test farm does it: whole batches of names appear at once and are gone at once.
#[tokio::test]
async fn batches_of_a_thousand_files_that_come_and_go_at_once_are_complete() {
    const BATCH: usize = 1000;
    let mut scene = Scene::new("forget_after = \"1s\"").await;
    scene.pattern = "*.log";
    let agent = scene.agent();
    for batch in 0..3 {
        let name = |number: usize| format!("{batch}-{number}.log");
        for number in 0..BATCH {
            scene.append(&name(number), format!("line of {batch}-{number}\n").as_bytes());
        }
        let complete = (batch + 1) * BATCH;
        scene
            .relay
            .until("a line of every file of the batch", |relay| {
                (relay.lines() == complete).then_some(())
            })
            .await;
        for stream in scene.relay.streams() {
            let name = stream
                .open
                .instance
                .rsplit('/')
                .next()
                .unwrap()
                .trim_end_matches(".log")
                .to_owned();
            assert_eq!(stream.raw(), format!("line of {name}\n").into_bytes());
        }
        for number in 0..BATCH {
            fs::remove_file(scene.path(&name(number))).unwrap();
        }
    }
    let handles = || fs::read_dir("/proc/self/fd").unwrap().count();
    eventually("files that are gone are let go", || handles() < 300).await;
    agent.stop().await;
}
