//! A relay, plugins in a directory, and the real agent that runs them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use millstream_proto::v1;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::task::JoinSet;

use super::agent::binary;
use super::{FakeRelay, Listening, PATIENCE, StoredStream};

/// A relay, a directory with plugins, and an agent that keeps its data over restarts.
pub struct Stage {
    pub relay: FakeRelay,
    pub listening: Listening,
    pub directory: tempfile::TempDir,
    pub child: Option<Child>,
    pub log: Arc<Mutex<Vec<String>>>,
    log_changed: Arc<tokio::sync::Notify>,
    readers: JoinSet<()>,
}

impl Stage {
    pub async fn new() -> Self {
        let relay = FakeRelay::new();
        let listening = relay.listen().await;
        let directory = tempfile::tempdir().unwrap();
        for name in ["plugins", "bin"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        Self {
            relay,
            listening,
            directory,
            child: None,
            log: Arc::default(),
            log_changed: Arc::default(),
            readers: JoinSet::new(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// An executable `millstream-source-NAME` that describes itself and then does what `body` says.
    pub fn protocol_plugin(&self, name: &str, can_resume: bool, settings: &str, body: &str) {
        let description = format!(
            r#"{{"name":"{name}","version":"1","protocol":1,"can_resume":{can_resume},"settings":{{{settings}}}}}"#
        );
        let script =
            format!("#!/bin/sh\n[ \"$1\" = --describe ] && {{ echo '{description}'; exit; }}\n{body}\n");
        self.executable(&format!("plugins/millstream-source-{name}"), &script);
    }

    pub fn executable(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    pub fn config(&self, sources: &str) {
        let plugins = self.path("plugins");
        let text = format!("plugin_path = [{plugins:?}]\n{sources}\n");
        std::fs::write(self.path("agent.toml"), text).unwrap();
    }

    pub fn start(&mut self) {
        let path = std::env::var("PATH").unwrap();
        let mut child = binary(&self.listening.url(), &self.path("data"))
            .args(["--config", self.path("agent.toml").to_str().unwrap()])
            // Programs of the test's own win over those of the machine.
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (log, changed) = (Arc::clone(&self.log), Arc::clone(&self.log_changed));
        self.readers.spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                log.lock().unwrap().push(line);
                changed.notify_waiters();
            }
        });
        self.child = Some(child);
    }

    pub fn pid(&self) -> Pid {
        let id = self.child.as_ref().unwrap().id().unwrap();
        Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
    }

    pub async fn kill(&mut self) {
        self.child.take().unwrap().kill().await.unwrap();
    }

    pub async fn stop(&mut self) -> std::process::ExitStatus {
        rustix::process::kill_process(self.pid(), Signal::TERM).unwrap();
        let mut child = self.child.take().unwrap();
        tokio::time::timeout(PATIENCE, child.wait())
            .await
            .unwrap()
            .unwrap()
    }

    /// Waits until so many lines of the agent's log have all of the words.
    pub async fn log_says(&self, words: &[&str], times: usize) -> Vec<String> {
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                let changed = self.log_changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let found: Vec<String> = self
                    .log
                    .lock()
                    .unwrap()
                    .iter()
                    .filter(|line| words.iter().all(|word| line.contains(word)))
                    .cloned()
                    .collect();
                if found.len() >= times {
                    return found;
                }
                changed.await;
            }
        });
        match waited.await {
            Ok(found) => found,
            Err(_) => panic!("{words:?} not {times} times in {:#?}", self.log.lock().unwrap()),
        }
    }

    pub async fn stream_until(
        &self,
        instance: &str,
        condition: impl Fn(&StoredStream) -> bool,
    ) -> StoredStream {
        let found = self.relay.until(instance, |relay| {
            relay.stream(instance).filter(|stream| condition(stream))
        });
        found.await
    }
}

pub fn texts(stream: &StoredStream) -> Vec<String> {
    let lines = stream
        .lines
        .iter()
        .filter(|line| line.channel != v1::Channel::Notice);
    lines
        .map(|line| String::from_utf8_lossy(&line.text).into_owned())
        .collect()
}

pub fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../plugins")
        .join(name)
}

pub fn have(program: &str) -> bool {
    let have = std::process::Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !have {
        eprintln!("not run: this machine has no {program}");
    }
    have
}

/// Processes whose command line holds the text.
pub fn processes_with(text: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&command).contains(text) {
            found.push(pid);
        }
    }
    found
}

pub async fn until_gone(text: &str) {
    until(text, <[i32]>::is_empty).await;
}

pub async fn until_there(text: &str) {
    until(text, |pids| !pids.is_empty()).await;
}

/// Until `is_so` is true of the processes whose command line contains `text`.
async fn until(text: &str, is_so: fn(&[i32]) -> bool) {
    let look = async {
        while !is_so(&processes_with(text)) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look)
        .await
        .unwrap_or_else(|_| panic!("with {text} in their command line: {:?}", processes_with(text)));
}
