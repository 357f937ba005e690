//! Decides about a request: may its page call, who is it, may they.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, header};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::access::Refusal;
use super::audit::{self, Audit, Event};
use super::book::Book;
use super::cookie::{Cookie, CookieKind};
use super::forwarded::{Forwarded, ForwardedPeople, ProxyTrust, Said};
use super::oidc::{Oidc, OidcOptions};
use super::origin::WebPolicy;
use super::people::{People, PersonRule};
use super::sessions::Sessions;
use super::token_file::{TokenError, TokenFile};
use super::{Access, Role, Rule};
use crate::server::Peer;

/// How often the token file is looked at: a revocation is effective within this, and a little.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How often last uses are written down.
const SAVE_INTERVAL: Duration = Duration::from_secs(30);

/// Who may do what, as the running relay knows it.
#[derive(Debug)]
pub(crate) struct Authority {
    /// Set: nobody is asked who they are, and everybody is this.
    everybody: Option<Arc<Access>>,
    book: Book,
    web: WebPolicy,
    /// What is given up, in words; shown wherever somebody logs in or looks.
    warnings: Vec<String>,
    /// Everybody can reach the port, so the name by which it was called tells nothing.
    is_reachable: bool,
    sessions: Sessions,
    cookie: CookieKind,
    people: People,
    /// `None`: people cannot log in by a provider.
    oidc: Option<Arc<Oidc>>,
    /// `None`: no proxy is believed.
    proxy: Option<ProxyTrust>,
    forwarded: ForwardedPeople,
    audit: Audit,
}

impl Authority {
    /// # Errors
    /// The token file cannot be used.
    pub(crate) fn new(options: AuthOptions, audit: Audit) -> Result<Self, TokenError> {
        Ok(Self {
            everybody: (!options.asks)
                .then(|| Access::unrestricted("somebody (nobody is asked for a token)")),
            book: Book::open(options.tokens)?,
            web: options.web,
            warnings: options.warnings,
            is_reachable: options.is_reachable,
            sessions: Sessions::default(),
            cookie: options.cookie,
            people: People::new(options.people),
            oidc: options.oidc.map(|options| Arc::new(Oidc::new(options))),
            proxy: options.proxy,
            forwarded: ForwardedPeople::default(),
            audit,
        })
    }

    pub(crate) fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Whether callers need a token.
    pub(crate) fn asks(&self) -> bool {
        self.everybody.is_none()
    }

    pub(crate) fn has_no_tokens(&self) -> bool {
        self.book.is_empty()
    }

    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    pub(super) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    pub(super) fn cookie(&self) -> CookieKind {
        self.cookie
    }

    pub(super) fn web(&self) -> &WebPolicy {
        &self.web
    }

    pub(super) fn people(&self) -> &People {
        &self.people
    }

    pub(crate) fn oidc(&self) -> Option<&Arc<Oidc>> {
        self.oidc.as_ref()
    }

    /// Whether the page that the request comes from may call.
    pub(crate) fn check_site(&self, request: &http::request::Parts) -> Result<(), Refusal> {
        let denied = |message| Refusal::new(Code::PermissionDenied, message);
        let (uri, headers) = (&request.uri, &request.headers);
        self.web.check_origin(uri, headers).map_err(denied)?;
        if self.everybody.is_some() && !self.is_reachable {
            self.web.check_host(uri, headers).map_err(denied)?;
        }
        Ok(())
    }

    /// Who it is. `Ok(None)`: they do not say.
    pub(crate) fn identify(&self, request: &http::request::Parts) -> Result<Option<Arc<Access>>, Refusal> {
        if let Some(everybody) = &self.everybody {
            return Ok(Some(Arc::clone(everybody)));
        }
        let said = self.read_forwarded(request);
        let Some(value) = request.headers.get(header::AUTHORIZATION) else {
            if let Some(forwarded) = said? {
                return self.by_proxy(forwarded, request).map(Some);
            }
            if let Some(secret) = self.cookie.read(Cookie::Session, &request.headers) {
                return self.by_session(secret, request).map(Some);
            }
            return Ok(request.extensions.get().and_then(by_certificate));
        };
        let token = value
            .to_str()
            .ok()
            .and_then(bearer)
            .ok_or_else(|| unauthenticated("the header authorization must be `Bearer TOKEN`"))?;
        match self.find_token(token) {
            Some(access) => Ok(Some(access)),
            None => Err(unauthenticated(BAD_TOKEN)),
        }
    }

    /// A token that was made a moment ago works at once: the file is looked at before it is refused. That is one small
    /// read after each change, and one question to the file system for each token that is wrong.
    pub(super) fn find_token(&self, token: &str) -> Option<Arc<Access>> {
        self.book.find(token).or_else(|| {
            if !self.book.is_stale() {
                return None;
            }
            self.look(false);
            self.book.find(token)
        })
    }

    /// Who the proxy in front says it is. `None`: it says nothing, or is no proxy that is believed.
    fn read_forwarded(&self, request: &http::request::Parts) -> Result<Option<Forwarded>, Refusal> {
        let Some(proxy) = &self.proxy else {
            return Ok(None);
        };
        let address = request.extensions.get::<Peer>().and_then(|peer| peer.address);
        match proxy.read(address.map(|address| address.ip()), &request.headers) {
            Ok(Said::Nothing) => Ok(None),
            Ok(Said::By(forwarded)) => Ok(Some(forwarded)),
            Ok(Said::ByAStranger) => {
                self.audit.tell(Event::HeaderIgnored {
                    from: audit::from(address),
                    header: proxy.user_header.to_string(),
                    call: audit::shortened(&format!("{} {}", request.method, request.uri.path())),
                });
                Ok(None)
            }
            Err(message) => Err(Refusal::new(Code::PermissionDenied, message)),
        }
    }

    /// Why a person is not let in whom the proxy in front names.
    pub(super) fn refusal_by_proxy(&self, request: &http::request::Parts) -> Option<Refusal> {
        let address = request.extensions.get::<Peer>().and_then(|peer| peer.address);
        let proxy = self.proxy.as_ref()?;
        match proxy.read(address.map(|address| address.ip()), &request.headers) {
            Ok(Said::Nothing | Said::ByAStranger) => None,
            Ok(Said::By(forwarded)) => self.by_proxy(forwarded, request).err(),
            Err(message) => Some(Refusal::new(Code::PermissionDenied, message)),
        }
    }

    fn by_proxy(&self, forwarded: Forwarded, request: &http::request::Parts) -> Result<Arc<Access>, Refusal> {
        // The proxy adds its header to whatever the browser sends, as browsers do with cookies; and unlike the
        // session's cookie, the proxy's own may come along from pages of others.
        self.check_own_page(request)?;
        self.forwarded
            .access(forwarded, &self.people)
            .map_err(|person| Refusal {
                who: Some(person.name.clone()),
                ..Refusal::new(
                    Code::PermissionDenied,
                    format!(
                        "no rule of this relay lets {} in; whoever runs it decides that",
                        person.name
                    ),
                )
            })
    }

    fn by_session(&self, secret: &str, request: &http::request::Parts) -> Result<Arc<Access>, Refusal> {
        self.check_own_page(request)?;
        self.sessions
            .find(secret)
            .ok_or_else(|| unauthenticated("the session is over; log in again"))
    }

    /// What comes along by itself (a cookie, a proxy's header) counts for requests of the relay's own pages only.
    fn check_own_page(&self, request: &http::request::Parts) -> Result<(), Refusal> {
        let denied = |message: String| Refusal::new(Code::PermissionDenied, message);
        // Browsers say with every POST where it comes from (which was checked before); what says nothing is none,
        // and has no use for a cookie.
        let says_where =
            request.headers.contains_key(header::ORIGIN) || request.headers.contains_key("sec-fetch-site");
        if request.method == Method::POST && !says_where {
            return Err(denied(
                "a session is for browsers; programs send the header `authorization: Bearer TOKEN`"
                    .to_owned(),
            ));
        }
        self.web
            .check_own_origin(&request.uri, &request.headers)
            .map_err(denied)
    }

    /// Who it is, if they may make a call with this rule.
    pub(crate) fn admit(&self, rule: Rule, request: &http::request::Parts) -> Result<Arc<Access>, Refusal> {
        let access = self.identify(request)?.ok_or_else(|| {
            unauthenticated(
                "this relay asks for a token: send the header `authorization: Bearer TOKEN`, or log in at its web page",
            )
        })?;
        access.check(rule)?;
        Ok(access)
    }

    /// Keeps up with the token file until `stop`; then writes down what is not written yet.
    pub(crate) async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let mut save_at = tokio::time::Instant::now() + SAVE_INTERVAL;
        loop {
            let is_last = tokio::select! {
                () = stop.cancelled() => true,
                () = tokio::time::sleep(LOOK_INTERVAL) => false,
            };
            let saves = is_last || tokio::time::Instant::now() >= save_at;
            if saves {
                save_at = tokio::time::Instant::now() + SAVE_INTERVAL;
            }
            let authority = Arc::clone(&self);
            // A file on a disk that hangs must hold up no call.
            let looked = tokio::task::spawn_blocking(move || authority.look(saves)).await;
            if let Err(error) = looked {
                tracing::error!(%error, "could not look at the tokens");
            }
            if is_last {
                return;
            }
        }
    }

    fn look(&self, saves: bool) {
        match self.book.refresh() {
            Ok(changes) => {
                for change in changes {
                    tracing::info!("{change}");
                    self.audit.tell(change.into());
                }
            }
            Err(error) => tracing::error!(%error, "the tokens that were known stay valid"),
        }
        self.sessions.sweep();
        self.forwarded.sweep();
        if saves && let Err(error) = self.book.save_use() {
            tracing::warn!(%error, "could not write down when tokens were used");
        }
    }
}

/// What the authority is made from.
#[derive(Clone, Debug)]
pub(crate) struct AuthOptions {
    /// Callers need a token.
    pub(crate) asks: bool,
    pub(crate) tokens: TokenFile,
    pub(crate) web: WebPolicy,
    pub(crate) warnings: Vec<String>,
    /// The relay listens on more than loopback.
    pub(crate) is_reachable: bool,
    pub(crate) cookie: CookieKind,
    pub(crate) people: Vec<PersonRule>,
    pub(crate) oidc: Option<OidcOptions>,
    pub(crate) proxy: Option<ProxyTrust>,
}

pub(super) const BAD_TOKEN: &str =
    "the token is not valid: it is unknown, revoked or expired; ask for another one";

/// An agent that its certificate names: it may send for the hosts that stand in it.
fn by_certificate(peer: &Peer) -> Option<Arc<Access>> {
    if peer.host_names.is_empty() {
        return None;
    }
    let hosts = peer.host_names.join(",");
    // The names have no characters that a selector reads as anything else.
    Access::new(
        format!("the certificate of {hosts}"),
        Role::Agent,
        &format!("host in ({hosts})"),
    )
    .ok()
}

pub(super) fn unauthenticated(message: &str) -> Refusal {
    Refusal::new(Code::Unauthenticated, message)
}

/// The token of `Bearer TOKEN`; the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bearer_token_is_one() {
        for (value, token) in [
            ("Bearer mst_x", Some("mst_x")),
            ("bearer  mst_x ", Some("mst_x")),
            ("Basic mst_x", None),
            ("mst_x", None),
            ("Bearer ", None),
            ("", None),
        ] {
            assert_eq!(bearer(value), token, "{value:?}");
        }
    }
}
