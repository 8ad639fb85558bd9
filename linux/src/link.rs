//! Interfaces, their addresses and neighbours.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel has dozens of attributes, and gets more"
)]

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use manx_routes::Target;
use nix::errno::Errno;
use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteType};

use crate::error::{Error, Result};
use crate::message;
use crate::netns::Netns;
use crate::nl;

/// How long to wait between two looks at what the kernel does in its own time.
const READY_PAUSE: Duration = Duration::from_micros(200);

/// How often to look: two seconds.
const READY_ATTEMPTS: u32 = 10_000;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// Six octets in hexadecimal, with colons between them.
impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `veth`, `bridge` and so on; none for hardware.
    pub kind: Option<String>,
    /// Whether it is set up.
    pub up: bool,
    /// Whether packets pass: both ends are up, and the kernel has acted on it.
    pub operational: bool,
    /// Whether there is somebody at its other end.
    pub carrier: bool,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// Its Ethernet address, if it has one.
    pub mac: Option<Mac>,
    /// The index of the interface at its other end, perhaps in another namespace.
    pub peer: Option<u32>,
    /// The index of the bridge it is a port of.
    pub controller: Option<u32>,
}

/// A pair of interfaces to be made.
#[derive(Clone, Debug)]
pub struct Veth<'a> {
    /// One end.
    pub end: VethEnd<'a>,
    /// The other.
    pub peer: VethEnd<'a>,
}

/// One interface of a pair.
#[derive(Clone, Copy, Debug)]
pub struct VethEnd<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its Ethernet address; the kernel's choice where absent.
    pub mac: Option<Mac>,
    /// Its largest packet in bytes; the kernel's choice (1500) where absent.
    pub mtu: Option<u32>,
    /// Its namespace; the socket's where absent.
    pub netns: Option<&'a Netns>,
}

impl<'a> VethEnd<'a> {
    /// An end with this name in the socket's namespace, and the kernel's choice of the rest.
    #[must_use]
    pub const fn named(name: &'a str) -> Self {
        Self {
            name,
            mac: None,
            mtu: None,
            netns: None,
        }
    }
}

/// A socket for all that is not routing, in the namespace it was opened in.
#[derive(Debug)]
pub struct LinkSocket(nl::Socket);

impl LinkSocket {
    /// Opens it in the calling thread's namespace.
    ///
    /// # Errors
    /// As [`nl::Socket::open`].
    pub fn open() -> Result<Self> {
        nl::Socket::open().map(Self)
    }

    /// Opens it in another namespace.
    ///
    /// # Errors
    /// As [`nl::Socket::open`], or if the namespace cannot be entered.
    pub fn open_in(netns: &Netns) -> Result<Self> {
        netns.run(Self::open)?
    }

    /// Every interface.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's answer.
    pub fn list(&mut self) -> Result<Vec<Link>> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.0.dump(&request, "list interfaces")?;
        Ok(answers.iter().filter_map(read_link).collect())
    }

    /// The interface with this name, if there is one.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's answer.
    pub fn get(&mut self, name: &str) -> Result<Option<Link>> {
        let request = LinkUnspec::new_with_name(name).build();
        match self.0.get(
            RouteNetlinkMessage::GetLink(request),
            &format!("look at interface {name}"),
        ) {
            Ok(answer) => Ok(read_link(&answer)),
            Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a pair of interfaces, down.
    ///
    /// # Errors
    /// [`Error::Refused`], with `EEXIST` when one of the names is taken in its namespace.
    pub fn create_veth(&mut self, veth: &Veth<'_>) -> Result<()> {
        self.0.request(
            message::new_veth(veth),
            &format!("make interface {}", veth.end.name),
        )
    }

    /// Makes a bridge, down.
    ///
    /// # Errors
    /// [`Error::Refused`], with `EEXIST` when the name is taken.
    pub fn create_bridge(&mut self, name: &str) -> Result<()> {
        self.0
            .request(message::new_bridge(name), &format!("make bridge {name}"))
    }

    /// Deletes an interface, and its other end; returns whether there was one.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's answer.
    pub fn delete(&mut self, name: &str) -> Result<bool> {
        let message = LinkUnspec::new_with_name(name).build();
        let request = nl::Request {
            message: RouteNetlinkMessage::DelLink(message),
            flags: 0,
        };
        match self.0.request(request, &format!("delete interface {name}")) {
            Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Sets an interface up.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's answer.
    pub fn set_up(&mut self, index: u32) -> Result<()> {
        self.0.request(
            message::set_link(LinkUnspec::new_with_index(index).up()),
            &format!("set interface {index} up"),
        )
    }

    /// Sets an interface down; routes through it go without a word.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's answer.
    pub fn set_down(&mut self, index: u32) -> Result<()> {
        self.0.request(
            message::set_link(LinkUnspec::new_with_index(index).down()),
            &format!("set interface {index} down"),
        )
    }

    /// Gives an interface another name. A kernel older than 6.2 renames none that is up: there it is down for as long as that takes,
    /// which costs it its routes, and packets that come just then. Returns whether it was up all the time.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's answer; it then has its old name.
    pub fn rename(&mut self, index: u32, name: &str) -> Result<bool> {
        let doing = format!("name interface {index} {name}");
        let rename = || message::set_link(LinkUnspec::new_with_index(index).name(name));
        match self.0.request(rename(), &doing) {
            Err(error) if error.errno() == Some(Errno::EBUSY) => {
                self.rename_while_down(index, name).map(|()| false)
            }
            other => other.map(|()| true),
        }
    }

    /// Sets an interface down, names it, and sets it up again, in one message.
    ///
    /// # Errors
    /// As [`LinkSocket::rename`].
    pub fn rename_while_down(&mut self, index: u32, name: &str) -> Result<()> {
        let link = || LinkUnspec::new_with_index(index);
        let steps = [link().down(), link().name(name), link().up()];
        let outcomes = self.0.batch(steps.map(message::set_link))?;
        let refused = outcomes.into_iter().find_map(std::result::Result::err);
        refused.map_or(Ok(()), |refusal| {
            Err(Error::Refused {
                doing: format!("name interface {index} {name}"),
                refusal,
            })
        })
    }

    /// Sets an interface's largest packet, in bytes.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's answer.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<()> {
        let request = message::set_link(LinkUnspec::new_with_index(index).mtu(mtu));
        self.0
            .request(request, &format!("set the MTU of interface {index} to {mtu}"))
    }

    /// Sets an interface's Ethernet address.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's answer.
    pub fn set_mac(&mut self, index: u32, mac: Mac) -> Result<()> {
        let request = message::set_link(LinkUnspec::new_with_index(index).address(mac.0.to_vec()));
        self.0
            .request(request, &format!("set the MAC of interface {index} to {mac}"))
    }

    /// Makes an interface a port of a bridge, or of none.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's answer.
    pub fn set_controller(&mut self, index: u32, bridge: Option<u32>) -> Result<()> {
        let request = message::set_link(LinkUnspec::new_with_index(index).controller(bridge.unwrap_or(0)));
        self.0
            .request(request, &format!("make interface {index} a port of {bridge:?}"))
    }

    /// Gives an interface an address, if it has not got it. Nobody is asked whether an IPv6 one is free, so
    /// it can be bound at once; it receives when the interface is ready (see [`Self::wait_until_ready`]).
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's answer.
    pub fn add_address(&mut self, index: u32, address: IpNetwork) -> Result<()> {
        self.0.request(
            message::put_address(index, address),
            &format!("add {address} to interface {index}"),
        )
    }

    /// Takes an address from an interface.
    ///
    /// # Errors
    /// [`Error::Refused`], with `EADDRNOTAVAIL` if it has no such address.
    pub fn delete_address(&mut self, index: u32, address: IpNetwork) -> Result<()> {
        let doing = format!("delete {address} from interface {index}");
        self.0.request(message::delete_address(index, address), &doing)
    }

    /// The addresses of all interfaces, each with its interface's index.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's answer.
    pub fn all_addresses(&mut self) -> Result<Vec<(u32, IpNetwork)>> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.0.dump(&request, "list all addresses")?;
        Ok(answers.iter().filter_map(read_address).collect())
    }

    /// The addresses of an interface.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's answer.
    pub fn addresses(&mut self, index: u32) -> Result<Vec<IpNetwork>> {
        let mut request = AddressMessage::default();
        request.header.index = index;
        let request = RouteNetlinkMessage::GetAddress(request);
        let answers = self
            .0
            .dump(&request, &format!("list the addresses of interface {index}"))?;
        Ok(answers
            .iter()
            .filter_map(read_address)
            .map(|(_, address)| address)
            .collect())
    }

    /// Says for good which Ethernet address a neighbour has, so that nobody asks.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's answer.
    pub fn add_neighbour(&mut self, index: u32, address: IpAddr, mac: Mac) -> Result<()> {
        let doing = format!("add neighbour {address} to interface {index}");
        self.0
            .request(message::put_neighbour(index, address, mac), &doing)
    }

    /// The permanent neighbours of an interface.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's answer.
    pub fn neighbours(&mut self, index: u32) -> Result<Vec<(IpAddr, Mac)>> {
        let mut request = NeighbourMessage::default();
        request.attributes = vec![NeighbourAttribute::IfIndex(index)];
        let request = RouteNetlinkMessage::GetNeighbour(request);
        let answers = self
            .0
            .dump(&request, &format!("list the neighbours of interface {index}"))?;
        Ok(answers.iter().filter_map(read_neighbour).collect())
    }

    /// Adds a route that is the caller's own affair, or replaces one of the kernel's default metric: a
    /// pod's, or a lab machine's. What Manx routes goes through [`crate::RouteSocket`].
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's answer.
    pub fn add_route(&mut self, prefix: IpNetwork, target: &Target) -> Result<()> {
        self.0.request(
            message::put_route(prefix, target),
            &format!("add route {prefix} {target}"),
        )
    }

    /// Waits until an interface that was set up passes packets, and receives what is sent to its addresses.
    ///
    /// The kernel turns on the end of a pair that was set up first, and takes in an IPv6 address even
    /// without duplicate detection, in its own time: mostly within a millisecond. What is sent until then is
    /// lost. Link-local addresses are not waited for: the kernel asks for duplicates of its own for a second.
    ///
    /// # Errors
    /// [`Error::Broken`] if there is no such interface, or it is not ready after two seconds.
    pub fn wait_until_ready(&mut self, name: &str) -> Result<()> {
        let mut unready = Vec::new();
        for _ in 0..READY_ATTEMPTS {
            // Since Linux 6.8 being looked at also hurries the kernel.
            let link = self
                .get(name)?
                .ok_or_else(|| Error::Broken(format!("there is no interface {name}")))?;
            unready = self.unready(link.index)?;
            if link.operational && unready.is_empty() {
                return Ok(());
            }
            std::thread::sleep(READY_PAUSE);
        }
        Err(Error::Broken(format!(
            "{name} is not ready, without carrier or without its addresses {unready:?}"
        )))
    }

    /// The addresses of an interface that do not receive yet.
    fn unready(&mut self, index: u32) -> Result<Vec<IpAddr>> {
        let mut unready = Vec::new();
        for address in self.addresses(index)? {
            let IpNetwork::V6(v6) = address else { continue };
            if !v6.ip().is_unicast_link_local() && !self.is_local(v6.ip().into())? {
                unready.push(v6.ip().into());
            }
        }
        Ok(unready)
    }

    /// Whether packets to this address are received here, on whichever interface has it.
    fn is_local(&mut self, address: IpAddr) -> Result<bool> {
        let route = self.route_to(address)?;
        Ok(route.is_some_and(|route| route.header.kind == RouteType::Local))
    }

    /// The index of the interface that packets to this address leave by; none where they are dropped or kept.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's answer.
    pub fn leads_to(&mut self, address: IpAddr) -> Result<Option<u32>> {
        let route = match self.route_to(address) {
            Err(error) if matches!(error.errno(), Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH)) => None,
            other => other?,
        };
        let unicast = route.filter(|route| route.header.kind == RouteType::Unicast);
        Ok(unicast.and_then(|route| {
            route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            })
        }))
    }

    /// The kernel's own answer where packets to this address go.
    fn route_to(&mut self, address: IpAddr) -> Result<Option<RouteMessage>> {
        let answer = self.0.get(
            message::get_route_to(address),
            &format!("look up the route to {address}"),
        )?;
        Ok(match answer {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        })
    }

    /// The socket itself, for batches.
    pub(crate) const fn raw(&mut self) -> &mut nl::Socket {
        &mut self.0
    }
}

/// An interface from a message, if the message is about one.
pub(crate) fn read_link(message: &RouteNetlinkMessage) -> Option<Link> {
    let (RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message)) = message else {
        return None;
    };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: None,
        up: message.header.flags.contains(LinkFlags::Up),
        operational: false,
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        mtu: 0,
        mac: None,
        peer: None,
        controller: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::OperState(state) => link.operational = *state == State::Up,
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok().map(Mac),
            LinkAttribute::Link(index) => link.peer = Some(*index),
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            LinkAttribute::LinkInfo(infos) => link.kind = infos.iter().find_map(read_kind),
            _ => {}
        }
    }
    Some(link)
}

fn read_kind(info: &LinkInfo) -> Option<String> {
    if let LinkInfo::Kind(kind) = info {
        Some(InfoKind::to_string(kind))
    } else {
        None
    }
}

/// An interface's index and one of its addresses, if the message is about one.
pub(crate) fn read_address(message: &RouteNetlinkMessage) -> Option<(u32, IpNetwork)> {
    let (RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message)) = message
    else {
        return None;
    };
    let (mut local, mut remote) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => remote = Some(*address),
            _ => {}
        }
    }
    let address = IpNetwork::new(local.or(remote)?, message.header.prefix_len).ok()?;
    Some((message.header.index, address))
}

fn read_neighbour(message: &RouteNetlinkMessage) -> Option<(IpAddr, Mac)> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else {
        return None;
    };
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok().map(Mac),
            _ => {}
        }
    }
    Some((address?, mac?))
}
