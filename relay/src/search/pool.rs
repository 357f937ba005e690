//! Threads for searches, and how many searches there may be.
//!
//! A search does a bounded turn of work at a time; turns of all searches wait in one line, first come, first
//! served, so that a long search delays a short one by a turn, not by its length. The threads are few and of low
//! priority: the writer and the readers come first.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// See the module.
#[derive(Debug)]
pub(crate) struct SearchPool {
    seats: Arc<Semaphore>,
    max_open: usize,
    line: Mutex<Line>,
}

/// Where turns wait.
#[derive(Debug)]
enum Line {
    /// There are no threads: a turn is done by whoever brings it. For simulations, where one thread does
    /// everything.
    None,
    /// One turn a seat at most, because a search waits for its turn and a turn holds the seat.
    Open(Sender<Turn>),
    /// The relay stops.
    Closed,
}

impl SearchPool {
    /// Without threads.
    pub(crate) fn new(max_open: usize) -> Self {
        Self {
            seats: Arc::new(Semaphore::new(max_open)),
            max_open,
            line: Mutex::new(Line::None),
        }
    }

    /// From now on turns wait for threads that run these (numbered) bodies; they end after [`SearchPool::stop`].
    pub(crate) fn workers(
        &self,
        threads: usize,
    ) -> impl Iterator<Item = (usize, Box<dyn FnOnce() + Send>)> + use<> {
        let (turns, waiting) = channel();
        *self.lock() = Line::Open(turns);
        let waiting = Arc::new(Mutex::new(waiting));
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
        turn: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, SearchError> {
        let turns = match &*self.lock() {
            Line::None => None,
            Line::Open(turns) => Some(turns.clone()),
            Line::Closed => return Err(SearchError::Stopping),
        };
        let Some(turns) = turns else {
            return Ok(turn());
        };
        let (done, result) = oneshot::channel();
        let turn: Turn = Box::new(move || {
            // Nobody waits any more: nothing is lost with the result.
            let _ = done.send(turn());
        });
        turns.send(turn).map_err(|_| SearchError::Stopping)?;
        // The relay stops, or the turn panicked; its message is in the log.
        result.await.map_err(|_| SearchError::Stopping)
    }

    /// Lets the threads end after the turns that wait.
    pub(crate) fn stop(&self) {
        *self.lock() = Line::Closed;
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn work(waiting: &Mutex<Receiver<Turn>>) {
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS) {
        tracing::debug!(%error, "searches run at the priority of everything else");
    }
    loop {
        // One thread waits for the turn, the others for the lock.
        let turn = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(turn) = turn else { return };
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
        assert!(matches!(pool.run(|| ()).await, Err(SearchError::Stopping)));
    }

    #[tokio::test]
    async fn without_threads_turns_run_where_they_are_brought() {
        let pool = SearchPool::new(1);
        let here = std::thread::current().id();
        let there = pool.run(|| std::thread::current().id()).await.unwrap();
        assert_eq!(there, here);
        pool.stop();
        assert!(matches!(pool.run(|| ()).await, Err(SearchError::Stopping)));
    }

    #[tokio::test]
    async fn a_turn_that_panics_ends_its_own_search_only() {
        let (pool, threads) = start(1, 2);
        let broken = pool.run(|| panic!("this panic is part of the test")).await;
        assert!(broken.is_err());
        assert_eq!(pool.run(|| 7).await.unwrap(), 7);
        pool.stop();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
