//! How every source is: what the agent knows, for whoever reports it (`AgentService.Attach`).
//!
//! The supervisor says when a source starts, waits and is done; a plugin's source adds what goes on inside. One
//! small map behind a mutex that is held for an update only; a version number tells watchers to look again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use millstream_proto::v1::{SourceState, SourceStatus};
use tokio::sync::watch;

/// One source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceHealth {
    pub plugin: String,
    pub state: SourceState,
    /// A sentence for people; may be empty.
    pub message: String,
    /// How often its process was started again.
    pub restarts: u64,
    /// Lines of output that no plugin may print, and were not taken.
    pub bad_lines: u64,
}

/// Health of every source; cheap to clone.
#[derive(Debug, Clone)]
pub struct HealthBoard {
    sources: Arc<Mutex<BTreeMap<String, SourceHealth>>>,
    version: Arc<watch::Sender<u64>>,
}

impl Default for HealthBoard {
    fn default() -> Self {
        Self {
            sources: Arc::default(),
            version: Arc::new(watch::channel(0).0),
        }
    }
}

impl HealthBoard {
    /// Sets what the supervisor knows.
    pub fn set(&self, source: &str, plugin: &str, state: SourceState, message: String) {
        self.update(source, |health| {
            plugin.clone_into(&mut health.plugin);
            health.state = state;
            health.message = message;
        });
    }

    /// Changes one source's health.
    pub fn update(&self, source: &str, change: impl FnOnce(&mut SourceHealth)) {
        let mut sources = self.sources.lock().expect("no code panics while it holds this");
        let health = sources.entry(source.to_owned()).or_insert_with(|| SourceHealth {
            plugin: String::new(),
            state: SourceState::Unspecified,
            message: String::new(),
            restarts: 0,
            bad_lines: 0,
        });
        let before = health.clone();
        change(health);
        let changed = *health != before;
        drop(sources);
        if changed {
            self.version.send_modify(|version| *version += 1);
        }
    }

    #[must_use]
    pub fn source(&self, source: &str) -> Option<SourceHealth> {
        let sources = self.sources.lock().expect("no code panics while it holds this");
        sources.get(source).cloned()
    }

    /// Every source as the protocol reports it. What the agent allows on it, and its command, are others' to add.
    #[must_use]
    pub fn statuses(&self) -> Vec<SourceStatus> {
        let sources = self.sources.lock().expect("no code panics while it holds this");
        let status = |(source, health): (&String, &SourceHealth)| {
            let counted = [
                (health.restarts, "restarts"),
                (health.bad_lines, "bad lines of output"),
            ];
            let counts: Vec<String> = counted
                .into_iter()
                .filter(|(count, _)| *count > 0)
                .map(|(count, what)| format!("{count} {what}"))
                .collect();
            let message = match (health.message.as_str(), counts.is_empty()) {
                (message, true) => message.to_owned(),
                ("", false) => counts.join(", "),
                (message, false) => format!("{message} ({})", counts.join(", ")),
            };
            SourceStatus {
                source: source.clone(),
                plugin: health.plugin.clone(),
                state: health.state.into(),
                message,
                ..SourceStatus::default()
            }
        };
        sources.iter().map(status).collect()
    }

    /// Changes whenever a source's health does.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_wakes_watchers_and_no_change_does_not() {
        let board = HealthBoard::default();
        let mut watcher = board.watch();
        board.set("logs", "docker", SourceState::Running, String::new());
        assert!(watcher.has_changed().unwrap());
        watcher.mark_unchanged();
        board.set("logs", "docker", SourceState::Running, String::new());
        assert!(!watcher.has_changed().unwrap());
        board.update("logs", |health| {
            health.state = SourceState::Retrying;
            health.message = "exit status 3".to_owned();
            health.restarts = 2;
            health.bad_lines = 1;
        });
        let statuses = board.statuses();
        assert_eq!(statuses[0].state(), SourceState::Retrying);
        assert_eq!(
            statuses[0].message,
            "exit status 3 (2 restarts, 1 bad lines of output)"
        );
    }
}
