//! Who is let in: what an address demands, and what is given up when that is not wanted.

use std::net::SocketAddr;

/// What the settings say about it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AccessWishes {
    pub(super) auth: Option<bool>,
    pub(super) insecure_no_auth: bool,
    pub(super) insecure_no_tls: bool,
    /// There is a way to log in besides tokens ([oidc] or [trusted_proxy]).
    pub(super) has_logins: bool,
}

/// Who is let in, and what was given up on purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessConfig {
    /// The address can be reached from other machines.
    pub is_reachable: bool,
    /// Every caller needs a token.
    pub asks: bool,
    /// Set by `--insecure-no-tls` where TLS would be needed.
    pub gives_up_tls: bool,
}

/// What an address demands and does not get.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    #[error(
        "{0} can be reached by others, and there is no TLS: set tls_cert and tls_key (`millstream-relay certs init` and \
         `certs issue` make them for a trial), or listen on 127.0.0.1 and put a proxy with TLS in front, or give up that nobody on the way reads and changes logs and copies tokens, with --insecure-no-tls"
    )]
    NoTls(SocketAddr),
    #[error(
        "{0} can be reached by others, and auth = false: remove that and make tokens (`millstream-relay token \
         create`), or give up that anybody is asked who they are, with --insecure-no-auth"
    )]
    NoAuth(SocketAddr),
    #[error("--insecure-no-auth and auth = true contradict each other; remove one of them")]
    Contradiction,
    #[error(
        "[oidc] and [trusted_proxy] say who people are, and auth = false or --insecure-no-auth that nobody is asked; \
         remove one of them"
    )]
    LoginsForNobody,
}

impl AccessConfig {
    pub(super) fn new(listen: SocketAddr, has_tls: bool, wishes: &AccessWishes) -> Result<Self, AccessError> {
        let is_reachable = !listen.ip().is_loopback();
        if wishes.insecure_no_auth && wishes.auth == Some(true) {
            return Err(AccessError::Contradiction);
        }
        if wishes.has_logins && (wishes.insecure_no_auth || wishes.auth == Some(false)) {
            return Err(AccessError::LoginsForNobody);
        }
        if is_reachable && wishes.auth == Some(false) && !wishes.insecure_no_auth {
            return Err(AccessError::NoAuth(listen));
        }
        if is_reachable && !has_tls && !wishes.insecure_no_tls {
            return Err(AccessError::NoTls(listen));
        }
        Ok(Self {
            is_reachable,
            asks: wishes
                .auth
                .unwrap_or(wishes.has_logins || (is_reachable && !wishes.insecure_no_auth)),
            gives_up_tls: is_reachable && !has_tls,
        })
    }

    /// What is given up, a sentence each: said at every start and shown in the browser.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.is_reachable && !self.asks {
            warnings.push(
                "authentication is given up (--insecure-no-auth): everybody who reaches this relay can read every log, \
                 send logs in any host's name, and act on build hosts that allow it"
                    .to_owned(),
            );
        }
        if self.gives_up_tls {
            let tokens = if self.asks { " and copy tokens" } else { "" };
            warnings.push(format!(
                "TLS is given up (--insecure-no-tls): whoever is on the way can read and change logs{tokens}"
            ));
        }
        warnings
    }

    /// Who may do what, a line each.
    pub(super) fn explain(&self, knows_people: bool) -> String {
        let mut lines = String::new();
        let mut say = |name: &str, words: &str| lines.push_str(&format!("{name:<10}{words}\n"));
        if self.asks {
            let or_else = if knows_people {
                ", or is one of the people below"
            } else {
                ""
            };
            say(
                "callers",
                &format!(
                    "everybody needs a token (`millstream-relay token list` shows which there are){or_else}"
                ),
            );
            say(
                "",
                "without one: the login page, whether it is alive (/healthz, /readyz, gRPC health); no log, no name",
            );
            say(
                "",
                "agent: may send streams within the token's scope, and read nothing",
            );
            say(
                "",
                "viewer: may read streams within the token's scope; metrics only without a scope",
            );
            say(
                "",
                "operator: the same, and start and stop builds; admin: the same, and read the audit",
            );
        } else if self.is_reachable {
            say(
                "callers",
                "everybody who reaches it may read, send and act; nobody is asked for a token",
            );
        } else {
            say(
                "callers",
                "every program of every user of this machine may read, send and act; nobody is asked for a token",
            );
        }
        for warning in self.warnings() {
            say("WARNING", &warning);
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(
        listen: &str,
        auth: Option<bool>,
        no_auth: bool,
        no_tls: bool,
    ) -> Result<AccessConfig, AccessError> {
        let wishes = AccessWishes {
            auth,
            insecure_no_auth: no_auth,
            insecure_no_tls: no_tls,
            has_logins: false,
        };
        AccessConfig::new(listen.parse().unwrap(), false, &wishes)
    }

    const LOCAL: &str = "127.0.0.1:1";
    const OPEN: &str = "0.0.0.0:1";

    #[test]
    fn loopback_needs_nothing_and_asks_nobody_unless_told_to() {
        let config = access(LOCAL, None, false, false).unwrap();
        assert!(!config.asks && config.warnings().is_empty());
        assert!(config.explain(false).contains("every user of this machine"));
        let config = access("[::1]:1", Some(true), false, false).unwrap();
        assert!(config.asks && config.warnings().is_empty());
    }

    #[test]
    fn any_other_address_demands_tls_and_tokens_or_the_word_that_gives_it_up() {
        assert!(matches!(
            access(OPEN, None, false, false),
            Err(AccessError::NoTls(_))
        ));
        assert!(matches!(
            access(OPEN, None, true, false),
            Err(AccessError::NoTls(_))
        ));
        assert!(matches!(
            access("10.0.0.1:1", Some(false), false, true),
            Err(AccessError::NoAuth(_))
        ));
        assert_eq!(
            access(OPEN, Some(true), true, true),
            Err(AccessError::Contradiction)
        );
        let tokens = access(OPEN, None, false, true).unwrap();
        assert!(tokens.asks);
        assert_eq!(tokens.warnings().len(), 1);
        assert!(tokens.warnings()[0].contains("--insecure-no-tls"));
        let tls = AccessConfig::new(OPEN.parse().unwrap(), true, &AccessWishes::default()).unwrap();
        assert!(tls.asks && tls.warnings().is_empty());
        let nothing = access(OPEN, None, true, true).unwrap();
        assert!(!nothing.asks);
        assert_eq!(nothing.warnings().len(), 2);
        assert!(nothing.explain(false).contains("everybody who reaches it"));
    }

    #[test]
    fn who_configures_logins_wants_everybody_to_be_asked() {
        let with_logins = |auth, insecure_no_auth| {
            let wishes = AccessWishes {
                auth,
                insecure_no_auth,
                has_logins: true,
                ..AccessWishes::default()
            };
            AccessConfig::new(LOCAL.parse().unwrap(), false, &wishes)
        };
        assert!(with_logins(None, false).unwrap().asks, "also on loopback");
        assert_eq!(with_logins(Some(false), false), Err(AccessError::LoginsForNobody));
        assert_eq!(with_logins(None, true), Err(AccessError::LoginsForNobody));
    }
}
