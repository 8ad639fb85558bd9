//! How attribute values read: `64512:1`, `1:2:3`, `rt:64512:100`.

use std::fmt;
use std::net::Ipv4Addr;

use super::Origin;

/// A community (RFC 1997), for reading: `64512:1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Community(pub u32);

/// A large community (RFC 8092), for reading: `64512:1:2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LargeCommunity(pub [u32; 3]);

/// An extended community (RFC 4360), for reading: `rt:64512:1`, `soo:192.0.2.1:1`, or its octets in hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedCommunity(pub [u8; 8]);

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0 >> 16, self.0 & 0xffff)
    }
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [global, first, second] = self.0;
        write!(f, "{global}:{first}:{second}")
    }
}

impl fmt::Display for ExtendedCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [kind, subtype, a, b, c, d, e, g] = self.0;
        let name = match subtype {
            2 => "rt",
            3 => "soo",
            _ => return write!(f, "0x{:016x}", u64::from_be_bytes(self.0)),
        };
        match kind {
            // Two-octet AS, IPv4 address, four-octet AS (RFC 4360 §3, RFC 5668 §2).
            0 => {
                let (asn, local) = (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, g]));
                write!(f, "{name}:{asn}:{local}")
            }
            1 => write!(
                f,
                "{name}:{}:{}",
                Ipv4Addr::new(a, b, c, d),
                u16::from_be_bytes([e, g])
            ),
            2 => {
                let (asn, local) = (u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([e, g]));
                write!(f, "{name}:{asn}:{local}")
            }
            _ => write!(f, "0x{:016x}", u64::from_be_bytes(self.0)),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Igp => "IGP",
            Self::Egp => "EGP",
            Self::Incomplete => "incomplete",
        })
    }
}
