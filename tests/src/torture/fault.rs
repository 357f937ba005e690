//! What can go wrong, and how often.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    AgentKilled,
    AgentStopped,
    RelayKilled,
    RelayStopped,
    BothKilled,
    /// The process that holds a run.
    SupervisorKilled,
    SupervisorAndAgentKilled,
    AgentsCut,
    ReadersCut,
    /// In the middle of whatever the agents were sending.
    AgentsReset,
    AgentsStalled,
    AgentsSlow,
    AgentsRefused,
}

impl Fault {
    pub fn choose(random: &mut fastrand::Rng) -> Self {
        match random.u8(..100) {
            0..20 => Self::AgentKilled,
            20..27 => Self::AgentStopped,
            27..44 => Self::RelayKilled,
            44..51 => Self::RelayStopped,
            51..60 => Self::BothKilled,
            60..68 => Self::SupervisorKilled,
            68..72 => Self::SupervisorAndAgentKilled,
            72..78 => Self::AgentsCut,
            78..85 => Self::ReadersCut,
            85..92 => Self::AgentsReset,
            92..95 => Self::AgentsStalled,
            95..97 => Self::AgentsSlow,
            _ => Self::AgentsRefused,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::AgentKilled => "agent `kill -9`ed",
            Self::AgentStopped => "agent stopped",
            Self::RelayKilled => "relay `kill -9`ed",
            Self::RelayStopped => "relay stopped",
            Self::BothKilled => "agent and relay `kill -9`ed",
            Self::SupervisorKilled => "supervisor of a run `kill -9`ed",
            Self::SupervisorAndAgentKilled => "supervisor and its agent `kill -9`ed",
            Self::AgentsCut => "connections of agents reset",
            Self::ReadersCut => "connections of subscribers reset",
            Self::AgentsReset => "connections of agents reset in the middle of a block",
            Self::AgentsStalled => "network of agents stalled",
            Self::AgentsSlow => "network of agents slow",
            Self::AgentsRefused => "connections of agents refused",
        })
    }
}
