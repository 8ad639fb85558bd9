//! Capabilities: what a speaker can do, as its OPEN says (RFC 5492).

use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;
use nom::combinator::{all_consuming, rest};
use nom::multi::{length_data, many0};
use nom::number::complete::{be_u8, be_u16, be_u32};

use super::{Error, Step};
use crate::Family;

const MULTIPROTOCOL: u8 = 1;
const ROUTE_REFRESH: u8 = 2;
const GRACEFUL_RESTART: u8 = 64;
const FOUR_OCTET_AS: u8 = 65;

/// Flags of the graceful restart capability, in the octets that hold the restart time too.
const RESTARTING: u16 = 0x8000;
const NOTIFICATION: u16 = 0x4000;
const RESTART_TIME: u16 = 0x0fff;
/// Flag of a family in it: forwarding state was kept.
const FORWARDING: u8 = 0x80;

/// A capability (RFC 5492).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Code 1 (RFC 4760), for a family that this speaker carries.
    Multiprotocol(Family),
    /// Code 2 (RFC 2918).
    RouteRefresh,
    /// Code 64 (RFC 4724).
    GracefulRestart(GracefulRestart),
    /// Code 65 (RFC 6793).
    FourOctetAs(u32),
    /// Anything else, kept as it came.
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

impl Capability {
    /// The AS number, of that capability.
    pub(super) fn four_octet_as(&self) -> Option<u32> {
        match self {
            Self::FourOctetAs(asn) => Some(*asn),
            Self::Multiprotocol(_) | Self::RouteRefresh | Self::GracefulRestart(_) | Self::Unknown { .. } => {
                None
            }
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
        match self {
            Self::Multiprotocol(family) => {
                out.put_slice(&[MULTIPROTOCOL, 4]);
                out.put_u16(family.afi());
                out.put_slice(&[0, family.safi()]);
            }
            Self::RouteRefresh => out.put_slice(&[ROUTE_REFRESH, 0]),
            Self::GracefulRestart(restart) => restart.put(out),
            Self::FourOctetAs(asn) => {
                out.put_slice(&[FOUR_OCTET_AS, 4]);
                out.put_u32(*asn);
            }
            Self::Unknown { code, value } => {
                let value = &value[..value.len().min(u8::MAX.into())];
                out.put_slice(&[*code, u8::try_from(value.len()).unwrap_or(u8::MAX)]);
                out.put_slice(value);
            }
        }
    }
}

impl GracefulRestart {
    fn put(&self, out: &mut BytesMut) {
        let flag = |set: bool, bit| if set { bit } else { 0 };
        let families = u8::try_from(self.families.len()).unwrap_or(u8::MAX);
        out.put_slice(&[GRACEFUL_RESTART, families.saturating_mul(4).saturating_add(2)]);
        out.put_u16(
            flag(self.restarting, RESTARTING)
                | flag(self.notification, NOTIFICATION)
                | self.restart_time.min(RESTART_TIME),
        );
        for (family, forwarding) in &self.families {
            out.put_u16(family.afi());
            out.put_slice(&[family.safi(), if *forwarding { FORWARDING } else { 0 }]);
        }
    }
}

fn triple(value: &[u8]) -> Step<'_, (u8, &[u8])> {
    (be_u8, length_data(be_u8)).parse(value)
}

/// The capability of this code; a known one must be as long as its RFC says.
fn decode(code: u8, value: &[u8]) -> Step<'_, Capability> {
    let unknown = |value: &[u8]| Capability::Unknown {
        code,
        value: Bytes::copy_from_slice(value),
    };
    match code {
        MULTIPROTOCOL => all_consuming((be_u16, be_u8, be_u8))
            .map(|(afi, _, safi)| {
                Family::from_wire(afi, safi).map_or_else(|| unknown(value), Capability::Multiprotocol)
            })
            .parse(value),
        ROUTE_REFRESH => all_consuming(nom::combinator::success(Capability::RouteRefresh)).parse(value),
        GRACEFUL_RESTART => graceful_restart(value),
        FOUR_OCTET_AS => all_consuming(be_u32.map(Capability::FourOctetAs)).parse(value),
        _ => rest.map(unknown).parse(value),
    }
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
