//! Capabilities: what a speaker can do, as its OPEN says (RFC 5492).

use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;
use nom::combinator::{all_consuming, rest, success};
use nom::multi::{length_data, many0};
use nom::number::complete::{be_u8, be_u16, be_u24, be_u32};

use super::{Error, Step};
use crate::Family;

const MULTIPROTOCOL: u8 = 1;
const ROUTE_REFRESH: u8 = 2;
const EXTENDED_NEXT_HOP: u8 = 5;
const EXTENDED_MESSAGE: u8 = 6;
const ROLE: u8 = 9;
const GRACEFUL_RESTART: u8 = 64;
const FOUR_OCTET_AS: u8 = 65;
const ADD_PATH: u8 = 69;
const ENHANCED_ROUTE_REFRESH: u8 = 70;
const LONG_LIVED_GRACEFUL_RESTART: u8 = 71;

/// Flags of the graceful restart capability, in the octets that hold the restart time too.
const RESTARTING: u16 = 0x8000;
const NOTIFICATION: u16 = 0x4000;
const RESTART_TIME: u16 = 0x0fff;
/// Flag of a family in it, and in the long-lived one: forwarding state was kept.
const FORWARDING: u8 = 0x80;

/// The address family of IPv6 next hops (RFC 8950 §4).
const IPV6: u16 = 2;

/// Bits of Add-Path's Send/Receive field (RFC 7911 §4).
const RECEIVE: u8 = 1;
const SEND: u8 = 2;

/// The longest stale time, in seconds: it has 24 bits (RFC 9494 §3).
const MAX_STALE_TIME: u32 = 0x00ff_ffff;

/// A capability (RFC 5492).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Code 1 (RFC 4760), for a family that this speaker carries.
    Multiprotocol(Family),
    /// Code 2 (RFC 2918).
    RouteRefresh,
    /// Code 5 (RFC 8950): families whose prefixes may have IPv6 next hops.
    ExtendedNextHop(Vec<Family>),
    /// Code 6 (RFC 8654): messages of up to 65,535 octets.
    ExtendedMessage,
    /// Code 9 (RFC 9234).
    Role(Role),
    /// Code 64 (RFC 4724).
    GracefulRestart(GracefulRestart),
    /// Code 65 (RFC 6793).
    FourOctetAs(u32),
    /// Code 69 (RFC 7911).
    AddPath(Vec<AddPath>),
    /// Code 70 (RFC 7313).
    EnhancedRouteRefresh,
    /// Code 71 (RFC 9494); means nothing without [`Capability::GracefulRestart`].
    LongLivedGracefulRestart(Vec<LongLivedRestart>),
    /// Anything else, kept as it came: to ignore it is not to refuse it (RFC 5492 §3).
    Unknown {
        /// The code.
        code: u8,
        /// The value, 255 octets at most.
        value: Bytes,
    },
}

/// The graceful restart capability (RFC 4724 §3; the N bit RFC 8538 §2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// R: the sender has restarted.
    pub restarting: bool,
    /// N: NOTIFICATION and hold-timer expiry keep routes, too.
    pub notification: bool,
    /// Seconds until routes are dropped, 0 to 4095.
    pub restart_time: u16,
    /// Families, each with F: forwarding state was kept.
    pub families: Vec<(Family, bool)>,
}

/// What the sender of the Add-Path capability does with several paths of a family (RFC 7911 §4). One that
/// does neither has no octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddPath {
    /// The family.
    pub family: Family,
    /// It takes them.
    pub receive: bool,
    /// It has some to send.
    pub send: bool,
}

/// How long a family's routes outlive the restart time (RFC 9494 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongLivedRestart {
    /// The family.
    pub family: Family,
    /// F: forwarding state was kept.
    pub forwarding: bool,
    /// Seconds, 0 to 16,777,215.
    pub stale_time: u32,
}

/// What the sender is to its neighbor (RFC 9234 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It sells transit to the neighbor.
    Provider,
    /// It is a route server, the neighbor a member.
    RouteServer,
    /// The neighbor is its route server.
    RouteServerClient,
    /// It buys transit from the neighbor.
    Customer,
    /// Both exchange their own and their customers' routes.
    Peer,
    /// A value that no role has; it pairs with none.
    Unassigned(u8),
}

impl Role {
    fn from_wire(octet: u8) -> Self {
        match octet {
            0 => Self::Provider,
            1 => Self::RouteServer,
            2 => Self::RouteServerClient,
            3 => Self::Customer,
            4 => Self::Peer,
            _ => Self::Unassigned(octet),
        }
    }

    fn to_wire(self) -> u8 {
        match self {
            Self::Provider => 0,
            Self::RouteServer => 1,
            Self::RouteServerClient => 2,
            Self::Customer => 3,
            Self::Peer => 4,
            Self::Unassigned(octet) => octet,
        }
    }

    /// Whether neighbors of these roles may talk; otherwise it is [`Error::RoleMismatch`] (RFC 9234 §4.2).
    #[must_use]
    pub fn pairs_with(self, theirs: Self) -> bool {
        matches!(
            (self, theirs),
            (Self::Provider, Self::Customer)
                | (Self::Customer, Self::Provider)
                | (Self::RouteServer, Self::RouteServerClient)
                | (Self::RouteServerClient, Self::RouteServer)
                | (Self::Peer, Self::Peer)
        )
    }
}

impl Capability {
    /// The AS number, of that capability.
    pub(super) fn four_octet_as(&self) -> Option<u32> {
        match self {
            Self::FourOctetAs(asn) => Some(*asn),
            Self::Multiprotocol(_)
            | Self::RouteRefresh
            | Self::ExtendedNextHop(_)
            | Self::ExtendedMessage
            | Self::Role(_)
            | Self::GracefulRestart(_)
            | Self::AddPath(_)
            | Self::EnhancedRouteRefresh
            | Self::LongLivedGracefulRestart(_)
            | Self::Unknown { .. } => None,
        }
    }

    /// Appends all capabilities in the value of one optional parameter.
    pub(super) fn decode_all(mut value: &[u8], out: &mut Vec<Self>) -> Result<(), Error> {
        while !value.is_empty() {
            let (rest, (code, content)) = triple(value).map_err(|_| Error::MalformedParameters)?;
            let (_, capability) = decode(code, content).map_err(|_| Error::MalformedParameters)?;
            out.push(capability);
            value = rest;
        }
        Ok(())
    }

    /// Appends code, length and value.
    pub(crate) fn put(&self, out: &mut BytesMut) {
        let mut value = BytesMut::new();
        let code = self.put_value(&mut value);
        let value = &value[..value.len().min(u8::MAX.into())];
        out.put_slice(&[code, u8::try_from(value.len()).unwrap_or(u8::MAX)]);
        out.put_slice(value);
    }

    /// Appends the value; the code.
    fn put_value(&self, out: &mut BytesMut) -> u8 {
        match self {
            Self::Multiprotocol(family) => {
                out.put_u16(family.afi());
                out.put_slice(&[0, family.safi()]);
                MULTIPROTOCOL
            }
            Self::RouteRefresh => ROUTE_REFRESH,
            Self::ExtendedNextHop(families) => {
                for family in families {
                    out.put_u16(family.afi());
                    out.put_u16(family.safi().into());
                    out.put_u16(IPV6);
                }
                EXTENDED_NEXT_HOP
            }
            Self::ExtendedMessage => EXTENDED_MESSAGE,
            Self::Role(role) => {
                out.put_u8(role.to_wire());
                ROLE
            }
            Self::GracefulRestart(restart) => {
                restart.put_value(out);
                GRACEFUL_RESTART
            }
            Self::FourOctetAs(asn) => {
                out.put_u32(*asn);
                FOUR_OCTET_AS
            }
            Self::AddPath(families) => {
                families.iter().for_each(|of_family| of_family.put(out));
                ADD_PATH
            }
            Self::EnhancedRouteRefresh => ENHANCED_ROUTE_REFRESH,
            Self::LongLivedGracefulRestart(families) => {
                families.iter().for_each(|of_family| of_family.put(out));
                LONG_LIVED_GRACEFUL_RESTART
            }
            Self::Unknown { code, value } => {
                out.put_slice(value);
                *code
            }
        }
    }
}

/// `bit` if `set`.
fn flag<T: Default>(set: bool, bit: T) -> T {
    if set { bit } else { T::default() }
}

impl GracefulRestart {
    fn put_value(&self, out: &mut BytesMut) {
        out.put_u16(
            flag(self.restarting, RESTARTING)
                | flag(self.notification, NOTIFICATION)
                | self.restart_time.min(RESTART_TIME),
        );
        for (family, forwarding) in &self.families {
            out.put_u16(family.afi());
            out.put_slice(&[family.safi(), flag(*forwarding, FORWARDING)]);
        }
    }
}

impl AddPath {
    fn put(&self, out: &mut BytesMut) {
        let both = flag(self.receive, RECEIVE) | flag(self.send, SEND);
        if both != 0 {
            out.put_u16(self.family.afi());
            out.put_slice(&[self.family.safi(), both]);
        }
    }
}

impl LongLivedRestart {
    fn put(&self, out: &mut BytesMut) {
        out.put_u16(self.family.afi());
        out.put_slice(&[self.family.safi(), flag(self.forwarding, FORWARDING)]);
        out.put_uint(self.stale_time.min(MAX_STALE_TIME).into(), 3);
    }
}

fn triple(value: &[u8]) -> Step<'_, (u8, &[u8])> {
    (be_u8, length_data(be_u8)).parse(value)
}

/// The capability of this code; a known one must be as long as its RFC says. Families that this speaker does
/// not carry are left out.
fn decode(code: u8, value: &[u8]) -> Step<'_, Capability> {
    let unknown = |value: &[u8]| Capability::Unknown {
        code,
        value: Bytes::copy_from_slice(value),
    };
    let empty = |capability| all_consuming(success(capability)).parse(value);
    match code {
        MULTIPROTOCOL => all_consuming((be_u16, be_u8, be_u8))
            .map(|(afi, _, safi)| {
                Family::from_wire(afi, safi).map_or_else(|| unknown(value), Capability::Multiprotocol)
            })
            .parse(value),
        ROUTE_REFRESH => empty(Capability::RouteRefresh),
        EXTENDED_NEXT_HOP => extended_next_hop(value),
        EXTENDED_MESSAGE => empty(Capability::ExtendedMessage),
        ROLE => all_consuming(be_u8.map(|role| Capability::Role(Role::from_wire(role)))).parse(value),
        GRACEFUL_RESTART => graceful_restart(value),
        FOUR_OCTET_AS => all_consuming(be_u32.map(Capability::FourOctetAs)).parse(value),
        ADD_PATH => {
            let (rest, families) = add_path(value)?;
            Ok((rest, families.map_or_else(|| unknown(value), Capability::AddPath)))
        }
        ENHANCED_ROUTE_REFRESH => empty(Capability::EnhancedRouteRefresh),
        LONG_LIVED_GRACEFUL_RESTART => long_lived_graceful_restart(value),
        _ => rest.map(unknown).parse(value),
    }
}

/// The families with IPv6 next hops; other next hops are nothing new (RFC 8950 §4).
fn extended_next_hop(value: &[u8]) -> Step<'_, Capability> {
    let (rest, families) = all_consuming(many0((be_u16, be_u16, be_u16))).parse(value)?;
    let families = families.into_iter().filter(|(_, _, next_hop)| *next_hop == IPV6);
    let families =
        families.filter_map(|(afi, safi, _)| Family::from_wire(afi, u8::try_from(safi).unwrap_or(0)));
    Ok((rest, Capability::ExtendedNextHop(families.collect())))
}

fn graceful_restart(value: &[u8]) -> Step<'_, Capability> {
    let (rest, (bits, families)) = all_consuming((be_u16, many0((be_u16, be_u8, be_u8)))).parse(value)?;
    let families = families.into_iter().filter_map(|(afi, safi, flags)| {
        Family::from_wire(afi, safi).map(|family| (family, flags & FORWARDING != 0))
    });
    let restart = GracefulRestart {
        restarting: bits & RESTARTING != 0,
        notification: bits & NOTIFICATION != 0,
        restart_time: bits & RESTART_TIME,
        families: families.collect(),
    };
    Ok((rest, Capability::GracefulRestart(restart)))
}

/// The families of Add-Path; none where one neither sends nor receives nor does both, in which case all of
/// the capability is to be ignored (RFC 7911 §4).
fn add_path(value: &[u8]) -> Step<'_, Option<Vec<AddPath>>> {
    let (rest, families) = all_consuming(many0((be_u16, be_u8, be_u8))).parse(value)?;
    let understood = families
        .iter()
        .all(|(_, _, both)| (RECEIVE..=RECEIVE | SEND).contains(both));
    let families = families.into_iter().filter_map(|(afi, safi, both)| {
        Some(AddPath {
            family: Family::from_wire(afi, safi)?,
            receive: both & RECEIVE != 0,
            send: both & SEND != 0,
        })
    });
    Ok((rest, understood.then(|| families.collect())))
}

fn long_lived_graceful_restart(value: &[u8]) -> Step<'_, Capability> {
    let (rest, families) = all_consuming(many0((be_u16, be_u8, be_u8, be_u24))).parse(value)?;
    let families = families.into_iter().filter_map(|(afi, safi, flags, stale_time)| {
        Some(LongLivedRestart {
            family: Family::from_wire(afi, safi)?,
            forwarding: flags & FORWARDING != 0,
            stale_time,
        })
    });
    Ok((rest, Capability::LongLivedGracefulRestart(families.collect())))
}
