//! A small private authority for trials and small installations: `millstream-relay certs …`.
//!
//! Nothing here is shipped: each installation makes keys of its own. The authority's key never leaves its
//! directory, and is needed only to issue.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use millstream_dial::Pin;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::auth::{NoRandomness, random_id};

/// How long certificates are valid, days. Browsers accept no more than 398.
const CA_DAYS: u32 = 3650;
const ISSUED_DAYS: u32 = 397;

/// Clocks differ: a certificate is valid from a little before it was made.
const BACKDATE_HOURS: u32 = 1;

const CA_CERT: &str = "ca.pem";
const CA_KEY: &str = "ca-key.pem";

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    #[error("{path}: {cause}")]
    Io { path: PathBuf, cause: std::io::Error },
    #[error("{0} exists already; nothing was changed. Remove it, or choose another directory with --dir")]
    Exists(PathBuf),
    #[error("there is no authority in {0}: make one with `millstream-relay certs init --dir {0}`")]
    NoAuthority(PathBuf),
    #[error("{0:?} is neither a host name nor an IP address")]
    Name(String),
    #[error("{path} holds no certificate (PEM): {cause}")]
    NoCertificate { path: PathBuf, cause: String },
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    #[error("the certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Of the certificate's key.
    pub pin: Pin,
}

/// Makes the authority: `ca.pem`, to be given to agents and programs, and `ca-key.pem`, to be kept.
///
/// # Errors
/// There is one already, or the files cannot be written.
pub fn init(directory: &Path) -> Result<Issued, CertsError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|cause| CertsError::Io {
            path: directory.to_owned(),
            cause,
        })?;
    let key = KeyPair::generate()?;
    let mut params = valid_for(CertificateParams::new(Vec::new())?, CA_DAYS);
    params
        .distinguished_name
        // Tells it apart from others in messages, and from what replaces it.
        .push(
            DnType::CommonName,
            format!("Millstream private CA {}", random_id()?),
        );
    // It vouches for hosts only, never for other authorities.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    write(directory, CA_CERT, CA_KEY, &certificate, &key)
}

/// Which end of a connection a certificate is for; it does not serve at the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Relay,
    /// An agent may send for every host that its certificate names.
    Agent,
}

/// Makes a certificate for a relay that is reached by these names, or for the agents of these hosts.
///
/// # Errors
/// There is no authority, a name is none, or the files exist or cannot be written.
pub fn issue(directory: &Path, names: &[String], purpose: Purpose) -> Result<Issued, CertsError> {
    for name in names {
        let is_host = name.len() <= 253
            && name.starts_with(|first: char| first.is_ascii_alphanumeric())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
        if !is_host && name.parse::<IpAddr>().is_err() {
            return Err(CertsError::Name(name.clone()));
        }
    }
    let first = names.first().ok_or_else(|| CertsError::Name(String::new()))?;
    let read = |name: &str| {
        std::fs::read_to_string(directory.join(name))
            .map_err(|_| CertsError::NoAuthority(directory.to_owned()))
    };
    let (ca, ca_key) = (read(CA_CERT)?, KeyPair::from_pem(&read(CA_KEY)?)?);
    let issuer = Issuer::from_ca_cert_pem(&ca, ca_key)?;
    let key = KeyPair::generate()?;
    let mut params = valid_for(CertificateParams::new(names.to_vec())?, ISSUED_DAYS);
    params.distinguished_name.push(DnType::CommonName, first.as_str());
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match purpose {
        Purpose::Relay => ExtendedKeyUsagePurpose::ServerAuth,
        Purpose::Agent => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    let certificate = params.signed_by(&key, &issuer)?;
    // A name has nothing in it that could lead elsewhere: no slash, and a letter or digit first.
    let file = first.replace(':', "_");
    write(
        directory,
        &format!("{file}.pem"),
        &format!("{file}-key.pem"),
        &certificate,
        &key,
    )
}

/// The pin of a certificate's key, for `--pin`.
///
/// # Errors
/// The file cannot be read or holds no certificate.
pub fn pin(path: &Path) -> Result<Pin, CertsError> {
    let none = |cause: String| CertsError::NoCertificate {
        path: path.to_owned(),
        cause,
    };
    let certificate = CertificateDer::from_pem_file(path).map_err(|error| none(error.to_string()))?;
    Pin::of_certificate(&certificate).ok_or_else(|| none("its key cannot be read".to_owned()))
}

fn valid_for(mut params: CertificateParams, days: u32) -> CertificateParams {
    let now = SystemTime::now();
    let hours = |hours: u32| std::time::Duration::from_secs(u64::from(hours) * 3600);
    params.not_before = (now - hours(BACKDATE_HOURS)).into();
    params.not_after = (now + hours(days * 24)).into();
    params
}

fn write(
    directory: &Path,
    cert_name: &str,
    key_name: &str,
    certificate: &rcgen::Certificate,
    key: &KeyPair,
) -> Result<Issued, CertsError> {
    let (cert_path, key_path) = (directory.join(cert_name), directory.join(key_name));
    if let Some(path) = [&cert_path, &key_path].into_iter().find(|path| path.exists()) {
        return Err(CertsError::Exists(path.clone()));
    }
    for (path, mode, text) in [
        (&key_path, 0o600, key.serialize_pem()),
        (&cert_path, 0o644, certificate.pem()),
    ] {
        OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(mode)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .map_err(|cause| CertsError::Io {
                path: path.clone(),
                cause,
            })?;
    }
    Ok(Issued {
        pin: pin(&cert_path)?,
        cert: cert_path,
        key: key_path,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_for_their_owner_and_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let ca = init(directory.path()).unwrap();
        let names = ["relay.example".to_owned(), "10.0.0.1".to_owned()];
        let relay = issue(directory.path(), &names, Purpose::Relay).unwrap();
        for key in [&ca.key, &relay.key] {
            assert_eq!(
                std::fs::metadata(key).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
        assert_eq!(pin(&relay.cert).unwrap(), relay.pin);
        assert_ne!(ca.pin, relay.pin);
        assert!(matches!(init(directory.path()), Err(CertsError::Exists(_))));
        let again = issue(directory.path(), &["relay.example".to_owned()], Purpose::Relay);
        assert!(matches!(again, Err(CertsError::Exists(_))));
        assert_eq!(pin(&relay.cert).unwrap(), relay.pin);
    }

    #[test]
    fn every_installation_has_keys_of_its_own() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_ne!(init(one.path()).unwrap().pin, init(two.path()).unwrap().pin);
    }

    #[test]
    fn bad_names_and_a_missing_authority_are_refused_with_words() {
        let directory = tempfile::tempdir().unwrap();
        let missing = issue(directory.path(), &["relay".to_owned()], Purpose::Relay)
            .unwrap_err()
            .to_string();
        assert!(missing.contains("certs init"), "{missing}");
        init(directory.path()).unwrap();
        for name in ["", "../x", "a/b", "*.example", "a b", "-x", ".hidden"] {
            let refused = issue(directory.path(), &[name.to_owned()], Purpose::Agent);
            assert!(matches!(refused, Err(CertsError::Name(_))), "{name}");
        }
        assert!(issue(directory.path(), &["::1".to_owned()], Purpose::Relay).is_ok());
    }
}
