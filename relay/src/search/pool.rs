//! Threads for what may take long: searches, and regular expressions that strangers wrote.
//!
//! Each does a bounded turn of work at a time. Turns of searches wait in one line and those of filters in another, first
//! come, first served, and the threads serve the two lines alternately: a long search delays a short one by a turn, not
//! by its length, and a live subscription with a filter waits for one search and not for all. The threads are of low
//! priority and few: the writer and the readers come first.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::SearchError;
use crate::limits::LimitReached;

/// How much nicer than the rest of the relay the threads are (see nice(2)).
const NICENESS: i32 = 10;

type Turn = Box<dyn FnOnce() + Send>;

/// When to ask again for a seat when there is none: most searches are over by then.
const WAIT: Duration = Duration::from_secs(5);

/// A place among the open searches, given back when dropped.
#[derive(Debug)]
pub(crate) struct Seat(#[expect(dead_code, reason = "it is held, not read")] OwnedSemaphorePermit);

/// In which line a turn waits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TurnKind {
    Search,
    /// Compiling or asking a filter that may be slow.
    Filter,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct SearchPool {
    seats: Arc<Semaphore>,
    max_open: usize,
    waiting: Arc<Waiting>,
}

/// Where turns wait.
#[derive(Default)]
struct Waiting {
    lines: Mutex<Lines>,
    /// A turn came, or the relay stops.
    news: Condvar,
}

#[derive(Default)]
struct Lines {
    /// One turn a call at most, because a call waits for its turn; the limits bound how many calls there are.
    searches: VecDeque<Turn>,
    filters: VecDeque<Turn>,
    /// The turn before was a filter's.
    served_filter: bool,
    service: Service,
}

/// Who serves the lines.
#[derive(Clone, Copy, Debug, Default)]
enum Service {
    /// There are no threads: a turn is done by whoever brings it. For simulations, where one thread does
    /// everything.
    #[default]
    None,
    Open,
    /// The relay stops.
    Closed,
}

impl SearchPool {
    /// Without threads.
    pub(crate) fn new(max_open: usize) -> Self {
        Self {
            seats: Arc::new(Semaphore::new(max_open)),
            max_open,
            waiting: Arc::default(),
        }
    }

    /// From now on turns wait for threads that run these (numbered) bodies; they end after [`SearchPool::stop`].
    pub(crate) fn workers(
        &self,
        threads: usize,
    ) -> impl Iterator<Item = (usize, Box<dyn FnOnce() + Send>)> + use<> {
        self.waiting.lock().service = Service::Open;
        let waiting = Arc::clone(&self.waiting);
        (0..threads.max(1)).map(move |number| {
            let waiting = Arc::clone(&waiting);
            let body: Box<dyn FnOnce() + Send> = Box::new(move || work(&waiting));
            (number, body)
        })
    }

    /// A place for one more search.
    pub(crate) fn seat(&self) -> Result<Seat, LimitReached> {
        let permit = Arc::clone(&self.seats).try_acquire_owned();
        permit.map(Seat).map_err(|_| LimitReached {
            what: format!("{} searches are open, as many as this relay runs", self.max_open),
            key: "max_searches",
            value: self.max_open as u64,
            wait: WAIT,
        })
    }

    /// Runs a turn on one of the threads. Whoever stops waiting must tell the turn by other means to end early.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        kind: TurnKind,
        turn: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, SearchError> {
        let (done, result) = oneshot::channel();
        {
            let mut lines = self.waiting.lock();
            match lines.service {
                Service::None => {
                    drop(lines);
                    return Ok(turn());
                }
                Service::Closed => return Err(SearchError::Stopping),
                Service::Open => {}
            }
            let turn: Turn = Box::new(move || {
                // Nobody waits any more: nothing is lost with the result.
                let _ = done.send(turn());
            });
            match kind {
                TurnKind::Search => lines.searches.push_back(turn),
                TurnKind::Filter => lines.filters.push_back(turn),
            }
        }
        self.waiting.news.notify_one();
        // The relay stops, or the turn panicked; its message is in the log.
        result.await.map_err(|_| SearchError::Stopping)
    }

    /// Lets the threads end after the turns that wait.
    pub(crate) fn stop(&self) {
        self.waiting.lock().service = Service::Closed;
        self.waiting.news.notify_all();
    }
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lines = self.lock();
        formatter
            .debug_struct("Waiting")
            .field("searches", &lines.searches.len())
            .field("filters", &lines.filters.len())
            .field("service", &lines.service)
            .finish_non_exhaustive()
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next turn; waits for one. `None`: there will be none.
    fn next(&self) -> Option<Turn> {
        let mut lines = self.lock();
        loop {
            if let Some(turn) = lines.next() {
                return Some(turn);
            }
            if matches!(lines.service, Service::Closed) {
                return None;
            }
            lines = self.news.wait(lines).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Lines {
    fn next(&mut self) -> Option<Turn> {
        self.served_filter = !self.filters.is_empty() && (!self.served_filter || self.searches.is_empty());
        if self.served_filter {
            self.filters.pop_front()
        } else {
            self.searches.pop_front()
        }
    }
}

fn work(waiting: &Waiting) {
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS) {
        tracing::debug!(%error, "searches run at the priority of everything else");
    }
    while let Some(turn) = waiting.next() {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(turn)).is_err() {
            tracing::error!("a search panicked; its message is above");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(threads: usize, max_open: usize) -> (SearchPool, Vec<std::thread::JoinHandle<()>>) {
        let pool = SearchPool::new(max_open);
        let threads = pool
            .workers(threads)
            .map(|(_, body)| std::thread::spawn(body))
            .collect();
        (pool, threads)
    }

    #[tokio::test]
    async fn seats_are_bounded_and_come_back() {
        let (pool, threads) = start(1, 2);
        let first = pool.seat().unwrap();
        let _second = pool.seat().unwrap();
        assert!(
            pool.seat()
                .unwrap_err()
                .to_string()
                .starts_with("2 searches are open")
        );
        drop(first);
        assert!(pool.seat().is_ok());
        pool.stop();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(matches!(
            pool.run(TurnKind::Search, || ()).await,
            Err(SearchError::Stopping)
        ));
    }

    #[tokio::test]
    async fn without_threads_turns_run_where_they_are_brought() {
        let pool = SearchPool::new(1);
        let here = std::thread::current().id();
        let there = pool
            .run(TurnKind::Search, || std::thread::current().id())
            .await
            .unwrap();
        assert_eq!(there, here);
        pool.stop();
        assert!(matches!(
            pool.run(TurnKind::Search, || ()).await,
            Err(SearchError::Stopping)
        ));
    }

    #[tokio::test]
    async fn a_turn_that_panics_ends_its_own_search_only() {
        let (pool, threads) = start(1, 2);
        let broken = pool
            .run(TurnKind::Search, || panic!("this panic is part of the test"))
            .await;
        assert!(broken.is_err());
        assert_eq!(pool.run(TurnKind::Search, || 7).await.unwrap(), 7);
        pool.stop();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn filters_and_searches_take_turns() {
        let order = Arc::new(Mutex::new(String::new()));
        let mut lines = Lines::default();
        let turn = |name: char| -> Turn {
            let order = Arc::clone(&order);
            Box::new(move || order.lock().unwrap().push(name))
        };
        lines.searches.extend(['s', 't', 'u'].map(turn));
        lines.filters.extend(['f', 'g'].map(turn));
        while let Some(turn) = lines.next() {
            turn();
        }
        lines.filters.extend(['h', 'i'].map(turn));
        while let Some(turn) = lines.next() {
            turn();
        }
        assert_eq!(*order.lock().unwrap(), "fsgtuhi");
    }
}
