//! Datagrams, with how far they have come: what BFD and router advertisements are judged by.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};

/// A datagram that was received; its octets are in the buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Datagram {
    /// From whom.
    pub(crate) from: SocketAddr,
    /// Its TTL, or hop limit, as it arrived.
    pub(crate) ttl: u8,
    /// How many octets of the buffer are its.
    pub(crate) length: usize,
}

/// The next datagram of a socket that was asked to tell the TTL; none if it lacks its TTL or sender. Does not wait.
pub(crate) fn receive(socket: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<Option<Datagram>> {
    let mut space = cmsg_space!(i32);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut space),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let hops = |control| {
        if let ControlMessageOwned::Ipv4Ttl(hops) | ControlMessageOwned::Ipv6HopLimit(hops) = control {
            u8::try_from(hops).ok()
        } else {
            None
        }
    };
    let ttl = message.cmsgs()?.find_map(hops);
    let (length, from) = (
        message.bytes,
        message.address.and_then(|address| sender_of(&address)),
    );
    Ok(from.zip(ttl).map(|(from, ttl)| Datagram { from, ttl, length }))
}

fn sender_of(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|it| SocketAddr::V4((*it).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|it| SocketAddr::V6((*it).into())))
}
