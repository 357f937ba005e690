//! Logging in with a browser, by a token or by the login provider, and logging out.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::{HeaderMap, Uri};
use tonic::Code;

use super::access::Refusal;
use super::audit::{self, Event};
use super::authority::{Authority, BAD_TOKEN, unauthenticated};
use super::cookie::Cookie;
use super::oidc::{self, Callback, Failed, Known, OwnPath};
use super::{Access, Role, Rule};
use crate::server::Peer;

/// Who logs in, before that is known.
const SOMEBODY: &str = "somebody who logs in";

/// Why a login failed is shown for as long, seconds, or until the next one.
const PROBLEM_SECS: i64 = 600;

/// Longest such sentence, in bytes.
const MAX_PROBLEM_BYTES: usize = 1000;

/// Where the browser goes to log in at the provider, and what it has to keep meanwhile.
pub(crate) struct LoginBegun {
    pub(crate) url: String,
    pub(crate) cookies: Vec<String>,
}

/// Where the browser goes next, logged in or not.
pub(crate) struct LoginFinished {
    pub(crate) to: OwnPath,
    pub(crate) cookies: Vec<String>,
}

impl Authority {
    /// Begins a session with a token. Returns who it is and the cookies to set.
    pub(crate) fn log_in(&self, token: &str, from: String) -> Result<(Arc<Access>, Vec<String>), Refusal> {
        let refused = |refusal: Refusal| {
            self.audit().tell(Event::Refused {
                who: SOMEBODY.to_owned(),
                from: from.clone(),
                call: "POST /api/session".to_owned(),
                why: refusal.message.clone(),
            });
            refusal
        };
        if !self.asks() {
            return Err(Refusal::new(
                Code::InvalidArgument,
                "this relay asks nobody to log in",
            ));
        }
        let access = self
            .find_token(token)
            .ok_or_else(|| refused(unauthenticated(BAD_TOKEN)))?;
        access.check(Rule::Needs(Role::Viewer)).map_err(refused)?;
        let (secret, lifetime_secs) = self
            .sessions()
            .begin(&access)
            .map_err(|error| refused(Refusal::new(Code::ResourceExhausted, error.to_string())))?;
        self.audit().tell(Event::Login {
            who: access.who().to_owned(),
            from,
        });
        let cookies = vec![
            self.cookie().set(Cookie::Session, &secret, lifetime_secs),
            self.cookie().forget(Cookie::Problem),
        ];
        Ok((access, cookies))
    }

    /// Ends the session of a request, if it has one. Returns the cookies that make the browser forget it.
    pub(crate) fn log_out(&self, headers: &HeaderMap, from: String) -> Vec<String> {
        let ended = self
            .cookie()
            .read(Cookie::Session, headers)
            .and_then(|secret| self.sessions().end(secret));
        if let Some(access) = ended {
            self.audit().tell(Event::Logout {
                who: access.who().to_owned(),
                from,
            });
        }
        vec![
            self.cookie().forget(Cookie::Session),
            self.cookie().forget(Cookie::Problem),
        ]
    }

    /// Whether the access is that of the browser's session, so that logging out ends it.
    pub(crate) fn is_session(&self, headers: &HeaderMap, access: &Arc<Access>) -> bool {
        self.cookie()
            .read(Cookie::Session, headers)
            .and_then(|secret| self.sessions().find(secret))
            .is_some_and(|session| Arc::ptr_eq(&session, access))
    }

    /// Why somebody is not let in, in the relay's own words: what the proxy in front says of them is not enough, or
    /// their last login failed.
    pub(crate) fn login_problem(&self, request: &http::request::Parts) -> Option<String> {
        if self.check_site(request).is_err() {
            return None;
        }
        if let Some(refusal) = self.refusal_by_proxy(request) {
            return Some(refusal.message);
        }
        let text = self.cookie().read(Cookie::Problem, &request.headers)?;
        let text = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        String::from_utf8(text)
            .ok()
            .filter(|text| text.len() <= MAX_PROBLEM_BYTES)
    }

    /// What people call the login provider; `None`: there is none.
    pub(crate) fn provider_name(&self) -> Option<&str> {
        self.oidc().map(|oidc| oidc.name())
    }

    /// Begins a login at the provider, which leads back to `back_to` here.
    pub(crate) async fn begin_login(
        &self,
        back_to: &str,
        uri: &Uri,
        headers: &HeaderMap,
        peer: Option<&Peer>,
    ) -> Result<LoginBegun, Refusal> {
        let oidc = self
            .oidc()
            .ok_or_else(|| Refusal::new(Code::NotFound, "this relay knows no login provider"))?;
        let origin = self
            .web()
            .public_origin(uri, headers)
            .map_err(|message| Refusal::new(Code::PermissionDenied, message))?;
        let address = peer.and_then(|peer| peer.address).map(|address| address.ip());
        let begun = oidc
            .begin(&origin, OwnPath::or_home(back_to), address)
            .await
            .map_err(|failed| Refusal::new(Code::Unavailable, failed.shown))?;
        let lifetime_secs = i64::try_from(oidc::LIFETIME.as_secs()).unwrap_or(i64::MAX);
        Ok(LoginBegun {
            url: begun.url,
            cookies: vec![
                self.cookie()
                    .set(Cookie::Login, &begun.browser_secret, lifetime_secs),
                self.cookie().forget(Cookie::Problem),
            ],
        })
    }

    /// Ends a login whose browser came back from the provider. `None`: there is no provider.
    pub(crate) async fn finish_login(
        &self,
        callback: Callback,
        headers: &HeaderMap,
        peer: Option<&Peer>,
    ) -> Option<LoginFinished> {
        let oidc = self.oidc()?;
        let from = audit::from(peer.and_then(|peer| peer.address));
        let browser_secret = self.cookie().read(Cookie::Login, headers);
        let finished = oidc
            .finish(callback, browser_secret, self.people().claim_names())
            .await;
        let begun = finished
            .known
            .map_err(|failed| (SOMEBODY.to_owned(), failed))
            .and_then(|known| self.begin_session_of(&known));
        let mut cookies = Vec::new();
        if finished.is_over {
            cookies.push(self.cookie().forget(Cookie::Login));
        }
        match begun {
            Ok((access, cookie)) => {
                self.audit().tell(Event::Login {
                    who: access.who().to_owned(),
                    from,
                });
                cookies.extend([cookie, self.cookie().forget(Cookie::Problem)]);
            }
            Err((who, failed)) => {
                self.audit().tell(Event::Refused {
                    who,
                    from,
                    call: format!("GET {}", oidc::CALLBACK),
                    why: failed.why,
                });
                let problem = BASE64_URL_SAFE_NO_PAD.encode(failed.shown);
                cookies.push(self.cookie().set(Cookie::Problem, &problem, PROBLEM_SECS));
            }
        }
        Some(LoginFinished {
            to: finished.back_to,
            cookies,
        })
    }

    /// Who it is and the session's cookie; or who it would be, and why not.
    fn begin_session_of(&self, known: &Known) -> Result<(Arc<Access>, String), (String, Failed)> {
        let person = &known.person;
        let access = self.people().access(person).ok_or_else(|| {
            let failed = Failed {
                shown: format!(
                    "no rule of this relay lets {} in; whoever runs it decides that",
                    person.name
                ),
                why: self.people().explain_refusal(person),
            };
            (person.name.clone(), failed)
        })?;
        let (secret, lifetime_secs) =
            self.sessions()
                .begin_until(&access, known.expires_unix)
                .map_err(|error| {
                    let failed = Failed {
                        shown: error.to_string(),
                        why: error.to_string(),
                    };
                    (person.name.clone(), failed)
                })?;
        Ok((access, self.cookie().set(Cookie::Session, &secret, lifetime_secs)))
    }
}
