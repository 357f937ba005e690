//! The agent as a library in a test, and as the real binary.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use millstream_agent::agent::{self, AgentConfig};
use millstream_agent::config::Settings;
use millstream_agent::config::cli::GlobalArgs;
use millstream_agent::control::Desk;
use millstream_agent::control::commands::Commands;
use millstream_agent::health::HealthBoard;
use millstream_agent::runs::Runs;
use millstream_agent::uplink::UplinkConfig;
use millstream_dial::Credentials;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// An agent in this process.
pub struct RunningAgent {
    stop: CancellationToken,
    task: JoinSet<()>,
    /// Removed when the agent is.
    _data: tempfile::TempDir,
}

impl RunningAgent {
    /// Starts with the sources of a configuration file's text.
    pub fn start(relay: &str, agent_id: &str, config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.toml");
        std::fs::write(&path, config).unwrap();
        let args = GlobalArgs {
            config: Some(path),
            ..GlobalArgs::default()
        };
        let settings = Settings::load(&args).unwrap();
        let uplink = UplinkConfig {
            relays: vec![relay.to_owned()],
            credentials: Credentials::default(),
            agent_id: agent_id.to_owned(),
            host: "test-host".to_owned(),
            labels: BTreeMap::new(),
            compress_level: settings.compress_level,
        };
        let data = tempfile::tempdir().unwrap();
        let program = env!("CARGO_BIN_EXE_millstream-agent").into();
        let runs = Runs::open(data.path(), program).unwrap();
        let stop = CancellationToken::new();
        let masks = settings.masks();
        let mut task = JoinSet::new();
        task.spawn(agent::run(
            AgentConfig {
                uplink,
                sources: settings.sources,
                runs,
                edge: settings.edge,
                desk: Desk::new(settings.control, Commands::open(data.path()).unwrap(), masks),
                health: HealthBoard::default(),
            },
            stop.clone(),
        ));
        Self {
            stop,
            task,
            _data: data,
        }
    }

    /// Stops in order: what was read is delivered.
    pub async fn stop(mut self) {
        self.stop.cancel();
        self.task.join_next().await.unwrap().unwrap();
    }

    /// Stops as `kill -9` would: nothing more is sent.
    pub async fn kill(mut self) {
        self.task.shutdown().await;
    }
}

/// The real binary, with a data directory of its own.
pub fn binary(relay: &str, data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream-agent"));
    command
        .env_remove("MILLSTREAM_CONFIG")
        .env("MILLSTREAM_RELAY", relay)
        .env("MILLSTREAM_DATA_DIR", data_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// A `file` source on one path or glob.
pub fn file_config(path: &Path, more: &str) -> String {
    format!("[sources.logs]\nplugin = \"file\"\npaths = [{path:?}]\nrotate_wait = \"100ms\"\n{more}\n")
}
