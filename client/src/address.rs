//! How a connection to a relay is set up for readers.

use std::time::Duration;

use tonic::transport::Endpoint;

/// Receive window of one call: large enough that a fast stream of 1 MiB blocks never waits for a window
/// update, small enough that a reader that stops holds little.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Receive window of a connection. A subscription has a connection to itself, so one slow reader cannot
/// use up the window that others need.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Pings find a peer that vanished without a word; heartbeats in the stream find one that hangs.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// An endpoint with the windows and pings that a reader needs.
pub(crate) fn tuned(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
}
