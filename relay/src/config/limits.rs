//! `[limits]`: what one caller may take. See [`crate::limits`].

use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use super::ConfigError;
use crate::CoreOptions;
use crate::limits::Limits;

/// A setting that is there wins over one that is below it.
macro_rules! limit_settings {
    ($($(#[$attribute:meta])* $name:ident: $kind:ty,)+) => {
        /// The section `[limits]`, as flags, environment variables and keys of the file.
        #[derive(Args, Clone, Debug, Default, Deserialize)]
        #[command(next_help_heading = "Limits")]
        #[serde(deny_unknown_fields, default)]
        pub struct LimitSettings {
            $($(#[$attribute])* pub $name: Option<$kind>,)+
        }

        /// The keys of `[limits]`.
        pub(super) const KEYS: &[&str] = &[$(stringify!($name)),+];

        impl LimitSettings {
            pub(super) fn over(self, below: Self) -> Self {
                Self { $($name: self.$name.or(below.$name),)+ }
            }
        }
    };
}

limit_settings! {
    /// Open connections in all; the process's limit of file descriptors may allow fewer [default: 50000]
    #[arg(long, env = "MILLSTREAM_MAX_CONNECTIONS", value_name = "N", global = true)]
    max_connections: u32,
    /// Open connections of one address (of one /64 network for IPv6); raise it for a proxy, or for thousands of
    /// agents behind one address; 0: no limit [default: 4000]
    #[arg(long, env = "MILLSTREAM_MAX_CONNECTIONS_PER_ADDRESS", value_name = "N", global = true)]
    max_connections_per_address: u32,
    /// Open calls of one HTTP/2 connection [default: 1024]
    #[arg(long, env = "MILLSTREAM_MAX_CALLS_PER_CONNECTION", value_name = "N", global = true)]
    max_calls_per_connection: u32,
    /// Calls that callers of one address may begin and give up a second in the long run, before connections are
    /// cut; 0: no limit [default: 200]
    #[arg(long, env = "MILLSTREAM_MAX_GIVEN_UP_CALLS_PER_SECOND", value_name = "N", global = true)]
    max_given_up_calls_per_second: u32,
    /// Open subscriptions (Tail, Watch) in all [default: 20000]
    #[arg(long, env = "MILLSTREAM_MAX_SUBSCRIPTIONS", value_name = "N", global = true)]
    max_subscriptions: u32,
    /// Open subscriptions of one token, session or certificate; where nobody is asked, of one address [default:
    /// 2000]
    #[arg(long, env = "MILLSTREAM_MAX_SUBSCRIPTIONS_PER_CALLER", value_name = "N", global = true)]
    max_subscriptions_per_caller: u32,
    /// Open calls of agents in all; an agent has two [default: 50000]
    #[arg(long, env = "MILLSTREAM_MAX_AGENT_CALLS", value_name = "N", global = true)]
    max_agent_calls: u32,
    /// Open calls of the agents that use one token or certificate; where nobody is asked, of one address [default:
    /// 25000]
    #[arg(long, env = "MILLSTREAM_MAX_AGENT_CALLS_PER_CALLER", value_name = "N", global = true)]
    max_agent_calls_per_caller: u32,
    /// Open searches and histograms in all [default: 64]
    #[arg(long, env = "MILLSTREAM_MAX_SEARCHES", value_name = "N", global = true)]
    max_searches: u32,
    /// Open searches and histograms of one caller [default: 16]
    #[arg(long, env = "MILLSTREAM_MAX_SEARCHES_PER_CALLER", value_name = "N", global = true)]
    max_searches_per_caller: u32,
    /// Time that one search or histogram may take of the search threads, in seconds; 0: no limit [default: 300]
    #[arg(long, env = "MILLSTREAM_MAX_SEARCH_SECS", value_name = "SECONDS", global = true)]
    max_search_secs: u64,
    /// Text that one search or histogram may look through, in bytes; 0: no limit [default: 0]
    #[arg(long, env = "MILLSTREAM_MAX_SEARCH_TEXT_BYTES", value_name = "BYTES", global = true)]
    max_search_text_bytes: u64,
    /// Open calls of every other kind in all [default: 2000]
    #[arg(long, env = "MILLSTREAM_MAX_REQUESTS", value_name = "N", global = true)]
    max_requests: u32,
    /// Open calls of every other kind of one caller [default: 500]
    #[arg(long, env = "MILLSTREAM_MAX_REQUESTS_PER_CALLER", value_name = "N", global = true)]
    max_requests_per_caller: u32,
    /// Requests that are not answered yet, all together, in bytes [default: 67108864]
    #[arg(long, env = "MILLSTREAM_MAX_REQUEST_BYTES", value_name = "BYTES", global = true)]
    max_request_bytes: u64,
    /// Text that one agent may send a second in the long run, in bytes; one that is faster is told to wait; 0: no
    /// limit [default: 0]
    #[arg(long, env = "MILLSTREAM_MAX_AGENT_BYTES_PER_SECOND", value_name = "BYTES", global = true)]
    max_agent_bytes_per_second: u64,
    /// Lines that one agent may send a second in the long run; one that is faster is told to wait; 0: no limit
    /// [default: 0]
    #[arg(long, env = "MILLSTREAM_MAX_AGENT_LINES_PER_SECOND", value_name = "N", global = true)]
    max_agent_lines_per_second: u64,
    /// Streams that are accepted in all; one more is refused [default: 1000000]
    #[arg(long, env = "MILLSTREAM_MAX_STREAMS", value_name = "N", global = true)]
    max_streams: usize,
    /// Text that one agent may send beyond what was acknowledged, in bytes [default: 16777216]
    #[arg(long, env = "MILLSTREAM_MAX_UNACKED_BYTES", value_name = "BYTES", global = true)]
    max_unacked_bytes: u64,
    /// A connection that has not said by then what it speaks is closed, in seconds [default: 10]
    #[arg(long, env = "MILLSTREAM_HANDSHAKE_TIMEOUT_SECS", value_name = "SECONDS", global = true)]
    handshake_timeout_secs: u64,
    /// A request that has not arrived by then is refused, in seconds; a message of an agent may take four times as
    /// long [default: 30]
    #[arg(long, env = "MILLSTREAM_REQUEST_TIMEOUT_SECS", value_name = "SECONDS", global = true)]
    request_timeout_secs: u64,
    /// A connection to which nothing could be written for so long is closed, in seconds [default: 300]
    #[arg(long, env = "MILLSTREAM_WRITE_TIMEOUT_SECS", value_name = "SECONDS", global = true)]
    write_timeout_secs: u64,
}

impl LimitSettings {
    /// The limits of connections and calls; those of what is stored and searched go into `core`.
    pub(super) fn apply(self, core: &mut CoreOptions) -> Result<Limits, ConfigError> {
        let defaults = Limits::default();
        let seconds = |name, value: Option<u64>, default: Duration| -> Result<Duration, ConfigError> {
            Ok(at_least_one(name, value)?.map_or(default, Duration::from_secs))
        };
        let set = |place: &mut usize, value: Option<u32>| {
            if let Some(value) = value {
                *place = usize::try_from(value).unwrap_or(usize::MAX);
            }
        };
        set(
            &mut core.max_searches,
            at_least_one("limits.max_searches", self.max_searches)?,
        );
        core.max_streams = self.max_streams.unwrap_or(core.max_streams);
        core.max_unacked_bytes = self.max_unacked_bytes.unwrap_or(core.max_unacked_bytes);
        core.max_search_text_bytes = self.max_search_text_bytes.unwrap_or(core.max_search_text_bytes);
        core.max_search_time = self
            .max_search_secs
            .map_or(core.max_search_time, Duration::from_secs);
        core.max_agent_bytes_per_second = self
            .max_agent_bytes_per_second
            .unwrap_or(core.max_agent_bytes_per_second);
        core.max_agent_lines_per_second = self
            .max_agent_lines_per_second
            .unwrap_or(core.max_agent_lines_per_second);
        Ok(Limits {
            max_connections_per_address: self
                .max_connections_per_address
                .unwrap_or(defaults.max_connections_per_address),
            max_given_up_calls_per_second: self
                .max_given_up_calls_per_second
                .unwrap_or(defaults.max_given_up_calls_per_second),
            max_connections: at_least_one("limits.max_connections", self.max_connections)?
                .unwrap_or(defaults.max_connections),
            max_calls_per_connection: at_least_one(
                "limits.max_calls_per_connection",
                self.max_calls_per_connection,
            )?
            .unwrap_or(defaults.max_calls_per_connection),
            max_subscriptions: at_least_one("limits.max_subscriptions", self.max_subscriptions)?
                .unwrap_or(defaults.max_subscriptions),
            max_subscriptions_per_caller: at_least_one(
                "limits.max_subscriptions_per_caller",
                self.max_subscriptions_per_caller,
            )?
            .unwrap_or(defaults.max_subscriptions_per_caller),
            max_agent_calls: at_least_one("limits.max_agent_calls", self.max_agent_calls)?
                .unwrap_or(defaults.max_agent_calls),
            max_agent_calls_per_caller: at_least_one(
                "limits.max_agent_calls_per_caller",
                self.max_agent_calls_per_caller,
            )?
            .unwrap_or(defaults.max_agent_calls_per_caller),
            max_searches_per_caller: at_least_one(
                "limits.max_searches_per_caller",
                self.max_searches_per_caller,
            )?
            .unwrap_or(defaults.max_searches_per_caller),
            max_requests: at_least_one("limits.max_requests", self.max_requests)?
                .unwrap_or(defaults.max_requests),
            max_requests_per_caller: at_least_one(
                "limits.max_requests_per_caller",
                self.max_requests_per_caller,
            )?
            .unwrap_or(defaults.max_requests_per_caller),
            max_request_bytes: at_least_one("limits.max_request_bytes", self.max_request_bytes)?
                .unwrap_or(defaults.max_request_bytes),
            handshake_timeout: seconds(
                "limits.handshake_timeout_secs",
                self.handshake_timeout_secs,
                defaults.handshake_timeout,
            )?,
            request_timeout: seconds(
                "limits.request_timeout_secs",
                self.request_timeout_secs,
                defaults.request_timeout,
            )?,
            write_timeout: seconds(
                "limits.write_timeout_secs",
                self.write_timeout_secs,
                defaults.write_timeout,
            )?,
        })
    }
}

/// Without it nobody could do anything.
fn at_least_one<T: Copy + PartialEq + From<u8> + ToString>(
    name: &'static str,
    value: Option<T>,
) -> Result<Option<T>, ConfigError> {
    if value == Some(T::from(0)) {
        return Err(ConfigError::Value {
            name,
            value: "0".to_owned(),
            cure: "give at least 1; this limit cannot be switched off".to_owned(),
        });
    }
    Ok(value)
}

/// What the limits are, and what it means that some are off, a line each.
pub(super) fn explain(limits: &Limits, core: &CoreOptions) -> String {
    let mut text = format!(
        "limits    {} connections, {} subscriptions ({} of one caller), {} searches ({} of one caller)\n\
         limits    {} streams, {} bytes unacknowledged per agent\n",
        limits.max_connections,
        limits.max_subscriptions,
        limits.max_subscriptions_per_caller,
        core.max_searches,
        limits.max_searches_per_caller,
        core.max_streams,
        core.max_unacked_bytes,
    );
    let mut say = |key: &str, value: u64, on: &str, off: &str| {
        text += &match value {
            0 => format!("no limit  limits.{key} is off: {off}\n"),
            value => format!("limits    {value} {on}\n"),
        };
    };
    say(
        "max_connections_per_address",
        limits.max_connections_per_address.into(),
        "connections of one address",
        "one address can take the connections of all others",
    );
    say(
        "max_given_up_calls_per_second",
        limits.max_given_up_calls_per_second.into(),
        "calls a second that callers of one address may begin and give up",
        "one caller can keep the relay busy with calls that it gives up",
    );
    say(
        "max_search_secs",
        core.max_search_time.as_secs(),
        "seconds of the search threads for one search",
        "one search can keep a search thread busy for as long as there is text",
    );
    say(
        "max_search_text_bytes",
        core.max_search_text_bytes,
        "bytes that one search may look through",
        "a search looks through everything that it asks for, within its time",
    );
    say(
        "max_agent_bytes_per_second",
        core.max_agent_bytes_per_second,
        "bytes of text a second from one agent",
        "one agent can send as fast as the disk takes it",
    );
    say(
        "max_agent_lines_per_second",
        core.max_agent_lines_per_second,
        "lines a second from one agent",
        "one agent can send as many lines as the disk takes",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_not_set_is_the_default_and_one_that_would_stop_everything_is_refused() {
        let mut core = CoreOptions::default();
        let limits = LimitSettings::default().apply(&mut core).unwrap();
        assert_eq!(limits, Limits::default());
        let few = LimitSettings {
            max_connections: Some(7),
            max_search_secs: Some(0),
            request_timeout_secs: Some(3),
            ..LimitSettings::default()
        };
        let limits = few.apply(&mut core).unwrap();
        assert_eq!(
            (limits.max_connections, limits.request_timeout),
            (7, Duration::from_secs(3))
        );
        assert_eq!(core.max_search_time, Duration::ZERO);
        let none = LimitSettings {
            max_requests: Some(0),
            ..LimitSettings::default()
        };
        let message = none.apply(&mut core).unwrap_err().to_string();
        assert!(
            message.contains("limits.max_requests") && message.contains("at least 1"),
            "{message}"
        );
    }

    #[test]
    fn limits_that_are_off_are_told_with_what_that_means() {
        let mut core = CoreOptions::default();
        let off = LimitSettings {
            max_connections_per_address: Some(0),
            max_agent_lines_per_second: Some(500),
            ..LimitSettings::default()
        };
        let limits = off.apply(&mut core).unwrap();
        let text = explain(&limits, &core);
        assert!(
            text.contains("no limit  limits.max_connections_per_address is off: one address can"),
            "{text}"
        );
        assert!(
            text.contains("limits    500 lines a second from one agent"),
            "{text}"
        );
        assert!(
            text.contains("no limit  limits.max_agent_bytes_per_second"),
            "{text}"
        );
    }
}
