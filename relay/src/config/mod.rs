//! What the relay was asked to do, parsed once into types that cannot be wrong.
//!
//! A value comes from a flag, else from an environment variable (clap looks there), else from the file,
//! else it is the default.

mod access;
mod file;
mod limits;
mod link_template;
mod people;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use millstream_store::EmbeddedOptions;

use crate::auth::{AuthOptions, CookieKind, PublicUrl, TokenFile, WebPolicy};
use crate::limits::Limits;
use crate::server::TlsFiles;
use crate::{CoreOptions, Fsync};

use access::AccessWishes;
pub use access::{AccessConfig, AccessError};
pub use limits::LimitSettings;
pub use link_template::LinkTemplate;
pub use people::{PeopleConfig, PeopleError};

/// Everything that can be set, as flags and environment variables. The keys of the file are the same
/// with underscores.
#[derive(Args, Clone, Debug, Default)]
pub struct Settings {
    /// Address and port to listen on; port 0 takes a free one [default: 127.0.0.1:7171]
    #[arg(long, env = "MILLSTREAM_LISTEN", value_name = "ADDRESS:PORT", global = true)]
    pub listen: Option<String>,
    /// Directory of the store; made when it does not exist [default: millstream-data]
    #[arg(long, env = "MILLSTREAM_DATA_DIR", value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
    /// Origins of web pages, besides the relay's own, that may call it; comma separated, exact, such as
    /// https://ci.example.com [default: none]
    #[arg(
        long,
        env = "MILLSTREAM_CORS_ORIGINS",
        value_name = "ORIGINS",
        value_delimiter = ',',
        global = true
    )]
    pub cors_origins: Option<Vec<String>>,
    /// The relay's certificate, with those between it and its authority (PEM); read again when it changes
    #[arg(long, env = "MILLSTREAM_TLS_CERT", value_name = "FILE", global = true)]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, env = "MILLSTREAM_TLS_KEY", value_name = "FILE", global = true)]
    pub tls_key: Option<PathBuf>,
    /// Authorities (PEM) whose certificates tell which host an agent is; such an agent needs no token
    #[arg(long, env = "MILLSTREAM_TLS_CLIENT_CA", value_name = "FILE", global = true)]
    pub tls_client_ca: Option<PathBuf>,
    /// Where the web client leads from `path:line:column` in a log, such as
    /// https://git.example.com/{label.repo}/blob/{label.commit}/{path}#L{line}; the first one that can be filled
    /// is taken; separated by spaces [default: nowhere]
    #[arg(
        long,
        env = "MILLSTREAM_LINK_TEMPLATES",
        value_name = "URLS",
        value_delimiter = ' ',
        global = true
    )]
    pub link_templates: Option<Vec<String>>,
    /// Ask every caller for a token, also on loopback [default: true, but false on loopback]
    #[arg(long, env = "MILLSTREAM_AUTH", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", global = true)]
    pub auth: Option<bool>,
    /// Where people reach the relay when a proxy is in front: scheme, host and port, such as
    /// https://logs.example.com [default: the address that it listens on]
    #[arg(long, env = "MILLSTREAM_PUBLIC_URL", value_name = "URL", global = true)]
    pub public_url: Option<String>,
    /// Give up authentication on an address that others can reach: everybody who reaches the port can read
    /// every log, send logs in any host's name, and act on build hosts that allow it
    #[arg(long, env = "MILLSTREAM_INSECURE_NO_AUTH", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", global = true)]
    pub insecure_no_auth: Option<bool>,
    /// Give up TLS on an address that others can reach: whoever is on the way can read and change logs and
    /// copy tokens
    #[arg(long, env = "MILLSTREAM_INSECURE_NO_TLS", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", global = true)]
    pub insecure_no_tls: Option<bool>,
    /// When acknowledged lines are on disk: `always` (before the acknowledgement), `interval` (a power
    /// failure may take the last interval), `never` (when the system likes) [default: always]
    #[arg(long, env = "MILLSTREAM_FSYNC", value_name = "POLICY", global = true)]
    pub fsync: Option<String>,
    /// Interval of `fsync = "interval"` in milliseconds [default: 1000]
    #[arg(long, env = "MILLSTREAM_FSYNC_INTERVAL_MS", value_name = "MS", global = true)]
    pub fsync_interval_ms: Option<u64>,
    /// Free space of the data directory's disk, in bytes, below which no more lines are taken: agents wait,
    /// readers go on, and so does the relay once there is room again [default: 134217728]
    #[arg(long, env = "MILLSTREAM_MIN_FREE_BYTES", value_name = "BYTES", global = true)]
    pub min_free_bytes: Option<u64>,
    /// The section `[limits]` of the file.
    #[command(flatten)]
    pub limits: LimitSettings,
}

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub listen: SocketAddr,
    pub data_dir: PathBuf,
    pub cors_origins: Vec<http::HeaderValue>,
    pub public_url: Option<PublicUrl>,
    /// `None`: no TLS.
    pub tls: Option<TlsFiles>,
    pub link_templates: Vec<LinkTemplate>,
    /// Who is let in, and how.
    pub access: AccessConfig,
    /// Who is let in without a token.
    pub people: PeopleConfig,
    pub core: CoreOptions,
    pub limits: Limits,
    pub store: EmbeddedOptions,
}

/// What is wrong with the configuration; the message says where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}: {cause}")]
    Read { path: PathBuf, cause: std::io::Error },
    #[error("{path}: {message}")]
    File { path: PathBuf, message: String },
    #[error("{name}: {value:?} is not valid: {cure}")]
    Value {
        name: &'static str,
        value: String,
        cure: String,
    },
    #[error("listen: {0}")]
    Access(#[from] AccessError),
    #[error(transparent)]
    People(#[from] PeopleError),
    #[error("{0} is set and {1} is not: TLS needs a certificate and its key")]
    HalfTls(&'static str, &'static str),
}

impl Config {
    /// Puts flags and environment over the file and the file over the defaults, and checks the result.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(settings: Settings, file: Option<&Path>) -> Result<Self, ConfigError> {
        let file = file.map(file::read).transpose()?.unwrap_or_default();
        let mut core = CoreOptions::default();
        // Where they were before there was the section.
        let older = LimitSettings {
            max_streams: file.max_streams,
            max_unacked_bytes: file.max_unacked_bytes,
            ..LimitSettings::default()
        };
        let limits = settings.limits.over(file.limits).over(older).apply(&mut core)?;
        let listen = parse_listen(
            settings
                .listen
                .or(file.listen)
                .as_deref()
                .unwrap_or("127.0.0.1:7171"),
        )?;
        let tls = tls_files(
            settings.tls_cert.or(file.tls_cert),
            settings.tls_key.or(file.tls_key),
            settings.tls_client_ca.or(file.tls_client_ca),
        )?;
        let access = AccessConfig::new(
            listen,
            tls.is_some(),
            &AccessWishes {
                auth: settings.auth.or(file.auth),
                insecure_no_auth: settings
                    .insecure_no_auth
                    .or(file.insecure_no_auth)
                    .unwrap_or(false),
                insecure_no_tls: settings.insecure_no_tls.or(file.insecure_no_tls).unwrap_or(false),
                has_logins: file.oidc.is_some() || file.trusted_proxy.is_some(),
            },
        )?;
        let public_url = settings.public_url.or(file.public_url).map(parse_public_url);
        let public_url = public_url.transpose()?;
        let people = PeopleConfig::new(file.oidc, file.trusted_proxy.as_ref(), file.people)?;
        people.check_public_url(access.is_reachable, public_url.as_ref())?;
        let interval = settings
            .fsync_interval_ms
            .or(file.fsync_interval_ms)
            .unwrap_or(1000);
        let fsync = settings.fsync.or(file.fsync);
        Ok(Self {
            listen,
            data_dir: settings
                .data_dir
                .or(file.data_dir)
                .unwrap_or_else(|| "millstream-data".into()),
            cors_origins: settings
                .cors_origins
                .or(file.cors_origins)
                .unwrap_or_default()
                .into_iter()
                .map(parse_origin)
                .collect::<Result<_, _>>()?,
            public_url,
            tls,
            link_templates: settings
                .link_templates
                .or(file.link_templates)
                .unwrap_or_default()
                .into_iter()
                .map(LinkTemplate::parse)
                .collect::<Result<_, _>>()?,
            access,
            people,
            core: CoreOptions {
                fsync: fsync.map_or(Ok(core.fsync), |policy| parse_fsync(policy, interval))?,
                ..core
            },
            limits,
            store: EmbeddedOptions {
                min_free_bytes: settings
                    .min_free_bytes
                    .or(file.min_free_bytes)
                    .unwrap_or(EmbeddedOptions::default().min_free_bytes),
                ..EmbeddedOptions::default()
            },
        })
    }

    pub(crate) fn auth_options(&self) -> AuthOptions {
        AuthOptions {
            asks: self.access.asks,
            tokens: TokenFile::in_data_dir(&self.data_dir),
            web: WebPolicy {
                origins: self.cors_origins.clone(),
                public_url: self.public_url.clone(),
                has_tls: self.tls.is_some(),
            },
            warnings: self.access.warnings(),
            is_reachable: self.access.is_reachable,
            cookie: match (self.tls.is_some(), &self.public_url) {
                (true, _) => CookieKind::Tls,
                (false, Some(url)) if url.is_https() => CookieKind::Tls,
                _ if !self.access.is_reachable => CookieKind::Loopback,
                _ => CookieKind::Plain,
            },
            people: self.people.rules.clone(),
            oidc: self.people.oidc.clone(),
            proxy: self.people.proxy.clone(),
        }
    }

    fn explain_tls(&self) -> String {
        let Some(tls) = &self.tls else {
            return "tls       none: what is sent can be read on the way\n".to_owned();
        };
        let agents = match &tls.client_ca {
            None => String::new(),
            Some(path) => format!(
                "          agents with a certificate of {} send for the hosts in it, without a token\n",
                path.display()
            ),
        };
        format!(
            "tls       certificate {}, read again when it changes\n{agents}",
            tls.cert.display()
        )
    }

    /// What the configuration means, in plain words.
    #[must_use]
    pub fn explain(&self) -> String {
        let who = match (self.access.is_reachable, self.listen.ip().is_unspecified()) {
            (false, _) => "only programs on this machine can connect",
            (true, true) => "other machines can connect, on every interface",
            (true, false) => "other machines can connect, on this address",
        };
        let pages = if self.cors_origins.is_empty() {
            "only the relay's own web page may call it from a browser".to_owned()
        } else {
            let origins: Vec<_> = self
                .cors_origins
                .iter()
                .map(|origin| String::from_utf8_lossy(origin.as_bytes()))
                .collect();
            format!("web pages of {} may call it from a browser", origins.join(", "))
        };
        let durable = match self.core.fsync {
            Fsync::Always => "acknowledged lines survive a power failure".to_owned(),
            Fsync::Interval(interval) => {
                format!(
                    "a power failure may take the last {} ms of acknowledged lines",
                    interval.as_millis()
                )
            }
            Fsync::Never => "a power failure may take acknowledged lines".to_owned(),
        };
        let space = match self.store.min_free_bytes {
            0 => "lines are taken until the disk is full; agents wait then".to_owned(),
            bytes => format!("no more lines are taken below {bytes} free bytes; agents wait then"),
        };
        let links = self.link_templates.iter().fold(String::new(), |text, template| {
            text + "sources   are shown at " + template.as_str() + "\n"
        });
        format!(
            "listen    {}: {who}\n{}{}{}browsers  {pages}\n{links}data      {}\nfsync     {durable}\nspace     {space}\n{}",
            self.listen,
            self.explain_tls(),
            self.access.explain(!self.people.rules.is_empty()),
            self.people.explain(self.public_url.as_ref()),
            self.data_dir.display(),
            limits::explain(&self.limits, &self.core)
        )
    }
}

fn tls_files(
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
) -> Result<Option<TlsFiles>, ConfigError> {
    match (cert, key, client_ca) {
        (Some(cert), Some(key), client_ca) => Ok(Some(TlsFiles { cert, key, client_ca })),
        (None, None, None) => Ok(None),
        (Some(_), None, _) => Err(ConfigError::HalfTls("tls_cert", "tls_key")),
        (None, Some(_), _) => Err(ConfigError::HalfTls("tls_key", "tls_cert")),
        (None, None, Some(_)) => Err(ConfigError::HalfTls("tls_client_ca", "tls_cert")),
    }
}

fn parse_public_url(text: String) -> Result<PublicUrl, ConfigError> {
    PublicUrl::parse(&text).ok_or_else(|| ConfigError::Value {
        name: "public_url",
        value: text,
        cure: "give scheme, host and port only, such as https://logs.example.com".to_owned(),
    })
}

fn parse_listen(text: &str) -> Result<SocketAddr, ConfigError> {
    let address = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    address.parse().map_err(|_| ConfigError::Value {
        name: "listen",
        value: text.to_owned(),
        cure: "give an IP address and a port, such as 127.0.0.1:7171 or [::1]:7171".to_owned(),
    })
}

fn parse_origin(text: String) -> Result<http::HeaderValue, ConfigError> {
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let is_origin = host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '*', '?', '#']));
    match http::HeaderValue::from_str(&text) {
        Ok(value) if is_origin => Ok(value),
        _ => Err(ConfigError::Value {
            name: "cors_origins",
            value: text,
            cure: "give scheme, host and port only, such as https://ci.example.com or http://localhost:5173"
                .to_owned(),
        }),
    }
}

fn parse_fsync(text: String, interval_ms: u64) -> Result<Fsync, ConfigError> {
    match text.as_str() {
        "always" => Ok(Fsync::Always),
        "interval" if interval_ms == 0 => Err(ConfigError::Value {
            name: "fsync_interval_ms",
            value: "0".to_owned(),
            cure: "give at least 1, or fsync = \"always\"".to_owned(),
        }),
        "interval" => Ok(Fsync::Interval(Duration::from_millis(interval_ms))),
        "never" => Ok(Fsync::Never),
        _ => Err(ConfigError::Value {
            name: "fsync",
            value: text,
            cure: "it is always, interval or never".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.toml");
        std::fs::write(&path, "listen = \"127.0.0.1:1\"\nfsync = \"never\"\n").unwrap();
        let settings = Settings {
            listen: Some("127.0.0.1:2".to_owned()),
            ..Settings::default()
        };
        let config = Config::load(settings, Some(&path)).unwrap();
        assert_eq!(config.listen.port(), 2);
        assert_eq!(config.core.fsync, Fsync::Never);
        assert_eq!(config.data_dir, Path::new("millstream-data"));
    }

    #[test]
    fn an_unknown_key_names_its_line_and_the_nearest_known_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.toml");
        std::fs::write(&path, "listen = \"127.0.0.1:1\"\ndata-dirr = \"x\"\n").unwrap();
        let message = Config::load(Settings::default(), Some(&path))
            .unwrap_err()
            .to_string();
        assert!(message.contains("relay.toml"), "{message}");
        assert!(message.contains("line 2"), "{message}");
        assert!(message.contains("`data_dir`"), "{message}");
    }

    #[test]
    fn bad_values_say_what_would_be_good() {
        for (settings, words) in [
            (
                Settings {
                    listen: Some("7171".to_owned()),
                    ..Settings::default()
                },
                "127.0.0.1:7171",
            ),
            (
                Settings {
                    fsync: Some("often".to_owned()),
                    ..Settings::default()
                },
                "always, interval or never",
            ),
            (
                Settings {
                    fsync: Some("interval".to_owned()),
                    fsync_interval_ms: Some(0),
                    ..Settings::default()
                },
                "at least 1",
            ),
            (
                Settings {
                    cors_origins: Some(vec!["*".to_owned()]),
                    ..Settings::default()
                },
                "https://ci.example.com",
            ),
            (
                Settings {
                    public_url: Some("logs.example.com".to_owned()),
                    ..Settings::default()
                },
                "https://logs.example.com",
            ),
        ] {
            let message = Config::load(settings, None).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }
}
