//! `relay.toml`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::people::{OidcTable, PersonTable, ProxyTable};
use super::{ConfigError, LimitSettings, limits};

/// The keys, as [`super::Settings`] documents them.
const KEYS: &[&str] = &[
    "listen",
    "data_dir",
    "cors_origins",
    "tls_cert",
    "tls_key",
    "tls_client_ca",
    "link_templates",
    "auth",
    "public_url",
    "insecure_no_auth",
    "insecure_no_tls",
    "fsync",
    "fsync_interval_ms",
    "max_streams",
    "max_unacked_bytes",
    "min_free_bytes",
    "limits",
    // Tables and their keys.
    "oidc",
    "name",
    "issuer",
    "client_id",
    "client_secret_file",
    "scopes",
    "ca",
    "trusted_proxy",
    "addresses",
    "user_header",
    "groups_header",
    "people",
    "claims",
    "role",
];

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) listen: Option<String>,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) cors_origins: Option<Vec<String>>,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) tls_client_ca: Option<PathBuf>,
    pub(super) link_templates: Option<Vec<String>>,
    pub(super) auth: Option<bool>,
    pub(super) public_url: Option<String>,
    pub(super) insecure_no_auth: Option<bool>,
    pub(super) insecure_no_tls: Option<bool>,
    pub(super) fsync: Option<String>,
    pub(super) fsync_interval_ms: Option<u64>,
    pub(super) max_streams: Option<usize>,
    pub(super) max_unacked_bytes: Option<u64>,
    pub(super) min_free_bytes: Option<u64>,
    #[serde(default)]
    pub(super) limits: LimitSettings,
    pub(super) oidc: Option<OidcTable>,
    pub(super) trusted_proxy: Option<ProxyTable>,
    #[serde(default)]
    pub(super) people: Vec<PersonTable>,
}

pub(super) fn read(path: &Path) -> Result<File, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|cause| ConfigError::Read {
        path: path.to_owned(),
        cause,
    })?;
    toml::from_str(&text).map_err(|error| {
        let unknown = error
            .message()
            .split('`')
            .nth(1)
            .filter(|_| error.message().starts_with("unknown field"));
        let hint = unknown.map_or_else(String::new, |key| {
            // serde lists what it expected, which tells the section.
            let is_limit = error.message().contains("`max_connections`");
            let known = if is_limit { limits::KEYS } else { KEYS };
            let nearest = known
                .iter()
                .max_by(|a, b| strsim::jaro_winkler(key, a).total_cmp(&strsim::jaro_winkler(key, b)));
            nearest.map_or_else(String::new, |nearest| format!("did you mean `{nearest}`?"))
        });
        ConfigError::File {
            path: path.to_owned(),
            message: format!("{error}{hint}"),
        }
    })
}
