//! Every stream by id and by key, and the subscriptions that want to hear of new ones.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use millstream_store::StreamRecord;

use super::{Interest, Ready, RingBudget, StreamHandle};
use crate::selector::Selector;

/// What makes a stream the same one after a reconnect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StreamKey {
    pub(crate) agent_id: String,
    pub(crate) source: String,
    pub(crate) instance: String,
}

/// All streams. The writer adds, everybody looks up.
#[derive(Debug)]
pub(crate) struct Registry {
    budget: Arc<RingBudget>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    by_id: BTreeMap<u64, Arc<StreamHandle>>,
    by_key: HashMap<StreamKey, Arc<StreamHandle>>,
    by_run: HashMap<String, Arc<StreamHandle>>,
    interests: Vec<Weak<Interest>>,
}

impl Registry {
    pub(crate) fn new(records: Vec<StreamRecord>, budget: Arc<RingBudget>) -> Self {
        let registry = Self {
            budget,
            state: Mutex::default(),
        };
        for record in records {
            registry.add(record);
        }
        registry
    }

    /// Makes the stream known and tells who asked for such. Called by the writer only, after the stream
    /// was committed.
    pub(crate) fn add(&self, record: StreamRecord) -> Arc<StreamHandle> {
        let key = StreamKey {
            agent_id: record.agent_id.clone(),
            source: record.source.clone(),
            instance: record.instance.clone(),
        };
        let run_id = record.run.as_ref().map(|run| run.run_id.clone());
        let handle = StreamHandle::new(record, Arc::clone(&self.budget));
        let mut state = self.lock();
        if let Some(run_id) = run_id {
            // The first to use an id keeps it: nobody can put a run of theirs in another's place.
            state.by_run.entry(run_id).or_insert_with(|| Arc::clone(&handle));
        }
        state.by_id.insert(handle.stream_id, Arc::clone(&handle));
        state.by_key.insert(key, Arc::clone(&handle));
        state.interests.retain(|interest| {
            let Some(interest) = interest.upgrade() else {
                return false;
            };
            if interest.selector.matches(&handle.labels) {
                interest
                    .appeared
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(Arc::clone(&handle));
                interest.ready.wake();
            }
            true
        });
        handle
    }

    pub(crate) fn get(&self, stream_id: u64) -> Option<Arc<StreamHandle>> {
        self.lock().by_id.get(&stream_id).cloned()
    }

    pub(crate) fn find(&self, key: &StreamKey) -> Option<Arc<StreamHandle>> {
        self.lock().by_key.get(key).cloned()
    }

    /// Ids of the agents that have a stream with such labels.
    pub(crate) fn agents_with(&self, wanted: impl Fn(&BTreeMap<String, String>) -> bool) -> BTreeSet<String> {
        self.newest_first(u64::MAX)
            .iter()
            .filter(|stream| wanted(&stream.labels))
            .filter_map(|stream| stream.labels.get("agent").cloned())
            .collect()
    }

    /// The stream of a run.
    pub(crate) fn find_run(&self, run_id: &str) -> Option<Arc<StreamHandle>> {
        self.lock().by_run.get(run_id).cloned()
    }

    /// Highest stream id so far; 0 without a stream.
    pub(crate) fn last_id(&self) -> u64 {
        self.lock().by_id.last_key_value().map_or(0, |(id, _)| *id)
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().by_id.len()
    }

    /// Streams below `before`, newest first.
    pub(crate) fn newest_first(&self, before: u64) -> Vec<Arc<StreamHandle>> {
        self.lock()
            .by_id
            .range(..before)
            .rev()
            .map(|(_, handle)| Arc::clone(handle))
            .collect()
    }

    /// The streams that match now, and from then on each one that appears, with nothing between missed.
    pub(crate) fn subscribe(
        &self,
        selector: Selector,
        ready: Arc<Ready>,
    ) -> (Vec<Arc<StreamHandle>>, Arc<Interest>, u64) {
        let interest = Arc::new(Interest {
            selector,
            appeared: Mutex::default(),
            ready,
        });
        let mut state = self.lock();
        let matching = state
            .by_id
            .values()
            .filter(|handle| interest.selector.matches(&handle.labels))
            .cloned()
            .collect();
        state.interests.push(Arc::downgrade(&interest));
        let last_id = state.by_id.last_key_value().map_or(0, |(id, _)| *id);
        (matching, interest, last_id)
    }

    /// Streams that appeared for the interest, and the highest stream id at the same instant.
    pub(crate) fn take_appeared(&self, interest: &Interest) -> (Vec<Arc<StreamHandle>>, u64) {
        let state = self.lock();
        let last_id = state.by_id.last_key_value().map_or(0, |(id, _)| *id);
        (interest.take_appeared(), last_id)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
