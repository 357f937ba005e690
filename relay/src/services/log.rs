//! `LogService` for everything but `Tail`: each call is one line here and a file of its own beside it.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use millstream_proto::v1;
use tonic::{Request, Response, Status};

use super::{lists, read, search, watch};
use crate::auth::Access;
use crate::core::CoreParts;

#[derive(Clone, Debug)]
pub(super) struct LogApi {
    pub(super) parts: Arc<CoreParts>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl v1::log_service_server::LogService for LogApi {
    type TailStream = Answers<v1::TailResponse>;
    type SearchStream = Answers<v1::SearchResponse>;
    type WatchStream = Answers<v1::WatchResponse>;

    async fn tail(&self, _: Request<v1::TailRequest>) -> Result<Response<Self::TailStream>, Status> {
        // TailService answers this path before the generated server sees it.
        Err(Status::internal(
            "Tail reached the wrong service; this is a bug of the relay",
        ))
    }

    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<v1::ReadResponse>, Status> {
        let access = Access::of(&request)?;
        read::read(&self.parts, &access, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn search(
        &self,
        request: Request<v1::SearchRequest>,
    ) -> Result<Response<Self::SearchStream>, Status> {
        let access = Access::of(&request)?;
        let request = request.into_inner();
        let found = search::search(&self.parts, access, request).await?;
        Ok(Response::new(Box::pin(found)))
    }

    async fn histogram(
        &self,
        request: Request<v1::HistogramRequest>,
    ) -> Result<Response<v1::HistogramResponse>, Status> {
        let access = Access::of(&request)?;
        search::histogram(&self.parts, access, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn list_streams(
        &self,
        request: Request<v1::ListStreamsRequest>,
    ) -> Result<Response<v1::ListStreamsResponse>, Status> {
        let access = Access::of(&request)?;
        let request = request.into_inner();
        lists::streams(&self.parts, &access, &request).map(Response::new)
    }

    async fn list_runs(
        &self,
        request: Request<v1::ListRunsRequest>,
    ) -> Result<Response<v1::ListRunsResponse>, Status> {
        let access = Access::of(&request)?;
        let request = request.into_inner();
        lists::runs(&self.parts, &access, &request).map(Response::new)
    }

    async fn list_agents(
        &self,
        request: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        let access = Access::of(&request)?;
        let request = request.into_inner();
        lists::agents(&self.parts, &access, &request).map(Response::new)
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let access = Access::of(&request)?;
        let request = request.into_inner();
        Ok(Response::new(Box::pin(watch::watch(
            &self.parts,
            access,
            &request,
        )?)))
    }
}
