//! What can go wrong, and how often.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    AgentKilled,
    AgentStopped,
    RelayKilled,
    RelayStopped,
    BothKilled,
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
            0..22 => Self::AgentKilled,
            22..30 => Self::AgentStopped,
            30..50 => Self::RelayKilled,
            50..58 => Self::RelayStopped,
            58..68 => Self::BothKilled,
            68..76 => Self::AgentsCut,
            76..84 => Self::ReadersCut,
            84..92 => Self::AgentsReset,
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
            Self::AgentsCut => "connections of agents reset",
            Self::ReadersCut => "connections of subscribers reset",
            Self::AgentsReset => "connections of agents reset in the middle of a block",
            Self::AgentsStalled => "network of agents stalled",
            Self::AgentsSlow => "network of agents slow",
            Self::AgentsRefused => "connections of agents refused",
        })
    }
}
