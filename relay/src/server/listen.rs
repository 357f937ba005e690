//! Taking the port.

use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use super::StartError;

/// Connections that the system takes until the relay does, which goes at a pace; the system may allow fewer
/// (`net.core.somaxconn`). The default of the libraries, 128, is over in a moment when a fleet comes back, and those who then
/// find no room try again after a second and more.
const BACKLOG: u32 = 4096;

/// Listens on the address, with SO_REUSEADDR, so that a restart need not wait for old connections.
pub(super) fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    listen(address).map_err(|cause| {
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

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
