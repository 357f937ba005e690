//! Reads of the store, where they may block.
//!
//! Live lines come first: what reads history runs on threads of its own, at a lower priority than those that deliver
//! what is new. How many there are is the runtime's limit of blocking threads.

use std::cell::Cell;

use millstream_store::StoreError;
use tokio::runtime::{Handle, RuntimeFlavor};

/// How much nicer than the rest of the relay the threads are (see nice(2)).
const NICENESS: i32 = 10;

/// Runs a blocking read on one of the threads. A runtime of one thread is a test's or a simulation's, where everything
/// has to happen in an order that can be repeated: there it blocks right here.
pub(crate) async fn in_store<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return read();
    }
    let reading = tokio::task::spawn_blocking(move || {
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
