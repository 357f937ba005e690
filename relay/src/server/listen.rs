//! Taking the port.

use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::StartError;

/// Listens on the address; tokio sets SO_REUSEADDR, so that a restart need not wait for old connections.
pub(super) async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|cause| {
        let cure = match cause.kind() {
            ErrorKind::AddrInUse => {
                "another program has the port: stop it, or choose another one with --listen ADDRESS:PORT"
            }
            ErrorKind::AddrNotAvailable => {
                "this machine does not have that address: use 127.0.0.1 or one that `ip address` shows"
            }
            ErrorKind::PermissionDenied => "ports below 1024 are reserved: choose a higher one with --listen",
            _ => "choose another address with --listen ADDRESS:PORT",
        };
        StartError::Listen { address, cause, cure }
    })
}
