//! People who logged in with their browser.
//!
//! A session is a random secret in a cookie that no script can read; the relay keeps its hash, in memory only: a
//! restart ends all sessions. A session that was begun with a token may what that may, ends with it, and has
//! calls of its own, so that logging out ends them and nobody else's. One that a login provider vouched for may what
//! the rules for people said when it began, and ends when the provider's word does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Access;
use super::secret::{NoRandomness, SecretHash, random_secret};
use super::token_file::now_unix;

/// How long a session lasts at most, seconds.
const LIFETIME_SECS: i64 = 12 * 3600;

/// Sessions of one token or person; one more ends the oldest of them.
const MAX_PER_PERSON: usize = 20;

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
    /// Begins a session with a token; returns its secret and its length in seconds.
    pub(crate) fn begin(&self, token: &Arc<Access>) -> Result<(String, i64), LoginError> {
        self.add(token.for_browser(), Arc::clone(token), LIFETIME_SECS)
    }

    /// Begins a session of somebody whom a login provider vouches for until then.
    pub(crate) fn begin_until(
        &self,
        person: &Arc<Access>,
        expires_unix: i64,
    ) -> Result<(String, i64), LoginError> {
        let lifetime_secs = (expires_unix - now_unix()).clamp(0, LIFETIME_SECS);
        self.add(Arc::clone(person), Arc::clone(person), lifetime_secs)
    }

    fn add(
        &self,
        access: Arc<Access>,
        origin: Arc<Access>,
        lifetime_secs: i64,
    ) -> Result<(String, i64), LoginError> {
        let secret = random_secret("")?;
        let began_unix = now_unix();
        let mut sessions = self.lock();
        let mine: Vec<_> = sessions
            .iter()
            .filter(|(_, session)| session.origin.who() == origin.who())
            .map(|(hash, session)| (session.began_unix, *hash))
            .collect();
        if mine.len() >= MAX_PER_PERSON {
            let oldest = mine.into_iter().min_by_key(|(began, _)| *began);
            if let Some(session) = oldest.and_then(|(_, hash)| sessions.remove(&hash)) {
                session.access.withdraw(EXPIRED);
            }
        }
        if sessions.len() >= MAX_SESSIONS {
            return Err(LoginError::TooMany);
        }
        let session = Session {
            access,
            origin,
            began_unix,
            expires_unix: began_unix + lifetime_secs,
        };
        sessions.insert(SecretHash::of(&secret), session);
        Ok((secret, lifetime_secs))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Role;

    fn token() -> Arc<Access> {
        named("token ci")
    }

    fn named(who: &str) -> Arc<Access> {
        Access::new(who, Role::Viewer, "team=web").unwrap()
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
        let (mine, others) = (token(), named("token other"));
        let (kept, _) = sessions.begin(&mine).unwrap();
        for _ in 0..3 * MAX_PER_PERSON {
            sessions.begin(&others).unwrap();
        }
        assert!(sessions.find(&kept).is_some());
        assert_eq!(sessions.lock().len(), MAX_PER_PERSON + 1);
    }

    #[test]
    fn a_session_of_a_person_ends_with_their_providers_word_and_within_a_day() {
        let sessions = Sessions::default();
        let ann = |expires_unix| {
            sessions
                .begin_until(&named("ann"), expires_unix)
                .map(|(secret, lifetime_secs)| (sessions.find(&secret).is_some(), lifetime_secs))
        };
        let now = now_unix();
        let (is_logged_in, lifetime_secs) = ann(now + 60).unwrap();
        assert!(
            is_logged_in && (50..=60).contains(&lifetime_secs),
            "{lifetime_secs}"
        );
        assert_eq!(ann(now + 10 * LIFETIME_SECS).unwrap(), (true, LIFETIME_SECS));
        assert_eq!(ann(now - 1).unwrap(), (false, 0));
        for _ in 0..2 * MAX_PER_PERSON {
            ann(now + 60).unwrap();
        }
        assert_eq!(
            sessions.lock().len(),
            MAX_PER_PERSON,
            "of one person, however they log in"
        );
    }

    #[test]
    fn a_session_that_is_over_ends_its_calls() {
        let (sessions, ann) = (Sessions::default(), named("ann"));
        sessions.begin_until(&ann, now_unix()).unwrap();
        sessions.sweep();
        assert_eq!(ann.withdrawn(), Some(EXPIRED));
    }
}
