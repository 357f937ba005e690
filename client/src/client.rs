//! A relay that programs talk to: connection, credentials, and the lists.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use millstream_dial::{Bearer, Credentials, Route};
use millstream_proto::limits::MAX_MESSAGE_BYTES;
use millstream_proto::v1;
use millstream_proto::v1::control_service_client::ControlServiceClient;
use millstream_proto::v1::log_service_client::LogServiceClient;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use crate::address;
use crate::error::{Error, root_cause};
use crate::read::{Pages, ReadOptions};
use crate::tail::{Subscription, TailOptions};

/// Where a relay listens when nobody says otherwise.
pub const DEFAULT_RELAY_URL: &str = "http://127.0.0.1:7171";

/// The protocol's limit plus room for a message's own framing, so that a relay that keeps the limit is
/// never refused.
const MAX_DECODED_BYTES: usize = MAX_MESSAGE_BYTES + (64 << 10);
const LIST_PAGE_SIZE: u32 = 500;

pub(crate) type LogClient = LogServiceClient<InterceptedService<Channel, Bearer>>;

/// Which relay, and as whom.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// `https://HOST:PORT`, or `http://HOST:PORT`.
    pub url: String,
    /// Whom to trust, and the token, which is sent as `authorization: Bearer TOKEN` with every call.
    pub credentials: Credentials,
}

impl From<&str> for ClientOptions {
    fn from(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            credentials: Credentials::default(),
        }
    }
}

/// A connection to one relay. Cheap to clone; clones share the connection.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) dialer: Dialer,
    channel: Channel,
}

impl Client {
    /// Connects to the relay, from a URL or [`ClientOptions`].
    ///
    /// # Errors
    /// [`Error::Dial`] before anything is sent; [`Error::Unreachable`] when
    /// nothing answers within 5 seconds.
    pub async fn connect(options: impl Into<ClientOptions>) -> Result<Self, Error> {
        let dialer = Dialer::new(&options.into())?;
        let channel = dialer.channel().await?;
        Ok(Self { dialer, channel })
    }

    /// Like [`Self::connect`], but the connection is made by the first call.
    ///
    /// # Errors
    /// [`Error::Dial`].
    pub fn connect_lazy(options: impl Into<ClientOptions>) -> Result<Self, Error> {
        let dialer = Dialer::new(&options.into())?;
        let channel = dialer.endpoint()?.connect_lazy();
        Ok(Self { dialer, channel })
    }

    /// Like [`Self::connect`], over a network of one's own: a tunnel, or the one of a simulation. `dial` makes
    /// every connection, also those of subscriptions that resume.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_through(
        options: impl Into<ClientOptions>,
        dial: impl Fn(Endpoint) -> Connecting + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let mut dialer = Dialer::new(&options.into())?;
        dialer.dial = Dial(Arc::new(dial));
        let channel = dialer.channel().await?;
        Ok(Self { dialer, channel })
    }

    /// Address of the relay, as it was given.
    pub fn address(&self) -> &str {
        &self.dialer.address
    }

    /// Follows streams from stored history into live, resuming by itself. The subscription has a
    /// connection of its own: one that is read slowly does not slow the others.
    ///
    /// # Errors
    /// Whatever keeps the first attempt from working; later ones are [`crate::Event::Reconnecting`].
    pub async fn tail(&self, options: TailOptions) -> Result<Subscription, Error> {
        Subscription::start(self.dialer.clone(), options).await
    }

    /// Reads one stream by range, a page at a time.
    pub fn read(&self, options: ReadOptions) -> Pages {
        Pages::new(self.log(), self.dialer.address.clone(), options)
    }

    /// The streams that a selector selects (empty: all), newest first.
    pub fn list_streams(&self, selector: &str) -> Streams {
        Streams {
            client: self.clone(),
            request: v1::ListStreamsRequest {
                selector: selector.to_owned(),
                page_size: LIST_PAGE_SIZE,
                page_token: String::new(),
            },
            page: VecDeque::new(),
            done: false,
        }
    }

    /// Every agent that the relay knows, by host name.
    pub fn list_agents(&self) -> Agents {
        Agents {
            client: self.clone(),
            request: v1::ListAgentsRequest {
                page_size: LIST_PAGE_SIZE,
                page_token: String::new(),
            },
            page: VecDeque::new(),
            done: false,
        }
    }

    /// The lists of streams and agents as they are now, then their changes.
    ///
    /// # Errors
    /// The call's own; see [`Error`].
    pub async fn watch(&self, selector: &str) -> Result<Watch, Error> {
        let request = v1::WatchRequest {
            selector: selector.to_owned(),
        };
        match self.log().watch(request).await {
            Ok(response) => Ok(Watch {
                messages: response.into_inner(),
                address: self.dialer.address.clone(),
            }),
            Err(status) => Err(self.error(&status, "watching")),
        }
    }

    /// The generated client, for calls that this crate has no better form for.
    pub fn log(&self) -> LogServiceClient<InterceptedService<Channel, Bearer>> {
        self.dialer.log(self.channel.clone())
    }

    /// The generated client of the control service.
    pub fn control(&self) -> ControlServiceClient<InterceptedService<Channel, Bearer>> {
        ControlServiceClient::with_interceptor(self.channel.clone(), self.dialer.bearer.clone())
    }

    /// Names a status in this crate's words; `what` is the action, for people.
    pub fn error(&self, status: &Status, what: &'static str) -> Error {
        Error::from_status(status, what, &self.dialer.address)
    }
}

/// Streams of a list; pages are fetched as they are needed.
#[derive(Debug)]
pub struct Streams {
    client: Client,
    request: v1::ListStreamsRequest,
    page: VecDeque<v1::Stream>,
    done: bool,
}

impl Streams {
    /// The next stream, or none at the end of the list.
    ///
    /// # Errors
    /// The call's own; a bad selector is [`Error::BadRequest`].
    pub async fn next(&mut self) -> Result<Option<v1::Stream>, Error> {
        while self.page.is_empty() && !self.done {
            let response = self.client.log().list_streams(self.request.clone()).await;
            let page = response
                .map_err(|status| self.client.error(&status, "listing streams"))?
                .into_inner();
            self.done = page.next_page_token.is_empty();
            self.request.page_token = page.next_page_token;
            self.page = page.streams.into();
        }
        Ok(self.page.pop_front())
    }

    /// The rest of the list at once.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn all(mut self) -> Result<Vec<v1::Stream>, Error> {
        let mut all = Vec::new();
        while let Some(stream) = self.next().await? {
            all.push(stream);
        }
        Ok(all)
    }
}

/// Agents of a list; pages are fetched as they are needed.
#[derive(Debug)]
pub struct Agents {
    client: Client,
    request: v1::ListAgentsRequest,
    page: VecDeque<v1::Agent>,
    done: bool,
}

impl Agents {
    /// The next agent, or none at the end of the list.
    ///
    /// # Errors
    /// The call's own.
    pub async fn next(&mut self) -> Result<Option<v1::Agent>, Error> {
        while self.page.is_empty() && !self.done {
            let response = self.client.log().list_agents(self.request.clone()).await;
            let page = response
                .map_err(|status| self.client.error(&status, "listing agents"))?
                .into_inner();
            self.done = page.next_page_token.is_empty();
            self.request.page_token = page.next_page_token;
            self.page = page.agents.into();
        }
        Ok(self.page.pop_front())
    }

    /// The rest of the list at once.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn all(mut self) -> Result<Vec<v1::Agent>, Error> {
        let mut all = Vec::new();
        while let Some(agent) = self.next().await? {
            all.push(agent);
        }
        Ok(all)
    }
}

/// Changes of the lists of streams and agents. It does not reconnect: watch again to get the lists anew.
#[derive(Debug)]
pub struct Watch {
    messages: Streaming<v1::WatchResponse>,
    address: String,
}

impl Watch {
    /// The next change, or none when the relay has closed the call.
    ///
    /// # Errors
    /// The call's own.
    pub async fn next(&mut self) -> Result<Option<v1::watch_response::Message>, Error> {
        loop {
            match self.messages.message().await {
                Ok(Some(v1::WatchResponse {
                    message: Some(message),
                })) => return Ok(Some(message)),
                // A kind of message that this version does not know.
                Ok(Some(v1::WatchResponse { message: None })) => {}
                Ok(None) => return Ok(None),
                Err(status) => return Err(Error::from_status(&status, "watching", &self.address)),
            }
        }
    }
}

/// Makes connections to one relay.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    pub(crate) address: String,
    route: Route,
    dial: Dial,
    bearer: Bearer,
}

/// A connection that is being made.
pub type Connecting = BoxFuture<'static, Result<Channel, tonic::transport::Error>>;

/// How a connection is made of an endpoint that is set up.
#[derive(Clone)]
struct Dial(Arc<dyn Fn(Endpoint) -> Connecting + Send + Sync>);

impl std::fmt::Debug for Dial {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Dial")
    }
}

impl Default for Dial {
    /// By TCP.
    fn default() -> Self {
        Self(Arc::new(|endpoint| {
            Box::pin(async move { endpoint.connect().await })
        }))
    }
}

impl Dialer {
    fn new(options: &ClientOptions) -> Result<Self, Error> {
        let route = Route {
            address: options.url.parse()?,
            credentials: options.credentials.clone(),
        };
        let bearer = route.bearer()?;
        Ok(Self {
            address: options.url.clone(),
            route,
            dial: Dial::default(),
            bearer,
        })
    }

    fn endpoint(&self) -> Result<Endpoint, Error> {
        Ok(address::tuned(self.route.endpoint()?))
    }

    /// A new connection.
    pub(crate) async fn channel(&self) -> Result<Channel, Error> {
        let connected = (self.dial.0)(self.endpoint()?).await;
        connected.map_err(|error| Error::Unreachable {
            address: self.address.clone(),
            reason: root_cause(&error).unwrap_or_else(|| error.to_string()),
        })
    }

    pub(crate) fn log(&self, channel: Channel) -> LogClient {
        LogServiceClient::with_interceptor(channel, self.bearer.clone())
            .max_decoding_message_size(MAX_DECODED_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}
