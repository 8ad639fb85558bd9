//! The messages that this crate sends, one function each, and the reading of those that it gets.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel has dozens of kinds and attributes, and gets more"
)]

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use manx_routes::{Actual, Hop, METRIC, Route, Target};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteProtocol, RouteScope,
    RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::link::{Mac, Veth, VethEnd};
use crate::nl::Request;

/// Makes what must not exist yet.
const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// Makes it, in the place of what is there.
const PUT: u16 = NLM_F_CREATE | NLM_F_REPLACE;

/// The address family of an address.
pub(crate) const fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// A link message about the interface with this index (0: named by an attribute).
pub(crate) fn link(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    message
}

/// Changes an interface.
pub(crate) fn set_link(index: u32, attributes: Vec<LinkAttribute>) -> Request {
    Request {
        message: RouteNetlinkMessage::SetLink(link(index, attributes)),
        flags: 0,
    }
}

/// Sets an interface up or down.
pub(crate) fn set_up(index: u32, up: bool) -> Request {
    let mut message = link(index, Vec::new());
    message.header.change_mask = LinkFlags::Up;
    message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
    Request {
        message: RouteNetlinkMessage::SetLink(message),
        flags: 0,
    }
}

/// Makes a pair of interfaces, each in its place from the start.
pub(crate) fn new_veth(veth: &Veth<'_>) -> Request {
    let peer = InfoData::Veth(InfoVeth::Peer(link(0, veth_end(&veth.peer))));
    let mut attributes = veth_end(&veth.end);
    attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(peer),
    ]));
    Request {
        message: RouteNetlinkMessage::NewLink(link(0, attributes)),
        flags: NEW,
    }
}

fn veth_end(end: &VethEnd<'_>) -> Vec<LinkAttribute> {
    let mut attributes = vec![LinkAttribute::IfName(end.name.to_owned())];
    attributes.extend(end.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    attributes.extend(end.mtu.map(LinkAttribute::Mtu));
    attributes.extend(end.netns.map(|netns| LinkAttribute::NetNsFd(netns.raw())));
    attributes
}

/// Makes a bridge.
pub(crate) fn new_bridge(name: &str) -> Request {
    let kind = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]);
    let message = link(0, vec![LinkAttribute::IfName(name.to_owned()), kind]);
    Request {
        message: RouteNetlinkMessage::NewLink(message),
        flags: NEW,
    }
}

/// Gives an interface an address. IPv6 uses it at once, without asking the link whether somebody has it.
pub(crate) fn put_address(index: u32, address: IpNetwork) -> Request {
    let mut message = address_message(index, address);
    if address.is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    Request {
        message: RouteNetlinkMessage::NewAddress(message),
        flags: PUT,
    }
}

/// Takes an address from an interface.
pub(crate) fn delete_address(index: u32, address: IpNetwork) -> Request {
    Request {
        message: RouteNetlinkMessage::DelAddress(address_message(index, address)),
        flags: 0,
    }
}

fn address_message(index: u32, address: IpNetwork) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.ip());
    message.header.prefix_len = address.prefix();
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(address.ip()),
        AddressAttribute::Address(address.ip()),
    ];
    message
}

/// Says for good which MAC an address on the link has, so that nobody asks.
pub(crate) fn put_neighbour(index: u32, address: IpAddr, mac: Mac) -> Request {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    let destination = match address {
        IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
        IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
    };
    message.attributes = vec![
        NeighbourAttribute::Destination(destination),
        NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()),
    ];
    Request {
        message: RouteNetlinkMessage::NewNeighbour(message),
        flags: PUT,
    }
}

/// Adds or replaces a route that is not the route table's: `target` without Manx's protocol and metric.
pub(crate) fn put_route(prefix: IpNetwork, target: &Target) -> Request {
    let mut message = route_message(prefix, target);
    message.header.protocol = RouteProtocol::Boot;
    Request {
        message: RouteNetlinkMessage::NewRoute(message),
        flags: PUT,
    }
}

/// Adds a route of the route table, where no route of that prefix and metric is.
pub(crate) fn add_table_route(route: &Route) -> Request {
    table_route(route, NEW)
}

/// Puts a route of the route table in the place of the one with that prefix and metric.
///
/// IPv6 keeps the hops of one route as routes of their own: replacing takes away all of them, and the hops
/// after the first are appended by the kernel itself. It would also append to what is there if a request
/// said neither "replace" nor "exclusive", and so join a foreign route; we always say one of them.
pub(crate) fn replace_table_route(route: &Route) -> Request {
    table_route(route, PUT)
}

fn table_route(route: &Route, flags: u16) -> Request {
    let mut message = route_message(route.prefix, &route.target);
    message.header.protocol = route.source.protocol().into();
    message.attributes.push(RouteAttribute::Priority(METRIC));
    Request {
        message: RouteNetlinkMessage::NewRoute(message),
        flags,
    }
}

/// Deletes the route with this prefix, protocol and metric, whatever its hops.
pub(crate) fn delete_table_route(prefix: IpNetwork, protocol: u8, metric: u32) -> Request {
    let mut message = route_to(prefix);
    message.header.protocol = protocol.into();
    message.header.scope = RouteScope::NoWhere;
    message.attributes.push(RouteAttribute::Priority(metric));
    Request {
        message: RouteNetlinkMessage::DelRoute(message),
        flags: 0,
    }
}

/// Asks for the main table's routes of one family and protocol.
pub(crate) fn get_table_routes(family: AddressFamily, protocol: u8) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = protocol.into();
    RouteNetlinkMessage::GetRoute(message)
}

/// Asks which route a packet to this address would take.
pub(crate) fn get_route_to(address: IpAddr) -> RouteNetlinkMessage {
    let mut message = route_to(address.into());
    message.header.table = RouteHeader::RT_TABLE_UNSPEC;
    RouteNetlinkMessage::GetRoute(message)
}

fn route_to(prefix: IpNetwork) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(prefix.ip());
    message.header.destination_prefix_length = prefix.prefix();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    if prefix.prefix() > 0 {
        message
            .attributes
            .push(RouteAttribute::Destination(prefix.network().into()));
    }
    message
}

fn route_message(prefix: IpNetwork, target: &Target) -> RouteMessage {
    let mut message = route_to(prefix);
    message.header.kind = RouteType::Unicast;
    match target {
        Target::Via(hops) => match hops.as_slice() {
            [only] => {
                message.attributes.push(gateway(prefix, only));
                message.attributes.extend(only.device.map(RouteAttribute::Oif));
            }
            several => {
                let hops = several.iter().map(|hop| next_hop(prefix, hop)).collect();
                message.attributes.push(RouteAttribute::MultiPath(hops));
            }
        },
        Target::Device(index) => {
            message.header.scope = RouteScope::Link;
            message.attributes.push(RouteAttribute::Oif(*index));
        }
        Target::Unreachable => message.header.kind = RouteType::Unreachable,
    }
    message
}

fn next_hop(prefix: IpNetwork, hop: &Hop) -> RouteNextHop {
    let mut next_hop = RouteNextHop::default();
    next_hop.interface_index = hop.device.unwrap_or(0);
    next_hop.attributes = vec![gateway(prefix, hop)];
    next_hop
}

/// The gateway; of the other family by another attribute (RFC 8950).
fn gateway(prefix: IpNetwork, hop: &Hop) -> RouteAttribute {
    match (prefix, hop.gateway) {
        (IpNetwork::V4(_), IpAddr::V6(v6)) => RouteAttribute::Via(RouteVia::Inet6(v6)),
        (IpNetwork::V6(_), IpAddr::V4(v4)) => RouteAttribute::Via(RouteVia::Inet(v4)),
        (IpNetwork::V4(_) | IpNetwork::V6(_), same) => RouteAttribute::Gateway(same.into()),
    }
}

/// The route that a message is about; none if it is not one of the main table's.
pub(crate) fn read_route(message: &RouteMessage) -> Option<Actual> {
    let header = &message.header;
    let mut table = u32::from(header.table);
    let (mut destination, mut metric) = (None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = Some(read_address(address)?),
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    let everywhere = || match header.address_family {
        AddressFamily::Inet => Some(IpAddr::from([0; 4])),
        AddressFamily::Inet6 => Some(IpAddr::from([0; 16])),
        _ => None,
    };
    if table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return None;
    }
    Some(Actual {
        prefix: IpNetwork::new(destination.or_else(everywhere)?, header.destination_prefix_length).ok()?,
        target: read_target(message),
        protocol: header.protocol.into(),
        metric,
    })
}

/// Where the route leads; none if there is more to it than Manx ever asks for.
fn read_target(message: &RouteMessage) -> Option<Target> {
    if message.header.kind == RouteType::Unreachable {
        return Some(Target::Unreachable);
    }
    if message.header.kind != RouteType::Unicast || message.header.tos != 0 {
        return None;
    }
    let (mut device, mut hops) = (None, Vec::new());
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => device = Some(*index),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => {
                hops.push(Hop {
                    gateway: read_gateway(attribute)?,
                    device: None,
                });
            }
            RouteAttribute::MultiPath(several) => {
                for hop in several {
                    let gateway = hop.attributes.iter().find_map(read_gateway)?;
                    hops.push(Hop {
                        gateway,
                        device: Some(hop.interface_index),
                    });
                }
            }
            RouteAttribute::NhId(_) | RouteAttribute::Encap(_) | RouteAttribute::PrefSource(_) => {
                return None;
            }
            _ => {}
        }
    }
    for hop in &mut hops {
        hop.device = hop.device.or(device);
    }
    if hops.is_empty() {
        device.map(Target::Device)
    } else {
        Some(Target::Via(hops))
    }
}

fn read_gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => read_address(address),
        RouteAttribute::Via(RouteVia::Inet(v4)) => Some(IpAddr::V4(*v4)),
        RouteAttribute::Via(RouteVia::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

fn read_address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}
