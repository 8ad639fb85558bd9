//! Router advertisements: how neighbours on a link find each other (RFC 4861 §6).
//!
//! Ours say that there is a router, and that it is nobody's default router (lifetime 0), so that no host on the link
//! sends its packets to us. Each interface has a socket and a task of its own: neither the kernel's limit of
//! memberships per socket nor a full queue of one link is another link's business, however many there are.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use rand::RngExt as _;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, sleep_until};

use crate::datagram::{self, Datagram};
use crate::driver::Job;
use crate::inbox::Inbox;
use crate::links::News;
use crate::sockopt;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// The ICMPv6 types of solicitations and advertisements.
const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;

/// The hop limit of all of them: what has it comes from our link (RFC 4861 §6.1).
const HOP_LIMIT: u8 = 255;

/// Between two advertisements, in seconds: what FRR's unnumbered sessions do, too.
const INTERVAL: std::ops::Range<f64> = 7.5..10.0;

/// Between the first ones, of which any may be lost (RFC 4861 §6.2.4 allows 3 s).
const FIRST_INTERVAL: Duration = Duration::from_secs(3);

/// How many are the first.
const FIRST: u32 = 3;

/// Solicitations are answered no more often: a flood costs no more than this.
const ANSWER_PAUSE: Duration = Duration::from_secs(1);

/// When what failed is tried again: an address is not ours before the link was asked (RFC 4862 §5.4), for 1 s.
const RETRY: Duration = Duration::from_millis(500);

/// The longest message that is looked at, in octets; a longer one is cut off, and refused.
const MESSAGE: usize = 1500;

/// What was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Advertisement(Ipv6Addr),
    Solicitation(Ipv6Addr),
}

/// Advertises us on an interface, and tells who else does, until dropped.
pub(crate) async fn serve(interface: Arc<str>, index: u32, inbox: Inbox) {
    let mut problem = None;
    loop {
        let Err(error) = exchange(&interface, index, &inbox, &mut problem).await else {
            return;
        };
        let found = explain(&interface, &error);
        if problem.as_ref() != Some(&found) {
            tracing::warn!(%interface, problem = %found, "cannot look for the neighbor");
            problem = Some(found);
            tell_problem(&interface, problem.clone(), &inbox).await;
        }
        sleep(RETRY).await;
    }
}

/// Until the driver is gone, or a failure.
async fn exchange(
    interface: &Arc<str>,
    index: u32,
    inbox: &Inbox,
    problem: &mut Option<Arc<str>>,
) -> io::Result<()> {
    let socket = open(interface, index)?;
    send(&socket, &advertisement(), ALL_NODES, index)?;
    // Whoever is there already answers at once.
    send(&socket, &solicitation(), ALL_ROUTERS, index)?;
    if problem.take().is_some() {
        tell_problem(interface, None, inbox).await;
    }
    let mut sent = 1;
    let mut next = Instant::now() + FIRST_INTERVAL;
    let mut answered: Option<Instant> = None;
    loop {
        tokio::select! {
            ready = socket.readable() => match ready.and_then(|()| receive(&socket, index)) {
                Ok(Some(Heard::Advertisement(address))) => {
                    let interface = interface.clone();
                    if !inbox.send(Job::Link(News::Heard { interface, address })).await {
                        return Ok(());
                    }
                }
                Ok(Some(Heard::Solicitation(from))) => {
                    if answered.is_none_or(|at| at.elapsed() >= ANSWER_PAUSE) {
                        answered = Some(Instant::now());
                        send(&socket, &advertisement(), from, index)?;
                    }
                }
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            },
            () = sleep_until(next) => {
                send(&socket, &advertisement(), ALL_NODES, index)?;
                sent += 1;
                next = Instant::now() + interval(sent);
            }
        }
    }
}

fn interval(sent: u32) -> Duration {
    if sent < FIRST {
        FIRST_INTERVAL
    } else {
        Duration::from_secs_f64(rand::rng().random_range(INTERVAL))
    }
}

async fn tell_problem(interface: &Arc<str>, problem: Option<Arc<str>>, inbox: &Inbox) {
    let interface = interface.clone();
    inbox.send(Job::Link(News::Problem { interface, problem })).await;
}

/// What is to be done about a failure.
fn explain(interface: &str, error: &io::Error) -> Arc<str> {
    let disabled = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    if std::fs::read_to_string(&disabled).is_ok_and(|value| value.trim() == "1") {
        return format!("IPv6 is disabled on {interface}: write 0 to {disabled}").into();
    }
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => {
            "router advertisements need CAP_NET_RAW: run with it, or give the neighbor's address".into()
        }
        Some(Errno::EAFNOSUPPORT) => "this kernel has no IPv6: boot it without ipv6.disable=1".into(),
        Some(Errno::EADDRNOTAVAIL) => format!("{interface} has no link-local address (yet)").into(),
        Some(_) | None => format!("cannot send router advertisements on {interface}: {error}").into(),
    }
}

/// Tokio has no raw sockets; as far as it is concerned they are like those of UDP.
fn open(interface: &str, index: u32) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    sockopt::pass_icmpv6(&socket, &[SOLICITATION, ADVERTISEMENT])?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_recv_hoplimit_v6(true)?;
    socket.set_unicast_hops_v6(HOP_LIMIT.into())?;
    socket.set_multicast_hops_v6(HOP_LIMIT.into())?;
    socket.set_multicast_loop_v6(false)?;
    socket.set_multicast_if_v6(index)?;
    socket.join_multicast_v6(&ALL_ROUTERS, index)?;
    UdpSocket::from_std(socket.into())
}

fn send(socket: &UdpSocket, message: &[u8], to: Ipv6Addr, index: u32) -> io::Result<()> {
    let to = SocketAddr::V6(SocketAddrV6::new(to, 0, 0, index));
    SockRef::from(socket).send_to(message, &to.into()).map(drop)
}

/// The next message; none if it is to be ignored.
fn receive(socket: &UdpSocket, index: u32) -> io::Result<Option<Heard>> {
    socket.try_io(Interest::READABLE, || take(socket, index))
}

fn take(socket: &UdpSocket, index: u32) -> io::Result<Option<Heard>> {
    let mut buffer = [0; MESSAGE];
    let datagram = datagram::receive(socket, &mut buffer)?;
    Ok(datagram.and_then(|Datagram { from, ttl, length }| match from {
        // Before the socket was bound it heard other interfaces, too.
        SocketAddr::V6(from) if from.scope_id() == index => read(*from.ip(), ttl, &buffer[..length]),
        SocketAddr::V4(_) | SocketAddr::V6(_) => None,
    }))
}

/// What a message says, if it is valid (RFC 4861 §6.1.1, §6.1.2); the kernel has checked the checksum.
fn read(from: Ipv6Addr, hop_limit: u8, message: &[u8]) -> Option<Heard> {
    let &[kind, code, ..] = message else { return None };
    let (header, heard) = match kind {
        SOLICITATION => (8, Heard::Solicitation(from)),
        ADVERTISEMENT => (16, Heard::Advertisement(from)),
        _ => return None,
    };
    let mut options = message.get(header..)?;
    while let Some(&[_, units]) = options.first_chunk() {
        let length = 8 * usize::from(units);
        options = options.get(length..).filter(|_| length > 0)?;
    }
    let valid = hop_limit == HOP_LIMIT && code == 0 && options.is_empty() && from.is_unicast_link_local();
    valid.then_some(heard)
}

/// Ours: no default router, and nothing else for hosts (RFC 4861 §4.2). The kernel adds the checksum.
fn advertisement() -> [u8; 16] {
    let mut message = [0; 16];
    message[0] = ADVERTISEMENT;
    message
}

/// RFC 4861 §4.1.
fn solicitation() -> [u8; 8] {
    let mut message = [0; 8];
    message[0] = SOLICITATION;
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    /// An advertisement with options.
    fn with(options: &[u8]) -> Vec<u8> {
        [&advertisement()[..], options].concat()
    }

    #[test]
    fn what_we_say_is_what_we_understand() {
        assert_eq!(
            read(FROM, 255, &advertisement()),
            Some(Heard::Advertisement(FROM))
        );
        assert_eq!(read(FROM, 255, &solicitation()), Some(Heard::Solicitation(FROM)));
        let mac = [1, 1, 2, 0, 0, 0, 0, 1];
        assert!(read(FROM, 255, &with(&mac)).is_some());
    }

    /// RFC 4861 §6.1.2: hop limit 255, link-local source, code 0, 16 octets or more, no option of length 0.
    #[test]
    fn an_advertisement_that_is_not_valid_is_no_advertisement() {
        let mut coded = advertisement();
        coded[1] = 1;
        let other = [135; 24];
        let elsewhere = "2001:db8::1".parse().unwrap();
        for (from, hop_limit, message) in [
            (FROM, 254, advertisement().to_vec()),
            (elsewhere, 255, advertisement().to_vec()),
            (Ipv6Addr::UNSPECIFIED, 255, advertisement().to_vec()),
            (FROM, 255, coded.to_vec()),
            (FROM, 255, advertisement()[..15].to_vec()),
            (FROM, 255, Vec::new()),
            (FROM, 255, other.to_vec()),
            (FROM, 255, with(&[1, 0, 0, 0, 0, 0, 0, 0])),
            (FROM, 255, with(&[1, 2, 0, 0, 0, 0, 0, 0])),
            (FROM, 255, with(&[1])),
        ] {
            assert_eq!(
                read(from, hop_limit, &message),
                None,
                "{from} {hop_limit} {message:?}"
            );
        }
    }

    /// RFC 4861 §4.2: router lifetime 0.
    #[test]
    fn nobody_takes_us_for_a_default_router() {
        assert_eq!(advertisement()[6..8], [0, 0], "the router lifetime");
    }
}
