//! Commands that people set in place of configured ones, kept over restarts in `DATA_DIR/commands.json`.
//!
//! The file appears whole or not at all; a command counts from the moment at which the file is on disk.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::replace::replace_durably;

const FILE: &str = "commands.json";

/// A command in place of the configured one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetCommand {
    pub argv: Vec<String>,
    /// The configured command when this was set. When the configuration has another one now, somebody changed it
    /// there, and what was set before does not count any more.
    pub instead_of: Vec<String>,
    pub principal: String,
    pub set_unix_us: i64,
}

/// The commands of all sources.
#[derive(Debug)]
pub struct Commands {
    path: PathBuf,
    by_source: BTreeMap<String, SetCommand>,
}

impl Commands {
    /// # Errors
    /// When the file is there and cannot be read or understood.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(FILE);
        let by_source = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            bytes => serde_json::from_slice(&bytes?).map_err(|error| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "{} cannot be understood ({error}); remove it to go back to the configured commands",
                        path.display()
                    ),
                )
            })?,
        };
        Ok(Self { path, by_source })
    }

    /// What was set for a source, if it still counts.
    #[must_use]
    pub fn of(&self, source: &str, configured: &[String]) -> Option<&SetCommand> {
        self.by_source
            .get(source)
            .filter(|set| set.instead_of == configured)
    }

    /// Sets a source's command, or with `None` goes back to the configured one.
    ///
    /// # Errors
    /// When it cannot be written; then nothing has changed.
    pub fn set(&mut self, source: &str, command: Option<SetCommand>) -> io::Result<()> {
        let mut changed = self.by_source.clone();
        match command {
            Some(command) => changed.insert(source.to_owned(), command),
            None => changed.remove(source),
        };
        replace_durably(&self.path, &serde_json::to_vec_pretty(&changed)?)?;
        self.by_source = changed;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &str) -> Vec<String> {
        command.split(' ').map(str::to_owned).collect()
    }

    fn set(argv: &str) -> SetCommand {
        SetCommand {
            argv: words(argv),
            instead_of: words("make all"),
            principal: "ada".to_owned(),
            set_unix_us: 1,
        }
    }

    #[test]
    fn a_command_is_kept_over_restarts_until_it_is_reverted() {
        let directory = tempfile::tempdir().unwrap();
        let mut commands = Commands::open(directory.path()).unwrap();
        commands.set("nightly", Some(set("make check"))).unwrap();
        let mut again = Commands::open(directory.path()).unwrap();
        let kept = again.of("nightly", &words("make all")).unwrap();
        assert_eq!(kept.argv, words("make check"));
        assert!(again.of("other", &words("make all")).is_none());
        again.set("nightly", None).unwrap();
        let reverted = Commands::open(directory.path()).unwrap();
        assert!(reverted.of("nightly", &words("make all")).is_none());
    }

    #[test]
    fn a_change_of_the_configuration_wins_over_what_was_set_before() {
        let directory = tempfile::tempdir().unwrap();
        let mut commands = Commands::open(directory.path()).unwrap();
        commands.set("nightly", Some(set("make check"))).unwrap();
        assert!(commands.of("nightly", &words("ninja")).is_none());
    }

    #[test]
    fn a_file_that_cannot_be_understood_is_named() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), "{").unwrap();
        let error = Commands::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains(FILE) && error.contains("remove it"), "{error}");
    }
}
