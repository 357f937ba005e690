//! Reads of the store, where they may block.
//!
//! Live lines come first: what reads history runs on threads of its own, at a lower priority than those that deliver
//! what is new, and on half of the processors at most. Searches have their own threads (`search/pool.rs`), on as many.

use std::cell::Cell;
use std::sync::LazyLock;

use millstream_store::StoreError;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;

/// How much nicer than the rest of the relay the threads are (see nice(2)).
const NICENESS: i32 = 10;

/// One permit for each read that may run; the others wait in a line. Reads are what a processor does, not a wait: what is
/// read again lies in the system's cache, and a disk reads ahead of the one who reads in order.
static RUNNING: LazyLock<Semaphore> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Semaphore::new(cores.div_ceil(2))
});

/// Runs a blocking read on one of the threads. A runtime of one thread is a test's or a simulation's, where everything
/// has to happen in an order that can be repeated: there it blocks right here.
pub(crate) async fn in_store<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return read();
    }
    // It is never closed, so there is always a permit in the end.
    let permit = RUNNING.acquire().await;
    let reading = tokio::task::spawn_blocking(move || {
        // A caller that goes away does not make room for another read before this one is over.
        let _permit = permit;
        be_nice();
        read()
    });
    match reading.await {
        Ok(result) => result,
        Err(error) => Err(StoreError::Engine {
            what: "a read was interrupted".to_owned(),
            cause: error.to_string(),
        }),
    }
}

/// Lowers the priority of this thread, once. A thread that blocks never becomes one that delivers.
fn be_nice() {
    thread_local! {
        static IS_NICE: Cell<bool> = const { Cell::new(false) };
    }
    if IS_NICE.replace(true) {
        return;
    }
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS) {
        tracing::debug!(%error, "reads run at the priority of everything else");
    }
}
