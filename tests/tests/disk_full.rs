//! The relay's disk is full: nothing is acknowledged and nothing is lost, readers go on, health says why, and it
//! all goes on by itself once there is room.
//!
//! The disk is a small tmpfs, which takes root to mount. Elsewhere the store's own tests fill a disk that only
//! pretends to be full.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use millstream_proto::v1::TailRequest;
use millstream_tests::agent::Agent;
use millstream_tests::corpus::assert_same;
use millstream_tests::reader::{Reader, follow};
use millstream_tests::relay::Relay;
use millstream_tests::wait::eventually;

const MIB: u64 = 1 << 20;

/// A small file system of its own, gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path) -> Option<Self> {
        std::fs::create_dir(path).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=128m", "tmpfs"])
            .arg(path)
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(path.to_owned())),
            // Not root, or root without the right to mount.
            other => {
                println!("not run: a tmpfs cannot be mounted here ({other:?})");
                None
            }
        }
    }

    /// Leaves so much room and no more.
    fn fill(&self, leave_bytes: u64) {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        let free = stat.f_bavail * stat.f_frsize;
        let ballast = std::fs::File::create(self.ballast()).unwrap();
        rustix::fs::fallocate(
            &ballast,
            rustix::fs::FallocateFlags::empty(),
            0,
            free - leave_bytes,
        )
        .unwrap();
    }

    fn make_room(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The test has stopped the relay; what cannot be unmounted is gone with the machine.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Lines that do not compress.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut text = Vec::with_capacity(bytes + 128);
    while text.len() < bytes {
        for _ in 0..6 {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            write!(text, "{state:016x}").unwrap();
        }
        text.push(b'\n');
    }
    text
}

async fn goes_on_when_there_is_room(min_free: &str, leave_bytes: u64, says: &str) {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk")) else {
        return;
    };
    let flags = ["--min-free-bytes", min_free];
    let mut relay = Relay::start_with(dir.path(), &disk.0.join("relay"), &flags).await;
    let path = dir.path().join("build.log");
    let content = noise(40 << 20);
    let (first, rest) = content.split_at(1 << 20);
    std::fs::write(&path, first).unwrap();
    let agent_flags = ["--file", path.to_str().unwrap()];
    let mut agent = Agent::start(dir.path(), relay.url(), "build-1", &agent_flags).await;
    let stored = async |relay: &Relay, bytes: usize| {
        relay.stream("", |stream| stream.text_bytes >= bytes as u64).await
    };
    let stream_id = stored(&relay, first.len()).await.stream_id;
    let mut reader = Reader::start(relay.log_service(), follow("")).await.unwrap();
    reader.until(|reader| reader.text_bytes() == first.len()).await;

    disk.fill(leave_bytes);
    millstream_tests::files::append(&path, rest);
    let trouble = eventually("the relay says that it is not ready", async || {
        let (status, body) = relay.get("/readyz").await;
        (status == 503).then(|| String::from_utf8(body).unwrap())
    })
    .await;
    assert!(trouble.contains(says), "{trouble}");
    assert!(trouble.starts_with("disk full: "), "{trouble}");
    agent.process().stderr_says("relay asks to wait").await;
    agent.process().stderr_says("disk full: ").await;
    // Readers go on: what is stored is there, byte for byte.
    let there = relay.raw(stream_id).await;
    assert!(there.len() >= first.len() && there.len() < content.len());
    assert_same("what a full disk holds", &there, &content[..there.len()]);
    let (alive, _) = relay.get("/healthz").await;
    assert_eq!(alive, 200);

    disk.make_room();
    stored(&relay, content.len()).await;
    assert_same(
        "what is stored at last",
        &relay.raw_of(stream_id, content.len()).await,
        &content,
    );
    eventually("the relay is ready again", async || {
        (relay.get("/readyz").await.0 == 200).then_some(())
    })
    .await;
    // The subscriber of before sees every line once; it may have to call again while the store is reopened.
    while reader.text_bytes() < content.len() {
        if reader.step().await.is_err() {
            let request = TailRequest {
                positions: reader.positions(),
                ..follow("")
            };
            reader.reconnect(relay.log_service(), request).await.unwrap();
        }
    }
    let copy = &reader.copies[&stream_id].text;
    assert_same("what a subscriber got", copy, &content);
    drop(reader);
    // All of it is really on disk, although no stop came before.
    relay.kill();
    relay.start_again().await;
    assert_same(
        "what a restart finds",
        &relay.raw_of(stream_id, content.len()).await,
        &content,
    );
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_stops_before_its_reserve_and_goes_on_when_there_is_room() {
    goes_on_when_there_is_room("16777216", 20 * MIB, "min_free_bytes").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_whose_write_failed_goes_on_when_there_is_room() {
    goes_on_when_there_is_room("0", 8 * MIB, "No space left").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_with_a_full_disk_stops_when_asked_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk")) else {
        return;
    };
    let flags = ["--min-free-bytes", "0"];
    let mut relay = Relay::start_with(dir.path(), &disk.0.join("relay"), &flags).await;
    let path = dir.path().join("build.log");
    let content = noise(20 << 20);
    disk.fill(8 * MIB);
    std::fs::write(&path, &content).unwrap();
    let agent_flags = ["--file", path.to_str().unwrap()];
    let _agent = Agent::start(dir.path(), relay.url(), "build-1", &agent_flags).await;
    eventually("the relay says that it is not ready", async || {
        (relay.get("/readyz").await.0 == 503).then_some(())
    })
    .await;
    assert_eq!(relay.stop().await.code(), 0);
    disk.make_room();
    relay.start_again().await;
    let stream = relay
        .stream("", |stream| stream.text_bytes >= content.len() as u64)
        .await;
    assert_same(
        "what is stored at last",
        &relay.raw_of(stream.stream_id, content.len()).await,
        &content,
    );
    relay.stop().await;
}
