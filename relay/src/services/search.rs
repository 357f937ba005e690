//! `Search` and `Histogram`: turns of work in the search pool, as fast as the caller takes what they find.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::Stream;
use millstream_proto::v1;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::status::ToStatus;
use crate::auth::Access;
use crate::core::CoreParts;
use crate::metrics::Metrics;
use crate::search::{
    Cost, Histogram, HistogramPlan, PlanError, Search, SearchError, SearchPlan, SearchPool, TurnKind,
};

/// Tells the turn that runs to end, when the call is over for whatever reason.
struct Call {
    is_cancelled: Arc<AtomicBool>,
    pool: Arc<SearchPool>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

impl Call {
    fn new(parts: &CoreParts) -> Self {
        parts.metrics.searches.add(1);
        Self {
            is_cancelled: Arc::default(),
            pool: Arc::clone(&parts.search_pool),
            metrics: Arc::clone(&parts.metrics),
            stop: parts.stop.clone(),
        }
    }

    /// Runs a turn; the relay's stop ends it.
    async fn turn<T: Send + 'static>(
        &self,
        turn: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, SearchError> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(SearchError::Stopping),
            result = self.pool.run(TurnKind::Search, turn) => result,
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
        self.metrics.searches.subtract(1);
    }
}

/// A request as a plan. Compiling an expression of a stranger's, and choosing among a million streams, takes some
/// milliseconds, which no other call should wait for.
async fn planned<T: Send + 'static>(
    parts: &CoreParts,
    plan: impl FnOnce() -> Result<T, PlanError> + Send + 'static,
) -> Result<T, Status> {
    let planned = parts.search_pool.run(TurnKind::Filter, plan).await;
    planned
        .map_err(|error| error.to_status())?
        .map_err(|error| error.to_status())
}

pub(super) async fn search(
    parts: &CoreParts,
    access: Arc<Access>,
    request: v1::SearchRequest,
) -> Result<impl Stream<Item = Result<v1::SearchResponse, Status>> + Send + use<>, Status> {
    let seat = parts.search_pool.seat().map_err(|error| error.to_status())?;
    let registry = Arc::clone(&parts.registry);
    let plan = planned(parts, move || SearchPlan::new(&request, &registry, &access)).await?;
    let call = Call::new(parts);
    let search = Search::new(
        plan,
        Arc::clone(&parts.store),
        Arc::clone(&parts.metrics),
        Cost {
            time: parts.options.max_search_time,
            text_bytes: parts.options.max_search_text_bytes,
        },
        seat,
        Arc::clone(&call.is_cancelled),
    );
    Ok(futures_util::stream::unfold(
        Some((call, search)),
        |state| async move {
            let (call, mut search) = state?;
            loop {
                match search.pop() {
                    Some(Ok(message)) => {
                        let response = v1::SearchResponse {
                            message: Some(message),
                        };
                        return Some((Ok(response), Some((call, search))));
                    }
                    Some(Err(error)) => return Some((Err(error.to_status()), None)),
                    None if search.is_over() => return None,
                    None => {}
                }
                let turn = call.turn(move || {
                    search.turn();
                    search
                });
                match turn.await {
                    Ok(searched) => search = searched,
                    Err(error) => return Some((Err(error.to_status()), None)),
                }
            }
        },
    ))
}

pub(super) async fn histogram(
    parts: &CoreParts,
    access: Arc<Access>,
    request: v1::HistogramRequest,
) -> Result<v1::HistogramResponse, Status> {
    let seat = parts.search_pool.seat().map_err(|error| error.to_status())?;
    let registry = Arc::clone(&parts.registry);
    let plan = planned(parts, move || HistogramPlan::new(&request, &registry, &access)).await?;
    let call = Call::new(parts);
    let mut histogram = Histogram::new(
        plan,
        Arc::clone(&parts.store),
        Arc::clone(&parts.metrics),
        seat,
        Arc::clone(&call.is_cancelled),
    );
    loop {
        let turn = call.turn(move || {
            let has_more = histogram.turn();
            (histogram, has_more)
        });
        let (counted, has_more) = turn.await.map_err(|error| error.to_status())?;
        if !has_more.map_err(|error| error.to_status())? {
            return Ok(counted.finish());
        }
        histogram = counted;
    }
}
