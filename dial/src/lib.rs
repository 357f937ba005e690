//! How agents and programs reach a relay: where it is, how they know that it is the one, and who they are.
//!
//! [`address`] says what an address may look like, [`trust`] verifies the relay, [`token`] tells it who is calling.
//! [`Route`] is all of it together and makes the endpoint to connect to; how large windows are and how often
//! one tries again is the caller's. Files are read anew for each connection, so that they can be renewed
//! without a restart.

pub mod address;
mod error;
mod flags;
pub mod token;
pub mod trust;

use tonic::transport::Endpoint;

pub use address::Address;
pub use error::DialError;
pub use flags::CredentialFlags;
pub use token::{Bearer, TokenSource};
pub use trust::{Pin, Trust};

/// One relay, and how it is spoken to.
#[derive(Clone, Debug)]
pub struct Route {
    pub address: Address,
    pub credentials: Credentials,
}

/// What goes with every address.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    pub trust: Trust,
    pub token: TokenSource,
    /// Send the token also where everybody on the way can read it.
    pub insecure_no_tls: bool,
}

impl Route {
    /// The endpoint with TLS set up, when its address asks for it.
    ///
    /// # Errors
    /// A file cannot be read or does not hold what it should.
    pub fn endpoint(&self) -> Result<Endpoint, DialError> {
        let endpoint = Endpoint::from(self.address.uri().clone());
        if self.address.is_tls() {
            self.credentials.trust.apply(endpoint)
        } else {
            Ok(endpoint)
        }
    }

    /// The token as calls carry it.
    ///
    /// # Errors
    /// It cannot be read, is none, or would be sent where everybody on the way can read it.
    pub fn bearer(&self) -> Result<Bearer, DialError> {
        let bearer = self.credentials.token.bearer()?;
        let is_protected = self.address.is_tls() || self.address.is_loopback();
        if bearer.is_some() && !is_protected && !self.credentials.insecure_no_tls {
            return Err(DialError::PlainToken(self.address.to_string()));
        }
        Ok(bearer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(address: &str, insecure_no_tls: bool) -> Route {
        Route {
            address: address.parse().unwrap(),
            credentials: Credentials {
                token: TokenSource::text("mst_secret"),
                insecure_no_tls,
                ..Credentials::default()
            },
        }
    }

    #[test]
    fn a_token_goes_over_tls_or_this_machine_only_unless_that_is_given_up() {
        for protected in [
            "https://relay.example",
            "http://127.0.0.1:7171",
            "http://[::1]",
            "http://localhost",
        ] {
            assert!(route(protected, false).bearer().unwrap().is_some(), "{protected}");
        }
        let error = route("http://relay.example:7171", false).bearer().unwrap_err();
        assert!(error.to_string().contains("--insecure-no-tls"), "{error}");
        assert!(!error.to_string().contains("mst_secret"));
        assert!(
            route("http://relay.example:7171", true)
                .bearer()
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn nothing_that_is_printed_has_the_token_in_it() {
        let route = route("https://relay.example", false);
        assert!(!format!("{route:?} {:?}", route.bearer().unwrap()).contains("mst_secret"));
    }
}
