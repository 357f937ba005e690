//! Who is calling, and what they may: decided once when a call begins, and withdrawn while it runs.
//!
//! A call's [`Access`] travels in the request's extensions. Services ask it for the selector to use and
//! whether a stream may be seen; no service looks at roles or tokens. What it allows never changes: other
//! rights are another `Access`, and the calls of the old one are ended.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use millstream_proto::v1;
use tonic::{Code, Status};

use super::cut::{Call, Calls};
use super::{Role, Rule};
use crate::clock::now_unix_us;
use crate::own_stream::RELAY_AGENT_ID;
use crate::selector::{Selector, SelectorError};

/// Who somebody is and what they may do where.
#[derive(Debug)]
pub struct Access {
    who: String,
    /// `None`: nobody is asked who they are, and everybody may everything.
    role: Option<Role>,
    /// As it was given; empty: every stream.
    scope_text: String,
    /// The scope, and without the relay's own streams for all but admins.
    scope: Selector,
    last_used_unix_us: AtomicI64,
    calls: Mutex<Calls>,
}

/// What a caller is told when they may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) message: String,
    /// Who it was, when that was known already.
    pub(crate) who: Option<String>,
}

impl Refusal {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            who: None,
        }
    }
}

impl Access {
    /// Rights of a role within a scope.
    ///
    /// # Errors
    /// The scope is no selector.
    pub fn new(who: impl Into<String>, role: Role, scope: &str) -> Result<Arc<Self>, SelectorError> {
        let selector = Selector::parse(scope)?;
        let selector = match role {
            Role::Admin => selector,
            Role::Agent | Role::Viewer | Role::Operator => selector.and(&not_of_the_relay()),
        };
        Ok(Arc::new(Self::with(who.into(), Some(role), scope, selector)))
    }

    /// Everything, for everybody: where nobody is asked who they are.
    #[must_use]
    pub fn unrestricted(who: impl Into<String>) -> Arc<Self> {
        Arc::new(Self::with(who.into(), None, "", Selector::default()))
    }

    fn with(who: String, role: Option<Role>, scope: &str, selector: Selector) -> Self {
        Self {
            who,
            role,
            scope_text: scope.trim().to_owned(),
            scope: selector,
            last_used_unix_us: AtomicI64::new(0),
            calls: Mutex::default(),
        }
    }

    /// The same rights with calls of their own: what ends one of them leaves the other as it is.
    pub(crate) fn for_browser(&self) -> Arc<Self> {
        let who = format!("{} in a browser", self.who);
        Arc::new(Self::with(who, self.role, &self.scope_text, self.scope.clone()))
    }

    /// Why it was withdrawn; `None`: it was not.
    pub(crate) fn withdrawn(&self) -> Option<&'static str> {
        self.lock().ended()
    }

    /// Who it is, for people: the audit and `Command.principal`.
    #[must_use]
    pub fn who(&self) -> &str {
        &self.who
    }

    #[must_use]
    pub fn role(&self) -> Option<Role> {
        self.role
    }

    /// The scope as it was given; empty: every stream.
    #[must_use]
    pub fn scope(&self) -> &str {
        &self.scope_text
    }

    /// The access that the layer in front put into the request.
    ///
    /// # Errors
    /// There is none: the service was reached around the layer, which is refused.
    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Result<Arc<Self>, Status> {
        found(request.extensions().get())
    }

    /// The same for a request that is not of tonic's own type.
    ///
    /// # Errors
    /// As [`Access::of`].
    pub(crate) fn in_extensions(extensions: &http::Extensions) -> Result<Arc<Self>, Status> {
        found(extensions.get())
    }

    /// Whether a call with this rule may be made.
    pub(crate) fn check(&self, rule: Rule) -> Result<(), Refusal> {
        let Some(role) = self.role else {
            return Ok(());
        };
        let denied = |message: String| {
            Err(Refusal {
                who: Some(self.who.clone()),
                ..Refusal::new(Code::PermissionDenied, message)
            })
        };
        match rule {
            Rule::Needs(needed) | Rule::NeedsWithoutScope(needed) if !role.covers(needed) => denied(format!(
                "this needs the role {needed}; {} has the role {role}",
                self.who
            )),
            Rule::NeedsWithoutScope(_) if !self.scope_text.is_empty() => denied(format!(
                "this is about the whole relay, and {} may only see {}",
                self.who, self.scope_text
            )),
            Rule::Open | Rule::OpenToOwnPages | Rule::Needs(_) | Rule::NeedsWithoutScope(_) => Ok(()),
        }
    }

    /// A caller's selector within the scope.
    ///
    /// # Errors
    /// The text is no selector.
    pub(crate) fn selector(&self, text: &str) -> Result<Selector, SelectorError> {
        Ok(Selector::parse(text)?.and(&self.scope))
    }

    /// Whether a stream with these labels exists for the caller. For agents: whether they may send it.
    pub(crate) fn sees(&self, labels: &BTreeMap<String, String>) -> bool {
        self.scope.matches(labels)
    }

    /// Whether an agent exists for the caller by its own labels; a stream that they may see shows it too.
    pub(crate) fn sees_agent(&self, agent: &v1::Agent) -> bool {
        let mut labels = agent.labels.clone();
        labels.insert("agent".to_owned(), agent.agent_id.clone());
        labels.insert("host".to_owned(), agent.host.clone());
        self.scope.matches(&labels)
    }

    /// Whether a source of an agent exists for the caller.
    pub(crate) fn sees_source(&self, agent: &v1::Agent, source: &str) -> bool {
        let mut labels = agent.labels.clone();
        labels.insert("agent".to_owned(), agent.agent_id.clone());
        labels.insert("host".to_owned(), agent.host.clone());
        labels.insert("source".to_owned(), source.to_owned());
        self.scope.matches(&labels)
    }

    /// Leaves of what an agent reports the sources that exist for the caller.
    pub(crate) fn hide_sources(&self, agent: &mut v1::Agent) {
        if self.sees_everything() {
            return;
        }
        let mut sources = std::mem::take(&mut agent.sources);
        sources.retain(|status| self.sees_source(agent, &status.source));
        agent.sources = sources;
    }

    /// Whether streams of this agent and host can be within the scope; which of them are is known when their
    /// labels are.
    pub(crate) fn may_send_as(&self, agent_id: &str, host: &str) -> bool {
        let labels = [("agent", agent_id), ("host", host)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        self.scope.about(&["agent", "host"]).matches(&labels)
    }

    /// Whether anything is hidden from the caller at all.
    pub(crate) fn sees_everything(&self) -> bool {
        self.scope_text.is_empty()
    }

    /// Notes that it was used now.
    pub(crate) fn touch(&self) {
        self.last_used_unix_us.store(now_unix_us(), Ordering::Relaxed);
    }

    /// Last use in this process, microseconds since the Unix epoch; 0: none.
    pub(crate) fn last_used_unix_us(&self) -> i64 {
        self.last_used_unix_us.load(Ordering::Relaxed)
    }

    /// Registers a call, which ends when the access does.
    pub(crate) fn begin(self: &Arc<Self>) -> Call {
        Call::begin(Arc::clone(self))
    }

    /// Ends every call that runs and refuses every later one; the first reason counts.
    pub(crate) fn withdraw(&self, reason: &'static str) {
        self.lock().end(Code::Unauthenticated, reason);
    }

    /// The same for callers who may well have these rights still, and find out by calling again.
    pub(crate) fn withdraw_for_now(&self, reason: &'static str) {
        self.lock().end(Code::Unavailable, reason);
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn found(access: Option<&Arc<Access>>) -> Result<Arc<Access>, Status> {
    access
        .cloned()
        .ok_or_else(|| Status::internal("the call was not checked; this is a bug of the relay"))
}

/// What the relay writes itself (the audit) is for admins.
fn not_of_the_relay() -> Selector {
    Selector::parse(&format!("agent!=\"{RELAY_AGENT_ID}\"")).expect("it is a selector")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn the_relays_own_streams_exist_for_admins_and_where_nobody_is_asked() {
        let audit = labels(&[("agent", RELAY_AGENT_ID), ("source", "audit")]);
        for role in [Role::Agent, Role::Viewer, Role::Operator] {
            let access = Access::new("x", role, "").unwrap();
            assert!(!access.sees(&audit), "{role}");
            assert!(access.sees(&labels(&[("agent", "a")])));
        }
        assert!(Access::new("x", Role::Admin, "").unwrap().sees(&audit));
        assert!(!Access::new("x", Role::Admin, "team=web").unwrap().sees(&audit));
        assert!(Access::unrestricted("x").sees(&audit));
    }

    #[test]
    fn a_selector_cannot_reach_beyond_the_scope() {
        let access = Access::new("x", Role::Viewer, "team=web,host=build-*").unwrap();
        let inside = labels(&[("team", "web"), ("host", "build-1"), ("agent", "a")]);
        let outside = labels(&[("team", "core"), ("host", "build-1"), ("agent", "a")]);
        for selector in [
            "",
            "host=build-1",
            "team in (web,core)",
            "team!=nobody",
            "agent=a",
        ] {
            let selector = access.selector(selector).unwrap();
            assert!(selector.matches(&inside), "{selector}");
            assert!(!selector.matches(&outside), "{selector}");
        }
        assert!(access.selector("=").is_err());
    }

    #[test]
    fn an_agent_may_send_as_its_own_host_only_whatever_else_its_scope_asks_for() {
        let access = Access::new("x", Role::Agent, "host=build-7,source in (cargo,npm)").unwrap();
        assert!(access.may_send_as("a", "build-7"));
        assert!(!access.may_send_as("a", "build-8"));
        assert!(!access.may_send_as(RELAY_AGENT_ID, "build-7"));
        let stream = |source| labels(&[("agent", "a"), ("host", "build-7"), ("source", source)]);
        assert!(access.sees(&stream("npm")));
        assert!(!access.sees(&stream("make")));
    }

    #[test]
    fn what_concerns_the_whole_relay_needs_the_whole_scope() {
        let rule = Rule::NeedsWithoutScope(Role::Viewer);
        assert_eq!(Access::new("x", Role::Viewer, "").unwrap().check(rule), Ok(()));
        let narrow = Access::new("x", Role::Admin, "team=web").unwrap();
        assert_eq!(narrow.check(rule).unwrap_err().code, Code::PermissionDenied);
    }
}
