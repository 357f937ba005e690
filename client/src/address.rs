//! Relay addresses: what is accepted, and how a connection is set up. TLS comes with authentication.

use std::time::Duration;

use http::Uri;
use tonic::transport::Endpoint;

use crate::error::Error;

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

/// Parses a relay address, `http://HOST:PORT`.
pub(crate) fn parse(address: &str) -> Result<Endpoint, Error> {
    let bad = |cure: &str| Error::BadAddress {
        address: address.to_owned(),
        cure: cure.to_owned(),
    };
    let Some((scheme, rest)) = address.split_once("://") else {
        return Err(bad(&format!(
            "write it with its scheme, for example http://{address}"
        )));
    };
    match scheme {
        "http" => {}
        "https" => {
            return Err(bad(
                "TLS is not supported yet; use http:// on a network that you trust",
            ));
        }
        _ => {
            return Err(bad(
                "only http:// is understood, for example http://127.0.0.1:7171",
            ));
        }
    }
    if rest.trim_end_matches('/').is_empty() {
        return Err(bad("the host is missing, for example http://127.0.0.1:7171"));
    }
    let uri: Uri = address
        .parse()
        .map_err(|error| bad(&format!("{error}; write it as http://HOST:PORT")))?;
    // The parser keeps a port that is no number, and connecting would then go to port 80.
    if uri.port_u16().is_none()
        && uri
            .authority()
            .is_some_and(|authority| authority != authority.host())
    {
        return Err(bad(
            "the port must be a number from 1 to 65535; write it as http://HOST:PORT",
        ));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(bad("write only http://HOST:PORT, without a path"));
    }
    Ok(Endpoint::from(uri)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_host_and_port_is_accepted() {
        for address in [
            "http://127.0.0.1:7171",
            "http://[::1]:7171",
            "http://relay.example/",
        ] {
            assert!(parse(address).is_ok(), "{address}");
        }
    }

    #[test]
    fn a_bad_address_is_refused_with_its_name_and_a_cure() {
        for (address, cure) in [
            ("127.0.0.1:7171", "http://127.0.0.1:7171"),
            ("https://relay:7171", "TLS is not supported yet"),
            ("ftp://relay", "only http://"),
            ("http://", "host is missing"),
            ("http://relay:7171/api", "without a path"),
            ("http://relay:70000", "http://HOST:PORT"),
        ] {
            let message = parse(address).unwrap_err().to_string();
            assert!(message.contains(address), "{message}");
            assert!(message.contains(cure), "{message}");
        }
    }
}
