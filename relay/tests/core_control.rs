//! Commands find their agent, and answers the one who asked; the agent here is one made of bare messages.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use millstream_proto::v1::agent_service_client::AgentServiceClient;
use millstream_proto::v1::control_service_client::ControlServiceClient;
use millstream_proto::v1::{self, attach_request, attach_response};
use support::{Agent, Relay, SOON};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

struct Attached {
    to_relay: mpsc::Sender<v1::AttachRequest>,
    from_relay: Streaming<v1::AttachResponse>,
}

impl Attached {
    async fn new(relay: &Relay, agent_id: &str) -> Result<Self, Status> {
        Self::with(relay, hello(agent_id)).await
    }

    async fn with(relay: &Relay, first: attach_request::Message) -> Result<Self, Status> {
        let (to_relay, requests) = mpsc::channel(8);
        let mut attached = Self {
            to_relay,
            from_relay: {
                let mut client = AgentServiceClient::new(relay.channel().await);
                let stream = tokio_stream::once(v1::AttachRequest { message: Some(first) });
                let requests = tokio_stream::StreamExt::chain(stream, ReceiverStream::new(requests));
                client.attach(requests).await?.into_inner()
            },
        };
        match attached.next().await? {
            attach_response::Message::Welcome(_) => Ok(attached),
            other => panic!("no welcome but {other:?}"),
        }
    }

    async fn next(&mut self) -> Result<attach_response::Message, Status> {
        let message = tokio::time::timeout(SOON, self.from_relay.message())
            .await
            .unwrap()?;
        Ok(message.expect("the call goes on").message.unwrap())
    }

    async fn command(&mut self) -> v1::Command {
        match self.next().await.unwrap() {
            attach_response::Message::Command(command) => command,
            other => panic!("no command but {other:?}"),
        }
    }

    async fn say(&self, message: attach_request::Message) {
        let request = v1::AttachRequest {
            message: Some(message),
        };
        self.to_relay.send(request).await.unwrap();
    }

    async fn answer(&self, result: v1::CommandResult) {
        self.say(attach_request::Message::CommandResult(result)).await;
    }
}

fn hello(agent_id: &str) -> attach_request::Message {
    attach_request::Message::Hello(v1::AttachHello {
        protocol_version: 1,
        agent_id: agent_id.to_owned(),
        host: format!("host-{agent_id}"),
    })
}

fn target(agent_id: &str) -> Option<v1::SourceTarget> {
    Some(v1::SourceTarget {
        agent_id: agent_id.to_owned(),
        source: "nightly".to_owned(),
    })
}

async fn control(relay: &Relay) -> ControlServiceClient<Channel> {
    ControlServiceClient::new(relay.channel().await)
}

/// An agent that is known, because it has pushed, and attached.
async fn known_agent(relay: &Relay) -> (Agent, Attached) {
    let agent = relay.agent("a").await;
    let attached = Attached::new(relay, "a").await.unwrap();
    (agent, attached)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_reaches_the_agent_with_who_asked_and_returns_its_run() {
    let relay = Relay::start().await;
    let (_agent, mut attached) = known_agent(&relay).await;
    let agent = async {
        let command = attached.command().await;
        assert_eq!(command.action(), v1::CommandAction::Start);
        assert_eq!(
            (command.source.as_str(), command.principal.is_empty()),
            ("nightly", false)
        );
        attached
            .answer(v1::CommandResult {
                command_id: command.command_id,
                run: Some(v1::Run {
                    run_id: "r1".to_owned(),
                    ..v1::Run::default()
                }),
                ..v1::CommandResult::default()
            })
            .await;
    };
    let mut control = control(&relay).await;
    let request = v1::StartRequest { target: target("a") };
    let (response, ()) = tokio::join!(control.start(request), agent);
    assert_eq!(response.unwrap().into_inner().run.unwrap().run_id, "r1");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_of_an_agent_has_its_own_status_and_the_agents_words() {
    let relay = Relay::start().await;
    let (_agent, mut attached) = known_agent(&relay).await;
    let mut control = control(&relay).await;
    for (kind, code) in [
        (v1::RefusalKind::Forbidden, Code::PermissionDenied),
        (v1::RefusalKind::UnknownSource, Code::NotFound),
        (v1::RefusalKind::WrongState, Code::FailedPrecondition),
        (v1::RefusalKind::Conflict, Code::Aborted),
        (v1::RefusalKind::Failed, Code::Unknown),
    ] {
        let agent = async {
            let command = attached.command().await;
            attached
                .answer(v1::CommandResult {
                    command_id: command.command_id,
                    refusal: "because".to_owned(),
                    refusal_kind: kind.into(),
                    ..v1::CommandResult::default()
                })
                .await;
        };
        let request = v1::RestartRequest {
            target: Some(v1::restart_request::Target::Source(target("a").unwrap())),
        };
        let (response, ()) = tokio::join!(control.restart(request), agent);
        let status = response.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, "because"), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_away_or_unknown_or_goes_away_is_said_at_once() {
    let relay = Relay::start().await;
    let mut control = control(&relay).await;
    let request = v1::StartRequest { target: target("a") };
    let unknown = control.start(request.clone()).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let _agent = relay.agent("a").await;
    let away = control.start(request.clone()).await.unwrap_err();
    assert_eq!(away.code(), Code::Unavailable);
    assert!(away.message().contains("not kept for later"), "{away}");
    let mut attached = Attached::new(&relay, "a").await.unwrap();
    let agent = async {
        attached.command().await;
        drop(attached);
    };
    let (lost, ()) = tokio::join!(control.start(request), agent);
    let lost = lost.unwrap_err();
    assert_eq!(lost.code(), Code::Unavailable);
    assert!(lost.message().contains("before it answered"), "{lost}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_stopped_by_its_id() {
    let relay = Relay::start().await;
    let (mut agent, mut attached) = known_agent(&relay).await;
    agent
        .open_as(v1::OpenStream {
            handle: 1,
            source: "nightly".to_owned(),
            instance: "r1".to_owned(),
            run: Some(v1::Run {
                run_id: "r1".to_owned(),
                ..v1::Run::default()
            }),
            ..v1::OpenStream::default()
        })
        .await;
    let mut control = control(&relay).await;
    let stop = |run_id: &str| v1::StopRequest {
        target: Some(v1::stop_request::Target::RunId(run_id.to_owned())),
    };
    assert_eq!(control.stop(stop("r2")).await.unwrap_err().code(), Code::NotFound);
    let answer = async {
        let command = attached.command().await;
        assert_eq!(
            (command.source.as_str(), command.run_id.as_str()),
            ("nightly", "r1")
        );
        attached
            .answer(v1::CommandResult {
                command_id: command.command_id,
                end: Some(v1::StreamEnd {
                    signal: Some(2),
                    ..v1::StreamEnd::default()
                }),
                ..v1::CommandResult::default()
            })
            .await;
    };
    let (response, ()) = tokio::join!(control.stop(stop("r1")), answer);
    assert_eq!(response.unwrap().into_inner().end.unwrap().signal, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_command_is_refused_before_an_agent_sees_it() {
    let relay = Relay::start().await;
    let (_agent, _attached) = known_agent(&relay).await;
    let mut control = control(&relay).await;
    for (argv, expected) in [
        (vec![String::new()], "program"),
        (vec!["a\0b".to_owned()], "NUL"),
        (vec!["x".repeat(70_000)], "limits"),
    ] {
        let request = v1::SetCommandRequest {
            target: target("a"),
            argv,
            expected_argv: Vec::new(),
        };
        let status = control.set_command(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(expected), "{status}");
    }
    let status = control.start(v1::StartRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_are_shown_with_their_agent_and_a_later_call_takes_over() {
    let relay = Relay::start().await;
    let (_agent, attached) = known_agent(&relay).await;
    let status = v1::SourceStatus {
        source: "nightly".to_owned(),
        allowed_actions: vec!["start".to_owned()],
        argv: vec!["make".to_owned()],
        ..v1::SourceStatus::default()
    };
    attached
        .say(attach_request::Message::SourceStatus(status.clone()))
        .await;
    let mut log = relay.log().await;
    let request = v1::WatchRequest::default();
    let mut watch = log.watch(request).await.unwrap().into_inner();
    let agent_where = async |watch: &mut Streaming<v1::WatchResponse>,
                             wanted: &dyn Fn(&v1::Agent) -> bool| loop {
        let message = tokio::time::timeout(SOON, watch.message())
            .await
            .unwrap()
            .unwrap();
        if let Some(v1::watch_response::Message::Agent(agent)) = message.unwrap().message
            && wanted(&agent)
        {
            return agent;
        }
    };
    let agent = agent_where(&mut watch, &|agent| !agent.sources.is_empty()).await;
    assert_eq!((agent.sources, agent.is_attached), (vec![status.clone()], true));

    let later = Attached::new(&relay, "a").await.unwrap();
    let mut attached = attached;
    assert_eq!(attached.next().await.unwrap_err().code(), Code::Aborted);
    drop(later);
    let agent = agent_where(&mut watch, &|agent| !agent.is_attached).await;
    assert!(
        agent.sources.is_empty(),
        "the later call has reported none: {agent:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attach_call_begins_with_a_hello_that_is_checked() {
    let relay = Relay::start().await;
    let result = attach_request::Message::CommandResult(v1::CommandResult::default());
    let Err(status) = Attached::with(&relay, result).await else {
        panic!("it is refused")
    };
    assert_eq!(status.code(), Code::InvalidArgument);
    let newer = attach_request::Message::Hello(v1::AttachHello {
        protocol_version: 9,
        agent_id: "a".to_owned(),
        host: "h".to_owned(),
    });
    let Err(status) = Attached::with(&relay, newer).await else {
        panic!("it is refused")
    };
    assert_eq!(status.code(), Code::FailedPrecondition);
}
