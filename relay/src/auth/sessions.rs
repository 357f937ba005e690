//! People who logged in with their browser.
//!
//! A session is a random secret in a cookie that no script can read; the relay keeps its hash, in memory only: a
//! restart ends all sessions. A session may what the token may that it was begun with, ends with it, and has
//! calls of its own, so that logging out ends them and nobody else's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderMap;
use http::header::COOKIE;

use super::Access;
use super::secret::{NoRandomness, SecretHash, random_secret};
use super::token_file::now_unix;

/// How long a session lasts, seconds.
const LIFETIME_SECS: i64 = 12 * 3600;

/// Sessions of one token or person; one more ends the oldest of them.
const MAX_PER_ORIGIN: usize = 20;

/// Sessions in all; one more is refused.
const MAX_SESSIONS: usize = 10_000;

const LOGGED_OUT: &str = "logged out";
const EXPIRED: &str = "the session is over; log in again";

#[derive(Debug, Default)]
pub(crate) struct Sessions {
    by_hash: Mutex<HashMap<SecretHash, Session>>,
}

#[derive(Debug)]
struct Session {
    access: Arc<Access>,
    /// What it was begun with; the session ends when this does.
    origin: Arc<Access>,
    began_unix: i64,
    expires_unix: i64,
}

/// Why nobody was logged in.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum LoginError {
    #[error("{MAX_SESSIONS} people are logged in, the limit; try again later")]
    TooMany,
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl Sessions {
    /// Begins a session; returns its secret and its length in seconds.
    pub(crate) fn begin(&self, origin: &Arc<Access>) -> Result<(String, i64), LoginError> {
        let secret = random_secret("")?;
        let began_unix = now_unix();
        let mut sessions = self.lock();
        let mine: Vec<_> = sessions
            .iter()
            .filter(|(_, session)| Arc::ptr_eq(&session.origin, origin))
            .map(|(hash, session)| (session.began_unix, *hash))
            .collect();
        if mine.len() >= MAX_PER_ORIGIN {
            let oldest = mine.into_iter().min_by_key(|(began, _)| *began);
            if let Some(session) = oldest.and_then(|(_, hash)| sessions.remove(&hash)) {
                session.access.withdraw(EXPIRED);
            }
        }
        if sessions.len() >= MAX_SESSIONS {
            return Err(LoginError::TooMany);
        }
        let session = Session {
            access: origin.for_browser(),
            origin: Arc::clone(origin),
            began_unix,
            expires_unix: began_unix + LIFETIME_SECS,
        };
        sessions.insert(SecretHash::of(&secret), session);
        Ok((secret, LIFETIME_SECS))
    }

    /// Who has this session; `None`: nobody, or nobody any more.
    pub(crate) fn find(&self, secret: &str) -> Option<Arc<Access>> {
        let sessions = self.lock();
        let session = sessions.get(&SecretHash::of(secret))?;
        if session.end(now_unix()).is_some() {
            return None;
        }
        session.origin.touch();
        Some(Arc::clone(&session.access))
    }

    /// Ends a session by its secret; says who it was.
    pub(crate) fn end(&self, secret: &str) -> Option<Arc<Access>> {
        let session = self.lock().remove(&SecretHash::of(secret))?;
        session.access.withdraw(LOGGED_OUT);
        Some(session.access)
    }

    /// Ends what is over.
    pub(crate) fn sweep(&self) {
        let now_unix = now_unix();
        self.lock().retain(|_, session| match session.end(now_unix) {
            None => true,
            Some(reason) => {
                session.access.withdraw(reason);
                false
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SecretHash, Session>> {
        self.by_hash.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn end(&self, now_unix: i64) -> Option<&'static str> {
        self.origin
            .withdrawn()
            .or((self.expires_unix <= now_unix).then_some(EXPIRED))
    }
}

/// The cookie of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CookieKind {
    /// The browser is on TLS. Its name makes browsers refuse it from anywhere but this very host over TLS.
    Tls,
    /// On this machine, which browsers trust as they trust TLS.
    Loopback,
    /// TLS was given up: whoever is on the way can copy it.
    Plain,
}

impl CookieKind {
    fn name(self) -> &'static str {
        match self {
            Self::Tls => "__Host-millstream",
            Self::Loopback | Self::Plain => "millstream-session",
        }
    }

    /// The value of `Set-Cookie`; `None` and 0 make the browser forget it.
    pub(crate) fn set(self, secret: Option<&str>, lifetime_secs: i64) -> String {
        let secure = if self == Self::Plain { "" } else { "; Secure" };
        format!(
            "{}={}; Path=/; Max-Age={lifetime_secs}; HttpOnly{secure}; SameSite=Strict",
            self.name(),
            secret.unwrap_or_default()
        )
    }

    /// The secret that a request carries.
    pub(crate) fn read(self, headers: &HeaderMap) -> Option<&str> {
        headers
            .get_all(COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(name, secret)| *name == self.name() && !secret.is_empty())
            .map(|(_, secret)| secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Role;

    fn token() -> Arc<Access> {
        Access::new("token ci", Role::Viewer, "team=web").unwrap()
    }

    #[test]
    fn a_session_may_what_its_token_may_until_it_is_ended() {
        let (sessions, token) = (Sessions::default(), token());
        let (secret, _) = sessions.begin(&token).unwrap();
        let access = sessions.find(&secret).unwrap();
        assert_eq!((access.role(), access.scope()), (token.role(), token.scope()));
        assert!(sessions.find("other").is_none());
        assert!(sessions.end(&secret).is_some());
        assert!(sessions.find(&secret).is_none());
        assert!(access.withdrawn().is_some());
        assert!(token.withdrawn().is_none(), "the token is as it was");
        assert!(sessions.end(&secret).is_none());
    }

    #[test]
    fn a_session_ends_with_its_token() {
        let (sessions, token) = (Sessions::default(), token());
        let (secret, _) = sessions.begin(&token).unwrap();
        let access = sessions.find(&secret).unwrap();
        token.withdraw("revoked");
        assert!(sessions.find(&secret).is_none());
        sessions.sweep();
        assert_eq!(access.withdrawn(), Some("revoked"));
    }

    #[test]
    fn one_token_cannot_push_out_the_sessions_of_another() {
        let sessions = Sessions::default();
        let (mine, others) = (token(), token());
        let (kept, _) = sessions.begin(&mine).unwrap();
        for _ in 0..3 * MAX_PER_ORIGIN {
            sessions.begin(&others).unwrap();
        }
        assert!(sessions.find(&kept).is_some());
        assert_eq!(sessions.lock().len(), MAX_PER_ORIGIN + 1);
    }

    #[test]
    fn a_cookie_is_for_this_host_alone_and_no_script_reads_it() {
        let cookie = CookieKind::Tls.set(Some("secret"), 60);
        for words in [
            "__Host-millstream=secret;",
            "Path=/;",
            "HttpOnly",
            "Secure",
            "SameSite=Strict",
            "Max-Age=60",
        ] {
            assert!(cookie.contains(words), "{cookie}");
        }
        assert!(!cookie.contains("Domain"));
        assert!(CookieKind::Loopback.set(Some("x"), 1).contains("Secure"));
        assert!(!CookieKind::Plain.set(Some("x"), 1).contains("Secure"));
        let headers = |value: &str| HeaderMap::from_iter([(COOKIE, value.parse().unwrap())]);
        let read = |value: &str| CookieKind::Tls.read(&headers(value)).map(str::to_owned);
        assert_eq!(
            read("a=b; __Host-millstream=secret; c=d").as_deref(),
            Some("secret")
        );
        assert_eq!(read("millstream-session=secret"), None);
        assert_eq!(read("__Host-millstream="), None);
        assert_eq!(read("x__Host-millstream=secret"), None);
    }
}
