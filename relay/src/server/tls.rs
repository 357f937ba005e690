//! The relay's certificate: read from files, and read again when they change, without a restart.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::ring as provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// Where certificate and keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The relay's certificate and those between it and its authority (PEM).
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Authorities whose certificates tell which host an agent is; callers need none.
    pub client_ca: Option<PathBuf>,
}

/// What is wrong with them.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{what} {path}: {cause}")]
    File {
        what: &'static str,
        path: PathBuf,
        cause: String,
    },
    #[error("{cert} and {key} do not belong together, or are not usable: {cause}")]
    Pair {
        cert: PathBuf,
        key: PathBuf,
        cause: String,
    },
}

/// State of the files, to notice changes: inode, modification time and size of each.
type Stamp = Vec<Option<(u64, i64, i64, u64)>>;

/// The configuration for the next connection.
pub(super) struct Tls {
    files: TlsFiles,
    state: RwLock<(Stamp, Arc<ServerConfig>)>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Tls")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Tls {
    pub(super) fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let stamp = files.stamp();
        let config = files.config()?;
        Ok(Self {
            files,
            state: RwLock::new((stamp, config)),
        })
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&state.1)
    }

    /// Reads the files again if they changed. What cannot be used leaves the certificate that works; the files are
    /// looked at again when they change again.
    pub(super) fn refresh(&self) -> Result<bool, TlsError> {
        let stamp = self.files.stamp();
        let is_known = self.state.read().unwrap_or_else(PoisonError::into_inner).0 == stamp;
        if is_known {
            return Ok(false);
        }
        let config = self.files.config();
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.0 = stamp;
        state.1 = config?;
        Ok(true)
    }
}

impl TlsFiles {
    fn stamp(&self) -> Stamp {
        let stamp = |path: &PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((
                metadata.ino(),
                metadata.mtime(),
                metadata.mtime_nsec(),
                metadata.len(),
            ))
        };
        [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()]
            .into_iter()
            .flatten()
            .map(stamp)
            .collect()
    }

    fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let certificates = certificates("tls_cert", &self.cert)?;
        let pem = read("tls_key", &self.key)?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| TlsError::File {
            what: "tls_key",
            path: self.key.clone(),
            cause: format!("{error}; it must hold the private key (PEM)"),
        })?;
        let pair = |error: &dyn fmt::Display| TlsError::Pair {
            cert: self.cert.clone(),
            key: self.key.clone(),
            cause: error.to_string(),
        };
        let provider = Arc::new(provider::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| pair(&error))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let bad = |error: &dyn fmt::Display| TlsError::File {
                    what: "tls_client_ca",
                    path: path.clone(),
                    cause: error.to_string(),
                };
                let mut roots = RootCertStore::empty();
                for certificate in self::certificates("tls_client_ca", path)? {
                    roots.add(certificate).map_err(|error| bad(&error))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    // Browsers and programs with tokens have none.
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| bad(&error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(certificates, key)
            .map_err(|error| pair(&error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(what, path)?;
    let bad = |cause: String| TlsError::File {
        what,
        path: path.to_owned(),
        cause,
    };
    let found = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad(error.to_string()))?;
    if found.is_empty() {
        return Err(bad("it holds no certificate (PEM)".to_owned()));
    }
    Ok(found)
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::File {
        what,
        path: path.to_owned(),
        cause: error.to_string(),
    })
}

/// The host names in an agent's certificate, which an authority of `tls_client_ca` vouched for.
pub(super) fn host_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(parsed) = webpki::EndEntityCert::try_from(certificate) else {
        return Vec::new();
    };
    // A wildcard is no host; and what a selector would read as more than a name is not taken for one.
    let is_host = |name: &&str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    };
    parsed
        .valid_dns_names()
        .filter(is_host)
        .map(str::to_owned)
        .collect()
}
