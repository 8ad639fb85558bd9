//! Echo requests and replies of both families over raw sockets.

use std::io;
use std::net::{IpAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, SockaddrStorage,
    recvfrom, sendto, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

/// Bytes of a packet that are looked at: an IPv4 header with options, and an echo's own.
const SNAP: usize = 128;

const REQUEST_V4: u8 = 8;
const REPLY_V4: u8 = 0;
const REQUEST_V6: u8 = 128;
const REPLY_V6: u8 = 129;

/// An echo message, with the number that its identifier and its sequence number make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Echo {
    Request(u32),
    Reply(u32),
}

/// A raw socket of the calling thread's namespace that sends and hears echo messages of one family.
#[derive(Debug)]
pub(super) struct EchoSocket {
    socket: OwnedFd,
    is_v4: bool,
}

impl EchoSocket {
    /// Opens one of the address's family; a receive waits for `patience` at most.
    pub(super) fn open(address: IpAddr, patience: Duration) -> io::Result<Self> {
        let is_v4 = address.is_ipv4();
        let (family, protocol) = if is_v4 {
            (AddressFamily::Inet, SockProtocol::Icmp)
        } else {
            (AddressFamily::Inet6, SockProtocol::IcmpV6)
        };
        let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        let patience = i64::try_from(patience.as_millis()).unwrap_or(i64::MAX);
        setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(patience))?;
        Ok(Self { socket, is_v4 })
    }

    /// Sends an echo request.
    pub(super) fn send(&self, number: u32, to: IpAddr) -> io::Result<()> {
        let message = request(number, self.is_v4);
        let (socket, flags) = (self.socket.as_raw_fd(), MsgFlags::empty());
        match to {
            IpAddr::V4(to) => sendto(
                socket,
                &message,
                &SockaddrIn::from(SocketAddrV4::new(to, 0)),
                flags,
            )?,
            IpAddr::V6(to) => sendto(
                socket,
                &message,
                &SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, 0)),
                flags,
            )?,
        };
        Ok(())
    }

    /// The next echo message and whom it is from; none when another message came.
    ///
    /// # Errors
    /// Nothing came in time, or the kernel's refusal.
    pub(super) fn receive(&self) -> io::Result<Option<(Echo, IpAddr)>> {
        let mut buffer = [0; SNAP];
        let (length, from) = recvfrom::<SockaddrStorage>(self.socket.as_raw_fd(), &mut buffer)?;
        Ok(from.and_then(|from| self.echo(buffer.get(..length)?, from)))
    }

    fn echo(&self, packet: &[u8], from: SockaddrStorage) -> Option<(Echo, IpAddr)> {
        let v4 = from.as_sockaddr_in().map(|address| address.ip().into());
        let from = v4.or_else(|| from.as_sockaddr_in6().map(|address| address.ip().into()))?;
        // Raw IPv4 sockets get the IP header, too.
        let header = if self.is_v4 {
            usize::from(packet.first()? & 0x0f) * 4
        } else {
            0
        };
        Some((parse(packet.get(header..)?)?, from))
    }
}

/// An echo request, with its checksum where the kernel does not fill it in (ICMP; RFC 792).
fn request(number: u32, is_v4: bool) -> [u8; 8] {
    let [a, b, c, d] = number.to_be_bytes();
    let mut message = [if is_v4 { REQUEST_V4 } else { REQUEST_V6 }, 0, 0, 0, a, b, c, d];
    if is_v4 {
        let words = message
            .chunks_exact(2)
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
        let sum: u32 = words.sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        // Four words carry at most once more.
        let folded = (folded & 0xffff) + (folded >> 16);
        let [_, _, high, low] = (!folded).to_be_bytes();
        (message[2], message[3]) = (high, low);
    }
    message
}

fn parse(message: &[u8]) -> Option<Echo> {
    let number = u32::from_be_bytes(message.get(4..8)?.try_into().ok()?);
    match message.first()? {
        &REQUEST_V4 | &REQUEST_V6 => Some(Echo::Request(number)),
        &REPLY_V4 | &REPLY_V6 => Some(Echo::Reply(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requests_checksum_makes_the_sum_of_its_words_all_ones() {
        for number in [0, 1, 0xffff_ffff, 0xf7ff_0000, 0x1234_5678] {
            let words = request(number, true);
            let sum: u32 = words
                .chunks_exact(2)
                .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
                .sum();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "{number:#x}");
        }
    }

    #[test]
    fn messages_carry_their_number() {
        for is_v4 in [true, false] {
            assert_eq!(
                parse(&request(0x0102_0304, is_v4)),
                Some(Echo::Request(0x0102_0304))
            );
        }
        assert_eq!(parse(&[REPLY_V6, 0, 0, 0, 0, 0, 0, 9]), Some(Echo::Reply(9)));
        assert_eq!(parse(&[3, 1, 0, 0, 0, 0, 0, 9]), None);
        assert_eq!(parse(&[REPLY_V4, 0, 0]), None);
    }
}
