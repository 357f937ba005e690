//! Compression: one block at a time, on a blocking thread beside the reactor.

use millstream_proto::block::Compressor;
use tokio::task::JoinSet;

use crate::outbox::CompressJob;

/// Owns the zstd context and lends it to the job that runs.
#[derive(Debug, Default)]
pub(super) struct CompressorTask {
    level: Option<i32>,
    /// On the reactor's own thread instead.
    is_inline: bool,
    /// At most one job, so that memory and threads stay small; the next block is built meanwhile.
    running: JoinSet<(Compressor, CompressJob)>,
    idle: Option<Compressor>,
}

impl CompressorTask {
    pub(super) fn beside(level: Option<i32>) -> Self {
        Self {
            level,
            ..Self::default()
        }
    }

    /// Compresses on the caller's thread, so that the order of events does not depend on how fast it is.
    pub(super) fn inline(level: Option<i32>) -> Self {
        Self {
            level,
            is_inline: true,
            ..Self::default()
        }
    }

    pub(super) fn enabled(&self) -> bool {
        self.level.is_some()
    }

    pub(super) fn free(&self) -> bool {
        self.running.is_empty()
    }

    /// Starts a job; only when free.
    pub(super) fn start(&mut self, mut job: CompressJob) {
        let level = self.level.unwrap_or(1);
        let mut compressor = self.idle.take().unwrap_or_else(|| Compressor::new(level));
        let work = move || {
            job.block = compressor.compress(job.block);
            (compressor, job)
        };
        if self.is_inline {
            self.running.spawn(async move { work() });
        } else {
            self.running.spawn_blocking(work);
        }
    }

    /// The job that runs, when it is done; for ever pending when none runs. Safe to drop and call again.
    pub(super) async fn done(&mut self) -> CompressJob {
        match self.running.join_next().await {
            Some(Ok((compressor, job))) => {
                self.idle = Some(compressor);
                job
            }
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
            None => std::future::pending().await,
        }
    }

    pub(super) async fn stop(&mut self) {
        while self.running.join_next().await.is_some() {}
    }
}
