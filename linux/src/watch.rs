//! What happens in the kernel, by our own hand or another's.
//!
//! The kernel announces changes to every socket that asked, and drops announcements that a full queue cannot
//! take; then [`Event::Resync`] says that something was missed, and only reading the tables tells what.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the groups carry a few kinds that say nothing to us"
)]
#![expect(
    unsafe_code,
    reason = "tokio wants a promise that a registered file stays open"
)]

use std::collections::VecDeque;
use std::io;

use ipnetwork::IpNetwork;
use manx_routes::Observed;
use nix::errno::Errno;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::{self, protocols::NETLINK_ROUTE};
use socket2::{SockFilter, SockRef};
use tokio::io::unix::AsyncFd;

use crate::error::{Error, Result};
use crate::link::{Link, read_address, read_link};
use crate::message::read_route;
use crate::netns::Netns;
use crate::nexthop::TableMessage;
use crate::nl;

/// Bytes of the kernel's queue towards us: some ten thousand announcements.
const RECEIVE_QUEUE: usize = 16 * 1024 * 1024;

/// The multicast groups of links, of addresses and routes of both families, and of nexthop objects (`RTNLGRP_*`).
const GROUPS: [u32; 6] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV6_ROUTE,
    libc::RTNLGRP_NEXTHOP,
];

/// Those of links and addresses alone.
const LINK_GROUPS: [u32; 3] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
];

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A route of the main table, ours or not, was added, changed or deleted.
    Route(Observed),
    /// An interface was made or changed.
    Link(Link),
    /// An interface was deleted.
    LinkGone(Link),
    /// An interface got an address.
    Address(u32, IpNetwork),
    /// An interface lost an address.
    AddressGone(u32, IpNetwork),
    /// Announcements were lost, or somebody else changed a nexthop object of ours, and all of its routes by it.
    Resync,
}

/// A socket that the kernel's announcements come to.
#[derive(Debug)]
pub struct Watcher {
    socket: AsyncFd<sys::Socket>,
    buffer: Vec<u8>,
    events: VecDeque<Event>,
}

impl Watcher {
    /// Watches the calling thread's namespace from now on, but for what the socket with this port does
    /// itself (see [`crate::RouteSocket::port`]). Wants a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Os`] where the process may not have sockets or no more files.
    pub fn open(except: Option<u32>) -> Result<Self> {
        Self::over(subscribe(except, &GROUPS)?)
    }

    /// Watches the interfaces of the calling thread's namespace and their addresses, and no routes.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn links() -> Result<Self> {
        Self::over(subscribe(None, &LINK_GROUPS)?)
    }

    /// Watches the interfaces of another namespace and their addresses, and no routes.
    ///
    /// # Errors
    /// As [`Self::open_in`].
    pub fn links_in(netns: &Netns) -> Result<Self> {
        Self::over(netns.run(|| subscribe(None, &LINK_GROUPS))??)
    }

    /// Watches another namespace.
    ///
    /// # Errors
    /// As [`Self::open`], or if the namespace cannot be entered.
    pub fn open_in(netns: &Netns, except: Option<u32>) -> Result<Self> {
        Self::over(netns.run(|| subscribe(except, &GROUPS))??)
    }

    fn over(socket: sys::Socket) -> Result<Self> {
        Ok(Self {
            socket: register(socket)?,
            buffer: Vec::new(),
            events: VecDeque::new(),
        })
    }

    /// Waits for the next event. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// [`Error::Os`] if the socket cannot be read; [`Error::Malformed`] if what it says is not netlink.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            let mut ready = self
                .socket
                .readable()
                .await
                .map_err(Error::os("watch a netlink socket"))?;
            if let Ok(received) = ready.try_io(|socket| nl::receive(socket.get_ref(), &mut self.buffer)) {
                self.understand(received)?;
            }
        }
    }

    /// The next event, if it has happened already.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn try_next(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            match nl::receive(self.socket.get_ref(), &mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                received => self.understand(received)?,
            }
        }
    }

    fn understand(&mut self, received: io::Result<()>) -> Result<()> {
        match received {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                self.events.push_back(Event::Resync);
                return Ok(());
            }
            Err(error) => return Err(Error::os("read the kernel's announcements")(error)),
        }
        for message in nl::messages(&self.buffer) {
            let (header, payload) = message?;
            self.events.extend(match nl::decode(&header, payload)? {
                TableMessage::Route(message) => event(&message),
                TableMessage::Nexthop(message) => message.is_ours().then_some(Event::Resync),
            });
        }
        Ok(())
    }
}

/// Makes a socket known to the tokio runtime, which tells when there is something to read.
pub(crate) fn register(socket: sys::Socket) -> Result<AsyncFd<sys::Socket>> {
    // SAFETY: the socket owns its file and gives the same one out until it is dropped, which only happens with the
    // `AsyncFd` around it: no user of that takes it out or replaces it.
    let socket = unsafe { AsyncFd::register(socket) };
    socket.map_err(|error| Error::os("watch a netlink socket")(error.into()))
}

fn subscribe(except: Option<u32>, groups: &[u32]) -> Result<sys::Socket> {
    let subscribed = || -> io::Result<sys::Socket> {
        let (socket, _) = nl::open(NETLINK_ROUTE, RECEIVE_QUEUE)?;
        if let Some(port) = except {
            SockRef::from(&socket).attach_filter(&all_but_from(port))?;
        }
        for group in groups {
            socket.add_membership(*group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(socket)
    };
    subscribed().map_err(Error::os("watch the kernel"))
}

/// A socket filter, run by the kernel before it queues a message: passes all but those caused by `port`,
/// so that a hundred thousand routes of our own making do not come back to us.
fn all_but_from(port: u32) -> [SockFilter; 4] {
    let instruction = |code: u32, jt, jf, k| SockFilter::new(u16::try_from(code).unwrap_or(0), jt, jf, k);
    // The header's last word is the port, in the machine's order; the filter reads words in the network's.
    let port = u32::from_be_bytes(port.to_ne_bytes());
    [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 12),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, port),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
    ]
}

fn event(message: &RouteNetlinkMessage) -> Option<Event> {
    match message {
        RouteNetlinkMessage::NewRoute(route) => {
            read_route(route).map(|route| Event::Route(Observed::Present(route)))
        }
        RouteNetlinkMessage::DelRoute(route) => {
            read_route(route).map(|route| Event::Route(Observed::Absent(route)))
        }
        RouteNetlinkMessage::NewLink(_) => read_link(message).map(Event::Link),
        RouteNetlinkMessage::DelLink(_) => read_link(message).map(Event::LinkGone),
        RouteNetlinkMessage::NewAddress(_) => {
            read_address(message).map(|(index, net)| Event::Address(index, net))
        }
        RouteNetlinkMessage::DelAddress(_) => {
            read_address(message).map(|(index, net)| Event::AddressGone(index, net))
        }
        _ => None,
    }
}
