//! The login provider as the relay knows it: its endpoints and keys, found by discovery.
//!
//! One task asks for them: at the start, every hour, sooner after a failure, and when a login needs them. A provider
//! that is down keeps nobody but those who log in by it waiting.

use std::sync::Arc;
use std::time::Duration;

use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreErrorResponseType, CoreGenderClaim, CoreJsonWebKey,
    CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreProviderMetadata, CoreRevocableToken,
    CoreRevocationErrorResponse, CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::{
    AdditionalClaims, AuthType, Client, ClientId, ClientSecret, EmptyExtraTokenFields, EndpointMaybeSet,
    EndpointNotSet, EndpointSet, IdTokenClaims, IdTokenFields, IdTokenVerifier, IssuerUrl,
    StandardErrorResponse, StandardTokenResponse, UserInfoClaims,
};
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::http::Http;

/// How often keys and endpoints are read anew: providers change keys, and announce them days before.
const REFRESH: Duration = Duration::from_secs(3600);

/// Wait after a failure when nobody wants to log in.
const RETRY: Duration = Duration::from_secs(30);

/// The least time between two attempts, however many people want to log in.
const PAUSE: Duration = Duration::from_secs(2);

/// How long a login waits for the next attempt.
const PATIENCE: Duration = Duration::from_secs(12);

/// Signatures that are believed: those that need the provider's private key. With a shared secret everybody who
/// knows it could sign.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// The claims that OpenID Connect does not name itself, such as groups.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct OtherClaims {
    #[serde(flatten)]
    claims: serde_json::Map<String, serde_json::Value>,
}

impl AdditionalClaims for OtherClaims {}

pub(super) type TokenClaims = IdTokenClaims<OtherClaims, CoreGenderClaim>;
pub(super) type UserClaims = UserInfoClaims<OtherClaims, CoreGenderClaim>;

type Tokens = StandardTokenResponse<
    IdTokenFields<
        OtherClaims,
        EmptyExtraTokenFields,
        CoreGenderClaim,
        CoreJweContentEncryptionAlgorithm,
        CoreJwsSigningAlgorithm,
    >,
    CoreTokenType,
>;

/// The relay as a client of the provider.
pub(super) type ProviderClient = Client<
    OtherClaims,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    Tokens,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// What the provider said about itself.
#[derive(Debug)]
pub(super) struct Discovered {
    pub(super) client: ProviderClient,
}

impl Discovered {
    pub(super) fn verifier(&self) -> IdTokenVerifier<'_, CoreJsonWebKey> {
        self.client.id_token_verifier().set_allowed_algs(ALGORITHMS)
    }
}

/// Which provider, and who the relay is to it.
#[derive(Clone, Debug)]
pub struct OidcOptions {
    /// For people, on the login page.
    pub name: String,
    pub issuer: IssuerUrl,
    pub client_id: ClientId,
    /// `None`: a public client, which PKCE alone protects.
    pub client_secret: Option<ClientSecret>,
    /// What is asked for besides `openid`.
    pub scopes: Vec<String>,
    /// Whom the relay believes to be the provider.
    pub tls: ClientConfig,
}

#[derive(Clone, Debug)]
enum State {
    /// Nothing has come of the first attempt yet.
    Asking,
    Known(Arc<Discovered>),
    Failed,
}

#[derive(Debug)]
pub(super) struct Provider {
    pub(super) options: OidcOptions,
    pub(super) http: Http,
    state: watch::Sender<State>,
    wanted: Notify,
}

impl Provider {
    pub(super) fn new(options: OidcOptions) -> Self {
        Self {
            http: Http::new(options.tls.clone()),
            options,
            state: watch::Sender::new(State::Asking),
            wanted: Notify::new(),
        }
    }

    /// What is known of the provider; waits a little where that is nothing yet. `None`: it does not answer.
    pub(super) async fn known(&self) -> Option<Arc<Discovered>> {
        let mut state = self.state.subscribe();
        let is_failed = match &*state.borrow_and_update() {
            State::Known(discovered) => return Some(Arc::clone(discovered)),
            State::Failed => true,
            State::Asking => false,
        };
        if is_failed {
            self.wanted.notify_one();
        }
        self.next(state).await
    }

    /// The same, read anew: it has signed with a key that was not known.
    pub(super) async fn renewed(&self) -> Option<Arc<Discovered>> {
        let mut state = self.state.subscribe();
        state.mark_unchanged();
        self.wanted.notify_one();
        self.next(state).await
    }

    async fn next(&self, mut state: watch::Receiver<State>) -> Option<Arc<Discovered>> {
        tokio::time::timeout(PATIENCE, state.changed()).await.ok()?.ok()?;
        match &*state.borrow() {
            State::Known(discovered) => Some(Arc::clone(discovered)),
            State::Asking | State::Failed => None,
        }
    }

    /// Keeps up with the provider until `stop`.
    pub(super) async fn keep(&self, stop: CancellationToken) {
        loop {
            let asked = Instant::now();
            let discovered = tokio::select! {
                discovered = self.discover() => discovered,
                () = stop.cancelled() => return,
            };
            let wait = match discovered {
                Ok(discovered) => {
                    if !matches!(&*self.state.borrow(), State::Known(_)) {
                        tracing::info!(
                            "people can log in with {} ({})",
                            self.options.name,
                            *self.options.issuer
                        );
                    }
                    self.state.send_replace(State::Known(Arc::new(discovered)));
                    REFRESH
                }
                Err(error) => {
                    tracing::error!(
                        "the login provider {} cannot be used: {error}; people can log in with tokens meanwhile",
                        *self.options.issuer
                    );
                    // What was known stays in use.
                    self.state.send_modify(|state| {
                        if !matches!(state, State::Known(_)) {
                            *state = State::Failed;
                        }
                    });
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep_until(asked + wait) => {}
                () = self.wanted.notified() => tokio::select! {
                    () = tokio::time::sleep_until(asked + PAUSE) => {}
                    () = stop.cancelled() => return,
                },
                () = stop.cancelled() => return,
            }
        }
    }

    async fn discover(&self) -> Result<Discovered, String> {
        let options = &self.options;
        let send = |request| self.http.clone().send(request);
        let metadata = CoreProviderMetadata::discover_async(options.issuer.clone(), &send)
            .await
            .map_err(|error| reason(&error))?;
        let auth_type = auth_type(&metadata);
        let client = ProviderClient::from_provider_metadata(
            metadata,
            options.client_id.clone(),
            options.client_secret.clone(),
        )
        .set_auth_type(auth_type);
        Ok(Discovered { client })
    }
}

/// How the client's secret is sent: as the provider likes it, and without a word of it as the standard says.
fn auth_type(metadata: &CoreProviderMetadata) -> AuthType {
    use openidconnect::core::CoreClientAuthMethod::{ClientSecretBasic, ClientSecretPost};
    match metadata.token_endpoint_auth_methods_supported() {
        Some(methods) if !methods.contains(&ClientSecretBasic) && methods.contains(&ClientSecretPost) => {
            AuthType::RequestBody
        }
        _ => AuthType::BasicAuth,
    }
}

/// The error and its causes in one line.
pub(super) fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text.chars()
        .take(500)
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect()
}
