//! The tokens as the running relay knows them: one [`Access`] for each that is valid.
//!
//! Looked up by hash when a call begins; read anew when the file changes, which withdraws what was revoked.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::{Deserialize, Serialize};

use super::Access;
use super::audit::Event;
use super::secret::SecretHash;
use super::token_file::{Stamp, Token, TokenError, TokenFile, now_unix, replace};

/// What is told to a caller whose token ends while it is used.
const REVOKED: &str = "the token was revoked or has changed; ask for another one";
const EXPIRED: &str = "the token has expired; ask for another one";

/// All tokens, valid or not.
#[derive(Debug)]
pub(crate) struct Book {
    file: TokenFile,
    state: RwLock<State>,
    /// Held while the file is read: of two readers at a time the slower one could have the older file, and would
    /// revoke what was made in between.
    reading: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    stamp: Option<Stamp>,
    by_hash: HashMap<SecretHash, (Token, Arc<Access>)>,
    /// The file is not read again before it changes.
    is_told: bool,
}

/// What changed in the file, for the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenChange {
    Created(Token),
    Revoked(Token),
    Expired(Token),
}

impl std::fmt::Display for TokenChange {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (token, what) = match self {
            Self::Created(token) => (token, "valid now"),
            Self::Revoked(token) => (token, "revoked"),
            Self::Expired(token) => (token, "expired"),
        };
        let scope = if token.scope.is_empty() {
            "every stream"
        } else {
            &token.scope
        };
        write!(
            formatter,
            "{}: {what}; role {}, scope {scope}",
            token.display_name(),
            token.role
        )
    }
}

impl From<TokenChange> for Event {
    fn from(change: TokenChange) -> Self {
        match change {
            TokenChange::Created(token) => Self::TokenCreated {
                token: token.display_name(),
                role: token.role.name(),
                scope: token.scope,
            },
            TokenChange::Revoked(token) => Self::TokenRevoked {
                token: token.display_name(),
            },
            TokenChange::Expired(token) => Self::TokenExpired {
                token: token.display_name(),
            },
        }
    }
}

/// What the relay itself keeps about tokens, in `auth/token-use.json`.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUse {
    /// Last use by token id, seconds since the Unix epoch; 0: known, never used.
    pub last_used_unix: BTreeMap<String, i64>,
}

impl Book {
    /// # Errors
    /// There is a file and it cannot be used: a relay must not start as if there were none.
    pub(crate) fn open(file: TokenFile) -> Result<Self, TokenError> {
        let book = Self {
            file,
            state: RwLock::default(),
            reading: Mutex::default(),
        };
        book.read_again()?;
        Ok(book)
    }

    /// Who has this token; `None`: nobody, or nobody any more.
    pub(crate) fn find(&self, token: &str) -> Option<Arc<Access>> {
        let state = self.read();
        let (token, access) = state.by_hash.get(&SecretHash::of(token))?;
        if !token.is_valid(now_unix()) {
            return None;
        }
        access.touch();
        Some(Arc::clone(access))
    }

    /// Whether the file is not as it was read.
    pub(crate) fn is_stale(&self) -> bool {
        self.read().stamp != self.file.stamp()
    }

    /// Whether nobody could log in.
    pub(crate) fn is_empty(&self) -> bool {
        self.read().by_hash.is_empty()
    }

    /// Reads the file if it is not as it was, and ends what expired. What cannot be read changes nothing: the
    /// tokens that are known stay, and so does what was revoked.
    pub(crate) fn refresh(&self) -> Result<Vec<TokenChange>, TokenError> {
        let _turn = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changes = Vec::new();
        let (stamp, is_told) = {
            let state = self.read();
            (state.stamp, state.is_told)
        };
        let is_changed = stamp != self.file.stamp();
        let outcome = if is_changed || is_told {
            self.read_again()
        } else {
            Ok(Vec::new())
        };
        if let Ok(changed) = &outcome {
            changes.extend(changed.iter().cloned());
        }
        let now_unix = now_unix();
        self.write().by_hash.retain(|_, (token, access)| {
            let is_valid = token.is_valid(now_unix);
            if !is_valid {
                access.withdraw(EXPIRED);
                changes.push(TokenChange::Expired(token.clone()));
            }
            is_valid
        });
        match outcome {
            Err(error) if !is_told => {
                self.write().is_told = true;
                Err(error)
            }
            _ => Ok(changes),
        }
    }

    fn read_again(&self) -> Result<Vec<TokenChange>, TokenError> {
        // Before the read: a change in between is seen the next time.
        let stamp = self.file.stamp();
        let tokens = self.file.read()?;
        let mut state = self.write();
        state.stamp = stamp;
        state.is_told = false;
        let mut changes = Vec::new();
        let mut before = std::mem::take(&mut state.by_hash);
        let now_unix = now_unix();
        for token in tokens {
            let Some(hash) = token.hash().filter(|_| token.is_valid(now_unix)) else {
                continue;
            };
            let known = before.remove(&hash);
            if let Some((known_token, access)) = known {
                if known_token == token {
                    state.by_hash.insert(hash, (token, access));
                    continue;
                }
                access.withdraw(REVOKED);
            } else {
                changes.push(TokenChange::Created(token.clone()));
            }
            let access = token.access()?;
            state.by_hash.insert(hash, (token, access));
        }
        for (token, access) in before.into_values() {
            access.withdraw(REVOKED);
            changes.push(TokenChange::Revoked(token));
        }
        Ok(changes)
    }

    /// Writes down when tokens were used last. Called now and then, and at the end.
    pub(crate) fn save_use(&self) -> Result<(), TokenError> {
        let path = use_path(&self.file);
        let before = TokenUse::read(&self.file);
        let mut now = TokenUse::default();
        for (token, access) in self.read().by_hash.values() {
            let seen = before.last_used_unix.get(&token.id).copied().unwrap_or(0);
            let last = seen.max(access.last_used_unix_us() / 1_000_000);
            now.last_used_unix.insert(token.id.clone(), last);
        }
        if now == before || now.last_used_unix.is_empty() {
            return Ok(());
        }
        let io = |cause| TokenError::Io {
            path: path.clone(),
            cause,
        };
        let text = serde_json::to_vec(&now).map_err(|error| io(error.into()))?;
        replace(&path, &text).map_err(io)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn use_path(file: &TokenFile) -> PathBuf {
    file.directory().join("token-use.json")
}

impl TokenUse {
    /// What was written last; nothing when there is no file, or it cannot be read: it is for people only.
    #[must_use]
    pub fn read(file: &TokenFile) -> Self {
        std::fs::read(use_path(file))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Role;
    use crate::auth::token_file::NewToken;

    fn wish(name: &str) -> NewToken {
        NewToken {
            name: name.to_owned(),
            role: Role::Viewer,
            scope: String::new(),
            lifetime_secs: None,
        }
    }

    fn book() -> (tempfile::TempDir, TokenFile, Book) {
        let directory = tempfile::tempdir().unwrap();
        let file = TokenFile::in_data_dir(directory.path());
        let book = Book::open(file.clone()).unwrap();
        (directory, file, book)
    }

    #[test]
    fn a_token_made_while_the_relay_runs_is_known_after_a_look_and_unknown_after_its_revocation() {
        let (_directory, file, book) = book();
        assert!(book.is_empty());
        let (token, text) = file.create(wish("ci")).unwrap();
        assert_eq!(book.refresh().unwrap(), [TokenChange::Created(token)]);
        let access = book.find(&text).unwrap();
        assert!(access.who().contains("ci"));
        assert!(book.find("mst_other").is_none());
        assert!(book.find("").is_none());
        assert_eq!(book.refresh().unwrap(), []);
        file.revoke("ci").unwrap();
        assert!(matches!(&*book.refresh().unwrap(), [TokenChange::Revoked(token)] if token.name == "ci"));
        assert!(book.find(&text).is_none());
    }

    #[tokio::test]
    async fn a_revocation_ends_a_call_that_waits_and_one_that_begins_too_late() {
        let (_directory, file, book) = book();
        let (_, text) = file.create(wish("ci")).unwrap();
        book.refresh().unwrap();
        let access = book.find(&text).unwrap();
        let call = access.begin();
        let waits = call.guard(std::future::pending::<()>());
        let revokes = async {
            file.revoke("ci").unwrap();
            book.refresh().unwrap();
        };
        let (status, ()) = tokio::join!(waits, revokes);
        assert_eq!(status.unwrap_err().code(), tonic::Code::Unauthenticated);
        assert!(access.begin().guard(async {}).await.is_err());
    }

    #[test]
    fn a_file_that_is_damaged_while_the_relay_runs_is_told_once_and_changes_nothing() {
        let (_directory, file, book) = book();
        let (_, text) = file.create(wish("ci")).unwrap();
        book.refresh().unwrap();
        std::fs::write(file.path(), "{").unwrap();
        assert!(book.refresh().is_err());
        assert_eq!(book.refresh().unwrap(), [], "told already");
        assert!(book.find(&text).is_some());
        std::fs::remove_file(file.path()).unwrap();
        assert!(matches!(&*book.refresh().unwrap(), [TokenChange::Revoked(_)]));
        assert!(book.find(&text).is_none());
    }

    #[test]
    fn the_last_use_is_written_down_and_kept() {
        let (_directory, file, book) = book();
        let (token, text) = file.create(wish("ci")).unwrap();
        book.refresh().unwrap();
        book.save_use().unwrap();
        assert_eq!(TokenUse::read(&file).last_used_unix[&token.id], 0);
        book.find(&text).unwrap();
        book.save_use().unwrap();
        let used = TokenUse::read(&file).last_used_unix[&token.id];
        assert!(used > 0);
        let later = Book::open(file.clone()).unwrap();
        later.save_use().unwrap();
        assert_eq!(TokenUse::read(&file).last_used_unix[&token.id], used);
    }
}
