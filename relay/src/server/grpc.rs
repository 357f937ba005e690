//! The gRPC side: Millstream's services, health and reflection, behind the gRPC-Web layer.

use std::sync::Arc;

use millstream_proto::FILE_DESCRIPTOR_SET;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::Layer;

use crate::Core;
use crate::auth::{Authority, Guard, Side};
use crate::limits::Ledger;

/// Services whose health can be asked for by name; the empty name is the whole relay.
const SERVICES: [&str; 3] = ["", "millstream.v1.IngestService", "millstream.v1.LogService"];

/// Says whether the relay serves.
#[derive(Clone, Debug)]
pub(super) struct Health(HealthReporter);

impl Health {
    async fn set(&self, status: ServingStatus) {
        for service in SERVICES {
            self.0.set_service_status(service, status).await;
        }
    }

    /// Says what the store says, and at last that the relay stops: while it takes no lines, the relay as a whole and
    /// ingest do not serve; reading does.
    pub(super) async fn report(
        self,
        mut trouble: watch::Receiver<Option<String>>,
        stopping: CancellationToken,
    ) {
        loop {
            let status = match &*trouble.borrow_and_update() {
                Some(_) => ServingStatus::NotServing,
                None => ServingStatus::Serving,
            };
            for service in &SERVICES[..2] {
                self.0.set_service_status(service, status).await;
            }
            tokio::select! {
                changed = trouble.changed() => if changed.is_err() { return },
                () = stopping.cancelled() => return self.set(ServingStatus::NotServing).await,
            }
        }
    }

    /// Ends the calls of watchers once they have been told; by themselves these never end, and a stop
    /// would wait for them to its limit.
    pub(super) async fn hang_up(&mut self) {
        for service in SERVICES {
            self.0.clear_service_status(service).await;
        }
    }
}

pub(super) async fn service(
    core: &Core,
    authority: &Arc<Authority>,
    ledger: &Arc<Ledger>,
) -> (Health, GrpcWebService<Guard<Routes>>) {
    let (reporter, health_service) = health_reporter();
    let health = Health(reporter);
    health.set(ServingStatus::Serving).await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let valid = "the descriptors were encoded by the build";
    let routes = core
        .routes()
        .add_service(health_service)
        .add_service(reflection().build_v1().expect(valid))
        .add_service(reflection().build_v1alpha().expect(valid))
        .prepare();
    let guarded = Guard::new(Arc::clone(authority), Arc::clone(ledger), Side::Grpc, routes);
    (health, GrpcWebLayer::new().layer(guarded))
}
