//! Services that are declared but not served yet. ARCHITECTURE.md lists them.

use std::pin::Pin;

use futures_util::Stream;
use millstream_proto::opentelemetry::proto::collector::logs::v1::logs_service_server::LogsService;
use millstream_proto::opentelemetry::proto::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use millstream_proto::v1;
use millstream_proto::v1::agent_service_server::AgentService;
use millstream_proto::v1::control_service_server::ControlService;
use tonic::{Request, Response, Status, Streaming};

/// Answers UNIMPLEMENTED.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NotYet;

fn not_yet(what: &str) -> Status {
    Status::unimplemented(format!(
        "{what} is not available in relay version {}",
        env!("CARGO_PKG_VERSION")
    ))
}

#[tonic::async_trait]
impl AgentService for NotYet {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<v1::AttachResponse, Status>> + Send>>;

    async fn attach(
        &self,
        _request: Request<Streaming<v1::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Err(not_yet("control of agents"))
    }
}

#[tonic::async_trait]
impl ControlService for NotYet {
    async fn start(&self, _: Request<v1::StartRequest>) -> Result<Response<v1::StartResponse>, Status> {
        Err(not_yet("starting a source"))
    }

    async fn stop(&self, _: Request<v1::StopRequest>) -> Result<Response<v1::StopResponse>, Status> {
        Err(not_yet("stopping a run"))
    }

    async fn restart(&self, _: Request<v1::RestartRequest>) -> Result<Response<v1::RestartResponse>, Status> {
        Err(not_yet("restarting a run"))
    }

    async fn set_command(
        &self,
        _: Request<v1::SetCommandRequest>,
    ) -> Result<Response<v1::SetCommandResponse>, Status> {
        Err(not_yet("changing a command"))
    }
}

#[tonic::async_trait]
impl LogsService for NotYet {
    async fn export(
        &self,
        _: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        Err(not_yet("taking OTLP logs"))
    }
}
