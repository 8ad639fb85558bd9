//! The messages of the kernel's nexthop objects, which `netlink-packet-route` does not have, and a socket that speaks of
//! these and of routes.

use std::net::IpAddr;

use manx_routes::{Hop, Nexthop, Object, PROTOCOL_BGP};
use rtnetlink::packet_core::{
    DecodeError, NLM_F_CREATE, NLM_F_REPLACE, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable,
    NlasIterator,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;

use crate::nl::{self, Request};

/// The kernel's numbers (`linux/rtnetlink.h`, `linux/nexthop.h`).
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;
const RTM_GETNEXTHOP: u16 = 106;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;

/// Octets of the header, of an attribute's header, and of a group's member.
const HEADER: usize = 8;
const ATTRIBUTE: usize = 4;
const MEMBER: usize = 8;

/// What is said of a nexthop object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NexthopMessage {
    /// It is there, or is to be.
    New {
        /// What.
        nexthop: Nexthop,
        /// Who made it: a route protocol's number.
        protocol: u8,
    },
    /// One of ours is gone, or is to go.
    Delete(u32),
    /// All are to be told of.
    GetAll,
    /// One that is none of ours in kind: a blackhole, one without a gateway.
    Other,
}

/// A message about routes or nexthop objects, and whatever else rtnetlink speaks of.
#[derive(Clone, Debug)]
pub(crate) enum TableMessage {
    /// All but nexthop objects.
    Route(RouteNetlinkMessage),
    /// Those.
    Nexthop(NexthopMessage),
}

impl nl::Message for TableMessage {
    const PROTOCOL: isize = NETLINK_ROUTE;
}

impl NetlinkSerializable for TableMessage {
    fn message_type(&self) -> u16 {
        match self {
            Self::Route(message) => message.message_type(),
            Self::Nexthop(NexthopMessage::New { .. } | NexthopMessage::Other) => RTM_NEWNEXTHOP,
            Self::Nexthop(NexthopMessage::Delete(_)) => RTM_DELNEXTHOP,
            Self::Nexthop(NexthopMessage::GetAll) => RTM_GETNEXTHOP,
        }
    }

    fn buffer_len(&self) -> usize {
        match self {
            Self::Route(message) => message.buffer_len(),
            Self::Nexthop(message) => message.octets().len(),
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        match self {
            Self::Route(message) => message.serialize(buffer),
            Self::Nexthop(message) => buffer.copy_from_slice(&message.octets()),
        }
    }
}

impl NetlinkDeserializable for TableMessage {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(match header.message_type {
            RTM_NEWNEXTHOP => Self::Nexthop(NexthopMessage::read(payload)?),
            RTM_DELNEXTHOP => Self::Nexthop(NexthopMessage::read(payload)?.gone()),
            _ => Self::Route(RouteNetlinkMessage::deserialize(header, payload)?),
        })
    }
}

impl NexthopMessage {
    /// The same of an object that is gone.
    fn gone(self) -> Self {
        match self {
            Self::New {
                nexthop,
                protocol: PROTOCOL_BGP,
            } => Self::Delete(nexthop.id),
            Self::New { .. } | Self::Delete(_) | Self::GetAll | Self::Other => Self::Other,
        }
    }

    /// Whether it is about an object of ours.
    pub(crate) const fn is_ours(&self) -> bool {
        match self {
            Self::New { protocol, .. } => *protocol == PROTOCOL_BGP,
            Self::Delete(_) => true,
            Self::GetAll | Self::Other => false,
        }
    }

    fn octets(&self) -> Vec<u8> {
        match self {
            Self::New { nexthop, protocol } => {
                let mut octets = header(family(&nexthop.object), *protocol);
                attribute(&mut octets, NHA_ID, &nexthop.id.to_ne_bytes());
                match &nexthop.object {
                    Object::Hop(Hop { gateway, device }) => {
                        match gateway {
                            IpAddr::V4(v4) => attribute(&mut octets, NHA_GATEWAY, &v4.octets()),
                            IpAddr::V6(v6) => attribute(&mut octets, NHA_GATEWAY, &v6.octets()),
                        }
                        if let Some(device) = device {
                            attribute(&mut octets, NHA_OIF, &device.to_ne_bytes());
                        }
                    }
                    Object::Group(ids) => {
                        // Each with the weight 1, which is written as 0.
                        let members = ids.iter().flat_map(|id| {
                            let mut member = [0; MEMBER];
                            member[..4].copy_from_slice(&id.to_ne_bytes());
                            member
                        });
                        attribute(&mut octets, NHA_GROUP, &members.collect::<Vec<_>>());
                    }
                }
                octets
            }
            Self::Delete(id) => {
                let mut octets = header(libc::AF_UNSPEC, 0);
                attribute(&mut octets, NHA_ID, &id.to_ne_bytes());
                octets
            }
            Self::GetAll | Self::Other => header(libc::AF_UNSPEC, 0),
        }
    }

    fn read(payload: &[u8]) -> Result<Self, DecodeError> {
        let protocol = *payload.get(2).ok_or("a nexthop without a header")?;
        let (mut id, mut gateway, mut device, mut group) = (None, None, None, None);
        for attribute in NlasIterator::new(payload.get(HEADER..).unwrap_or_default()) {
            let attribute = attribute?;
            let value = attribute.value();
            match attribute.kind() {
                NHA_ID => id = word(value),
                NHA_OIF => device = word(value),
                NHA_GATEWAY => gateway = address(value),
                NHA_GROUP => group = Some(value.chunks(MEMBER).filter_map(word).collect()),
                _ => {}
            }
        }
        let hop = gateway.map(|gateway| Object::Hop(Hop { gateway, device }));
        let object = group.map(Object::Group).or(hop);
        Ok(match (id, object) {
            (Some(id), Some(object)) => Self::New {
                nexthop: Nexthop { id, object },
                protocol,
            },
            _ => Self::Other,
        })
    }
}

/// Makes an object, or puts it in the place of ours with that number. `device` is where a router is, where it does not say so
/// itself.
pub(crate) fn put(nexthop: &Nexthop, device: Option<u32>) -> Request<TableMessage> {
    let mut nexthop = nexthop.clone();
    if let Object::Hop(hop) = &mut nexthop.object {
        hop.device = hop.device.or(device);
    }
    let protocol = PROTOCOL_BGP;
    Request {
        message: TableMessage::Nexthop(NexthopMessage::New { nexthop, protocol }),
        flags: NLM_F_CREATE | NLM_F_REPLACE,
    }
}

/// Deletes an object.
pub(crate) const fn delete(id: u32) -> Request<TableMessage> {
    Request {
        message: TableMessage::Nexthop(NexthopMessage::Delete(id)),
        flags: 0,
    }
}

/// A group has the family of none: it may hold both.
const fn family(object: &Object) -> i32 {
    match object {
        Object::Hop(Hop {
            gateway: IpAddr::V4(_),
            ..
        }) => libc::AF_INET,
        Object::Hop(Hop {
            gateway: IpAddr::V6(_),
            ..
        }) => libc::AF_INET6,
        Object::Group(_) => libc::AF_UNSPEC,
    }
}

fn header(family: i32, protocol: u8) -> Vec<u8> {
    let family = u8::try_from(family).unwrap_or_default();
    vec![family, 0, protocol, 0, 0, 0, 0, 0]
}

/// Every value is a whole number of words long.
fn attribute(octets: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(ATTRIBUTE + value.len()).unwrap_or(u16::MAX);
    octets.extend(length.to_ne_bytes());
    octets.extend(kind.to_ne_bytes());
    octets.extend(value);
}

fn word(octets: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(octets.get(..4)?.try_into().ok()?))
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
    }
}
