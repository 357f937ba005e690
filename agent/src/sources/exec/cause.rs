//! What made a run start: who, and why, in words that stand in the run's facts.

use std::path::PathBuf;

/// The cause of one start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    AgentStart,
    /// The text of the schedule.
    Schedule(String),
    Changed(PathBuf),
    /// The restart policy, after a run that ended like this.
    Restart(String),
    /// A person or a program, through the relay.
    Person {
        principal: String,
        is_restart: bool,
    },
}

impl Cause {
    /// Who started the run.
    pub(super) fn started_by(&self) -> &str {
        match self {
            Self::Person { principal, .. } => principal,
            _ => "agent",
        }
    }

    /// Why.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::AgentStart => "the agent started".to_owned(),
            Self::Schedule(text) => format!("schedule {text}"),
            Self::Changed(path) => format!("{} changed", path.display()),
            Self::Restart(how) => format!("the run before {how}"),
            Self::Person {
                is_restart: false, ..
            } => "on demand".to_owned(),
            Self::Person { is_restart: true, .. } => "restarted on demand".to_owned(),
        }
    }
}
