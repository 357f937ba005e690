//! What the protocol declares and this version does not serve says so, call by call.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use millstream_proto::opentelemetry::proto::collector::logs::v1::ExportLogsServiceRequest;
use millstream_proto::opentelemetry::proto::collector::logs::v1::logs_service_client::LogsServiceClient;
use millstream_proto::v1;
use millstream_proto::v1::agent_service_client::AgentServiceClient;
use millstream_proto::v1::control_service_client::ControlServiceClient;
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

    let mut control = ControlServiceClient::new(channel.clone());
    assert_not_yet(&control.start(v1::StartRequest::default()).await.unwrap_err());
    assert_not_yet(&control.stop(v1::StopRequest::default()).await.unwrap_err());
    assert_not_yet(&control.restart(v1::RestartRequest::default()).await.unwrap_err());
    assert_not_yet(
        &control
            .set_command(v1::SetCommandRequest::default())
            .await
            .unwrap_err(),
    );

    let mut agent = AgentServiceClient::new(channel.clone());
    let nothing = tokio_stream::empty::<v1::AttachRequest>();
    assert_not_yet(&agent.attach(nothing).await.unwrap_err());

    let mut otlp = LogsServiceClient::new(channel);
    assert_not_yet(
        &otlp
            .export(ExportLogsServiceRequest::default())
            .await
            .unwrap_err(),
    );
    relay.stop().await;
}
