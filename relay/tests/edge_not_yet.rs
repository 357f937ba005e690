//! What the protocol declares and this version does not serve says so, call by call.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use millstream_proto::opentelemetry::proto::collector::logs::v1::ExportLogsServiceRequest;
use millstream_proto::opentelemetry::proto::collector::logs::v1::logs_service_client::LogsServiceClient;
use millstream_relay::config::{Config, Settings};
use millstream_relay::server::Relay;
use tonic::transport::Channel;
use tonic::{Code, Status};

fn assert_not_yet(error: &Status) {
    assert_eq!(error.code(), Code::Unimplemented, "{error}");
    let version = concat!("relay version ", env!("CARGO_PKG_VERSION"));
    assert!(error.message().contains(version), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_not_served_yet_are_unimplemented_and_name_what_and_the_version() {
    let data = tempfile::tempdir().unwrap();
    let settings = Settings {
        listen: Some("127.0.0.1:0".to_owned()),
        data_dir: Some(data.path().to_owned()),
        ..Settings::default()
    };
    let relay = Relay::start(Config::load(settings, None).unwrap()).await.unwrap();
    let url = format!("http://{}", relay.address());
    let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();

    let mut otlp = LogsServiceClient::new(channel);
    assert_not_yet(
        &otlp
            .export(ExportLogsServiceRequest::default())
            .await
            .unwrap_err(),
    );
    relay.stop().await;
}
