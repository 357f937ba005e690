//! A login provider that does what a test tells it to, right or wrong, over HTTP written by hand.

#![allow(
    clippy::unwrap_used,
    reason = "a test helper that cannot go on fails the test"
)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use openidconnect::url::{Url, form_urlencoded};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub(crate) const CLIENT: &str = "millstream";
pub(crate) const SECRET: &str = "the secret of the client";

/// How ID tokens are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signature {
    Good,
    /// `alg: none`.
    None,
    /// By a key that is not the provider's, under the name of the one that is.
    OtherKey,
    /// With the client's secret, which the client knows too.
    Shared,
}

/// What the provider does.
pub(crate) struct Behaviour {
    /// Closes every connection without a word.
    pub(crate) is_down: bool,
    /// Changes the claims of the next ID tokens; `null` takes one out.
    pub(crate) claims: Value,
    pub(crate) signature: Signature,
    pub(crate) gives_id_token: bool,
    pub(crate) userinfo: Value,
    key: EcdsaKeyPair,
    key_id: String,
    /// What was asked with each code that was not redeemed yet.
    codes: HashMap<String, Asked>,
    /// The `authorization` headers and bodies of the calls for tokens.
    pub(crate) token_calls: Vec<(String, String)>,
}

struct Asked {
    challenge: String,
    nonce: String,
    redirect_uri: String,
}

pub(crate) struct MockProvider {
    pub(crate) address: SocketAddr,
    behaviour: Arc<Mutex<Behaviour>>,
    _server: JoinSet<()>,
}

impl MockProvider {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let behaviour = Arc::new(Mutex::new(Behaviour {
            is_down: false,
            claims: json!({}),
            signature: Signature::Good,
            gives_id_token: true,
            userinfo: json!({}),
            key: key(),
            key_id: "first".to_owned(),
            codes: HashMap::new(),
            token_calls: Vec::new(),
        }));
        let shared = Arc::clone(&behaviour);
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, address, Arc::clone(&shared)));
            }
        });
        Self {
            address,
            behaviour,
            _server: server,
        }
    }

    pub(crate) fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `[oidc]` of a relay that uses this provider.
    pub(crate) fn table(&self) -> String {
        format!(
            "[oidc]\nname = \"Example\"\nissuer = \"{}\"\nclient_id = \"{CLIENT}\"\nscopes = [\"email\"]\n",
            self.issuer()
        )
    }

    pub(crate) fn set(&self) -> MutexGuard<'_, Behaviour> {
        self.behaviour.lock().unwrap()
    }

    /// Signs with a new key from now on.
    pub(crate) fn rotate_key(&self) {
        let mut behaviour = self.set();
        behaviour.key = key();
        behaviour.key_id = "second".to_owned();
    }

    /// What a person does at the provider: the code that they come back with, from the URL to which they were led.
    pub(crate) fn log_in(&self, url: &Url) -> String {
        let asked: HashMap<_, _> = url.query_pairs().into_owned().collect();
        assert_eq!(asked["response_type"], "code");
        assert_eq!(asked["client_id"], CLIENT);
        assert_eq!(asked["code_challenge_method"], "S256");
        let mut behaviour = self.set();
        let code = format!("code-{}-{}", behaviour.token_calls.len(), asked["state"]);
        behaviour.codes.insert(
            code.clone(),
            Asked {
                challenge: asked["code_challenge"].clone(),
                nonce: asked["nonce"].clone(),
                redirect_uri: asked["redirect_uri"].clone(),
            },
        );
        code
    }
}

fn key() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap()
}

fn base64url(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn now_unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

async fn serve(mut stream: TcpStream, address: SocketAddr, behaviour: Arc<Mutex<Behaviour>>) {
    let mut request = Vec::new();
    let (head, body) = loop {
        let mut chunk = [0; 4096];
        let Ok(count @ 1..) = stream.read(&mut chunk).await else {
            return;
        };
        request.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        if body.len() >= header(head, "content-length").parse().unwrap_or(0) {
            break (head.to_owned(), body.to_owned());
        }
    };
    let answer = {
        let mut behaviour = behaviour.lock().unwrap();
        if behaviour.is_down {
            return;
        }
        let path = head.split(' ').nth(1).unwrap();
        behaviour.answer(path, &head, &body, address)
    };
    let (status, json) = answer.map_or_else(|error| (400, error), |json| (200, json));
    let json = json.to_string();
    let answer = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{json}",
        json.len()
    );
    let _ = stream.write_all(answer.as_bytes()).await;
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map_or("", |(_, value)| value.trim())
}

impl Behaviour {
    fn answer(&mut self, path: &str, head: &str, body: &str, address: SocketAddr) -> Result<Value, Value> {
        let issuer = format!("http://{address}");
        match path {
            "/.well-known/openid-configuration" => Ok(json!({
                "issuer": issuer,
                "authorization_endpoint": format!("{issuer}/auth"),
                "token_endpoint": format!("{issuer}/token"),
                "userinfo_endpoint": format!("{issuer}/userinfo"),
                "jwks_uri": format!("{issuer}/jwks"),
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                // It claims to do what nobody should believe.
                "id_token_signing_alg_values_supported": ["ES256", "HS256", "none"],
            })),
            "/jwks" => {
                // 4, x and y.
                let point = self.key.public_key().as_ref();
                Ok(json!({ "keys": [{
                    "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.key_id,
                    "x": base64url(&point[1..33]), "y": base64url(&point[33..]),
                }] }))
            }
            "/token" => {
                let authorization = header(head, "authorization").to_owned();
                self.token_calls.push((authorization, body.to_owned()));
                self.token(body, &issuer)
            }
            "/userinfo" => {
                assert_eq!(header(head, "authorization"), "Bearer access");
                Ok(self.userinfo.clone())
            }
            _ => panic!("{path} is asked for"),
        }
    }

    fn token(&mut self, body: &str, issuer: &str) -> Result<Value, Value> {
        let form: HashMap<_, _> = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
        let refuse = |why: &str| json!({ "error": "invalid_grant", "error_description": why });
        let asked = self
            .codes
            .remove(&form["code"])
            .ok_or_else(|| refuse("the code is not known"))?;
        let challenge = base64url(digest(&SHA256, form["code_verifier"].as_bytes()));
        if challenge != asked.challenge || form["redirect_uri"] != asked.redirect_uri {
            return Err(refuse("not the one who asked"));
        }
        let mut claims = json!({
            "iss": issuer,
            "sub": "248289761001",
            "aud": CLIENT,
            "exp": now_unix() + 600,
            "iat": now_unix(),
            "nonce": asked.nonce,
            "email": "ann@example.com",
            "email_verified": true,
            "groups": ["web", "ci"],
        });
        for (name, value) in self.claims.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        let mut answer = json!({ "access_token": "access", "token_type": "Bearer", "expires_in": 600 });
        if self.gives_id_token {
            answer["id_token"] = self.sign(&claims).into();
        }
        Ok(answer)
    }

    fn sign(&self, claims: &Value) -> String {
        let algorithm = match self.signature {
            Signature::None => "none",
            Signature::Shared => "HS256",
            Signature::Good | Signature::OtherKey => "ES256",
        };
        let head = json!({ "alg": algorithm, "kid": self.key_id }).to_string();
        let signed = format!("{}.{}", base64url(head), base64url(claims.to_string()));
        let with = |key: &EcdsaKeyPair| key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        let signature = match self.signature {
            Signature::None => String::new(),
            Signature::Good => base64url(with(&self.key)),
            Signature::OtherKey => base64url(with(&key())),
            Signature::Shared => {
                let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
                base64url(ring::hmac::sign(&key, signed.as_bytes()))
            }
        };
        format!("{signed}.{signature}")
    }
}

/// The value of an `authorization` header that shows the client's secret.
pub(crate) fn basic() -> String {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encode(CLIENT), encode(SECRET));
    format!("Basic {}", BASE64_STANDARD.encode(pair))
}
