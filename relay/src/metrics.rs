//! Counters that every part of the relay adds to; `server` renders them for Prometheus.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $kind:ident $name:ident;)+) => {
        /// Plain atomics: adding costs a few nanoseconds and never waits.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $($(#[doc = $help])+ pub $name: Metric,)+
        }

        impl Metrics {
            /// Every metric as (name without prefix, Prometheus type, help, value).
            #[must_use]
            pub fn snapshot(&self) -> Vec<(&'static str, &'static str, &'static str, u64)> {
                vec![$((stringify!($name), stringify!($kind), concat!($($help),+).trim_ascii(), self.$name.get()),)+]
            }
        }
    };
}

metrics! {
    /// Lines committed to the store.
    counter lines_total;
    /// Uncompressed text of committed lines, in bytes.
    counter text_bytes_total;
    /// Blocks committed to the store.
    counter blocks_total;
    /// Atomic writes to the store.
    counter commits_total;
    /// Times that the store was made durable (fsync).
    counter syncs_total;
    /// Time spent in fsync, in microseconds.
    counter sync_time_us_total;
    /// Commits or syncs that failed and were tried again.
    counter store_errors_total;
    /// Blocks, opens or ends that were refused.
    counter refusals_total;
    /// Times that an agent was told to wait because it sent faster than the limits allow.
    counter throttles_total;
    /// Calls and connections that were refused because a limit of the configuration was reached.
    counter limits_reached_total;
    /// Times that the certificate's files had changed and could not be used; the one before stays in use.
    counter certificate_errors_total;
    /// Connections that are open now.
    gauge connections;
    /// Sessions of agents that are open now.
    gauge sessions;
    /// Calls of Tail that are open now.
    gauge subscriptions;
    /// Frames of subscriptions that their readers have not taken, in bytes.
    gauge subscription_frames_bytes;
    /// Calls of Watch that are open now.
    gauge watches;
    /// Calls of Search and Histogram that are open now.
    gauge searches;
    /// Uncompressed text that searches and histograms looked at, in bytes.
    counter searched_text_bytes_total;
    /// Frames delivered from memory.
    counter ring_frames_total;
    /// Frames delivered from the store.
    counter store_frames_total;
    /// Recent blocks held in memory for live readers, in bytes.
    gauge ring_bytes;
    /// Streams known.
    gauge streams;
}

/// One number.
#[derive(Debug, Default)]
pub struct Metric(AtomicU64);

impl Metric {
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub fn subtract(&self, amount: u64) {
        self.0.fetch_sub(amount, Ordering::Relaxed);
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
