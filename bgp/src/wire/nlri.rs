//! Prefixes and next hops on the wire (RFC 4271 §4.3, RFC 4760 §5, RFC 2545 §3, RFC 7911 §3).

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, BytesMut};
use nom::Parser;
use nom::bytes::complete::take;
use nom::combinator::{all_consuming, cond};
use nom::number::complete::{be_u8, be_u32, be_u128};

use super::{Context, Step};
use crate::{Family, Prefix};

/// A prefix on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nlri {
    /// The path identifier, where Add-Path was negotiated (RFC 7911).
    pub path_id: Option<u32>,
    /// The prefix.
    pub prefix: Prefix,
}

/// A next hop (RFC 4271 §5.1.3, RFC 2545 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NextHop {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address, with the link-local one where it came along.
    V6 {
        /// The global address; unspecified where only a link-local one was given.
        global: Ipv6Addr,
        /// The link-local address.
        link_local: Option<Ipv6Addr>,
    },
}

impl Hash for NextHop {
    /// Each address as one number: tables are looked up by it for each message.
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::V4(address) => state.write_u32(address.to_bits()),
            Self::V6 { global, link_local } => {
                state.write_u128(global.to_bits());
                state.write_u128(link_local.map_or(0, Ipv6Addr::to_bits));
            }
        }
    }
}

impl NextHop {
    /// The family of the address, which need not be the prefixes' (RFC 8950).
    #[must_use]
    pub fn family(self) -> Family {
        match self {
            Self::V4(_) => Family::Ipv4Unicast,
            Self::V6 { .. } => Family::Ipv6Unicast,
        }
    }

    /// The address that packets go to: the global one where there is one.
    #[must_use]
    pub fn address(self) -> IpAddr {
        match self {
            Self::V4(address) => address.into(),
            Self::V6 {
                global,
                link_local: Some(link_local),
            } if global.is_unspecified() => link_local.into(),
            Self::V6 {
                global,
                link_local: _,
            } => global.into(),
        }
    }

    /// Whether packets can only go to a link-local address.
    pub(crate) fn is_link_local(self) -> bool {
        match self {
            Self::V4(_) => false,
            Self::V6 { global, link_local } => global.is_unspecified() && link_local.is_some(),
        }
    }

    /// Whether a host could answer there: neither "this network", loopback, multicast nor reserved.
    pub(super) fn is_usable(self) -> bool {
        match self {
            Self::V4(address) => !matches!(address.octets(), [0 | 127 | 224..=255, ..]),
            Self::V6 { global, link_local } => {
                let nowhere = global.is_loopback() || global.is_multicast();
                !nowhere && (!global.is_unspecified() || link_local.is_some())
            }
        }
    }
}

impl fmt::Display for Nlri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path_id {
            Some(path_id) => write!(f, "{} path {path_id}", self.prefix),
            None => self.prefix.fmt(f),
        }
    }
}

impl fmt::Display for NextHop {
    /// The address that packets go to.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().fmt(f)
    }
}

/// All prefixes of a field; none where one is too long or cut short.
pub(super) fn decode(family: Family, mut field: &[u8], context: &Context) -> Option<Vec<Nlri>> {
    let add_path = context.add_path_receive.contains(&family);
    // As many as there are where none is longer than usual.
    let usual = match family {
        Family::Ipv4Unicast => 4,
        Family::Ipv6Unicast => 9,
    };
    let mut out = Vec::with_capacity(field.len() / usual);
    while !field.is_empty() {
        let (rest, nlri) = one(family, add_path, field).ok()?;
        out.push(nlri);
        field = rest;
    }
    Some(out)
}

fn one(family: Family, add_path: bool, field: &[u8]) -> Step<'_, Nlri> {
    let (field, path_id) = cond(add_path, be_u32).parse(field)?;
    let (field, len) = be_u8(field)?;
    let (field, octets) = take(len.div_ceil(8))(field)?;
    match prefix(family, len, octets) {
        Some(prefix) => Ok((field, Nlri { path_id, prefix })),
        None => Err(nom::Err::Error(())),
    }
}

/// The prefix of `len` bits, none where the family has not as many; bits beyond `len` mean nothing.
fn prefix(family: Family, len: u8, octets: &[u8]) -> Option<Prefix> {
    match family {
        Family::Ipv4Unicast => {
            let mut address = [0; 4];
            address.get_mut(..octets.len())?.copy_from_slice(octets);
            Prefix::v4(address.into(), len)
        }
        Family::Ipv6Unicast => {
            let mut address = [0; 16];
            address.get_mut(..octets.len())?.copy_from_slice(octets);
            Prefix::v6(address.into(), len)
        }
    }
}

impl Nlri {
    /// The octets it takes.
    pub(super) fn size(&self, add_path: bool) -> usize {
        let path_id = if add_path { 4 } else { 0 };
        path_id + 1 + usize::from(self.prefix.len().div_ceil(8))
    }

    /// Appends it; with Add-Path, an absent identifier is 0.
    pub(super) fn put(&self, add_path: bool, out: &mut BytesMut) {
        if add_path {
            out.put_u32(self.path_id.unwrap_or(0));
        }
        let len = self.prefix.len();
        let octets = usize::from(len.div_ceil(8));
        out.put_u8(len);
        match self.prefix.address() {
            IpAddr::V4(address) => out.put_slice(&address.octets()[..octets]),
            IpAddr::V6(address) => out.put_slice(&address.octets()[..octets]),
        }
    }
}

/// Whether no packet to it may leave a link or a host: multicast, loopback and link-local prefixes, which are
/// well-formed and mean nothing here.
pub(super) fn is_stray(prefix: Prefix) -> bool {
    match (prefix.address(), prefix.len()) {
        (IpAddr::V4(address), len) => address.is_multicast() && len >= 4 || address.is_loopback() && len >= 8,
        (IpAddr::V6(address), len) => {
            address.is_multicast() && len >= 8
                || address.is_unicast_link_local() && len >= 10
                || address.is_loopback() && len == 128
        }
    }
}

/// The next hop in MP_REACH_NLRI; none where its length does not fit the family. IPv4 prefixes have an IPv6
/// one where both sides said that they can (RFC 8950 §3).
///
/// Beside RFC 2545's two forms, speakers in the field send a link-local address alone, twice, or after the
/// unspecified one: all mean that there is only a link-local one.
pub(super) fn decode_next_hop(family: Family, octets: &[u8], context: &Context) -> Option<NextHop> {
    let extended = context.extended_next_hop.contains(&family);
    match (family, octets.len()) {
        (Family::Ipv4Unicast, 4) => {
            let parsed: Step<'_, _> = all_consuming(be_u32).parse(octets);
            parsed.ok().map(|(_, address)| NextHop::V4(address.into()))
        }
        (Family::Ipv4Unicast, 16 | 32) if !extended => None,
        (Family::Ipv4Unicast | Family::Ipv6Unicast, 16 | 32) => {
            let parsed: Step<'_, _> =
                all_consuming((be_u128, cond(octets.len() == 32, be_u128))).parse(octets);
            let (_, (first, second)) = parsed.ok()?;
            let first = Ipv6Addr::from(first);
            let second = second.map(Ipv6Addr::from).filter(Ipv6Addr::is_unicast_link_local);
            Some(if first.is_unicast_link_local() {
                NextHop::V6 {
                    global: Ipv6Addr::UNSPECIFIED,
                    link_local: second.or(Some(first)),
                }
            } else {
                NextHop::V6 {
                    global: first,
                    link_local: second,
                }
            })
        }
        _ => None,
    }
}

/// Appends the next hop's length and octets. A link-local address alone goes out twice, which the
/// speakers in the field read, as the first address must not be missing.
pub(super) fn put_next_hop(next_hop: NextHop, out: &mut BytesMut) {
    match next_hop {
        NextHop::V4(address) => {
            out.put_u8(4);
            out.put_slice(&address.octets());
        }
        NextHop::V6 {
            global,
            link_local: None,
        } => {
            out.put_u8(16);
            out.put_slice(&global.octets());
        }
        NextHop::V6 {
            global,
            link_local: Some(link_local),
        } => {
            let first = if global.is_unspecified() {
                link_local
            } else {
                global
            };
            out.put_u8(32);
            out.put_slice(&first.octets());
            out.put_slice(&link_local.octets());
        }
    }
}
