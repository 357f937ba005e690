//! When a follower is let go: its path, which a pattern has found, names nothing for long. What is known of it is
//! kept as one number, so that a file which has the path later is not taken for one that came after something
//! missing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;
use xxhash_rust::xxh3::xxh3_64;

/// Ends that are kept. When there are more all are forgotten: a file that has one of the paths again is then
/// read behind a notice that something may be missing before it, as after a restart of the agent.
const MAX_ENDS: usize = 100_000;

/// The checkpoints of files that were read to their end and are gone, by path; hashes of both.
#[derive(Debug, Default)]
pub(super) struct Ends(HashMap<u64, u64>);

/// A follower that is over.
#[derive(Debug)]
pub(super) struct LetGo {
    pub(super) path: PathBuf,
    /// Hash of its last checkpoint, when that is the end of its last file.
    end: Option<u64>,
}

impl Ends {
    pub(super) fn keep(&mut self, gone: &LetGo) {
        if self.0.len() >= MAX_ENDS {
            self.0.clear();
        }
        if let Some(end) = gone.end {
            self.0.insert(of_path(&gone.path), end);
        }
    }

    pub(super) fn take(&mut self, path: &Path) -> Option<u64> {
        self.0.remove(&of_path(path))
    }
}

fn of_path(path: &Path) -> u64 {
    xxh3_64(path.as_os_str().as_encoded_bytes())
}

#[derive(Debug)]
pub(super) struct Absence {
    /// How long a path that names nothing is waited for; `None`: for ever.
    patience: Option<Duration>,
    /// What was kept of the path when it was let go before.
    end: Option<u64>,
    state: Mutex<State>,
    over: Notify,
}

#[derive(Debug, Default)]
struct State {
    since: Option<Instant>,
    /// Checkpoint that the stream had when it was opened.
    opened_at: Bytes,
    /// Everything of the last file is in the stream.
    is_whole: bool,
}

impl Absence {
    pub(super) fn new(patience: Option<Duration>, end: Option<u64>) -> Self {
        Self {
            patience,
            end,
            state: Mutex::default(),
            over: Notify::new(),
        }
    }

    /// The stream stands at this checkpoint.
    pub(super) fn opened_at(&self, checkpoint: &Bytes) {
        self.lock().opened_at = checkpoint.clone();
    }

    /// The file of this checkpoint was read to its end before the path was let go.
    pub(super) fn knows_end(&self, checkpoint: &[u8]) -> bool {
        self.end == Some(xxh3_64(checkpoint))
    }

    pub(super) fn was_read_to_its_end(&self) {
        self.lock().is_whole = true;
    }

    pub(super) fn is_read_again(&self) {
        let mut state = self.lock();
        (state.since, state.is_whole) = (None, false);
    }

    /// Looks whether the path names something. `is_wanted`: there is something to do for it all the same.
    pub(super) fn look(&self, path: &Path, is_wanted: bool) {
        let Some(patience) = self.patience else {
            return;
        };
        let mut state = self.lock();
        if is_wanted || path.symlink_metadata().is_ok() {
            state.since = None;
        } else if state.since.get_or_insert_with(Instant::now).elapsed() >= patience {
            self.over.notify_one();
        }
    }

    /// Waits until the path has named nothing for long enough.
    pub(super) async fn is_over(&self) {
        self.over.notified().await;
    }

    /// What to keep. `acknowledged`: the last checkpoint that the relay has since the stream was opened.
    pub(super) fn let_go(&self, path: &Path, acknowledged: &Bytes) -> LetGo {
        let state = self.lock();
        let last = match acknowledged.is_empty() {
            true => &state.opened_at,
            false => acknowledged,
        };
        LetGo {
            path: path.to_path_buf(),
            end: (state.is_whole && !last.is_empty()).then(|| xxh3_64(last)),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_let_go_only_when_it_names_nothing_for_long_and_nothing_is_left_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let is_over = |absence: &Absence| {
            let mut over = std::pin::pin!(absence.is_over());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            over.as_mut().poll(&mut context).is_ready()
        };
        let absence = Absence::new(Some(Duration::ZERO), None);
        std::fs::write(&path, "").unwrap();
        absence.look(&path, false);
        assert!(!is_over(&absence), "it names something");
        std::fs::remove_file(&path).unwrap();
        absence.look(&path, true);
        assert!(!is_over(&absence), "something is left to do");
        absence.look(&path, false);
        assert!(is_over(&absence));
        let patient = Absence::new(Some(Duration::from_secs(3600)), None);
        patient.look(&path, false);
        assert!(!is_over(&patient), "not long enough");
        let literal = Absence::new(None, None);
        literal.look(&path, false);
        assert!(!is_over(&literal), "it was named by a person");
    }

    #[test]
    fn only_the_very_end_of_a_file_that_was_read_whole_is_known_again() {
        let path = Path::new("/a.log");
        let mut ends = Ends::default();
        let absence = Absence::new(Some(Duration::ZERO), None);
        absence.opened_at(&Bytes::from_static(b"before"));
        ends.keep(&absence.let_go(path, &Bytes::from_static(b"end")));
        assert_eq!(ends.take(path), None, "it was not read to its end");
        absence.was_read_to_its_end();
        ends.keep(&absence.let_go(path, &Bytes::from_static(b"end")));
        let known = Absence::new(None, ends.take(path));
        assert!(known.knows_end(b"end") && !known.knows_end(b"other"));
        // Nothing was sent since the stream was opened: it still stands there.
        ends.keep(&absence.let_go(path, &Bytes::new()));
        assert!(Absence::new(None, ends.take(path)).knows_end(b"before"));
        absence.is_read_again();
        ends.keep(&absence.let_go(path, &Bytes::from_static(b"end")));
        assert_eq!(ends.take(path), None);
        assert!(!Absence::new(None, None).knows_end(b""));
    }
}
