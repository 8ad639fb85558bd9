//! Address families and prefixes.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::{IpNetwork, IpNetworkError, Ipv4Network, Ipv6Network};

/// The address families that this speaker carries (RFC 4760: AFI 1 or 2, SAFI 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 unicast.
    Ipv4Unicast,
    /// IPv6 unicast.
    Ipv6Unicast,
}

impl Family {
    /// Both, in wire order.
    pub const ALL: [Self; 2] = [Self::Ipv4Unicast, Self::Ipv6Unicast];

    /// The address family identifier (RFC 4760 §3).
    #[must_use]
    pub fn afi(self) -> u16 {
        match self {
            Self::Ipv4Unicast => 1,
            Self::Ipv6Unicast => 2,
        }
    }

    /// The subsequent address family identifier: unicast (RFC 4760 §6).
    #[must_use]
    pub fn safi(self) -> u8 {
        match self {
            Self::Ipv4Unicast | Self::Ipv6Unicast => 1,
        }
    }

    /// The family of these identifiers, if this speaker carries it.
    #[must_use]
    pub fn from_wire(afi: u16, safi: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|family| family.afi() == afi && family.safi() == safi)
    }

    /// The longest prefix, in bits.
    #[must_use]
    pub fn bits(self) -> u8 {
        match self {
            Self::Ipv4Unicast => 32,
            Self::Ipv6Unicast => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4Unicast => "IPv4 unicast",
            Self::Ipv6Unicast => "IPv6 unicast",
        })
    }
}

/// An address prefix with no host bits set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix(IpNetwork);

impl Hash for Prefix {
    /// Its length and its address as one or two numbers: tables are looked up by it for each prefix of a message.
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.0 {
            IpNetwork::V4(n) => state.write_u64(u64::from(n.prefix()) << 32 | u64::from(n.ip().to_bits())),
            IpNetwork::V6(n) => {
                state.write_u8(n.prefix());
                state.write_u128(n.ip().to_bits());
            }
        }
    }
}

impl Prefix {
    /// The prefix of `network`; host bits are cleared.
    #[must_use]
    pub fn new(network: IpNetwork) -> Self {
        let masked = match network {
            IpNetwork::V4(n) => Self::v4(n.ip(), n.prefix()),
            IpNetwork::V6(n) => Self::v6(n.ip(), n.prefix()),
        };
        // The length came from a valid network, so it stays valid.
        masked.unwrap_or(Self(network))
    }

    /// The first `len` bits of `address`; none where there are not as many.
    #[must_use]
    pub fn v4(address: Ipv4Addr, len: u8) -> Option<Self> {
        let mask = u32::MAX.checked_shl(32_u32.checked_sub(len.into())?).unwrap_or(0);
        let network = Ipv4Network::new(Ipv4Addr::from(u32::from(address) & mask), len).ok()?;
        Some(Self(IpNetwork::V4(network)))
    }

    /// The first `len` bits of `address`; none where there are not as many.
    #[must_use]
    pub fn v6(address: Ipv6Addr, len: u8) -> Option<Self> {
        let mask = u128::MAX
            .checked_shl(128_u32.checked_sub(len.into())?)
            .unwrap_or(0);
        let network = Ipv6Network::new(Ipv6Addr::from(u128::from(address) & mask), len).ok()?;
        Some(Self(IpNetwork::V6(network)))
    }

    /// Whether every address of `other` is in this prefix.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.len() <= other.len()
            && match (self.0, other.0) {
                (IpNetwork::V4(outer), IpNetwork::V4(inner)) => outer.contains(inner.ip()),
                (IpNetwork::V6(outer), IpNetwork::V6(inner)) => outer.contains(inner.ip()),
                (IpNetwork::V4(_), IpNetwork::V6(_)) | (IpNetwork::V6(_), IpNetwork::V4(_)) => false,
            }
    }

    /// The prefix as a network.
    #[must_use]
    pub fn network(self) -> IpNetwork {
        self.0
    }

    /// The first address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.0.ip()
    }

    /// The length in bits.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a prefix is never empty")]
    pub fn len(self) -> u8 {
        self.0.prefix()
    }

    /// Whether it is a default route: every address matches.
    #[must_use]
    pub fn is_default(self) -> bool {
        self.len() == 0
    }

    /// Its family.
    #[must_use]
    pub fn family(self) -> Family {
        match self.0 {
            IpNetwork::V4(_) => Family::Ipv4Unicast,
            IpNetwork::V6(_) => Family::Ipv6Unicast,
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Prefix {
    type Err = IpNetworkError;

    /// Reads `10.0.0.0/8` or `2001:db8::/32`; a bare address is a host's prefix, host bits are cleared.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn host_bits_are_cleared() {
        assert_eq!(prefix("10.1.2.3/8"), prefix("10.0.0.0/8"));
        assert_eq!(prefix("2001:db8::1/32").to_string(), "2001:db8::/32");
        assert_eq!(prefix("192.0.2.1/0").to_string(), "0.0.0.0/0");
        assert_eq!(prefix("192.0.2.1").len(), 32);
    }

    #[test]
    fn a_length_beyond_the_family_is_no_prefix() {
        assert_eq!(Prefix::v4(Ipv4Addr::LOCALHOST, 33), None);
        assert_eq!(Prefix::v6(Ipv6Addr::LOCALHOST, 129), None);
        assert_eq!(Prefix::v6(Ipv6Addr::LOCALHOST, 128).map(Prefix::len), Some(128));
    }

    #[test]
    fn a_prefix_covers_itself_and_longer_ones_of_its_family() {
        assert!(prefix("10.0.0.0/8").covers(prefix("10.255.0.0/16")));
        assert!(prefix("10.0.0.0/8").covers(prefix("10.0.0.0/8")));
        assert!(!prefix("10.0.0.0/8").covers(prefix("0.0.0.0/0")));
        assert!(!prefix("10.0.0.0/8").covers(prefix("11.0.0.0/16")));
        assert!(!prefix("0.0.0.0/0").covers(prefix("::/0")));
    }
}
