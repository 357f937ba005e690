//! What keeps a relay from being called, before anything is sent.

use std::path::PathBuf;

/// The message names the thing and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    #[error("`{address}` is not the address of a relay: {cure}")]
    Address { address: String, cure: String },
    #[error("the token cannot be sent: it must be printable ASCII without spaces")]
    Token,
    #[error(
        "{0} has no TLS, so everybody on the way could read the token: use https://, or accept that with \
         --insecure-no-tls"
    )]
    PlainToken(String),
    #[error("cannot read {what} {path}: {cause}")]
    File {
        what: &'static str,
        path: PathBuf,
        cause: String,
    },
    #[error(
        "`{0}` is no pin: it looks like sha256: and 64 hexadecimal digits; `millstream-relay certs pin` prints it"
    )]
    Pin(String),
    #[error(
        "this system has no certificates of public authorities: name the relay's own with --ca, or its key with --pin"
    )]
    NoRoots,
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}
