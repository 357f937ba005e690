//! Who is let in without a token: by a login provider, or by the word of a reverse proxy; and the rules that say
//! what those people may.
//!
//! These are tables of the file only: lists of rules make no good flags.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::HeaderName;
use millstream_dial::Trust;
use openidconnect::{ClientId, ClientSecret, IssuerUrl};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;

use crate::auth::{
    CALLBACK, Network, OidcOptions, PersonRule, ProxyTrust, PublicUrl, Role, USER, is_this_machine,
};

/// `[oidc]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OidcTable {
    name: Option<String>,
    issuer: String,
    client_id: String,
    client_secret_file: Option<PathBuf>,
    scopes: Option<Vec<String>>,
    ca: Option<PathBuf>,
}

/// `[trusted_proxy]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProxyTable {
    addresses: Vec<String>,
    user_header: String,
    groups_header: Option<String>,
}

/// `[[people]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PersonTable {
    claims: BTreeMap<String, OneOrMore>,
    role: Role,
    #[serde(default)]
    scope: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// Who is let in without a token.
#[derive(Clone, Debug, Default)]
pub struct PeopleConfig {
    /// `None`: nobody logs in by a provider.
    pub oidc: Option<OidcOptions>,
    /// `None`: no proxy is believed.
    pub proxy: Option<ProxyTrust>,
    /// The first that is about somebody decides.
    pub rules: Vec<PersonRule>,
}

/// What is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    #[error("[oidc] {key}: {cause}")]
    Oidc { key: &'static str, cause: String },
    #[error("[trusted_proxy] {key}: {cause}")]
    Proxy { key: &'static str, cause: String },
    #[error("[[people]] number {number}: {cause}")]
    Rule { number: usize, cause: String },
    #[error(
        "[oidc] and [trusted_proxy] let in nobody without a rule: add [[people]] with claims and a role, such as \
         claims = {{ groups = \"ci\" }}, role = \"viewer\""
    )]
    NoRule,
    #[error("[[people]] are let in by [oidc] or [trusted_proxy], and there is neither")]
    NoLogin,
    #[error(
        "[oidc] needs public_url: the login provider leads people back there; give scheme, host and port by which \
         browsers reach this relay, such as https://logs.example.com"
    )]
    NoPublicUrl,
}

impl PeopleConfig {
    pub(super) fn new(
        oidc: Option<OidcTable>,
        proxy: Option<&ProxyTable>,
        people: Vec<PersonTable>,
    ) -> Result<Self, PeopleError> {
        let has_login = oidc.is_some() || proxy.is_some();
        if has_login && people.is_empty() {
            return Err(PeopleError::NoRule);
        }
        if !has_login && !people.is_empty() {
            return Err(PeopleError::NoLogin);
        }
        let rules = people.into_iter().enumerate().map(|(index, table)| {
            let claims = table.claims.into_iter().map(|(name, values)| match values {
                OneOrMore::One(value) => (name, vec![value]),
                OneOrMore::More(values) => (name, values),
            });
            PersonRule::new(claims.collect(), table.role, table.scope).map_err(|error| PeopleError::Rule {
                number: index + 1,
                cause: error.to_string(),
            })
        });
        let rules = rules.collect::<Result<Vec<_>, _>>()?;
        if proxy.is_none()
            && let Some(index) = rules.iter().position(PersonRule::names_a_user)
        {
            return Err(PeopleError::Rule {
                number: index + 1,
                cause: format!(
                    "the claim {USER:?} is the name that a proxy gives, and there is no [trusted_proxy]"
                ),
            });
        }
        Ok(Self {
            oidc: oidc.map(oidc_options).transpose()?,
            proxy: proxy.map(proxy_trust).transpose()?,
            rules,
        })
    }

    pub(super) fn check_public_url(
        &self,
        is_reachable: bool,
        public_url: Option<&PublicUrl>,
    ) -> Result<(), PeopleError> {
        if self.oidc.is_some() && is_reachable && public_url.is_none() {
            return Err(PeopleError::NoPublicUrl);
        }
        Ok(())
    }

    /// Who is let in how, and what they may, a line each.
    pub(super) fn explain(&self, public_url: Option<&PublicUrl>) -> String {
        let mut lines = String::new();
        let mut say = |name: &str, words: &str| lines.push_str(&format!("{name:<10}{words}\n"));
        if let Some(oidc) = &self.oidc {
            let origin = public_url.map_or("where the relay is reached", PublicUrl::origin);
            say(
                "login",
                &format!(
                    "people can log in with {} ({}), which leads them back to {origin}{CALLBACK}",
                    oidc.name, *oidc.issuer
                ),
            );
            say(
                "",
                "a session lasts as long as the provider's word (the ID token), at most 12 hours",
            );
        }
        if let Some(proxy) = &self.proxy {
            let addresses: Vec<_> = proxy.addresses.iter().map(Network::to_string).collect();
            let groups = proxy
                .groups_header
                .as_ref()
                .map_or_else(String::new, |header| format!(", and in {header} in which groups"));
            say(
                "proxy",
                &format!(
                    "{} may say in the header {} who a person is{groups}; from anybody else it is ignored",
                    addresses.join(", "),
                    proxy.user_header
                ),
            );
            if proxy.addresses.iter().any(Network::is_loopback) {
                say(
                    "WARNING",
                    "every program of every user of this machine may send that header, and be anybody",
                );
            }
        }
        let mut name = "people";
        for rule in &self.rules {
            say(name, &rule.explain());
            name = "";
        }
        if !self.rules.is_empty() {
            say(
                "",
                "the first of these lines that is about somebody decides; nobody else is let in without a token",
            );
        }
        lines
    }
}

fn oidc_options(table: OidcTable) -> Result<OidcOptions, PeopleError> {
    let bad = |key, cause: String| PeopleError::Oidc { key, cause };
    let issuer = IssuerUrl::new(table.issuer.clone())
        .map_err(|error| bad("issuer", format!("{:?} is no URL: {error}", table.issuer)))?;
    let host = issuer.url().host_str().unwrap_or_default().to_owned();
    let is_local = is_this_machine(host.trim_start_matches('[').trim_end_matches(']'));
    match issuer.url().scheme() {
        "https" => {}
        "http" if is_local => {}
        _ => {
            return Err(bad(
                "issuer",
                format!(
                    "{:?} must begin with https:// (http:// on this machine only)",
                    table.issuer
                ),
            ));
        }
    }
    if table.client_id.trim().is_empty() {
        return Err(bad(
            "client_id",
            "is empty; the provider gives it to you".to_owned(),
        ));
    }
    let name = table.name.unwrap_or(host);
    if name.trim().is_empty() || name.chars().count() > 60 || name.chars().any(char::is_control) {
        return Err(bad(
            "name",
            "give 1 to 60 characters, for the login page's button".to_owned(),
        ));
    }
    let client_secret = table
        .client_secret_file
        .map(|path| read_secret(&path))
        .transpose()
        .map_err(|cause| bad("client_secret_file", cause))?;
    let tls = if issuer.url().scheme() == "http" && table.ca.is_none() {
        // A provider on this machine needs no authority, and the system may have none.
        trusting_nobody()
    } else {
        let trust = Trust {
            ca: table.ca,
            ..Trust::default()
        };
        trust.client_config().map_err(|error| error.to_string())
    };
    let scopes = table
        .scopes
        .unwrap_or_else(|| vec!["email".to_owned(), "profile".to_owned()]);
    Ok(OidcOptions {
        name,
        issuer,
        client_id: ClientId::new(table.client_id),
        client_secret: client_secret.map(ClientSecret::new),
        scopes: scopes.into_iter().filter(|scope| scope != "openid").collect(),
        tls: tls.map_err(|cause| bad("ca", cause))?,
    })
}

fn trusting_nobody() -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Ok(config)
}

fn read_secret(path: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let mode = std::fs::metadata(path).map_err(cannot)?.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(format!(
            "everybody on this machine can read or change {} (mode {mode:o}): chmod 600 {}",
            path.display(),
            path.display()
        ));
    }
    let secret = std::fs::read_to_string(path).map_err(cannot)?;
    let secret = secret.trim();
    if secret.is_empty() {
        return Err(format!(
            "{} is empty; leave this key out for a client without a secret",
            path.display()
        ));
    }
    Ok(secret.to_owned())
}

fn proxy_trust(table: &ProxyTable) -> Result<ProxyTrust, PeopleError> {
    let bad = |key, cause: String| PeopleError::Proxy { key, cause };
    let addresses = table.addresses.iter().map(|text| text.parse::<Network>());
    let addresses = addresses
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad("addresses", error.to_string()))?;
    if addresses.is_empty() {
        return Err(bad(
            "addresses",
            "name the proxy's address, such as 10.0.0.5".to_owned(),
        ));
    }
    if let Some(all) = addresses.iter().find(|network| network.is_everybody()) {
        return Err(bad(
            "addresses",
            format!("{all} is everybody, who could then be anybody; name the proxy's own address"),
        ));
    }
    let header = |key, text: &str| {
        let name = HeaderName::try_from(text).map_err(|_| {
            bad(
                key,
                format!("{text:?} is no name of a header, such as x-forwarded-user"),
            )
        })?;
        // These mean something else, and browsers or programs send them by themselves.
        let is_taken = [
            http::header::AUTHORIZATION,
            http::header::COOKIE,
            http::header::HOST,
            http::header::ORIGIN,
        ]
        .contains(&name);
        if is_taken {
            return Err(bad(
                key,
                format!("{name} means something else; take a header of the proxy's own"),
            ));
        }
        Ok(name)
    };
    let user_header = header("user_header", &table.user_header)?;
    let groups_header = table
        .groups_header
        .as_deref()
        .map(|text| header("groups_header", text))
        .transpose()?;
    if groups_header.as_ref() == Some(&user_header) {
        return Err(bad("groups_header", "it is the same as user_header".to_owned()));
    }
    Ok(ProxyTrust {
        addresses,
        user_header,
        groups_header,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Config, ConfigError, Settings};

    const OIDC: &str = "[oidc]\nissuer = \"https://login.example.com\"\nclient_id = \"millstream\"\n";
    const PROXY: &str = "[trusted_proxy]\naddresses = [\"10.0.0.5\", \"10.1.0.0/16\"]\n\
                         user_header = \"X-Forwarded-User\"\ngroups_header = \"x-forwarded-groups\"\n";
    const PEOPLE: &str = "[[people]]\nclaims = { groups = [\"ops\", \"root\"] }\nrole = \"admin\"\n\
                          [[people]]\nclaims = { groups = \"ci\", email = \"*@example.com\" }\nrole = \"operator\"\n\
                          scope = \"team=ci\"\n";

    fn load(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(Settings::default(), Some(&path))
    }

    #[test]
    fn what_is_open_to_whom_is_said_in_plain_words() {
        let text = format!("public_url = \"https://logs.example.com\"\n{OIDC}{PROXY}{PEOPLE}");
        let config = load(&text).unwrap();
        assert!(config.access.asks, "nobody is let in unasked");
        let words = config.explain();
        for expected in [
            "everybody needs a token (`millstream-relay token list` shows which there are), or is one of the people below",
            "log in with login.example.com (https://login.example.com)",
            "back to https://logs.example.com/api/login/oidc/callback",
            "10.0.0.5, 10.1.0.0/16 may say in the header x-forwarded-user who a person is",
            "in x-forwarded-groups in which groups",
            "from anybody else it is ignored",
            "people    groups ops or root: admin, sees every stream\n",
            "email *@example.com and groups ci: operator, sees team=ci\n",
            "nobody else is let in without a token",
        ] {
            assert!(words.contains(expected), "{expected:?} is not in\n{words}");
        }
        assert!(!words.contains("WARNING"), "{words}");
        let local = PROXY.replace("10.0.0.5", "127.0.0.1");
        let words = load(&format!("{local}{PEOPLE}")).unwrap().explain();
        assert!(words.contains("WARNING   every program of every user"), "{words}");
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_place_and_cure() {
        let open = "listen = \"0.0.0.0:1\"\ninsecure_no_tls = true\n";
        let person = |claims: &str, role: &str| format!("[[people]]\nclaims = {claims}\nrole = \"{role}\"\n");
        let sub = person("{ sub = \"*\" }", "viewer");
        for (text, words) in [
            (OIDC.to_owned(), "add [[people]]"),
            (PEOPLE.to_owned(), "there is neither"),
            (format!("{open}{OIDC}{PEOPLE}"), "public_url"),
            (format!("auth = false\n{OIDC}{PEOPLE}"), "nobody is asked"),
            (format!("{OIDC}{}", person("{}", "viewer")), "number 1"),
            (
                format!("{OIDC}{PEOPLE}{}", person("{ sub = \"x\" }", "agent")),
                "number 3",
            ),
            (
                format!("{OIDC}{}", person("{ user = \"ann\" }", "viewer")),
                "no [trusted_proxy]",
            ),
            (
                format!("{}{sub}", OIDC.replace("https", "http")),
                "must begin with https",
            ),
            (
                format!("{}{sub}", OIDC.replace("https://login.example.com", "login")),
                "is no URL",
            ),
            (
                format!("{OIDC}client_secret_file = \"/nowhere/secret\"\n{sub}"),
                "/nowhere/secret",
            ),
            (
                format!("{OIDC}ca = \"/nowhere/ca.pem\"\n{sub}"),
                "/nowhere/ca.pem",
            ),
            (format!("{OIDC}issuers = \"x\"\n{sub}"), "`issuer`"),
            (
                format!("{}{sub}", PROXY.replace("10.1.0.0/16", "10.1.0.1/16")),
                "10.1.0.1/16",
            ),
            (
                format!("{}{sub}", PROXY.replace("10.1.0.0/16", "0.0.0.0/0")),
                "is everybody",
            ),
            (
                format!("{}{sub}", PROXY.replace("X-Forwarded-User", "cookie")),
                "means something else",
            ),
            (
                format!("{}{sub}", PROXY.replace("X-Forwarded-User", "x y")),
                "no name of a header",
            ),
            (
                format!("{}{sub}", PROXY.replace("X-Forwarded-User", "x-forwarded-groups")),
                "the same",
            ),
        ] {
            let message = load(&text).unwrap_err().to_string();
            assert!(
                message.contains(words),
                "{words:?} is not in {message:?} of\n{text}"
            );
        }
    }

    #[test]
    fn a_secret_is_read_from_a_file_of_its_own_and_never_shown() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "very-secret\n").unwrap();
        let text = format!(
            "{OIDC}client_secret_file = {:?}\n{PEOPLE}",
            path.display().to_string()
        );
        let chmod = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        chmod(0o644);
        assert!(load(&text).unwrap_err().to_string().contains("chmod 600"));
        chmod(0o640);
        let config = load(&text).unwrap();
        let secret = config
            .people
            .oidc
            .as_ref()
            .unwrap()
            .client_secret
            .as_ref()
            .unwrap();
        assert_eq!(secret.secret(), "very-secret");
        assert!(!format!("{config:?}{}", config.explain()).contains("very-secret"));
        std::fs::write(&path, "\n").unwrap();
        assert!(load(&text).unwrap_err().to_string().contains("is empty"));
    }
}
