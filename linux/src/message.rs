//! The messages that this crate sends, one function each, and the reading of those that it gets.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel has dozens of kinds and attributes, and gets more"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use manx_routes::{Actual, Hop, Route, Target};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteProtocol, RouteScope,
    RouteType, RouteVia,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{
    AddressMessageBuilder, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    RouteNextHopBuilder,
};

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

/// Changes an interface.
pub(crate) fn set_link(link: LinkMessageBuilder<LinkUnspec>) -> Request {
    Request {
        message: RouteNetlinkMessage::SetLink(link.build()),
        flags: 0,
    }
}

/// Makes a pair of interfaces, each in its place from the start.
pub(crate) fn new_veth(veth: &Veth<'_>) -> Request {
    let peer = veth_end(LinkMessageBuilder::<LinkUnspec>::new(), &veth.peer).build();
    let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
    new_link(veth_end(pair, &veth.end))
}

fn veth_end<T>(link: LinkMessageBuilder<T>, end: &VethEnd<'_>) -> LinkMessageBuilder<T> {
    let mut link = link.name(end.name);
    if let Some(mac) = end.mac {
        link = link.address(mac.0.to_vec());
    }
    if let Some(mtu) = end.mtu {
        link = link.mtu(mtu);
    }
    if let Some(netns) = end.netns {
        link = link.setns_by_fd(netns.raw());
    }
    link
}

/// Makes a bridge.
pub(crate) fn new_bridge(name: &str) -> Request {
    new_link(LinkMessageBuilder::<LinkBridge>::new(name))
}

fn new_link<T>(link: LinkMessageBuilder<T>) -> Request {
    Request {
        message: RouteNetlinkMessage::NewLink(link.build()),
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
    match address {
        IpNetwork::V4(v4) => AddressMessageBuilder::<Ipv4Addr>::new()
            .index(index)
            .address(v4.ip(), v4.prefix())
            .build(),
        IpNetwork::V6(v6) => AddressMessageBuilder::<Ipv6Addr>::new()
            .index(index)
            .address(v6.ip(), v6.prefix())
            .build(),
    }
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
    let route = route(prefix, target).protocol(RouteProtocol::Boot);
    Request {
        message: RouteNetlinkMessage::NewRoute(route.build()),
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

fn table_route(wanted: &Route, flags: u16) -> Request {
    let route = route(wanted.prefix, &wanted.target)
        .protocol(wanted.source.protocol().into())
        .priority(wanted.metric);
    Request {
        message: RouteNetlinkMessage::NewRoute(route.build()),
        flags,
    }
}

/// Deletes the route with this prefix, protocol and metric, whatever its kind and hops.
pub(crate) fn delete_table_route(prefix: IpNetwork, protocol: u8, metric: u32) -> Request {
    let route = route_to(prefix)
        .protocol(protocol.into())
        .scope(RouteScope::NoWhere)
        .kind(RouteType::Unspec)
        .priority(metric);
    Request {
        message: RouteNetlinkMessage::DelRoute(route.build()),
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
    let question = route_to(address.into())
        .table_id(u32::from(RouteHeader::RT_TABLE_UNSPEC))
        .protocol(RouteProtocol::Unspec)
        .kind(RouteType::Unspec);
    RouteNetlinkMessage::GetRoute(question.build())
}

/// A unicast route of the main table, leading nowhere yet. (The builder's own way to set a destination may
/// fail, for a length that no `IpNetwork` has.)
fn route_to(prefix: IpNetwork) -> RouteMessageBuilder<IpAddr> {
    let mut route = RouteMessageBuilder::<IpAddr>::new();
    let message = route.get_mut();
    message.header.address_family = family(prefix.ip());
    message.header.destination_prefix_length = prefix.prefix();
    let destination = RouteAttribute::Destination(prefix.network().into());
    message.attributes.push(destination);
    route
}

fn route(prefix: IpNetwork, target: &Target) -> RouteMessageBuilder<IpAddr> {
    let mut route = route_to(prefix);
    match target {
        Target::Via(hops) => match hops.as_slice() {
            [only] => {
                let attributes = &mut route.get_mut().attributes;
                attributes.push(gateway(prefix, only));
                attributes.extend(only.device.map(RouteAttribute::Oif));
                route
            }
            several => route.multipath(several.iter().map(|hop| next_hop(prefix, hop)).collect()),
        },
        Target::Device(index) => route.scope(RouteScope::Link).output_interface(*index),
        Target::Unreachable => route.kind(RouteType::Unreachable),
        Target::Group(id) => {
            route.get_mut().attributes.push(RouteAttribute::NhId(*id));
            route
        }
    }
}

fn next_hop(prefix: IpNetwork, hop: &Hop) -> RouteNextHop {
    let device = hop.device.unwrap_or(0);
    let mut next_hop = RouteNextHopBuilder::new(family(prefix.ip()))
        .interface(device)
        .build();
    next_hop.attributes.push(gateway(prefix, hop));
    next_hop
}

/// The gateway; of the other family by another attribute (RFC 8950). An IPv4 gateway of an IPv6 prefix the
/// kernel refuses, and says so, where the builder would not make the message.
fn gateway(prefix: IpNetwork, hop: &Hop) -> RouteAttribute {
    if prefix.is_ipv4() == hop.gateway.is_ipv4() {
        RouteAttribute::Gateway(hop.gateway.into())
    } else {
        RouteAttribute::Via(hop.gateway.into())
    }
}

/// The interface of a route straight out of it, to whom is on the link.
pub(crate) fn device_of_link(route: &RouteMessage) -> Option<u32> {
    let attributes = || route.attributes.iter();
    let direct = route.header.kind == RouteType::Unicast && attributes().find_map(read_gateway).is_none();
    let device = attributes().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    device.filter(|_| direct)
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
            // Where the object leads may be told as well: net.ipv4.nexthop_compat_mode says.
            RouteAttribute::NhId(id) => return Some(Target::Group(*id)),
            RouteAttribute::Encap(_) | RouteAttribute::PrefSource(_) => return None,
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
