//! What somebody may do in principle; on which streams is the scope's matter.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A token or a session has exactly one. Operators may what viewers may, admins what operators may; agents
/// may only send, and nobody else may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sends the streams of its own host.
    Agent,
    /// Reads.
    Viewer,
    /// Reads, starts and stops builds.
    Operator,
    /// All of that, and reads the audit.
    Admin,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Agent, Self::Viewer, Self::Operator, Self::Admin];

    /// Whether somebody with this role may do what needs `needed`.
    #[must_use]
    pub fn covers(self, needed: Self) -> bool {
        match needed {
            Self::Agent => self == Self::Agent,
            Self::Viewer => self != Self::Agent,
            Self::Operator => matches!(self, Self::Operator | Self::Admin),
            Self::Admin => self == Self::Admin,
        }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The text is no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no role; there are agent, viewer, operator and admin")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_covers_itself_and_what_is_below_it_but_sending_is_for_agents_alone() {
        let covered = |role: Role| {
            let names = Role::ALL.into_iter().filter(|needed| role.covers(*needed));
            names.map(Role::name).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(covered(Role::Agent), "agent");
        assert_eq!(covered(Role::Viewer), "viewer");
        assert_eq!(covered(Role::Operator), "viewer operator");
        assert_eq!(covered(Role::Admin), "viewer operator admin");
    }

    #[test]
    fn a_role_is_parsed_from_its_own_name_only() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().unwrap_err().to_string().contains("viewer"));
    }
}
