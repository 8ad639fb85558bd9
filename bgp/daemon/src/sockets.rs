//! TCP as BGP wants it: listeners, and connections from a chosen address.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections that wait to be accepted, at most: a whole cluster may come back at once.
const BACKLOG: i32 = 1024;

/// How long a dial may take. Shorter than the speaker's connect-retry time, which then dials anew.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Listens at `address`; an IPv6 listener takes IPv6 only, so that `0.0.0.0` and `[::]` stand side by side.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    bind(address)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen at {address}: {error}")))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // A restart must not wait until the old connections' TIME-WAIT is over.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Accepted connections inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Connects to `remote` with a socket that is set up for it.
pub(crate) async fn dial(socket: TcpSocket, remote: SocketAddr) -> io::Result<TcpStream> {
    tokio::time::timeout(DIAL_TIMEOUT, socket.connect(remote)).await?
}

/// The socket address to dial `remote` from: a link-local source is on the remote's interface.
pub(crate) fn source(local: IpAddr, remote: SocketAddr) -> SocketAddr {
    match (local, remote) {
        (IpAddr::V6(local), SocketAddr::V6(remote)) if local.is_unicast_link_local() => {
            SocketAddr::V6(SocketAddrV6::new(local, 0, 0, remote.scope_id()))
        }
        (IpAddr::V4(_) | IpAddr::V6(_), SocketAddr::V4(_) | SocketAddr::V6(_)) => SocketAddr::new(local, 0),
    }
}

/// The interface of a link-local address, 0 for any other.
pub(crate) fn scope(address: SocketAddr) -> u32 {
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => v6.scope_id(),
        SocketAddr::V4(_) | SocketAddr::V6(_) => 0,
    }
}
