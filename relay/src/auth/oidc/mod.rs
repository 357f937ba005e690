//! Login by OpenID Connect: authorization code with PKCE.
//!
//! A login begins with a URL of the provider, to which the browser goes with a `state`; it is [`pending`] until
//! the browser comes back with a code. The code becomes an ID token in a call of the relay's own ([`http`]), which
//! is verified with the keys of the [`provider`]. Who that is may be decided by the rules for
//! [`people`](super::people); sessions and cookies are not known here.

mod http;
mod own_path;
mod pending;
mod provider;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use openidconnect::core::CoreAuthenticationFlow;
use openidconnect::{
    AccessTokenHash, AuthorizationCode, ClaimsVerificationError, CsrfToken, Nonce, OAuth2TokenResponse as _,
    PkceCodeChallenge, RedirectUrl, Scope, SignatureVerificationError, TokenResponse as _,
};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::people::{Claims, Person, USER, shown};
use super::secret::{NoRandomness, SecretHash, random_secret};
use pending::{Pending, PendingLogins, Unknown};
use provider::{Discovered, Provider, TokenClaims, UserClaims, reason};

pub(crate) use http::is_this_machine;
pub(crate) use own_path::OwnPath;
pub(crate) use pending::LIFETIME;
pub use provider::OidcOptions;

/// Where the provider sends the browser back to.
pub const CALLBACK: &str = "/api/login/oidc/callback";

/// Codes that are exchanged at a time; the others wait a little.
const MAX_EXCHANGES: usize = 16;

/// How long they wait.
const EXCHANGE_PATIENCE: Duration = Duration::from_secs(10);

/// Login by one provider.
#[derive(Debug)]
pub(crate) struct Oidc {
    provider: Provider,
    pending: PendingLogins,
    exchanges: Semaphore,
}

/// A login that was begun. It has no `Debug`: both of its parts are secret.
pub(crate) struct Begun {
    /// Where the browser has to go.
    pub(crate) url: String,
    /// What it has to bring back, besides what the provider gives it.
    pub(crate) browser_secret: String,
}

/// What the browser brings back from the provider. It has no `Debug`: the code is secret.
#[derive(Default, Deserialize)]
pub(crate) struct Callback {
    #[serde(default)]
    state: String,
    code: Option<String>,
    error: Option<String>,
    /// Who answered (RFC 9207).
    iss: Option<String>,
}

/// Somebody whom the provider knows.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) person: Person,
    /// When the provider's word about them ends.
    pub(crate) expires_unix: i64,
}

/// What became of a login whose browser came back.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) back_to: OwnPath,
    /// It was a login of this browser, which is over, one way or the other.
    pub(crate) is_over: bool,
    pub(crate) known: Result<Known, Failed>,
}

/// Why nobody is logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    /// For the person, who may be anybody.
    pub(crate) shown: String,
    /// For the audit.
    pub(crate) why: String,
}

impl Oidc {
    pub(crate) fn new(options: OidcOptions) -> Self {
        Self {
            provider: Provider::new(options),
            pending: PendingLogins::default(),
            exchanges: Semaphore::new(MAX_EXCHANGES),
        }
    }

    /// What people call the provider.
    pub(crate) fn name(&self) -> &str {
        &self.provider.options.name
    }

    /// Keeps up with the provider until `stop`.
    pub(crate) async fn keep(self: Arc<Self>, stop: CancellationToken) {
        self.provider.keep(stop).await;
    }

    /// Begins a login of a browser that reaches the relay at `origin`.
    pub(crate) async fn begin(
        &self,
        origin: &str,
        back_to: OwnPath,
        address: Option<IpAddr>,
    ) -> Result<Begun, Failed> {
        let known = self.provider.known().await.ok_or_else(|| self.is_down())?;
        let redirect_url = format!("{origin}{CALLBACK}");
        let redirect = RedirectUrl::new(redirect_url.clone())
            .map_err(|error| Failed::inside(format!("{redirect_url:?} is no URL: {error}")))?;
        let (state, nonce, browser_secret) = secrets().map_err(|error| Failed::inside(error.to_string()))?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let pending = Pending {
            browser: SecretHash::of(&browser_secret),
            nonce: Nonce::new(nonce.clone()),
            pkce_verifier: verifier,
            redirect_url,
            back_to,
            address,
            began: Instant::now(),
        };
        self.pending.add(&state, pending);
        let scopes = &self.provider.options.scopes;
        let (url, ..) = known
            .client
            .authorize_url(
                CoreAuthenticationFlow::AuthorizationCode,
                move || CsrfToken::new(state),
                move || Nonce::new(nonce),
            )
            .add_scopes(scopes.iter().cloned().map(Scope::new))
            .set_pkce_challenge(challenge)
            .set_redirect_uri(std::borrow::Cow::Owned(redirect))
            .url();
        Ok(Begun {
            url: url.to_string(),
            browser_secret,
        })
    }

    /// Ends a login whose browser came back. `claims`: names of those that will be asked for.
    pub(crate) async fn finish<'a>(
        &self,
        callback: Callback,
        browser_secret: Option<&str>,
        claims: impl Iterator<Item = &'a str>,
    ) -> Finished {
        match self.pending.take(&callback.state, browser_secret, Instant::now()) {
            Ok(pending) => Finished {
                back_to: pending.back_to.clone(),
                is_over: true,
                known: self.redeem(callback, pending, claims).await,
            },
            Err(unknown) => Finished {
                back_to: OwnPath::or_home("/"),
                is_over: false,
                known: Err(unknown.into()),
            },
        }
    }

    async fn redeem<'a>(
        &self,
        callback: Callback,
        pending: Pending,
        claims: impl Iterator<Item = &'a str>,
    ) -> Result<Known, Failed> {
        let options = &self.provider.options;
        if callback
            .iss
            .as_deref()
            .is_some_and(|iss| iss != options.issuer.as_str())
        {
            return Err(self.is_not_believed("the answer is of another issuer"));
        }
        let code = match (callback.error, callback.code) {
            (None, Some(code)) if !code.is_empty() => code,
            (error, _) => {
                let error = error.map_or_else(|| "no code came back".to_owned(), |error| shown(&error));
                return Err(Failed {
                    shown: format!("{} did not log you in: {error}", options.name),
                    why: format!("the provider says: {error}"),
                });
            }
        };
        let turn = tokio::time::timeout(EXCHANGE_PATIENCE, self.exchanges.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(Failed::inside("too many people log in at once"));
        };
        let known = self.provider.known().await.ok_or_else(|| self.is_down())?;
        self.exchange(&known, code, pending, claims).await
    }

    async fn exchange<'a>(
        &self,
        known: &Discovered,
        code: String,
        pending: Pending,
        claims: impl Iterator<Item = &'a str>,
    ) -> Result<Known, Failed> {
        let refused = |error: &dyn std::error::Error| {
            let why = reason(error);
            tracing::warn!("{} did not redeem a code: {why}", self.name());
            Failed {
                shown: format!("{} did not confirm this login; begin again", self.name()),
                why: format!("the code was not redeemed: {why}"),
            }
        };
        let redirect = RedirectUrl::new(pending.redirect_url).map_err(|error| refused(&error))?;
        let send = |request| self.provider.http.clone().send(request);
        let tokens = known
            .client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(|error| refused(&error))?
            .set_pkce_verifier(pending.pkce_verifier)
            .set_redirect_uri(std::borrow::Cow::Owned(redirect))
            .request_async(&send)
            .await
            .map_err(|error| refused(&error))?;
        let Some(id_token) = tokens.id_token() else {
            return Err(self.is_not_believed("there is no ID token in its answer"));
        };
        let first = id_token.claims(&known.verifier(), &pending.nonce);
        let renewed;
        let (known, token_claims) = match first {
            Ok(claims) => (known, claims),
            Err(ClaimsVerificationError::SignatureVerification(
                SignatureVerificationError::NoMatchingKey,
            )) => {
                renewed = self.provider.renewed().await.ok_or_else(|| self.is_down())?;
                let claims = id_token
                    .claims(&renewed.verifier(), &pending.nonce)
                    .map_err(|error| self.is_not_believed(&reason(&error)))?;
                (&*renewed, claims)
            }
            Err(error) => return Err(self.is_not_believed(&reason(&error))),
        };
        if token_claims
            .authorized_party()
            .is_some_and(|party| *party != self.provider.options.client_id)
        {
            return Err(self.is_not_believed("the ID token is for another client"));
        }
        if let Some(hash) = token_claims.access_token_hash() {
            let verifier = known.verifier();
            let is_bound = id_token
                .signing_alg()
                .and_then(|algorithm| {
                    let key = id_token.signing_key(&verifier)?;
                    Ok(AccessTokenHash::from_token(tokens.access_token(), algorithm, key)
                        .is_ok_and(|actual| actual == *hash))
                })
                .unwrap_or(false);
            if !is_bound {
                return Err(self.is_not_believed("the access token is not the ID token's"));
            }
        }
        let mut said = as_map(token_claims).map_err(|error| self.is_not_believed(&error))?;
        let has_all = {
            let said = Claims::new(said.clone());
            claims
                .filter(|name| *name != USER)
                .chain(["email"])
                .all(|name| said.has(name))
        };
        if !has_all
            && let Ok(request) = known.client.user_info(
                tokens.access_token().clone(),
                Some(token_claims.subject().clone()),
            )
        {
            let more: UserClaims = request
                .request_async(&send)
                .await
                .map_err(|error| self.is_not_believed(&reason(&error)))?;
            let more = as_map(&more).map_err(|error| self.is_not_believed(&error))?;
            let has_email = said.contains_key("email");
            for (name, value) in more {
                // What is signed counts more, and whether an address is verified is said together with it.
                if !(has_email && name == "email_verified") {
                    said.entry(name).or_insert(value);
                }
            }
        }
        said.remove(USER);
        Ok(self.known(token_claims, Claims::new(said)))
    }

    fn known(&self, token: &TokenClaims, claims: Claims) -> Known {
        let subject = shown(token.subject());
        let issuer = shown(&self.provider.options.issuer);
        let email = claims.values("email").first().map(|email| shown(email));
        let name = match email {
            Some(email) => format!("{email} ({subject} at {issuer})"),
            None => format!("{subject} at {issuer}"),
        };
        Known {
            person: Person { name, claims },
            expires_unix: token.expiration().timestamp(),
        }
    }

    fn is_down(&self) -> Failed {
        Failed {
            shown: format!(
                "{} does not answer the relay at the moment; try again soon, or log in with a token",
                self.name()
            ),
            why: "the login provider does not answer".to_owned(),
        }
    }

    fn is_not_believed(&self, why: &str) -> Failed {
        tracing::warn!("what {} says about somebody is not believed: {why}", self.name());
        Failed {
            shown: format!(
                "what {} says about you cannot be verified; the audit of this relay says why",
                self.name()
            ),
            why: format!("the provider's answer is not believed: {why}"),
        }
    }
}

impl Failed {
    /// Nobody outside can do anything about it.
    fn inside(why: impl Into<String>) -> Self {
        let why = why.into();
        tracing::error!("a login cannot go on: {why}");
        Self {
            shown: "the relay cannot log you in at the moment; its log says why".to_owned(),
            why,
        }
    }
}

impl From<Unknown> for Failed {
    fn from(unknown: Unknown) -> Self {
        let why = match unknown {
            Unknown::State => "its state is not known: used already, too old, or never given",
            Unknown::Browser => "another browser began this login",
        };
        Self {
            shown: "this login was begun elsewhere, took too long or is over already; begin again".to_owned(),
            why: why.to_owned(),
        }
    }
}

fn secrets() -> Result<(String, String, String), NoRandomness> {
    Ok((random_secret("")?, random_secret("")?, random_secret("")?))
}

fn as_map(claims: &impl serde::Serialize) -> Result<Map<String, Value>, String> {
    match serde_json::to_value(claims) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err("its claims are no object".to_owned()),
        Err(error) => Err(format!("its claims cannot be read: {error}")),
    }
}
