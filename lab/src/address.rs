//! The addresses of a lab: the same in every lab, since no lab's packets leave it.
//!
//! Segment `k` is `192.168.k.0/24` and `fd00:192:168:k::/64`; a host has the same number in both, written
//! alike: `192.168.1.11` and `fd00:192:168:1::11`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

/// The pods' IPv4 addresses.
pub const POOL_V4: &str = "10.244.0.0/16";
/// The pods' IPv6 addresses; as many blocks as the IPv4 pool has.
pub const POOL_V6: &str = "fd00:10:244::/112";
/// The segment between routers.
pub const SPINE: u8 = 255;
/// A router's host number in its rack.
pub const ROUTER: u8 = 1;

const PREFIX_V4: u8 = 24;
const PREFIX_V6: u8 = 64;

/// The host number of the `index`-th node (from 0).
#[must_use]
pub fn node_host(index: u8) -> u8 {
    index + 11
}

/// The host number of the `index`-th reflector (from 0).
#[must_use]
pub fn reflector_host(index: u8) -> u8 {
    index + 2
}

/// Host `host` of segment `segment`, with the prefix length: one address, or two with `dual_stack`.
#[must_use]
pub fn interface(segment: u8, host: u8, dual_stack: bool) -> Vec<IpNetwork> {
    let mut addresses = Vec::with_capacity(2);
    addresses.extend(
        Ipv4Network::new(v4(segment, host), PREFIX_V4)
            .ok()
            .map(IpNetwork::V4),
    );
    if dual_stack {
        addresses.extend(
            Ipv6Network::new(v6(segment, host), PREFIX_V6)
                .ok()
                .map(IpNetwork::V6),
        );
    }
    addresses
}

/// The segment's prefixes.
#[must_use]
pub fn prefixes(segment: u8, dual_stack: bool) -> Vec<IpNetwork> {
    let networks = interface(segment, 0, dual_stack);
    networks
        .iter()
        .filter_map(|n| IpNetwork::new(n.network(), n.prefix()).ok())
        .collect()
}

/// The bare addresses of `networks`.
#[must_use]
pub fn bare(networks: &[IpNetwork]) -> Vec<IpAddr> {
    networks.iter().map(IpNetwork::ip).collect()
}

/// The IPv4 address of a host.
#[must_use]
pub fn v4(segment: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, segment, host)
}

fn v6(segment: u8, host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x192, 0x168, alike(segment), 0, 0, 0, alike(host))
}

/// The group that reads in hexadecimal as `number` does in decimal.
fn alike(number: u8) -> u16 {
    let number = u16::from(number);
    (number / 100 * 0x100) + (number / 10 % 10 * 0x10) + number % 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_the_same_number_in_both_families() {
        let texts = |networks: Vec<IpNetwork>| networks.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(interface(1, 11, false)), ["192.168.1.11/24"]);
        assert_eq!(
            texts(interface(255, 210, true)),
            ["192.168.255.210/24", "fd00:192:168:255::210/64"]
        );
        assert_eq!(
            texts(prefixes(12, true)),
            ["192.168.12.0/24", "fd00:192:168:12::/64"]
        );
    }
}
