//! OPEN (RFC 4271 §4.2, §6.2; RFC 9072 for optional parameters beyond 255 octets).

use std::net::Ipv4Addr;

use bytes::{BufMut, BytesMut};
use nom::Parser;
use nom::multi::length_data;
use nom::number::complete::{be_u8, be_u16, be_u32};

use super::{AS_TRANS, Capability, Error, Step};

const VERSION: u8 = 4;
/// The shortest hold time other than none, in seconds (RFC 4271 §4.2).
const MIN_HOLD_TIME: u64 = 3;
/// The optional parameter that holds capabilities (RFC 5492 §4).
const CAPABILITIES: u8 = 2;
/// As first parameter type: the parameters are in RFC 9072's format.
const EXTENDED: u8 = 255;

/// OPEN (RFC 4271 §4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The sender's AS: the four-octet capability's where present (RFC 6793), else the fixed field's.
    pub asn: u32,
    /// The proposed hold time in seconds; 1 and 2 never decode.
    pub hold_time: u16,
    /// The BGP identifier; never zero (RFC 6286).
    pub router_id: Ipv4Addr,
    /// In the order of the message.
    pub capabilities: Vec<Capability>,
}

impl Open {
    /// Appends the body. The capabilities go out as they stand: an AS beyond two octets needs its own.
    pub(super) fn put(&self, out: &mut BytesMut) {
        out.put_u8(VERSION);
        out.put_u16(two_octets(self.asn));
        out.put_u16(self.hold_time);
        out.put_u32(self.router_id.into());
        let mut capabilities = BytesMut::new();
        for capability in &self.capabilities {
            capability.put(&mut capabilities);
        }
        put_parameters(out, &capabilities);
    }
}

/// An AS number for a two-octet field (RFC 6793 §4.1).
pub(super) fn two_octets(asn: u32) -> u16 {
    u16::try_from(asn).unwrap_or(AS_TRANS)
}

/// Parameters in the old form as long as it can hold them, in the extended one otherwise (RFC 9072 §2).
fn put_parameters(out: &mut BytesMut, capabilities: &[u8]) {
    match (
        u8::try_from(capabilities.len()),
        u8::try_from(capabilities.len() + 2),
    ) {
        (Ok(0), _) => out.put_u8(0),
        (Ok(length), Ok(all)) => {
            out.put_u8(all);
            out.put_u8(CAPABILITIES);
            out.put_u8(length);
        }
        _ => {
            let length = u16::try_from(capabilities.len()).unwrap_or(u16::MAX);
            out.put_u8(EXTENDED);
            out.put_u8(EXTENDED);
            out.put_u16(length.saturating_add(3));
            out.put_u8(CAPABILITIES);
            out.put_u16(length);
        }
    }
    out.put_slice(capabilities);
}

/// Version, My Autonomous System, Hold Time, BGP Identifier, Optional Parameters Length.
fn fixed(body: &[u8]) -> Step<'_, (u8, u16, u16, u32, u8)> {
    (be_u8, be_u16, be_u16, be_u32, be_u8).parse(body)
}

pub(super) fn decode(body: &[u8]) -> Result<Open, Error> {
    let (rest, (version, my_as, hold_time, router_id, length)) =
        fixed(body).map_err(|_| Error::MalformedParameters)?;
    if version != VERSION {
        return Err(Error::UnsupportedVersion { version });
    }
    let capabilities = parameters(length, rest)?;
    let asn = peer_as(my_as, &capabilities)?;
    if matches!(hold_time, 1 | 2) {
        return Err(Error::UnacceptableHoldTime {
            seconds: hold_time,
            min: MIN_HOLD_TIME,
        });
    }
    let router_id = Ipv4Addr::from(router_id);
    if router_id.is_unspecified() {
        return Err(Error::BadIdentifier { router_id });
    }
    Ok(Open {
        asn,
        hold_time,
        router_id,
        capabilities,
    })
}

/// The fixed field's AS, or the capability's, which must then agree with the field (RFC 6793 §4.1).
fn peer_as(my_as: u16, capabilities: &[Capability]) -> Result<u32, Error> {
    let four_octets = capabilities.iter().find_map(Capability::four_octet_as);
    let asn = four_octets.unwrap_or_else(|| my_as.into());
    let agrees = my_as == AS_TRANS || my_as == two_octets(asn);
    if asn == 0 || asn == AS_TRANS.into() || !agrees {
        return Err(Error::BadPeerAs { asn });
    }
    Ok(asn)
}

/// All capabilities of all parameters; `length` is the Optional Parameters Length, `rest` all after it.
fn parameters(length: u8, rest: &[u8]) -> Result<Vec<Capability>, Error> {
    let extended = length != 0 && rest.first() == Some(&EXTENDED);
    let mut rest = if extended {
        let (rest, parameters) = extended_parameters(rest).map_err(|_| Error::MalformedParameters)?;
        if !rest.is_empty() {
            return Err(Error::MalformedParameters);
        }
        parameters
    } else if rest.len() == length.into() {
        rest
    } else {
        return Err(Error::MalformedParameters);
    };
    let mut capabilities = Vec::new();
    while !rest.is_empty() {
        let (after, (kind, value)) = parameter(rest, extended).map_err(|_| Error::MalformedParameters)?;
        if kind != CAPABILITIES {
            return Err(Error::UnsupportedParameter { kind });
        }
        Capability::decode_all(value, &mut capabilities)?;
        rest = after;
    }
    Ok(capabilities)
}

fn extended_parameters(rest: &[u8]) -> Step<'_, &[u8]> {
    let (rest, _) = be_u8(rest)?;
    length_data(be_u16).parse(rest)
}

/// One parameter: type and value.
fn parameter(rest: &[u8], extended: bool) -> Step<'_, (u8, &[u8])> {
    if extended {
        (be_u8, length_data(be_u16)).parse(rest)
    } else {
        (be_u8, length_data(be_u8)).parse(rest)
    }
}
