//! Starts an `exec` source when files change: told by inotify where that works, by looking otherwise.
//!
//! What counts is what is there once it has been quiet for a moment, compared with what was there before: a
//! touch without a change of time, size or identity starts nothing, and a save by renaming counts once.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::warn;

use crate::sources::file::glob::{Expansion, PathPattern};
use crate::sources::file::watch::{DirectoryWatcher, needs_polling};

/// How often to look all the same where inotify works: a directory may have been made where none was.
const SAFETY_INTERVAL: Duration = Duration::from_secs(30);

/// How often to look where inotify does not work.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Longest time that files may keep changing before a start: a tree that never rests is started for all the same.
const MOST_DELAYS: u32 = 20;

/// Files whose changes start a run.
#[derive(Debug)]
pub struct ChangeSettings {
    patterns: Vec<PathPattern>,
    /// Quiet time after the last change.
    pub delay: Duration,
}

impl ChangeSettings {
    /// # Errors
    /// Which pattern is none, and why.
    pub fn parse(patterns: &[String], delay: Duration) -> Result<Self, String> {
        let patterns = patterns.iter().map(|pattern| PathPattern::parse(pattern));
        Ok(Self {
            patterns: patterns.collect::<Result<_, _>>()?,
            delay,
        })
    }
}

/// What makes a file another one.
type Stamp = (u64, u64, u64, i64, i64);

/// Watches them.
#[derive(Debug)]
pub(super) struct Changes<'a> {
    settings: &'a ChangeSettings,
    seen: BTreeMap<PathBuf, Stamp>,
    watcher: Option<DirectoryWatcher>,
    polls: bool,
}

impl<'a> Changes<'a> {
    pub(super) fn new(settings: &'a ChangeSettings) -> Self {
        let watcher = DirectoryWatcher::new()
            .map_err(|error| warn!("no inotify ({error}); looking for changed files instead"))
            .ok();
        let mut changes = Self {
            settings,
            seen: BTreeMap::new(),
            polls: watcher.is_none(),
            watcher,
        };
        changes.seen = changes.look();
        changes
    }

    /// Waits for a change and says which file it was. Safe to drop and call again: what changed meanwhile is
    /// found by the next call.
    pub(super) async fn next(&mut self) -> PathBuf {
        loop {
            // First, so that what changed between two calls is not waited for.
            if let Some(path) = self.difference() {
                // As it was when it was quiet: what changes from here on is another change.
                self.seen = self.until_quiet().await;
                return path;
            }
            self.something().await;
        }
    }

    /// Until nothing has changed for the delay; what is there then.
    async fn until_quiet(&mut self) -> BTreeMap<PathBuf, Stamp> {
        let mut before = self.look();
        for _ in 0..MOST_DELAYS {
            tokio::time::sleep(self.settings.delay).await;
            let now = self.look();
            if now == before {
                break;
            }
            before = now;
        }
        before
    }

    async fn something(&mut self) {
        let interval = if self.polls {
            POLL_INTERVAL
        } else {
            SAFETY_INTERVAL
        };
        let Some(watcher) = &mut self.watcher else {
            tokio::time::sleep(interval).await;
            return;
        };
        let failed = tokio::select! {
            change = watcher.next() => change.err(),
            () = tokio::time::sleep(interval) => None,
        };
        if let Some(error) = failed {
            warn!("inotify failed ({error}); looking for changed files instead");
            self.watcher = None;
            self.polls = true;
        }
    }

    /// A file that is not as it was seen.
    fn difference(&mut self) -> Option<PathBuf> {
        let now = self.look();
        let changed = now
            .iter()
            .find(|(path, stamp)| self.seen.get(*path) != Some(stamp));
        let gone = || self.seen.keys().find(|path| !now.contains_key(*path));
        changed.map(|(path, _)| path).or_else(gone).cloned()
    }

    fn look(&mut self) -> BTreeMap<PathBuf, Stamp> {
        let mut expansion = Expansion::default();
        for pattern in &self.settings.patterns {
            pattern.expand(&mut expansion);
        }
        if let Some(watcher) = &mut self.watcher {
            let directories = || expansion.directories.iter();
            if let Err(error) = watcher.watch(directories()) {
                warn!("cannot watch more directories ({error}); looking for changed files too");
                self.polls = true;
            }
            self.polls |= directories().any(|directory| needs_polling(directory));
        }
        let stamped = |path: PathBuf| stamp(&path).map(|stamp| (path, stamp));
        expansion.files.into_iter().filter_map(stamped).collect()
    }
}

/// `None`: it is gone.
fn stamp(path: &Path) -> Option<Stamp> {
    let facts = path.metadata().ok()?;
    Some((
        facts.dev(),
        facts.ino(),
        facts.len(),
        facts.mtime(),
        facts.mtime_nsec(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longest wait for something that has to happen.
    const SOON: Duration = Duration::from_secs(20);

    fn settings(directory: &Path) -> ChangeSettings {
        let patterns = ["*.mk", "sub/*.mk"].map(|pattern| directory.join(pattern).display().to_string());
        ChangeSettings::parse(&patterns, Duration::from_millis(20)).unwrap()
    }

    #[tokio::test]
    async fn a_written_a_new_and_a_deleted_file_each_start_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.mk");
        std::fs::write(&path, "one").unwrap();
        let settings = settings(directory.path());
        let mut changes = Changes::new(&settings);
        let other = directory.path().join("b.mk");
        for step in 0..3 {
            match step {
                0 => std::fs::write(&path, "other").unwrap(),
                1 => std::fs::write(&other, "new").unwrap(),
                _ => std::fs::remove_file(&other).unwrap(),
            }
            let changed = tokio::time::timeout(SOON, changes.next()).await.unwrap();
            assert_eq!(changed, if step == 0 { path.clone() } else { other.clone() });
        }
        assert_eq!(changes.difference(), None);
    }

    #[tokio::test]
    async fn files_that_do_not_match_and_mere_looks_start_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.mk");
        std::fs::write(&path, "one").unwrap();
        let settings = settings(directory.path());
        let mut changes = Changes::new(&settings);
        std::fs::write(directory.path().join("a.o"), "object").unwrap();
        std::fs::read(&path).unwrap();
        assert_eq!(changes.difference(), None);
    }

    #[tokio::test]
    async fn what_changes_while_nobody_waits_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
        let mut changes = Changes::new(&settings);
        std::fs::create_dir(directory.path().join("sub")).unwrap();
        let path = directory.path().join("sub/new.mk");
        std::fs::write(&path, "x").unwrap();
        assert_eq!(tokio::time::timeout(SOON, changes.next()).await.unwrap(), path);
    }
}
