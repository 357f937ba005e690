//! Who this agent is: a persistent id in the data directory, held by one process at a time.
//!
//! `run` locks the directory and uses the id as it is. `exec` and `pipe` are agents of their own while they
//! run: they take the id with a random suffix, so that they neither fence off the running agent nor need its
//! lock, and still show whose host they are on.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Crockford's base 32 in lower case: sorts as the number does, and nobody confuses 1 and l.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const ID_FILE: &str = "agent-id";
const LOCK_FILE: &str = "lock";
const MAX_ID_BYTES: usize = 64;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot use the data directory {}: {error}; choose one that this user can write with --data-dir \
             or MILLSTREAM_DATA_DIR", .path.display())]
    Directory { path: PathBuf, error: io::Error },
    #[error("another agent uses the data directory {}; stop it, or give this one a directory of its own with \
             --data-dir", .path.display())]
    InUse { path: PathBuf },
    #[error("{} does not hold an agent id (1 to 64 characters of A-Z, a-z, 0-9, _ and -); restore it, or remove \
             it to become a new agent", .path.display())]
    BadId { path: PathBuf },
}

/// The id of a running agent; the lock is held as long as this lives.
#[derive(Debug)]
pub struct Identity {
    pub agent_id: String,
    _lock: File,
}

impl Identity {
    /// Locks the directory, and reads or creates the id.
    ///
    /// # Errors
    /// When the directory cannot be written or another agent uses it.
    pub fn acquire(data_dir: &Path) -> Result<Self, IdentityError> {
        let failed = |error| IdentityError::Directory {
            path: data_dir.to_path_buf(),
            error,
        };
        std::fs::create_dir_all(data_dir).map_err(failed)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(data_dir.join(LOCK_FILE))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(IdentityError::InUse {
                    path: data_dir.to_path_buf(),
                });
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        Ok(Self {
            agent_id: persistent_id(data_dir)?,
            _lock: lock,
        })
    }
}

/// An id for one `exec` or `pipe`: that of the host's agent with a suffix, where there is one.
#[must_use]
pub fn ephemeral_id(data_dir: &Path, kind: &str) -> String {
    let suffix = random_text(8);
    match persistent_id(data_dir) {
        Ok(id) if id.len() + kind.len() + suffix.len() + 2 <= MAX_ID_BYTES => format!("{id}-{kind}-{suffix}"),
        _ => format!("{kind}-{}{suffix}", random_text(8)),
    }
}

fn persistent_id(data_dir: &Path) -> Result<String, IdentityError> {
    let path = data_dir.join(ID_FILE);
    let failed = |error| IdentityError::Directory {
        path: data_dir.to_path_buf(),
        error,
    };
    if !path.exists() {
        std::fs::create_dir_all(data_dir).map_err(failed)?;
        create_id(data_dir, &path).map_err(failed)?;
    }
    let id = std::fs::read_to_string(&path).map_err(failed)?.trim().to_owned();
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if id.is_empty() || id.len() > MAX_ID_BYTES || !id.bytes().all(valid) {
        return Err(IdentityError::BadId { path });
    }
    Ok(id)
}

/// Writes the id beside and links it into place: it appears whole or not at all, and the first of two
/// processes wins.
fn create_id(data_dir: &Path, path: &Path) -> io::Result<()> {
    let temporary = data_dir.join(format!("{ID_FILE}.{}", random_text(8)));
    let mut file = OpenOptions::new().create_new(true).write(true).open(&temporary)?;
    writeln!(file, "{}", random_text(16))?;
    file.sync_all()?;
    let linked = match std::fs::hard_link(&temporary, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    };
    std::fs::remove_file(&temporary)?;
    linked
}

/// A fresh id that sorts by time: milliseconds, then 50 random bits.
#[must_use]
pub fn sortable_id() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let mut text: String = (0..10)
        .rev()
        .map(|digit| char::from(ALPHABET[usize::try_from((millis >> (digit * 5)) & 31).unwrap_or(0)]))
        .collect();
    text.push_str(&random_text(10));
    text
}

fn random_text(characters: usize) -> String {
    (0..characters)
        .map(|_| char::from(ALPHABET[fastrand::usize(..ALPHABET.len())]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_stays_and_a_second_agent_is_refused_until_the_first_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("new/data");
        let first = Identity::acquire(&data_dir).unwrap();
        assert!(matches!(
            Identity::acquire(&data_dir),
            Err(IdentityError::InUse { .. })
        ));
        let ephemeral = ephemeral_id(&data_dir, "exec");
        assert!(
            ephemeral.starts_with(&format!("{}-exec-", first.agent_id)),
            "{ephemeral}"
        );
        assert_ne!(ephemeral, ephemeral_id(&data_dir, "exec"));
        let id = first.agent_id.clone();
        drop(first);
        assert_eq!(Identity::acquire(&data_dir).unwrap().agent_id, id);
    }

    #[test]
    fn a_damaged_id_is_an_error_that_names_the_file() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(ID_FILE), "not an id!").unwrap();
        let error = Identity::acquire(directory.path()).unwrap_err().to_string();
        assert!(error.contains("agent-id"), "{error}");
    }

    #[test]
    fn run_ids_sort_by_time() {
        let first = sortable_id();
        let ids: Vec<_> = (0..100).map(|_| sortable_id()).collect();
        assert!(ids.iter().all(|id| id.len() == 20 && id[..10] >= first[..10]));
    }
}
