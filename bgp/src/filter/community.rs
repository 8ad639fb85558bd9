//! Communities of any kind, as operators write them.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::wire::{self, Attributes};

/// Do not pass on to another AS (RFC 1997).
pub(crate) const NO_EXPORT: u32 = 0xffff_ff01;
/// Do not pass on (RFC 1997).
pub(crate) const NO_ADVERTISE: u32 = 0xffff_ff02;
/// Do not pass on to another AS, not even one of our confederation; we have none (RFC 1997).
pub(crate) const NO_EXPORT_SUBCONFED: u32 = 0xffff_ff03;
/// The sender is about to leave: prefer any other path (RFC 8326).
pub(crate) const GRACEFUL_SHUTDOWN: u32 = 0xffff_0000;

/// Kept from a peer that was lost long ago: prefer any other path (RFC 9494 §3.2).
pub(crate) const LLGR_STALE: u32 = 0xffff_0006;
/// Not to be kept from a peer that was lost long ago (RFC 9494 §3.3).
pub(crate) const NO_LLGR: u32 = 0xffff_0007;

/// Communities that have names.
const WELL_KNOWN: [(&str, u32); 6] = [
    ("graceful-shutdown", GRACEFUL_SHUTDOWN),
    ("llgr-stale", LLGR_STALE),
    ("no-llgr", NO_LLGR),
    ("no-export", NO_EXPORT),
    ("no-advertise", NO_ADVERTISE),
    ("no-export-subconfed", NO_EXPORT_SUBCONFED),
];

/// A community of any kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Community {
    /// RFC 1997: `64512:1`, or a name as `no-export`.
    Standard(u32),
    /// RFC 4360: `rt:64512:1` or `soo:192.0.2.1:1`.
    Extended([u8; 8]),
    /// RFC 8092: `64512:1:2`.
    Large([u32; 3]),
}

/// Text that is no community.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no community: write 64512:1, 64512:1:2, rt:64512:1, soo:192.0.2.1:1, no-export, no-advertise, \
     no-export-subconfed, graceful-shutdown, llgr-stale or no-llgr"
)]
pub struct CommunityError(String);

impl Community {
    /// Whether a route carries it.
    pub(crate) fn is_on(&self, attributes: &Attributes) -> bool {
        match self {
            Self::Standard(value) => attributes.communities.contains(value),
            Self::Extended(value) => attributes.extended_communities.contains(value),
            Self::Large(value) => attributes.large_communities.contains(value),
        }
    }

    /// Puts it on a route that does not carry it.
    pub(crate) fn add(&self, attributes: &mut Attributes) {
        if self.is_on(attributes) {
            return;
        }
        match self {
            Self::Standard(value) => attributes.communities.push(*value),
            Self::Extended(value) => attributes.extended_communities.push(*value),
            Self::Large(value) => attributes.large_communities.push(*value),
        }
    }
}

impl FromStr for Community {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, CommunityError> {
        let parts: Vec<&str> = text.split(':').collect();
        let parsed = match parts[..] {
            [name] => well_known(name),
            [a, b] => standard(a, b),
            [kind @ ("rt" | "soo"), administrator, local] => extended(kind, administrator, local),
            [a, b, c] => large([a, b, c]),
            _ => None,
        };
        parsed.ok_or_else(|| CommunityError(text.to_owned()))
    }
}

/// A number without sign or blanks.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| !text.starts_with('+'))
}

fn well_known(name: &str) -> Option<Community> {
    let (_, value) = WELL_KNOWN.iter().find(|(known, _)| *known == name)?;
    Some(Community::Standard(*value))
}

fn standard(a: &str, b: &str) -> Option<Community> {
    let (a, b): (u16, u16) = (number(a)?, number(b)?);
    Some(Community::Standard(u32::from(a) << 16 | u32::from(b)))
}

fn large(parts: [&str; 3]) -> Option<Community> {
    let [a, b, c] = parts.map(number);
    Some(Community::Large([a?, b?, c?]))
}

/// By the administrator: a two-octet AS, an IPv4 address (RFC 4360 §3) or a four-octet AS (RFC 5668 §2).
fn extended(kind: &str, administrator: &str, local: &str) -> Option<Community> {
    let subtype = if kind == "rt" { 2 } else { 3 };
    let (kind, value) = if let Some(asn) = number::<u16>(administrator) {
        (0, u64::from(asn) << 32 | u64::from(number::<u32>(local)?))
    } else if let Some(asn) = number::<u32>(administrator) {
        (2, u64::from(asn) << 16 | u64::from(number::<u16>(local)?))
    } else {
        let address = u32::from(administrator.parse::<Ipv4Addr>().ok()?);
        (1, u64::from(address) << 16 | u64::from(number::<u16>(local)?))
    };
    let mut octets = value.to_be_bytes();
    octets[..2].copy_from_slice(&[kind, subtype]);
    Some(Community::Extended(octets))
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(value) => match WELL_KNOWN.iter().find(|(_, known)| known == value) {
                Some((name, _)) => f.write_str(name),
                None => wire::Community(*value).fmt(f),
            },
            Self::Extended(octets) => wire::ExtendedCommunity(*octets).fmt(f),
            Self::Large(parts) => wire::LargeCommunity(*parts).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn communities_read_as_they_are_written() {
        for (text, expected) in [
            ("64512:1", Community::Standard(64_512 << 16 | 1)),
            ("no-export", Community::Standard(NO_EXPORT)),
            ("llgr-stale", Community::Standard(LLGR_STALE)),
            ("no-llgr", Community::Standard(NO_LLGR)),
            ("64512:1:4294967295", Community::Large([64_512, 1, u32::MAX])),
            ("rt:64512:100", Community::Extended([0, 2, 0xfc, 0, 0, 0, 0, 100])),
            ("soo:192.0.2.1:7", Community::Extended([1, 3, 192, 0, 2, 1, 0, 7])),
            (
                "rt:4200000000:7",
                Community::Extended([2, 2, 0xfa, 0x56, 0xea, 0, 0, 7]),
            ),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
            assert_eq!(expected.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_community_is_refused() {
        for text in [
            "",
            "1",
            "65536:1",
            "1:65536",
            "1:2:4294967296",
            "1:2:3:4",
            "rt:1",
            "rt:65536:65536",
            "rt:192.0.2.1:65536",
            "xx:1:2",
            "+1:2",
            " 1:2",
            "no_export",
        ] {
            assert_eq!(
                text.parse::<Community>(),
                Err(CommunityError(text.to_owned())),
                "{text}"
            );
        }
    }
}
