//! Address families and prefixes.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

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
}

/// An address prefix with no host bits set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(IpNetwork);

impl Prefix {
    /// The prefix of `network`; host bits are cleared.
    #[must_use]
    pub fn new(network: IpNetwork) -> Self {
        let masked = match network {
            IpNetwork::V4(n) => ipnetwork::Ipv4Network::new(n.network(), n.prefix()).map(IpNetwork::V4),
            IpNetwork::V6(n) => ipnetwork::Ipv6Network::new(n.network(), n.prefix()).map(IpNetwork::V6),
        };
        // The length came from a valid network, so it stays valid.
        Self(masked.unwrap_or(network))
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
