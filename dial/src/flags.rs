//! The flags that every program which dials a relay has.

use std::path::PathBuf;

use crate::{Credentials, Pin, TokenSource, Trust};

/// How to know the relay, and how to be known.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CredentialFlags {
    /// Certificates (PEM) of the authorities that may vouch for the relay, instead of the system's
    #[arg(long, global = true, env = "MILLSTREAM_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The relay's key must have this pin, sha256:…; without --ca that alone is enough. May be given several times
    #[arg(
        long,
        global = true,
        env = "MILLSTREAM_PIN",
        value_name = "PIN",
        value_delimiter = ','
    )]
    pub pin: Vec<Pin>,
    /// Certificate (PEM) of this host, for relays that know agents by it
    #[arg(
        long,
        global = true,
        env = "MILLSTREAM_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(
        long,
        global = true,
        env = "MILLSTREAM_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub tls_key: Option<PathBuf>,
    /// File that holds the token, and nothing else; read for each connection
    #[arg(long, global = true, env = "MILLSTREAM_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Send the token also to an http:// address of another machine: whoever is on the way can copy it
    #[arg(
        long,
        global = true,
        env = "MILLSTREAM_INSECURE_NO_TLS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    pub insecure_no_tls: Option<bool>,
}

impl CredentialFlags {
    /// Puts these over `file`, what a configuration file says. `token` is the token itself, which wins over a file
    /// of it.
    #[must_use]
    pub fn over(self, file: Self, token: Option<String>) -> Credentials {
        let identity = match (self.tls_cert, self.tls_key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            _ => file.tls_cert.zip(file.tls_key),
        };
        let token_file = self.token_file.or(file.token_file);
        Credentials {
            trust: Trust {
                ca: self.ca.or(file.ca),
                pins: if self.pin.is_empty() { file.pin } else { self.pin },
                identity,
            },
            token: match (token, token_file) {
                (Some(token), _) if !token.is_empty() => TokenSource::text(token),
                (_, Some(path)) => TokenSource::file(path),
                _ => TokenSource::default(),
            },
            insecure_no_tls: self.insecure_no_tls.or(file.insecure_no_tls).unwrap_or(false),
        }
    }
}
