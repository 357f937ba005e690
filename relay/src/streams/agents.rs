//! Agents that were ever seen, and which are connected.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use millstream_proto::v1::{self, AgentState};
use tokio::sync::watch;

/// The newest record of every agent. The writer changes it; [`Agents::changes`] says that something did.
#[derive(Debug)]
pub(crate) struct Agents {
    by_id: Mutex<BTreeMap<String, (u64, v1::Agent)>>,
    version: watch::Sender<u64>,
}

impl Agents {
    /// Agents that were connected when the relay stopped are away until they come back.
    pub(crate) fn new(records: Vec<v1::Agent>) -> Self {
        let by_id = records
            .into_iter()
            .map(|mut agent| {
                agent.state = AgentState::Away.into();
                (agent.agent_id.clone(), (0, agent))
            })
            .collect();
        Self {
            by_id: Mutex::new(by_id),
            version: watch::channel(0).0,
        }
    }

    pub(crate) fn put(&self, agent: v1::Agent) {
        self.version.send_modify(|version| {
            *version += 1;
            self.by_id
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(agent.agent_id.clone(), (*version, agent));
        });
    }

    pub(crate) fn get(&self, agent_id: &str) -> Option<v1::Agent> {
        let by_id = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        by_id.get(agent_id).map(|(_, agent)| agent.clone())
    }

    /// Agents that changed after the version, by host name, then id.
    pub(crate) fn changed_after(&self, version: Option<u64>) -> Vec<v1::Agent> {
        let mut agents: Vec<v1::Agent> = self
            .by_id
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .filter(|(changed, _)| version.is_none_or(|version| *changed > version))
            .map(|(_, agent)| agent.clone())
            .collect();
        agents.sort_by(|a, b| (&a.host, &a.agent_id).cmp(&(&b.host, &b.agent_id)));
        agents
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}
