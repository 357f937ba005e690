//! The parts of the relay that have nothing to do with HTTP, built and stopped together.

use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use millstream_proto::opentelemetry::proto::collector::logs::v1::logs_service_server::LogsServiceServer;
use millstream_proto::v1;
use millstream_proto::v1::agent_service_server::AgentServiceServer;
use millstream_proto::v1::control_service_server::ControlServiceServer;
use millstream_proto::v1::ingest_service_server::IngestServiceServer;
use millstream_store::{LogStore, StoreError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

use crate::auth::{Access, AuditQueue};
use crate::control::{AttachApi, Attached, ControlApi};
use crate::ingest::IngestApi;
use crate::limits::Paces;
use crate::metrics::Metrics;
use crate::search::SearchPool;
use crate::services;
use crate::streams::{Agents, Registry, RingBudget, StreamHandle};
use crate::subscription::Sources;
use crate::writer::{self, Fsync, Writer, WriterParts};

/// Limits and intervals of the core. The defaults suit a server with a few hundred MiB to spare.
#[derive(Clone, Debug)]
pub struct CoreOptions {
    /// Text that an agent may send beyond what was acknowledged, in bytes.
    pub max_unacked_bytes: u64,
    /// Blocks that may wait for the writer, over all agents, in bytes as sent.
    pub writer_queue_bytes: usize,
    /// Recent blocks kept in memory for live readers, per stream and over all, in bytes.
    pub ring_bytes_per_stream: usize,
    pub ring_bytes_total: u64,
    /// Distance of heartbeats in `Tail` and `Watch`.
    pub heartbeat: Duration,
    /// When commits become durable.
    pub fsync: Fsync,
    /// Streams that the relay accepts; one more is refused.
    pub max_streams: usize,
    /// Threads that look through lines for searches, histograms and filters that may be slow, all together.
    pub search_threads: usize,
    /// Searches and histograms that may be open; one more is refused.
    pub max_searches: usize,
    /// What one search or histogram may cost: time on the search threads (zero: no limit) and text that it looks
    /// through, in bytes (0: no limit). One that reaches it ends with an error after what it found.
    pub max_search_time: Duration,
    pub max_search_text_bytes: u64,
    /// What one agent may send a second in the long run; one that is faster is told to wait. 0: no limit.
    pub max_agent_bytes_per_second: u64,
    pub max_agent_lines_per_second: u64,
}

impl Default for CoreOptions {
    fn default() -> Self {
        Self {
            max_unacked_bytes: 16 << 20,
            writer_queue_bytes: 64 << 20,
            // A reader that is less than this behind is served from memory. One stream at full speed
            // writes it in some milliseconds; compressed it is some ten MiB of text.
            ring_bytes_per_stream: 2 << 20,
            ring_bytes_total: 256 << 20,
            heartbeat: Duration::from_secs(10),
            fsync: Fsync::Always,
            max_streams: 1_000_000,
            // Half of the machine at most, and of low priority.
            search_threads: std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)),
            max_searches: 64,
            max_search_time: Duration::from_secs(300),
            max_search_text_bytes: 0,
            max_agent_bytes_per_second: 0,
            max_agent_lines_per_second: 0,
        }
    }
}

/// What the services share.
#[derive(Debug)]
pub(crate) struct CoreParts {
    pub(crate) options: CoreOptions,
    pub(crate) store: Arc<dyn LogStore>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) agents: Arc<Agents>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) writer: Writer,
    /// Threads for searches, and for regular expressions of subscriptions and pages, which strangers write.
    pub(crate) search_pool: Arc<SearchPool>,
    /// How fast agents send.
    pub(crate) paces: Paces,
    /// Agents that take commands now.
    pub(crate) attached: Attached,
    /// Cancelled when the relay begins to stop: take nothing new.
    pub(crate) stop: CancellationToken,
    /// Cancelled once everything that was accepted is durable: say so and hang up.
    pub(crate) drained: CancellationToken,
    pub(crate) tasks: TaskTracker,
    budget: Arc<RingBudget>,
    trouble: Arc<watch::Sender<Option<String>>>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    /// Dropped to stop the maintenance thread.
    keep_running: Mutex<Option<std::sync::mpsc::Sender<()>>>,
}

impl CoreParts {
    /// Why the store takes no lines at the moment.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.borrow().clone()
    }

    /// The stream with this id, if it exists for the caller.
    ///
    /// # Errors
    /// NOT_FOUND, in the same words whether there is none or they may not see it.
    pub(crate) fn visible(&self, access: &Access, stream_id: u64) -> Result<Arc<StreamHandle>, Status> {
        self.registry
            .get(stream_id)
            .filter(|stream| access.sees(&stream.labels))
            .ok_or_else(|| services::unknown_stream(stream_id))
    }

    pub(crate) fn sources(&self) -> Sources {
        Sources {
            store: Arc::clone(&self.store),
            registry: Arc::clone(&self.registry),
            metrics: Arc::clone(&self.metrics),
            search_pool: Arc::clone(&self.search_pool),
            stop: self.stop.clone(),
            heartbeat: self.options.heartbeat,
        }
    }
}

/// What the relay does besides answering calls: writing, and looking after the store.
pub struct Work {
    writer: Pin<Box<dyn Future<Output = ()> + Send>>,
    keeper: maintenance::Keeper,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Work")
    }
}

impl Work {
    /// Does both in turn on the caller's task, until the core is shut down. The store's calls block it.
    pub async fn run(self) {
        let Self { mut writer, keeper } = self;
        let mut wait = maintenance::INTERVAL;
        loop {
            tokio::select! {
                biased;
                () = &mut writer => return,
                () = tokio::time::sleep(wait) => wait = keeper.step(),
            }
        }
    }
}

/// The running core. Clones share it; [`Core::shutdown`] stops it.
#[derive(Clone, Debug)]
pub struct Core {
    parts: Arc<CoreParts>,
}

impl Core {
    /// Loads what is stored and starts the writer and maintenance threads. Needs a tokio runtime with
    /// time enabled around it.
    ///
    /// # Errors
    /// The store cannot be read, or a thread cannot be started.
    pub fn start(store: Arc<dyn LogStore>, options: CoreOptions) -> Result<Self, StoreError> {
        let (core, work) = Self::build(store, options)?;
        let runtime = tokio::runtime::Handle::current();
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(body)
                .map_err(|error| StoreError::Engine {
                    what: "starting a thread".to_owned(),
                    cause: error.to_string(),
                })
        };
        let Work { writer, keeper } = work;
        let mut threads = vec![
            spawn("writer", Box::new(move || runtime.block_on(writer)))?,
            spawn("maintenance", Box::new(move || keeper.run()))?,
        ];
        for (number, body) in core.parts.search_pool.workers(core.parts.options.search_threads) {
            threads.push(spawn(&format!("search-{number}"), body)?);
        }
        *core.parts.threads.lock().unwrap_or_else(PoisonError::into_inner) = threads;
        Ok(core)
    }

    /// Loads what is stored and starts nothing: who drives the [`Work`] decides when the relay writes. For
    /// simulations, where one thread does everything; [`Core::start`] is this with threads.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn build(store: Arc<dyn LogStore>, options: CoreOptions) -> Result<(Self, Work), StoreError> {
        let budget = Arc::new(RingBudget::new(
            options.ring_bytes_per_stream,
            options.ring_bytes_total,
        ));
        let registry = Arc::new(Registry::new(store.load_streams()?, Arc::clone(&budget)));
        let agents = Arc::new(Agents::new(store.load_agents()?));
        let metrics = Arc::new(Metrics::default());
        metrics.streams.set(registry.len() as u64);
        let (writer, queue) = Writer::new(options.writer_queue_bytes);
        let trouble = Arc::new(watch::Sender::new(None));
        let stop = CancellationToken::new();
        let writer_parts = WriterParts {
            store: Arc::clone(&store),
            registry: Arc::clone(&registry),
            agents: Arc::clone(&agents),
            metrics: Arc::clone(&metrics),
            fsync: options.fsync,
            max_streams: options.max_streams,
            trouble: Arc::clone(&trouble),
            stop: stop.clone(),
        };
        let (keep_running, stopped) = std::sync::mpsc::channel();
        let work = Work {
            writer: Box::pin(writer::run(writer_parts, queue)),
            keeper: maintenance::Keeper {
                store: Arc::clone(&store),
                registry: Arc::clone(&registry),
                stopped,
            },
        };
        let core = Self {
            parts: Arc::new(CoreParts {
                store,
                registry,
                agents,
                metrics,
                search_pool: Arc::new(SearchPool::new(options.max_searches)),
                paces: Paces::new(
                    options.max_agent_bytes_per_second,
                    options.max_agent_lines_per_second,
                ),
                options,
                writer,
                attached: Attached::default(),
                stop,
                drained: CancellationToken::new(),
                tasks: TaskTracker::new(),
                budget,
                trouble,
                threads: Mutex::default(),
                keep_running: Mutex::new(Some(keep_running)),
            }),
        };
        Ok((core, work))
    }

    /// The gRPC services of Millstream, and OTLP logs; health and reflection are the server's. Each call must
    /// have an [`Access`] in its extensions (`Arc<Access>`), or it is refused.
    #[must_use]
    pub fn routes(&self) -> tonic::service::Routes {
        use millstream_proto::limits::MAX_MESSAGE_BYTES;
        let parts = &self.parts;
        let ingest = IngestServiceServer::new(IngestApi {
            parts: Arc::clone(parts),
        })
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
        tonic::service::Routes::new(ingest)
            .add_service(services::log_service(Arc::clone(parts)))
            .add_service(AgentServiceServer::new(AttachApi {
                parts: Arc::clone(parts),
            }))
            .add_service(ControlServiceServer::new(ControlApi {
                parts: Arc::clone(parts),
            }))
            .add_service(LogsServiceServer::new(services::NotYet))
    }

    /// The stream as it is now; `None` when it does not exist for the caller.
    #[must_use]
    pub fn stream(&self, access: &Access, stream_id: u64) -> Option<v1::Stream> {
        let stream = self.parts.visible(access, stream_id).ok()?;
        Some(stream.to_proto())
    }

    /// The bytes of a range of lines exactly as they were produced (partial lines joined, notices left
    /// out), in chunks of up to about 1 MiB. Reads as fast as the caller takes them.
    pub fn raw(
        &self,
        stream_id: u64,
        sequences: Range<u64>,
    ) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + use<> {
        services::raw(Arc::clone(&self.parts.store), stream_id, sequences)
    }

    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        self.parts.metrics.ring_bytes.set(self.parts.budget.held_bytes());
        Arc::clone(&self.parts.metrics)
    }

    /// Bytes that the store takes on disk.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.parts.store.disk_bytes()
    }

    /// Damage of the store that readers met, in words, place by place.
    #[must_use]
    pub fn damage(&self) -> Vec<String> {
        self.parts.store.damage()
    }

    /// Whether the relay can take and serve lines.
    ///
    /// # Errors
    /// A sentence that says why not.
    pub fn is_healthy(&self) -> Result<(), String> {
        if self.parts.stop.is_cancelled() {
            return Err("the relay is stopping".to_owned());
        }
        match &*self.parts.trouble.borrow() {
            Some(trouble) => Err(trouble.clone()),
            None => Ok(()),
        }
    }

    /// Why the store takes no lines at the moment, and each change of it; `None`: it takes them.
    #[must_use]
    pub fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.parts.trouble.subscribe()
    }

    /// Writes the audit until the core stops.
    pub(crate) fn keep_audit(&self, queue: AuditQueue) -> impl Future<Output = ()> + Send + use<> {
        queue.write(Arc::clone(&self.parts), self.parts.stop.clone())
    }

    /// Cancelled when [`Core::shutdown`] begins.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.parts.stop.clone()
    }

    /// Takes nothing new, makes everything that was accepted durable, acknowledges it, and ends sessions
    /// and subscriptions with UNAVAILABLE, so that their other ends reconnect.
    pub async fn shutdown(&self) {
        let parts = &self.parts;
        parts.stop.cancel();
        parts.writer.stop().await;
        parts.drained.cancel();
        parts.search_pool.stop();
        drop(
            parts
                .keep_running
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        parts.tasks.close();
        parts.tasks.wait().await;
        let threads = std::mem::take(&mut *parts.threads.lock().unwrap_or_else(PoisonError::into_inner));
        if threads.is_empty() {
            return;
        }
        let store = Arc::clone(&parts.store);
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a thread of the relay panicked; its message is above");
                }
            }
            store.close();
        });
        if joined.await.is_err() {
            tracing::error!("could not wait for the relay's threads");
        }
    }
}

mod maintenance {
    //! Background work beside reads and writes.

    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, RecvTimeoutError};
    use std::time::Duration;

    use millstream_store::LogStore;

    use crate::streams::Registry;

    /// How often the store is asked whether there is something to do.
    pub(super) const INTERVAL: Duration = Duration::from_secs(2);

    /// A stream's recent blocks leave memory when nothing was published for this long.
    const IDLE: Duration = Duration::from_secs(30);

    pub(super) struct Keeper {
        pub(super) store: Arc<dyn LogStore>,
        pub(super) registry: Arc<Registry>,
        /// Nothing is ever sent; its other end is dropped when the relay stops.
        pub(super) stopped: Receiver<()>,
    }

    impl Keeper {
        pub(super) fn run(self) {
            let mut wait = INTERVAL;
            while self.stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                wait = self.step();
            }
        }

        /// Does a bounded piece of work and says how long to wait before the next.
        pub(super) fn step(&self) -> Duration {
            let has_more = self.store.maintain().unwrap_or_else(|error| {
                tracing::warn!(%error, "maintenance of the store failed; trying again later");
                false
            });
            for stream in self.registry.newest_first(u64::MAX) {
                stream.free_if_idle(IDLE);
            }
            if has_more { Duration::ZERO } else { INTERVAL }
        }
    }
}
