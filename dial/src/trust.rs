//! How a caller knows that the relay is the one: always, by an authority, by its key, or by both.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tonic::transport::{ClientTlsConfig, Endpoint, Identity};

use crate::DialError;

/// A relay that accepts a connection and then says nothing is given up after this.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);

/// Whom to trust, and how to show who one is.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Certificates (PEM) of the authorities that may vouch for the relay, instead of the system's.
    pub ca: Option<PathBuf>,
    /// The relay's key must be one of these; without `ca` that alone is enough.
    pub pins: Vec<Pin>,
    /// Certificate and key (PEM) of this host, for relays that know agents by them.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// SHA-256 of a relay's public key (its SubjectPublicKeyInfo), which stays when a certificate is renewed with the
/// same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin([u8; 32]);

impl Pin {
    /// The pin of a certificate's key; `None`: it is no certificate.
    #[must_use]
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let parsed = ParsedCertificate::try_from(certificate).ok()?;
        let hash = digest(&SHA256, &parsed.subject_public_key_info());
        Some(Self(hash.as_ref().try_into().expect("SHA-256 has 32 bytes")))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl FromStr for Pin {
    type Err = DialError;

    fn from_str(text: &str) -> Result<Self, DialError> {
        let bad = || DialError::Pin(text.chars().take(100).collect());
        let digits = text.strip_prefix("sha256:").ok_or_else(bad)?;
        if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut pin = [0; 32];
        for (index, byte) in pin.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * index..2 * index + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(pin))
    }
}

impl Trust {
    pub(crate) fn apply(&self, endpoint: Endpoint) -> Result<Endpoint, DialError> {
        let mut tls = ClientTlsConfig::new().timeout(HANDSHAKE_LIMIT);
        if let Some((certificate, key)) = &self.identity {
            let certificate = read("the certificate", certificate)?;
            tls = tls.identity(Identity::from_pem(certificate, read("the key", key)?));
        }
        let verifier = Arc::new(self.verifier()?);
        endpoint
            .tls_config_with_verifier(tls, verifier)
            .map_err(|error| DialError::Tls(root_cause(&error)))
    }

    /// TLS towards somebody else than a relay, verified in the same way.
    ///
    /// # Errors
    /// A file cannot be used, or there is no authority to believe.
    pub fn client_config(&self) -> Result<ClientConfig, DialError> {
        let config = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| DialError::Tls(error.to_string()))?
            .with_root_certificates(self.roots()?)
            .with_no_client_auth();
        Ok(config)
    }

    fn verifier(&self) -> Result<Verifier, DialError> {
        let provider = Arc::new(provider::default_provider());
        let by_authority = if self.ca.is_none() && !self.pins.is_empty() {
            None
        } else {
            let verifier =
                WebPkiServerVerifier::builder_with_provider(Arc::new(self.roots()?), Arc::clone(&provider))
                    .build()
                    .map_err(|error| DialError::Tls(error.to_string()))?;
            Some(verifier)
        };
        Ok(Verifier {
            by_authority,
            pins: self.pins.clone(),
            provider,
        })
    }

    fn roots(&self) -> Result<RootCertStore, DialError> {
        let mut roots = RootCertStore::empty();
        let Some(path) = &self.ca else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return if roots.is_empty() {
                Err(DialError::NoRoots)
            } else {
                Ok(roots)
            };
        };
        let bad = |cause: String| DialError::File {
            what: "the CA's certificate",
            path: path.clone(),
            cause,
        };
        let pem = read("the CA's certificate", path)?;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| bad(error.to_string()))?;
            roots.add(certificate).map_err(|error| bad(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(bad("it holds no certificate (PEM)".to_owned()));
        }
        Ok(roots)
    }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, DialError> {
    std::fs::read(path).map_err(|cause| DialError::File {
        what,
        path: path.to_owned(),
        cause: cause.to_string(),
    })
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[derive(Debug)]
struct Verifier {
    /// `None`: a pin alone decides, like a known host of ssh.
    by_authority: Option<Arc<WebPkiServerVerifier>>,
    pins: Vec<Pin>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.pins.is_empty() {
            let pin = Pin::of_certificate(end_entity);
            if !pin.is_some_and(|pin| self.pins.contains(&pin)) {
                let pin = pin.map_or_else(|| "no key".to_owned(), |pin| pin.to_string());
                return Err(Error::General(format!(
                    "the relay's key is {pin}, which is not the one that is pinned"
                )));
            }
        }
        match &self.by_authority {
            Some(verifier) => {
                verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            None if self.pins.is_empty() => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate for `relay` that vouches for itself.
    fn certificate() -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(vec!["relay".to_owned()]).unwrap();
        made.cert.der().clone()
    }

    fn verify(trust: &Trust, certificate: &CertificateDer<'_>, name: &str) -> Result<(), Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let verifier = trust.verifier().unwrap();
        verifier
            .verify_server_cert(certificate, &[], &name, &[], UnixTime::now())
            .map(drop)
    }

    #[test]
    fn a_pin_is_read_as_it_is_written_and_nothing_else_is_one() {
        let pin = Pin::of_certificate(&certificate()).unwrap();
        assert_eq!(pin.to_string().parse::<Pin>().unwrap(), pin);
        for bad in [
            "",
            "sha256:",
            "sha1:00",
            &pin.to_string()[1..],
            &format!("{pin}0"),
            &format!("sha256:{}", "é".repeat(32)),
        ] {
            assert!(bad.parse::<Pin>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pinned_key_is_enough_and_another_key_is_refused_with_its_pin() {
        let (mine, other) = (certificate(), certificate());
        let trust = Trust {
            pins: vec![Pin::of_certificate(&mine).unwrap()],
            ..Trust::default()
        };
        assert!(verify(&trust, &mine, "relay").is_ok());
        assert!(verify(&trust, &mine, "any.other.name").is_ok());
        let error = verify(&trust, &other, "relay").unwrap_err().to_string();
        assert!(
            error.contains(&Pin::of_certificate(&other).unwrap().to_string()),
            "{error}"
        );
    }

    #[test]
    fn without_pin_the_authority_decides_and_with_both_both_must_agree() {
        let directory = tempfile::tempdir().unwrap();
        let ca_path = directory.path().join("ca.pem");
        let made = rcgen::generate_simple_self_signed(vec!["relay".to_owned()]).unwrap();
        std::fs::write(&ca_path, made.cert.pem()).unwrap();
        let mine = made.cert.der().clone();
        let by_ca = Trust {
            ca: Some(ca_path),
            ..Trust::default()
        };
        assert!(verify(&by_ca, &mine, "relay").is_ok());
        assert!(verify(&by_ca, &mine, "another").is_err(), "the name counts");
        assert!(verify(&by_ca, &certificate(), "relay").is_err());
        let both = Trust {
            pins: vec![Pin::of_certificate(&certificate()).unwrap()],
            ..by_ca
        };
        assert!(verify(&both, &mine, "relay").is_err(), "the pin counts too");
    }

    #[test]
    fn a_file_without_a_certificate_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        for content in [
            "",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            std::fs::write(&path, content).unwrap();
            let trust = Trust {
                ca: Some(path.clone()),
                ..Trust::default()
            };
            let error = trust.verifier().unwrap_err().to_string();
            assert!(error.contains("ca.pem"), "{error}");
        }
    }
}
