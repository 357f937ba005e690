//! TLS on the one port: who is believed, who is told what, and a certificate that changes while the relay runs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod edge_support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use edge_support::{Edge, SOON};
use millstream_dial::{Credentials, Pin, Route, TokenSource, Trust};
use millstream_proto::v1::ingest_service_client::IngestServiceClient;
use millstream_proto::v1::log_service_client::LogServiceClient;
use millstream_proto::v1::{self, push_request, push_response};
use millstream_relay::auth::Role;
use millstream_relay::certs::{self, Issued, Purpose};
use millstream_relay::config::Settings;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// An authority and what it issued, in a directory that goes with it.
struct Authority {
    directory: tempfile::TempDir,
    ca: PathBuf,
}

impl Authority {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ca = certs::init(directory.path()).unwrap().cert;
        Self { directory, ca }
    }

    fn issue(&self, name: &str, purpose: Purpose) -> Issued {
        certs::issue(self.directory.path(), &[name.to_owned()], purpose).unwrap()
    }

    fn trust(&self) -> Trust {
        Trust {
            ca: Some(self.ca.clone()),
            ..Trust::default()
        }
    }
}

async fn relay(cert: &Issued, client_ca: Option<PathBuf>) -> Edge {
    Edge::start_with(Settings {
        auth: Some(true),
        tls_cert: Some(cert.cert.clone()),
        tls_key: Some(cert.key.clone()),
        tls_client_ca: client_ca,
        ..Settings::default()
    })
    .await
}

/// A connection with these means, or in words why there is none.
async fn connect(
    edge: &Edge,
    trust: Trust,
    token: &str,
) -> Result<InterceptedService<Channel, millstream_dial::Bearer>, String> {
    let route = Route {
        address: edge.relay.url().parse().unwrap(),
        credentials: Credentials {
            trust,
            token: TokenSource::text(token),
            insecure_no_tls: false,
        },
    };
    let channel = route.endpoint().unwrap().connect().await.map_err(|error| {
        let mut cause: &dyn std::error::Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        cause.to_string()
    })?;
    Ok(InterceptedService::new(channel, route.bearer().unwrap()))
}

async fn lists(edge: &Edge, trust: Trust, token: &str) -> Result<(), String> {
    let mut log = LogServiceClient::new(connect(edge, trust, token).await?);
    let listed = log.list_streams(v1::ListStreamsRequest::default()).await;
    listed.map(drop).map_err(|status| status.message().to_owned())
}

/// Says hello as the agent of a host.
async fn hello(edge: &Edge, trust: Trust, token: &str, host: &str) -> Result<(), Status> {
    let channel = connect(edge, trust, token).await.unwrap();
    let hello = v1::Hello {
        protocol_version: 1,
        agent_id: format!("a-{host}"),
        host: host.to_owned(),
        agent_version: "test".to_owned(),
        ..v1::Hello::default()
    };
    let first = v1::PushRequest {
        message: Some(push_request::Message::Hello(hello)),
    };
    let requests = tokio_stream::iter([first]);
    let answers = IngestServiceClient::new(channel).push(requests).await?;
    match answers.into_inner().message().await?.unwrap().message.unwrap() {
        push_response::Message::Welcome(_) => Ok(()),
        other => panic!("Welcome expected, not {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_is_believed_by_its_authority_or_its_key_and_never_without() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let cert = authority.issue("127.0.0.1", Purpose::Relay);
    let edge = relay(&cert, None).await;
    assert!(edge.relay.url().starts_with("https://127.0.0.1:"));
    let token = edge.tls_token(&authority.ca, Role::Viewer).await;
    let pinned = |pin: Pin| Trust {
        pins: vec![pin],
        ..Trust::default()
    };
    assert_eq!(lists(&edge, authority.trust(), &token).await, Ok(()));
    assert_eq!(lists(&edge, pinned(cert.pin), &token).await, Ok(()));
    for (trust, words) in [
        (stranger.trust(), "UnknownIssuer"),
        (
            pinned(certs::pin(&stranger.ca).unwrap()),
            "not the one that is pinned",
        ),
        (Trust::default(), ""),
        (
            Trust {
                pins: vec![certs::pin(&stranger.ca).unwrap()],
                ..authority.trust()
            },
            "not the one that is pinned",
        ),
    ] {
        let error = lists(&edge, trust, &token).await.unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    assert!(
        lists(&edge, authority.trust(), "")
            .await
            .unwrap_err()
            .contains("asks for a token")
    );
    edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_another_name_or_for_an_agent_is_no_relays() {
    let authority = Authority::new();
    for cert in [
        authority.issue("relay.example", Purpose::Relay),
        authority.issue("127.0.0.1", Purpose::Agent),
    ] {
        let edge = relay(&cert, None).await;
        assert!(connect(&edge, authority.trust(), "x").await.is_err());
        edge.relay.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_certificate_says_which_host_it_may_send_for() {
    let (authority, agents) = (Authority::new(), Authority::new());
    let cert = authority.issue("127.0.0.1", Purpose::Relay);
    let edge = relay(&cert, Some(agents.ca.clone())).await;
    let with = |identity: &Issued| Trust {
        identity: Some((identity.cert.clone(), identity.key.clone())),
        ..authority.trust()
    };
    let build_7 = agents.issue("build-7", Purpose::Agent);
    hello(&edge, with(&build_7), "", "build-7").await.unwrap();
    let other_host = hello(&edge, with(&build_7), "", "build-8").await.unwrap_err();
    assert_eq!(other_host.code(), Code::PermissionDenied);
    assert!(
        other_host.message().contains("certificate of build-7"),
        "{other_host}"
    );
    // It reads nothing, and without it nothing is sent.
    let reads = lists(&edge, with(&build_7), "").await.unwrap_err();
    assert!(reads.contains("needs the role viewer"), "{reads}");
    let without = hello(&edge, authority.trust(), "", "build-7").await.unwrap_err();
    assert_eq!(without.code(), Code::Unauthenticated);
    // One of an authority that was not named, and one that is for relays, end the handshake.
    for foreign in [
        authority.issue("build-7", Purpose::Agent),
        agents.issue("build-9", Purpose::Relay),
    ] {
        let error = match connect(&edge, with(&foreign), "").await {
            Err(error) => error,
            // With TLS 1.3 the caller is done before the relay has looked.
            Ok(channel) => {
                let mut log = LogServiceClient::new(channel);
                let call = log.list_streams(v1::ListStreamsRequest::default());
                format!("{:?}", call.await.unwrap_err())
            }
        };
        assert!(
            !error.contains("asks for a token") && !error.contains("needs the role"),
            "{error}"
        );
    }
    edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_used_without_a_restart_and_a_broken_one_is_not() {
    let authority = Authority::new();
    let cert = authority.issue("127.0.0.1", Purpose::Relay);
    let edge = relay(&cert, None).await;
    let token = edge.tls_token(&authority.ca, Role::Viewer).await;
    let pinned = |pin: Pin| Trust {
        pins: vec![pin],
        ..Trust::default()
    };
    // A connection from before goes on over the change.
    let mut old = LogServiceClient::new(connect(&edge, authority.trust(), &token).await.unwrap());

    let second = Authority::new();
    let renewed = second.issue("127.0.0.1", Purpose::Relay);
    // The key alone does not fit: the pair that works stays in use.
    std::fs::copy(&renewed.key, &cert.key).unwrap();
    let begin = Instant::now();
    while edge.relay_metric("certificate_errors_total") == 0 {
        assert!(begin.elapsed() < SOON, "the key alone was not looked at");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(lists(&edge, pinned(cert.pin), &token).await, Ok(()));
    std::fs::copy(&renewed.cert, &cert.cert).unwrap();
    let begin = Instant::now();
    while lists(&edge, pinned(renewed.pin), &token).await.is_err() {
        assert!(begin.elapsed() < SOON, "the renewed certificate is not used");
    }
    assert!(lists(&edge, pinned(cert.pin), &token).await.is_err());
    old.list_streams(v1::ListStreamsRequest::default()).await.unwrap();
    edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_holds_up_nobody_and_who_speaks_plain_http_is_told() {
    let authority = Authority::new();
    let cert = authority.issue("127.0.0.1", Purpose::Relay);
    let edge = relay(&cert, None).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(edge.address()).await.unwrap());
    }
    let answer = edge.speak("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.contains("400") && answer.contains("https://"), "{answer}");
    let token = edge.tls_token(&authority.ca, Role::Viewer).await;
    assert_eq!(lists(&edge, authority.trust(), &token).await, Ok(()));
    // They are cut off, and by the relay.
    for connection in &mut silent {
        let mut byte = [0];
        let read = tokio::time::timeout(SOON, connection.read(&mut byte));
        assert!(matches!(read.await.unwrap(), Ok(0) | Err(_)));
    }
    edge.relay.stop().await;
}
