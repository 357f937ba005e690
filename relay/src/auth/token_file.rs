//! The tokens that there are, in a file of their own in the data directory: `auth/tokens.json`, mode 0600.
//!
//! The command line changes it, also while the relay runs; the relay only reads it. A change replaces the whole
//! file under a lock, so neither ever sees half of one. Of a token itself only a hash is in it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::secret::{NoRandomness, SecretHash, random_id, random_secret};
use super::{Access, Role};
use crate::clock::now_unix_us;
use crate::selector::{Selector, SelectorError};

/// What a token begins with, so that scanners for leaked secrets know it.
pub const TOKEN_PREFIX: &str = "mst_";

/// Tokens that a file may hold; the relay keeps all of them in memory.
const MAX_TOKENS: usize = 100_000;

const MAX_NAME_BYTES: usize = 100;

/// One token as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Names the token in lists and in the audit; not secret.
    pub id: String,
    /// For people; unique among the tokens that are valid.
    pub name: String,
    /// SHA-256 of the token, hexadecimal.
    sha256: String,
    pub role: Role,
    /// Selector; empty: every stream.
    pub scope: String,
    pub created_unix: i64,
    /// Seconds since the Unix epoch; none: for ever.
    pub expires_unix: Option<i64>,
    pub revoked_unix: Option<i64>,
}

/// What a new token should be.
#[derive(Clone, Debug)]
pub struct NewToken {
    pub name: String,
    pub role: Role,
    pub scope: String,
    /// Seconds from now; none: for ever.
    pub lifetime_secs: Option<i64>,
}

/// Why the tokens cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("{path}: {cause}; is this the relay's data directory, and may this user write it?")]
    Io { path: PathBuf, cause: std::io::Error },
    #[error("{path} is damaged: {cause}; restore it, or remove it and make new tokens")]
    Damaged { path: PathBuf, cause: String },
    #[error(
        "{path} can be read or changed by others (mode {mode:o}): chmod 600 {path}, or chmod 700 for the directory"
    )]
    Exposed { path: PathBuf, mode: u32 },
    #[error("scope: {0}")]
    Scope(#[from] SelectorError),
    #[error("a token named {0:?} is valid already; choose another name, or revoke that one first")]
    NameTaken(String),
    #[error("{0:?} is no name for a token: give 1 to {MAX_NAME_BYTES} characters of A-Z a-z 0-9 _ . @ -")]
    Name(String),
    #[error("there is no valid token with the id or name {0:?}; `millstream-relay token list` shows them")]
    Unknown(String),
    #[error("the name {0:?} belongs to several tokens; give the id of the one that is meant")]
    Ambiguous(String),
    #[error("there are {MAX_TOKENS} tokens, the limit; remove old ones from {0}")]
    TooMany(PathBuf),
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl Token {
    pub(crate) fn hash(&self) -> Option<SecretHash> {
        SecretHash::from_hex(&self.sha256)
    }

    pub fn is_valid(&self, now_unix: i64) -> bool {
        self.revoked_unix.is_none() && self.expires_unix.is_none_or(|expires| expires > now_unix)
    }

    /// As it is named in messages and in the audit.
    #[must_use]
    pub fn display_name(&self) -> String {
        format!("token {} ({})", self.name, self.id)
    }

    pub(crate) fn access(&self) -> Result<std::sync::Arc<Access>, SelectorError> {
        Access::new(self.display_name(), self.role, &self.scope)
    }
}

/// The file.
#[derive(Clone, Debug)]
pub struct TokenFile {
    directory: PathBuf,
}

/// Tells one state of the file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    modified: (i64, i64),
    bytes: u64,
}

impl TokenFile {
    /// The one of a data directory; nothing is made yet.
    #[must_use]
    pub fn in_data_dir(data_dir: &Path) -> Self {
        Self {
            directory: data_dir.join("auth"),
        }
    }

    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.join("tokens.json")
    }

    /// Directory of everything about who may do what.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// `None`: there is no file.
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        let metadata = fs::metadata(self.path()).ok()?;
        Some(Stamp {
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            bytes: metadata.len(),
        })
    }

    /// Every token, also those that are no longer valid, oldest first; none without a file.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or can be read by others.
    pub fn read(&self) -> Result<Vec<Token>, TokenError> {
        let path = self.path();
        let io = |cause| TokenError::Io {
            path: path.clone(),
            cause,
        };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io(error)),
        };
        for path in [&path, &self.directory] {
            let mode = fs::metadata(path).map_err(io)?.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(TokenError::Exposed {
                    path: path.clone(),
                    mode,
                });
            }
        }
        let damaged = |cause: String| TokenError::Damaged {
            path: path.clone(),
            cause,
        };
        let tokens: Vec<Token> = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        for token in &tokens {
            if token.hash().is_none() {
                return Err(damaged(format!("the hash of token {} is none", token.id)));
            }
            Selector::parse(&token.scope)
                .map_err(|error| damaged(format!("the scope of token {}: {error}", token.id)))?;
        }
        Ok(tokens)
    }

    /// Makes a token. Its text is returned and kept nowhere.
    ///
    /// # Errors
    /// The wish cannot be fulfilled, or the file cannot be changed.
    pub fn create(&self, new: NewToken) -> Result<(Token, String), TokenError> {
        let is_name = (1..=MAX_NAME_BYTES).contains(&new.name.len())
            && new
                .name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_.@-".contains(&byte));
        if !is_name {
            return Err(TokenError::Name(new.name));
        }
        Selector::parse(&new.scope)?;
        let text = random_secret(TOKEN_PREFIX)?;
        let now_unix = now_unix();
        let token = Token {
            id: random_id()?,
            name: new.name,
            sha256: SecretHash::of(&text).to_hex(),
            role: new.role,
            scope: new.scope,
            created_unix: now_unix,
            expires_unix: new
                .lifetime_secs
                .map(|lifetime| now_unix.saturating_add(lifetime)),
            revoked_unix: None,
        };
        self.change(|tokens| {
            if tokens
                .iter()
                .any(|known| known.name == token.name && known.is_valid(now_unix))
            {
                return Err(TokenError::NameTaken(token.name.clone()));
            }
            if tokens.len() >= MAX_TOKENS {
                return Err(TokenError::TooMany(self.path()));
            }
            tokens.push(token.clone());
            Ok(())
        })?;
        Ok((token, text))
    }

    /// Ends the validity of a token that is valid, named by its id or name.
    ///
    /// # Errors
    /// No such token is valid, or the file cannot be changed.
    pub fn revoke(&self, id_or_name: &str) -> Result<Token, TokenError> {
        let now_unix = now_unix();
        self.change(|tokens| {
            let mut meant = tokens.iter_mut().filter(|token| {
                token.is_valid(now_unix) && (token.id == id_or_name || token.name == id_or_name)
            });
            let token = meant
                .next()
                .ok_or_else(|| TokenError::Unknown(id_or_name.to_owned()))?;
            if meant.next().is_some() {
                return Err(TokenError::Ambiguous(id_or_name.to_owned()));
            }
            token.revoked_unix = Some(now_unix);
            Ok(token.clone())
        })
    }

    fn change<T>(
        &self,
        change: impl FnOnce(&mut Vec<Token>) -> Result<T, TokenError>,
    ) -> Result<T, TokenError> {
        self.make_directory()?;
        let lock_path = self.directory.join("tokens.lock");
        let io = |path: &Path, cause| TokenError::Io {
            path: path.to_owned(),
            cause,
        };
        let lock = private_file(&lock_path, false).map_err(|cause| io(&lock_path, cause))?;
        lock.lock()
            .and_then(|()| give_to_owner_of_parent(&lock_path))
            .map_err(|cause| io(&lock_path, cause))?;
        let mut tokens = self.read()?;
        let outcome = change(&mut tokens)?;
        let text = serde_json::to_string_pretty(&tokens).map_err(|error| TokenError::Damaged {
            path: self.path(),
            cause: error.to_string(),
        })?;
        replace(&self.path(), text.as_bytes()).map_err(|cause| io(&self.path(), cause))?;
        Ok(outcome)
    }

    pub(crate) fn make_directory(&self) -> Result<(), TokenError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .and_then(|()| give_to_owner_of_parent(&self.directory))
            .map_err(|cause| TokenError::Io {
                path: self.directory.clone(),
                cause,
            })
    }
}

/// Root makes tokens for a relay that runs as somebody else, who must be able to read them.
fn give_to_owner_of_parent(path: &Path) -> std::io::Result<()> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    let (wanted, found) = (fs::metadata(parent)?, fs::metadata(path)?);
    if wanted.uid() == found.uid() {
        return Ok(());
    }
    std::os::unix::fs::chown(path, Some(wanted.uid()), Some(wanted.gid()))
}

/// Replaces a file as a whole, durably, readable by its owner alone.
pub(crate) fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut file = private_file(&unfinished, true)?;
    file.write_all(content)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    give_to_owner_of_parent(&unfinished)?;
    fs::rename(&unfinished, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

fn private_file(path: &Path, truncate: bool) -> std::io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(truncate)
        .write(true)
        .mode(0o600)
        .open(path)
}

pub(crate) fn now_unix() -> i64 {
    now_unix_us() / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, TokenFile) {
        let directory = tempfile::tempdir().unwrap();
        let file = TokenFile::in_data_dir(directory.path());
        (directory, file)
    }

    fn wish(name: &str) -> NewToken {
        NewToken {
            name: name.to_owned(),
            role: Role::Viewer,
            scope: "team=web".to_owned(),
            lifetime_secs: Some(3600),
        }
    }

    #[test]
    fn a_token_is_kept_as_a_hash_in_a_file_that_only_its_owner_reads() {
        let (_directory, file) = file();
        assert_eq!(file.read().unwrap(), []);
        let (token, text) = file.create(wish("ci")).unwrap();
        let kept = fs::read_to_string(file.path()).unwrap();
        assert!(!kept.contains(&text) && !kept.contains(&text[TOKEN_PREFIX.len()..]));
        assert!(kept.contains(&SecretHash::of(&text).to_hex()));
        for (path, mode) in [(file.path(), 0o600), (file.directory().to_owned(), 0o700)] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, mode);
        }
        assert_eq!(file.read().unwrap(), [token]);
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let (_directory, file) = file();
        file.create(wish("ci")).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o640)).unwrap();
        let message = file.read().unwrap_err().to_string();
        assert!(
            message.contains("640") && message.contains("chmod 600"),
            "{message}"
        );
    }

    #[test]
    fn a_damaged_file_is_refused_with_its_name_and_not_taken_for_none() {
        let (_directory, file) = file();
        file.create(wish("ci")).unwrap();
        let kept = fs::read_to_string(file.path()).unwrap();
        for damaged in [
            "",
            "[{}]",
            &kept.replace("\"viewer\"", "\"root\""),
            &kept.replace("\"sha256\": \"", "\"sha256\": \"x"),
            &kept.replace("team=web", "=web"),
        ] {
            fs::write(file.path(), damaged).unwrap();
            let message = file.read().unwrap_err().to_string();
            assert!(message.contains("tokens.json"), "{message}");
            assert!(file.create(wish("other")).is_err());
        }
    }

    #[test]
    fn a_name_is_free_again_once_its_token_is_revoked() {
        let (_directory, file) = file();
        let (first, _) = file.create(wish("ci")).unwrap();
        assert!(matches!(file.create(wish("ci")), Err(TokenError::NameTaken(_))));
        assert!(file.revoke("ci").unwrap().revoked_unix.is_some());
        assert!(matches!(file.revoke("ci"), Err(TokenError::Unknown(_))));
        let (second, _) = file.create(wish("ci")).unwrap();
        assert_ne!(first.id, second.id);
        assert_eq!(file.revoke(&second.id).unwrap().name, "ci");
    }

    #[test]
    fn bad_wishes_are_refused_with_words() {
        let (_directory, file) = file();
        for name in ["", "a b", "x\u{1b}[31m", &"x".repeat(101)] {
            assert!(
                matches!(file.create(wish(name)), Err(TokenError::Name(_))),
                "{name}"
            );
        }
        let scope = NewToken {
            scope: "=".to_owned(),
            ..wish("ci")
        };
        assert!(file.create(scope).unwrap_err().to_string().contains("position 0"));
        assert!(!file.path().exists());
    }

    #[test]
    fn a_token_is_valid_until_it_expires() {
        let (_directory, file) = file();
        let (token, _) = file.create(wish("ci")).unwrap();
        let expires = token.expires_unix.unwrap();
        assert!(token.is_valid(expires - 1));
        assert!(!token.is_valid(expires));
    }
}
