//! Services that are declared but not served yet. ARCHITECTURE.md lists them.

use millstream_proto::opentelemetry::proto::collector::logs::v1::logs_service_server::LogsService;
use millstream_proto::opentelemetry::proto::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use tonic::{Request, Response, Status};

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
impl LogsService for NotYet {
    async fn export(
        &self,
        _: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        Err(not_yet("taking OTLP logs"))
    }
}
