//! The generations of a path that wait behind the one that is read.
//!
//! A new generation is opened as soon as the path names it, also while the reader waits for the relay: from
//! then on no rename and no deletion can take it away. Generations that came and went unseen are looked for
//! beside the path. The chain knows nothing of what is in the files.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;

use super::identity::Identity;
use super::open::open_regular;
use super::rotated::Lineage;

/// Files held open for one path. When more wait, the rest stays where it is and is looked for once there is
/// room; what was deleted by then is missing, and the stream says so.
const MAX_WAITING: usize = 64;

/// What the path names now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// The file that is read.
    Ours,
    /// A later file.
    Other,
    /// Nothing.
    Nothing,
}

#[derive(Debug)]
pub(super) struct Chain {
    pub(super) lineage: Lineage,
    state: Mutex<State>,
}

/// A file that is to be read next.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) file: File,
    /// It was truncated, and what stood in it before is read from a copy.
    pub(super) was_copied: bool,
}

#[derive(Debug, Default)]
struct State {
    /// The generation that is read.
    reading: Option<Identity>,
    /// The last of those that are read or wait.
    newest: Option<Identity>,
    waiting: VecDeque<Generation>,
    /// There is more than can be held.
    is_full: bool,
    /// What has to be said in the stream before the next generation.
    notices: Vec<String>,
}

impl Chain {
    pub(super) fn new(lineage: Lineage) -> Self {
        Self {
            lineage,
            state: Mutex::default(),
        }
    }

    /// Reading begins with this generation, which may be gone. What waits is forgotten, unless it is the
    /// generation that was read before.
    pub(super) fn begin(&self, identity: Identity) {
        let mut state = self.lock();
        if state
            .reading
            .is_some_and(|reading| reading.is_same_file(&identity))
        {
            return;
        }
        *state = State {
            reading: Some(identity),
            newest: Some(identity),
            ..State::default()
        };
    }

    /// Reading goes on with this file, and with the one that was read before after it.
    pub(super) fn insert_before(&self, copy: &Identity, original: File) {
        let mut state = self.lock();
        state.reading = Some(*copy);
        state.waiting.push_front(Generation {
            file: original,
            was_copied: true,
        });
    }

    /// Opens what is new at the path.
    ///
    /// # Errors
    /// When there is something new that cannot be opened.
    pub(super) fn look(&self) -> io::Result<Name> {
        let mut state = self.lock();
        let metadata = match std::fs::metadata(self.lineage.path()) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Name::Nothing),
            Err(error) => return Err(error),
        };
        if state.reading.is_some_and(|reading| reading.is_of(&metadata)) {
            return Ok(Name::Ours);
        }
        let Some(newest) = state.newest else {
            return Ok(Name::Other);
        };
        if newest.is_of(&metadata) {
            return Ok(Name::Other);
        }
        if state.waiting.len() >= MAX_WAITING {
            state.is_full = true;
            return Ok(Name::Other);
        }
        if std::mem::take(&mut state.is_full) {
            state.notices.push(format!(
                "gap: {} was rotated more often than files can be held open; those that were deleted before they \
                 were read are missing",
                self.lineage.path().display()
            ));
        }
        let current = open_regular(self.lineage.path())?;
        let metadata = current.metadata()?;
        let Some(between) = self.lineage.between(&newest, &metadata) else {
            // Another rename, so another look, is to come.
            return Ok(Name::Other);
        };
        state.notices.extend(between.skipped);
        for file in between.generations {
            state.push(file)?;
        }
        state.push(current)?;
        Ok(Name::Other)
    }

    /// Calls [`Chain::look`] whenever it may have changed; never returns.
    pub(super) async fn watch(&self, changed: &Notify) {
        loop {
            changed.notified().await;
            if self.lock().newest.is_some() {
                // What cannot be opened is the reader's to complain of, once it gets there.
                let _ = self.look();
            }
        }
    }

    /// The next generation, which is read from now on.
    pub(super) fn next(&self) -> Option<Generation> {
        let mut state = self.lock();
        let next = state.waiting.pop_front()?;
        let metadata = next.file.metadata().ok();
        state.reading = metadata.map(|metadata| Identity::without_content(&metadata));
        Some(next)
    }

    /// Some generation waits.
    pub(super) fn has_next(&self) -> bool {
        !self.lock().waiting.is_empty()
    }

    /// What the generation that is read looks like now, also when no name leads to it any more.
    pub(super) fn saw(&self, identity: &Identity) {
        let mut state = self.lock();
        if let Some(newest) = &mut state.newest
            && newest.is_same_file(identity)
        {
            *newest = *identity;
        }
    }

    /// What has to be said in the stream.
    pub(super) fn take_notices(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().notices)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no code panics while it holds the chain")
    }
}

impl State {
    fn push(&mut self, file: File) -> io::Result<()> {
        if self.waiting.len() >= MAX_WAITING {
            self.is_full = true;
            return Ok(());
        }
        let metadata: Metadata = file.metadata()?;
        self.newest = Some(Identity::without_content(&metadata));
        self.waiting.push_back(Generation {
            file,
            was_copied: false,
        });
        Ok(())
    }
}
