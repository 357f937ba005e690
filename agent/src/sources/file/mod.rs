//! The `file` source: follows files natively.
//!
//! This file finds the paths and wakes the followers; [`follower`] reads one path, beginning where [`resume`]
//! says and going from one generation of the path to the next ([`chain`], [`rotated`]). The relay's checkpoint
//! is the only memory of where a file stands: there is no positions file that could disagree with the data.

mod absence;
mod chain;
mod checkpoint;
mod follower;
pub(in crate::sources) mod glob;
mod identity;
mod open;
mod reader;
mod resume;
mod rotated;
pub(in crate::sources) mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use globset::GlobSet;
use tokio::task::JoinSet;
use tracing::{info, warn};

use self::absence::{Absence, Ends, LetGo};
use self::chain::Chain;
use self::follower::{Follower, Wake};
use self::glob::{Expansion, PathPattern};
use self::rotated::{Lineage, Marks};
use self::watch::{Change, DirectoryWatcher};
use super::{SourceContext, SourceError, Start};
use crate::outbox::{RESUMABLE_HOLD_BYTES, StreamSpec};

/// With inotify a rescan is only a safety net.
const RESCAN_INTERVAL: Duration = Duration::from_secs(10);

/// New names within this time are found by one scan, so that a burst of them does not scan for each.
const RESCAN_DELAY: Duration = Duration::from_millis(20);

/// Settings of a `file` source.
#[derive(Debug)]
pub struct FileSettings {
    /// Paths and globs as configured.
    pub paths: Vec<String>,
    /// Patterns of files that are not followed, matched against the path and against its last component.
    pub exclude: GlobSet,
    pub start: Start,
    /// Polls even where inotify works.
    pub force_polling: bool,
    pub poll_interval: Duration,
    /// How long an old file has to be quiet after its rotation before the new one is read.
    pub rotate_wait: Duration,
    /// How long a path that a pattern has found and that names nothing any more is waited for.
    pub forget_after: Duration,
}

/// Follows everything that the settings name, until it is cancelled by being dropped.
pub(super) async fn run(context: SourceContext, settings: Arc<FileSettings>) -> Result<(), SourceError> {
    let patterns: Vec<PathPattern> = settings
        .paths
        .iter()
        .map(|path| {
            PathPattern::parse(path)
                .map_err(|error| SourceError::Setting(format!("paths: {path:?}: {error}")))
        })
        .collect::<Result<_, _>>()?;
    let watcher = (!settings.force_polling).then(DirectoryWatcher::new).transpose();
    let watcher = watcher.unwrap_or_else(|error| {
        warn!(
            "inotify is not available ({error}); polling every {:?}",
            settings.poll_interval
        );
        None
    });
    let source = FileSource {
        polling: watcher.is_none(),
        context,
        settings,
        patterns,
        watcher,
        followers: BTreeMap::new(),
        by_target: HashMap::new(),
        tasks: JoinSet::new(),
        ends: Ends::default(),
        directories: BTreeSet::new(),
        earlier: BTreeSet::new(),
    };
    source.run().await
}

struct FileSource {
    context: SourceContext,
    settings: Arc<FileSettings>,
    patterns: Vec<PathPattern>,
    watcher: Option<DirectoryWatcher>,
    polling: bool,
    followers: BTreeMap<PathBuf, Arc<Wake>>,
    /// Followers by the path of the file behind their symbolic link.
    by_target: HashMap<PathBuf, Arc<Wake>>,
    tasks: JoinSet<Option<LetGo>>,
    /// Of followers that were let go.
    ends: Ends,
    directories: BTreeSet<PathBuf>,
    /// Rotated files that a pattern matches, as of the last scan.
    earlier: BTreeSet<PathBuf>,
}

impl FileSource {
    async fn run(mut self) -> Result<(), SourceError> {
        self.scan(true);
        if self.followers.is_empty() {
            info!(
                "source {}: no file matches {:?} yet",
                self.context.name, self.settings.paths
            );
        }
        let mut interval = tokio::time::interval(RESCAN_INTERVAL);
        let mut polling = false;
        interval.tick().await;
        loop {
            if self.polling != polling {
                polling = self.polling;
                interval = tokio::time::interval(self.settings.poll_interval);
                interval.tick().await;
            }
            tokio::select! {
                change = next_change(&mut self.watcher) => match change {
                    Ok(change) => self.changed(change).await,
                    Err(error) => {
                        warn!("inotify failed ({error}); polling every {:?}", self.settings.poll_interval);
                        self.watcher = None;
                        self.polling = true;
                    }
                },
                _ = interval.tick() => {
                    self.scan(false);
                    self.wake_all();
                }
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(Some(gone)) => self.let_go(&gone),
                    // Refused: it stays known, so that it is not tried again at every scan.
                    Ok(None) => {}
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_cancelled) => {}
                },
            }
        }
    }

    fn let_go(&mut self, gone: &LetGo) {
        if let Some(wake) = self.followers.remove(&gone.path) {
            self.by_target.retain(|_, other| !Arc::ptr_eq(other, &wake));
        }
        self.ends.keep(gone);
        // It may have come back while its follower ended.
        if gone.path.exists() {
            self.scan(false);
        }
    }

    async fn changed(&mut self, change: Change) {
        match change {
            Change::Entry(path) => self.wake(&path, Wake::content_changed),
            Change::Layout(path) => {
                self.wake(&path, Wake::name_changed);
                if !self.followers.contains_key(&path) {
                    tokio::time::sleep(RESCAN_DELAY).await;
                    self.scan(false);
                }
            }
            Change::Overflow => {
                self.scan(false);
                self.wake_all();
            }
        }
    }

    fn wake(&self, path: &PathBuf, how: impl Fn(&Wake)) {
        for follower in [self.followers.get(path), self.by_target.get(path)]
            .into_iter()
            .flatten()
        {
            how(follower);
        }
    }

    fn wake_all(&self) {
        for follower in self.followers.values() {
            follower.name_changed();
        }
    }

    /// Finds new paths and follows them.
    fn scan(&mut self, at_start: bool) {
        let mut found = Expansion::default();
        for pattern in &self.patterns {
            pattern.expand(&mut found);
        }
        found.files.retain(|path| !self.is_excluded(path));
        let earlier = self.earlier_generations(&found.files);
        for path in earlier.difference(&self.earlier) {
            info!(
                "{} is not followed as a log of its own: its name is that of a rotated file",
                path.display()
            );
        }
        found.files.retain(|path| !earlier.contains(path));
        self.earlier = earlier;
        let mut new = Vec::new();
        for path in found.files {
            let target = path.canonicalize().ok().filter(|target| *target != path);
            if let Some(directory) = target.as_ref().and_then(|target| target.parent()) {
                found.directories.insert(directory.to_path_buf());
            }
            match self.followers.get(&path) {
                Some(wake) => {
                    if let Some(target) = target {
                        self.by_target.insert(target, Arc::clone(wake));
                    }
                }
                None => new.push((path, target)),
            }
        }
        // Watch first, then read: what is written in between is either read or told.
        self.watch(&found.directories);
        for (path, target) in new {
            self.follow(path, target, at_start);
        }
    }

    /// Names that a pattern matches but that are read as earlier generations of another of the paths.
    fn earlier_generations(&self, paths: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
        let is_earlier = |path: &PathBuf| {
            rotated::base_names(path).any(|base| {
                let is_followed = paths.contains(&base) || self.followers.contains_key(&base);
                is_followed && rotated::is_rotated_name(path, &base)
            })
        };
        let not_followed = |path: &&PathBuf| !self.followers.contains_key(*path);
        paths
            .iter()
            .filter(not_followed)
            .filter(|path| is_earlier(path))
            .cloned()
            .collect()
    }

    fn is_excluded(&self, path: &PathBuf) -> bool {
        let name = path.file_name().unwrap_or_default();
        self.settings.exclude.is_match(path) || self.settings.exclude.is_match(name)
    }

    fn watch(&mut self, directories: &BTreeSet<PathBuf>) {
        for directory in directories {
            if self.directories.insert(directory.clone()) && !self.polling && watch::needs_polling(directory)
            {
                info!(
                    "{} is on a file system where inotify may miss changes; polling too, every {:?}",
                    directory.display(),
                    self.settings.poll_interval
                );
                self.polling = true;
            }
        }
        if let Some(watcher) = &mut self.watcher
            && let Err(error) = watcher.watch(directories)
        {
            warn!(
                "the limit of inotify watches is reached ({error}); polling every {:?} (raise \
                 fs.inotify.max_user_watches to avoid it)",
                self.settings.poll_interval
            );
            self.polling = true;
        }
    }

    fn follow(&mut self, path: PathBuf, target: Option<PathBuf>, at_start: bool) {
        let name = path.to_string_lossy().into_owned();
        let writer = self.context.outbox.open(StreamSpec {
            source: self.context.name.clone(),
            instance: name.clone(),
            labels: self.context.labels.clone(),
            run: None,
            path: Some(name),
            resumable: true,
            outlives: false,
            hold_bytes: RESUMABLE_HOLD_BYTES,
        });
        let wake = Arc::new(Wake::default());
        // With a pattern, names like `app-1.log` beside `app.log` are more likely logs of their own.
        let marks = if self.patterns.iter().all(PathPattern::is_literal) {
            Marks::LastOrBeforeExtension
        } else {
            Marks::Last
        };
        if let Some(target) = target {
            self.by_target.insert(target, Arc::clone(&wake));
        }
        let is_named = self.patterns.iter().any(|pattern| pattern.names(&path));
        let patience = (!is_named).then_some(self.settings.forget_after);
        let follower = Follower {
            absence: Absence::new(patience, self.ends.take(&path)),
            chain: Chain::new(Lineage::new(path.clone(), marks)),
            path: path.clone(),
            writer,
            wake: Arc::clone(&wake),
            settings: Arc::clone(&self.settings),
            present_at_start: at_start,
        };
        self.followers.insert(path, wake);
        self.tasks.spawn(follower.run());
    }
}

async fn next_change(watcher: &mut Option<DirectoryWatcher>) -> std::io::Result<Change> {
    match watcher {
        Some(watcher) => watcher.next().await,
        None => std::future::pending().await,
    }
}
