//! Agents that were ever seen, which are connected, and what they say of their sources.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use millstream_proto::v1::{self, AgentState};
use tokio::sync::watch;

/// The newest record of every agent. The writer changes records, the control call what an agent reports;
/// [`Agents::changes`] says that something did.
#[derive(Debug)]
pub(crate) struct Agents {
    known: Mutex<Known>,
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Known {
    /// As stored, with the version of the last change of it or of its report.
    records: BTreeMap<String, (u64, v1::Agent)>,
    /// Of agents that take commands, or did: also before their first session.
    reports: BTreeMap<String, Report>,
}

/// What an agent says of itself; not stored.
#[derive(Debug, Default)]
struct Report {
    is_attached: bool,
    sources: Vec<v1::SourceStatus>,
}

impl Known {
    /// The record with what the agent reports.
    fn with_report(&self, record: &v1::Agent) -> v1::Agent {
        let mut agent = record.clone();
        if let Some(report) = self.reports.get(&agent.agent_id) {
            agent.is_attached = report.is_attached;
            agent.sources.clone_from(&report.sources);
        }
        agent
    }
}

impl Agents {
    /// Agents that were connected when the relay stopped are away until they come back.
    pub(crate) fn new(records: Vec<v1::Agent>) -> Self {
        let records = records
            .into_iter()
            .map(|mut agent| {
                agent.state = AgentState::Away.into();
                (agent.agent_id.clone(), (0, agent))
            })
            .collect();
        Self {
            known: Mutex::new(Known {
                records,
                reports: BTreeMap::new(),
            }),
            version: watch::channel(0).0,
        }
    }

    pub(crate) fn put(&self, agent: v1::Agent) {
        self.version.send_modify(|version| {
            *version += 1;
            self.lock()
                .records
                .insert(agent.agent_id.clone(), (*version, agent));
        });
    }

    /// The agent takes commands, and this is how its sources are.
    pub(crate) fn set_attached(&self, agent_id: &str, sources: Vec<v1::SourceStatus>) {
        let report = Report {
            is_attached: true,
            sources,
        };
        self.change_report(agent_id, |current| *current = report);
    }

    /// The agent takes no commands any more; what it said of its sources last stays.
    pub(crate) fn set_detached(&self, agent_id: &str) {
        self.change_report(agent_id, |current| current.is_attached = false);
    }

    fn change_report(&self, agent_id: &str, change: impl FnOnce(&mut Report)) {
        self.version.send_modify(|version| {
            *version += 1;
            let mut known = self.lock();
            change(known.reports.entry(agent_id.to_owned()).or_default());
            if let Some((changed, _)) = known.records.get_mut(agent_id) {
                *changed = *version;
            }
        });
    }

    /// The stored record.
    pub(crate) fn get(&self, agent_id: &str) -> Option<v1::Agent> {
        self.lock().records.get(agent_id).map(|(_, agent)| agent.clone())
    }

    /// The record with what the agent reports.
    pub(crate) fn shown(&self, agent_id: &str) -> Option<v1::Agent> {
        let known = self.lock();
        let (_, record) = known.records.get(agent_id)?;
        Some(known.with_report(record))
    }

    /// Agents that changed after the version, by host name, then id, with what they report.
    pub(crate) fn changed_after(&self, version: Option<u64>) -> Vec<v1::Agent> {
        let known = self.lock();
        let mut agents: Vec<v1::Agent> = known
            .records
            .values()
            .filter(|(changed, _)| version.is_none_or(|version| *changed > version))
            .map(|(_, agent)| known.with_report(agent))
            .collect();
        agents.sort_by(|a, b| (&a.host, &a.agent_id).cmp(&(&b.host, &b.agent_id)));
        agents
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Every change is complete before anything that could panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
