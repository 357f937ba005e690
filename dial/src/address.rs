//! `http://HOST:PORT` and `https://HOST:PORT`, and what is wrong with everything else.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;

use crate::DialError;

/// The address of a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    text: String,
    uri: Uri,
}

impl Address {
    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// Nobody but this machine is on the way.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = self.uri.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost")
            || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl FromStr for Address {
    type Err = DialError;

    fn from_str(address: &str) -> Result<Self, DialError> {
        let bad = |cure: &str| DialError::Address {
            address: address.chars().take(200).collect(),
            cure: cure.to_owned(),
        };
        let Some((scheme, rest)) = address.split_once("://") else {
            let is_here = ["localhost", "127.", "[::1]"]
                .iter()
                .any(|here| address.starts_with(here));
            let scheme = if is_here { "http" } else { "https" };
            return Err(bad(&format!(
                "write it with its scheme, for example {scheme}://{address}"
            )));
        };
        if !matches!(scheme, "http" | "https") {
            return Err(bad(
                "only http:// and https:// are understood, for example http://127.0.0.1:7171",
            ));
        }
        if rest.trim_end_matches('/').is_empty() {
            return Err(bad("the host is missing, for example http://127.0.0.1:7171"));
        }
        let uri: Uri = address
            .parse()
            .map_err(|error| bad(&format!("{error}; write it as https://HOST:PORT")))?;
        if rest.contains('@') {
            return Err(bad(
                "it must not hold a name or password; tokens are given with --token-file",
            ));
        }
        // The parser keeps a port that is no number, and connecting would then go to the scheme's own port.
        if uri.port_u16().is_none()
            && uri
                .authority()
                .is_some_and(|authority| authority != authority.host())
        {
            return Err(bad(
                "the port must be a number from 1 to 65535; write it as https://HOST:PORT",
            ));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(bad("write only https://HOST:PORT, without a path"));
        }
        Ok(Self {
            text: address.to_owned(),
            uri,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_host_and_port_is_accepted() {
        for (address, is_tls) in [
            ("http://127.0.0.1:7171", false),
            ("http://[::1]:7171", false),
            ("http://relay.example/", false),
            ("https://relay.example:7171", true),
            ("https://relay.example", true),
        ] {
            let parsed: Address = address.parse().unwrap();
            assert_eq!(parsed.is_tls(), is_tls, "{address}");
            assert_eq!(parsed.to_string(), address);
        }
    }

    #[test]
    fn a_bad_address_is_refused_with_its_name_and_a_cure() {
        for (address, cure) in [
            ("127.0.0.1:7171", "http://127.0.0.1:7171"),
            ("relay.example:7171", "https://relay.example:7171"),
            ("ftp://relay", "only http://"),
            ("http://", "host is missing"),
            ("https://relay:7171/api", "without a path"),
            ("http://relay:70000", "https://HOST:PORT"),
            ("https://me:secret@relay", "--token-file"),
        ] {
            let message = address.parse::<Address>().unwrap_err().to_string();
            assert!(message.contains(address), "{message}");
            assert!(message.contains(cure), "{message}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        let is_loopback = |address: &str| address.parse::<Address>().unwrap().is_loopback();
        for local in [
            "http://127.0.0.1:1",
            "http://127.9.9.9",
            "http://[::1]:1",
            "http://LOCALHOST:1",
        ] {
            assert!(is_loopback(local), "{local}");
        }
        for other in [
            "http://10.0.0.1",
            "http://localhost.example",
            "http://[::2]",
            "http://127.0.0.1.example",
        ] {
            assert!(!is_loopback(other), "{other}");
        }
    }
}
