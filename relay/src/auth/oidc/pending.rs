//! Logins that were begun and have not come back from the provider yet.
//!
//! Each is known by its `state`, which travels through the browser and the provider, and bound to the browser by a
//! secret in a cookie. It is taken out when it comes back, so that nothing works twice. Everybody can begin logins,
//! so there are only so many, in all and from one address; one more pushes out the oldest.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openidconnect::{Nonce, PkceCodeVerifier};
use tokio::time::Instant;

use super::super::secret::SecretHash;
use super::own_path::OwnPath;

/// How long a person may take at the provider.
pub(crate) const LIFETIME: Duration = Duration::from_secs(600);

/// Logins that are under way in all: some 10 MiB at most, of which nearly all is where they lead back to.
const MAX_PENDING: usize = 4096;

/// Logins that are under way from one address, which may be a proxy with many people behind it.
const MAX_PER_ADDRESS: usize = 256;

/// What has to be known again when the browser comes back.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Of the secret that the browser keeps in a cookie.
    pub(crate) browser: SecretHash,
    pub(crate) nonce: Nonce,
    pub(crate) pkce_verifier: PkceCodeVerifier,
    /// Where the provider sends the browser, in the words that the provider was told.
    pub(crate) redirect_url: String,
    pub(crate) back_to: OwnPath,
    pub(crate) address: Option<IpAddr>,
    pub(crate) began: Instant,
}

/// Why a login that comes back is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// It never was, or it is over: used, pushed out, or too old.
    State,
    /// It was begun in another browser, which may still finish it.
    Browser,
}

#[derive(Debug, Default)]
pub(crate) struct PendingLogins {
    by_state: Mutex<HashMap<SecretHash, Pending>>,
}

impl PendingLogins {
    pub(crate) fn add(&self, state: &str, pending: Pending) {
        let mut logins = self.lock();
        logins.retain(|_, login| pending.began.duration_since(login.began) < LIFETIME);
        let address = network(pending.address);
        let from_there = logins
            .values()
            .filter(|login| network(login.address) == address)
            .count();
        let pushed_out = if from_there >= MAX_PER_ADDRESS {
            oldest(&logins, |login| network(login.address) == address)
        } else if logins.len() >= MAX_PENDING {
            oldest(&logins, |_| true)
        } else {
            None
        };
        if let Some(state) = pushed_out {
            logins.remove(&state);
        }
        logins.insert(SecretHash::of(state), pending);
    }

    /// The login with this state, once, and to the browser that began it.
    pub(crate) fn take(&self, state: &str, browser: Option<&str>, now: Instant) -> Result<Pending, Unknown> {
        let state = SecretHash::of(state);
        let mut logins = self.lock();
        let login = logins.get(&state).ok_or(Unknown::State)?;
        if now.duration_since(login.began) >= LIFETIME {
            logins.remove(&state);
            return Err(Unknown::State);
        }
        if browser.map(SecretHash::of) != Some(login.browser) {
            return Err(Unknown::Browser);
        }
        logins.remove(&state).ok_or(Unknown::State)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SecretHash, Pending>> {
        self.by_state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn oldest(logins: &HashMap<SecretHash, Pending>, among: impl Fn(&Pending) -> bool) -> Option<SecretHash> {
    logins
        .iter()
        .filter(|(_, login)| among(login))
        .min_by_key(|(_, login)| login.began)
        .map(|(state, _)| *state)
}

/// Who has one IPv6 address has 2^64 of them.
fn network(address: Option<IpAddr>) -> Option<IpAddr> {
    address.map(|address| match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !(u128::MAX >> 64)).into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(address: &str, began: Instant) -> Pending {
        Pending {
            browser: SecretHash::of("cookie"),
            nonce: Nonce::new("a nonce".to_owned()),
            pkce_verifier: PkceCodeVerifier::new("a verifier".to_owned()),
            redirect_url: String::new(),
            back_to: OwnPath::or_home("/"),
            address: Some(address.parse().unwrap()),
            began,
        }
    }

    #[test]
    fn a_login_comes_back_once_in_time_and_in_its_own_browser() {
        let (logins, now) = (PendingLogins::default(), Instant::now());
        logins.add("one", pending("10.0.0.1", now));
        assert_eq!(
            logins.take("other", Some("cookie"), now).unwrap_err(),
            Unknown::State
        );
        for browser in [None, Some("other"), Some("")] {
            assert_eq!(logins.take("one", browser, now).unwrap_err(), Unknown::Browser);
        }
        assert!(logins.take("one", Some("cookie"), now).is_ok());
        assert_eq!(
            logins.take("one", Some("cookie"), now).unwrap_err(),
            Unknown::State,
            "not twice"
        );
        logins.add("late", pending("10.0.0.1", now));
        let late = logins.take("late", Some("cookie"), now + LIFETIME);
        assert_eq!(late.unwrap_err(), Unknown::State);
    }

    #[test]
    fn nothing_that_is_printed_shows_a_secret() {
        let printed = format!("{:?}", pending("10.0.0.1", Instant::now()));
        for secret in ["cookie", "a nonce", "a verifier"] {
            assert!(!printed.contains(secret), "{printed}");
        }
    }

    #[test]
    fn one_address_pushes_out_its_own_logins_only_and_all_together_are_bounded() {
        let (logins, begin) = (PendingLogins::default(), Instant::now());
        let at = |count: usize| begin + Duration::from_millis(count as u64);
        logins.add("kept", pending("10.0.0.1", begin));
        for count in 0..3 * MAX_PER_ADDRESS {
            // Neighbours in one IPv6 network are one.
            let address = format!("2001:db8::{count:x}");
            logins.add(&format!("flood {count}"), pending(&address, at(count)));
        }
        assert_eq!(logins.lock().len(), MAX_PER_ADDRESS + 1);
        let newest = format!("flood {}", 3 * MAX_PER_ADDRESS - 1);
        assert!(logins.take(&newest, Some("cookie"), at(1000)).is_ok());
        assert!(logins.take("kept", Some("cookie"), at(1000)).is_ok());
        for count in 0..2 * MAX_PENDING {
            let address = format!("10.{}.{}.1", count / 256, count % 256);
            logins.add(&format!("many {count}"), pending(&address, at(count)));
        }
        assert_eq!(logins.lock().len(), MAX_PENDING);
        logins.add("later", pending("10.0.0.1", at(2 * MAX_PENDING) + LIFETIME));
        assert_eq!(logins.lock().len(), 1, "what is too old goes");
    }
}
