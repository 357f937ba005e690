//! Who has how many calls open.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Arrival, Held, LimitReached, Limits};
use crate::auth::Access;
use crate::metrics::Metrics;

/// When a caller whose calls are too many is asked to come again: most calls that are over soon are over by then.
const WAIT: Duration = Duration::from_secs(5);

/// Calls that cost alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallKind {
    /// `Tail` and `Watch`: stay open for as long as somebody looks.
    Subscription,
    /// `Push` and `Attach`.
    Agent,
    /// `Search` and `Histogram`.
    Search,
    /// Everything that is over soon.
    Request,
}

impl CallKind {
    /// Of a gRPC method by its path.
    pub(crate) fn of_grpc(path: &str) -> Self {
        match path {
            "/millstream.v1.LogService/Tail"
            | "/millstream.v1.LogService/Watch"
            | "/grpc.health.v1.Health/Watch" => Self::Subscription,
            "/millstream.v1.IngestService/Push" | "/millstream.v1.AgentService/Attach" => Self::Agent,
            "/millstream.v1.LogService/Search" | "/millstream.v1.LogService/Histogram" => Self::Search,
            _ => Self::Request,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Subscription => "subscriptions",
            Self::Agent => "calls of agents",
            Self::Search => "searches",
            Self::Request => "requests",
        }
    }
}

/// Open calls, by kind.
type Counts = [u32; 4];

/// The one book of open calls.
#[derive(Debug)]
pub(crate) struct Ledger {
    limits: Limits,
    held: Arc<Held>,
    metrics: Arc<Metrics>,
    counts: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    in_all: Counts,
    /// Callers without an open call are not in it.
    callers: HashMap<Arc<str>, Counts>,
}

/// A call that is counted for as long as this lives.
#[derive(Debug)]
pub(crate) struct Permit {
    ledger: Arc<Ledger>,
    caller: Arc<str>,
    kind: CallKind,
}

impl Ledger {
    pub(crate) fn new(limits: Limits, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            held: Held::new(limits.max_request_bytes),
            limits,
            metrics,
            counts: Mutex::default(),
        })
    }

    /// What requests hold.
    pub(crate) fn held(&self) -> &Arc<Held> {
        &self.held
    }

    /// How a call's request has to arrive.
    pub(crate) fn arrival(&self, path: &str) -> Arrival {
        let is_session =
            CallKind::of_grpc(path) == CallKind::Agent || path.ends_with("/ServerReflectionInfo");
        if is_session {
            Arrival::Messages(self.limits.message_timeout())
        } else {
            Arrival::Whole(self.limits.request_timeout)
        }
    }

    /// One more call of a caller.
    pub(crate) fn begin(self: &Arc<Self>, kind: CallKind, caller: &str) -> Result<Permit, LimitReached> {
        let index = kind as usize;
        let (max_of_caller, max_in_all) = self.max(kind);
        let mut books = self.lock();
        let reached = |what: String, (key, value): (&'static str, u32)| {
            self.metrics.limits_reached_total.add(1);
            LimitReached {
                what,
                key,
                value: value.into(),
                wait: WAIT,
            }
        };
        let words = kind.words();
        let of_caller = books.callers.get(caller).map_or(0, |counts| counts[index]);
        if of_caller >= max_of_caller.1 {
            let what = format!("{of_caller} {words} of {caller} are open, as many as one caller may have");
            return Err(reached(what, max_of_caller));
        }
        let open = books.in_all[index];
        if let Some(max) = max_in_all.filter(|(_, max)| open >= *max) {
            let what = format!("{open} {words} are open, as many as this relay serves");
            return Err(reached(what, max));
        }
        books.in_all[index] += 1;
        let caller = match books.callers.get_key_value(caller) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::from(caller),
        };
        books.callers.entry(Arc::clone(&caller)).or_default()[index] += 1;
        Ok(Permit {
            ledger: Arc::clone(self),
            caller,
            kind,
        })
    }

    /// Key and value of a kind's limits: of one caller, and in all.
    fn max(&self, kind: CallKind) -> ((&'static str, u32), Option<(&'static str, u32)>) {
        let limits = &self.limits;
        match kind {
            CallKind::Subscription => (
                (
                    "max_subscriptions_per_caller",
                    limits.max_subscriptions_per_caller,
                ),
                Some(("max_subscriptions", limits.max_subscriptions)),
            ),
            CallKind::Agent => (
                ("max_agent_calls_per_caller", limits.max_agent_calls_per_caller),
                Some(("max_agent_calls", limits.max_agent_calls)),
            ),
            // In all they are counted where they are run.
            CallKind::Search => (("max_searches_per_caller", limits.max_searches_per_caller), None),
            CallKind::Request => (
                ("max_requests_per_caller", limits.max_requests_per_caller),
                Some(("max_requests", limits.max_requests)),
            ),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let index = self.kind as usize;
        let mut books = self.ledger.lock();
        books.in_all[index] -= 1;
        if let Some(counts) = books.callers.get_mut(&self.caller) {
            counts[index] -= 1;
            if *counts == Counts::default() {
                books.callers.remove(&self.caller);
            }
        }
    }
}

/// Whose calls are counted together: of whoever the token, session or certificate names; where nobody was asked, of
/// everybody at one address.
pub(crate) fn caller(access: Option<&Access>, address: Option<IpAddr>) -> String {
    match (access.filter(|access| access.role().is_some()), address) {
        (Some(access), _) => access.who().to_owned(),
        (None, Some(address)) => address.to_string(),
        (None, None) => "somebody unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Arc<Ledger> {
        let limits = Limits {
            max_subscriptions: 3,
            max_subscriptions_per_caller: 2,
            ..Limits::default()
        };
        Ledger::new(limits, Arc::default())
    }

    #[test]
    fn one_caller_does_not_take_what_is_for_all_and_gets_back_what_it_ends() {
        let ledger = ledger();
        let begin = |caller: &str| ledger.begin(CallKind::Subscription, caller);
        let first = begin("a").unwrap();
        let _second = begin("a").unwrap();
        let refused = begin("a").unwrap_err();
        assert_eq!(refused.key, "max_subscriptions_per_caller");
        let words = refused.to_string();
        for part in [
            "2 subscriptions of a",
            "limits.max_subscriptions_per_caller = 2",
            "in 5 s",
        ] {
            assert!(words.contains(part), "{words}");
        }
        let _other = begin("b").unwrap();
        assert_eq!(begin("b").unwrap_err().key, "max_subscriptions");
        drop(first);
        assert!(begin("b").is_ok());
    }

    #[test]
    fn kinds_are_counted_apart_and_nobody_is_remembered() {
        let ledger = ledger();
        let held: Vec<_> = [
            CallKind::Subscription,
            CallKind::Agent,
            CallKind::Search,
            CallKind::Request,
        ]
        .into_iter()
        .flat_map(|kind| [kind, kind])
        .map(|kind| ledger.begin(kind, "a").unwrap())
        .collect();
        assert_eq!(ledger.lock().in_all, [2; 4]);
        drop(held);
        assert_eq!(ledger.lock().in_all, [0; 4]);
        assert!(ledger.lock().callers.is_empty());
    }

    #[test]
    fn callers_are_told_apart_by_who_they_are_and_where_nobody_is_asked_by_address() {
        let token = Access::new("token ci", crate::auth::Role::Viewer, "").unwrap();
        let anybody = Access::unrestricted("anybody");
        let address = Some(IpAddr::from([10, 0, 0, 1]));
        assert_eq!(caller(Some(&token), address), "token ci");
        assert_eq!(caller(Some(&anybody), address), "10.0.0.1");
        assert_eq!(caller(None, address), "10.0.0.1");
    }
}
