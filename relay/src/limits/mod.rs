//! What one caller may take, so that the others do not notice.
//!
//! [`Limits`] are the numbers; [`Ledger`] counts who has how many calls open, [`Pace`] how fast an agent sends, and
//! [`ArrivingBody`] makes requests arrive in time.
//! [`CountedBody`] keeps a call counted until its answer was sent. [`LimitReached`] is what a caller is told: which limit, what it is, and when to come again. Connections are counted
//! where they come in (`server`).

mod arrival;
mod counted;
mod ledger;
mod pace;
mod reached;

use std::time::Duration;

pub(crate) use arrival::{Arrival, ArrivingBody, Held};
pub(crate) use counted::{CountedBody, OpenCall};
pub(crate) use ledger::{CallKind, Ledger, Permit, caller};
pub(crate) use pace::{Bucket, Pace, Paces};
pub(crate) use reached::LimitReached;

/// The limits of connections and calls; 0 means none where a field says so. Those of what is stored and searched are in
/// [`crate::CoreOptions`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all; fewer where the system gives the process fewer file descriptors.
    pub max_connections: u32,
    /// Connections of one address (of one /64 network for IPv6); 0: no limit.
    pub max_connections_per_address: u32,
    /// Calls that one HTTP/2 connection may have open.
    pub max_calls_per_connection: u32,
    /// Calls that the callers of one address may begin and give up a second, before connections are cut; 0: no limit.
    pub max_given_up_calls_per_second: u32,
    /// Open calls of Tail and Watch, in all and of one caller.
    pub max_subscriptions: u32,
    pub max_subscriptions_per_caller: u32,
    /// Open calls of agents (two an agent), in all and of one caller.
    pub max_agent_calls: u32,
    pub max_agent_calls_per_caller: u32,
    /// Open searches and histograms of one caller; those in all are [`crate::CoreOptions::max_searches`].
    pub max_searches_per_caller: u32,
    /// Open calls of every other kind, in all and of one caller.
    pub max_requests: u32,
    pub max_requests_per_caller: u32,
    /// Requests that are not answered yet, all together, in bytes. One is at most 4 MiB (a cursor over a great many
    /// streams); most have less than a hundred bytes.
    pub max_request_bytes: u64,
    /// A connection that has not said which protocol it speaks by then (TLS included) is closed.
    pub handshake_timeout: Duration,
    /// A request that has not arrived as a whole by then is refused; a message of an agent's session may take four
    /// times as long.
    pub request_timeout: Duration,
    /// A connection to which nothing could be written for so long is closed.
    pub write_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 50_000,
            max_connections_per_address: 4000,
            max_calls_per_connection: 1024,
            max_given_up_calls_per_second: 200,
            max_subscriptions: 20_000,
            max_subscriptions_per_caller: 2000,
            max_agent_calls: 50_000,
            max_agent_calls_per_caller: 25_000,
            max_searches_per_caller: 16,
            max_requests: 2000,
            max_requests_per_caller: 500,
            max_request_bytes: 64 << 20,
            handshake_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(300),
        }
    }
}

impl Limits {
    /// A message of a session may come over a thin line; so it gets longer than a request.
    pub(crate) fn message_timeout(&self) -> Duration {
        self.request_timeout * 4
    }
}
