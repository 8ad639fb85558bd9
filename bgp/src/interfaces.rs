//! Our interfaces, as filters see them: over which one a route leads.

use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use crate::rib::Neighbor;
use crate::wire::NextHop;

/// An interface that packets can leave by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// What it is called.
    pub name: Arc<str>,
    /// Its addresses, each with the length of the network that it is on.
    pub addresses: Vec<IpNetwork>,
}

/// Over which interface a peer's route leads: the one of the smallest network that its next hop is on; where it
/// is on none, the one that the session with the peer runs over, if that is known.
pub(crate) fn towards<'a>(
    interfaces: &'a [Interface],
    next_hop: Option<NextHop>,
    from: &Neighbor,
) -> Option<&'a str> {
    let on_link = |address: IpAddr| {
        let networks = interfaces
            .iter()
            .flat_map(|it| it.addresses.iter().map(move |network| (network, it)));
        let around = networks.filter(|(network, _)| network.contains(address));
        around
            .max_by_key(|(network, _)| network.prefix())
            .map(|(_, it)| it)
    };
    let of_session = || {
        interfaces.iter().find(|it| match from.key.scope {
            0 => it.addresses.iter().any(|network| network.ip() == from.local),
            index => it.index == index,
        })
    };
    let global = next_hop.map(NextHop::address).filter(|it| !is_link_local(*it));
    let interface = global.and_then(on_link).or_else(of_session)?;
    Some(&interface.name)
}

/// Such an address is on every link.
fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PeerKey;
    use crate::testing::address;

    fn interface(index: u32, name: &str, addresses: &[&str]) -> Interface {
        Interface {
            index,
            name: name.into(),
            addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn a_route_leads_over_the_smallest_network_of_its_next_hop_or_as_its_session() {
        let ours = [
            interface(2, "eth0", &["192.0.2.1/24", "fe80::1/64"]),
            interface(3, "eth1", &["192.0.2.129/25", "2001:db8::1/64", "fe80::2/64"]),
        ];
        let over = |next_hop: &str, local: &str, scope| {
            let from = Neighbor {
                key: PeerKey {
                    address: "192.0.2.9".parse().unwrap(),
                    scope,
                },
                router_id: address(9),
                external: true,
                client: false,
                local: local.parse().unwrap(),
            };
            let next_hop = match next_hop.parse().unwrap() {
                IpAddr::V4(address) => NextHop::V4(address),
                IpAddr::V6(global) => NextHop::V6 {
                    global,
                    link_local: None,
                },
            };
            towards(&ours, Some(next_hop), &from)
        };
        assert_eq!(over("192.0.2.7", "192.0.2.129", 0), Some("eth0"));
        assert_eq!(over("192.0.2.200", "192.0.2.1", 0), Some("eth1"));
        assert_eq!(over("2001:db8::7", "192.0.2.1", 0), Some("eth1"));
        assert_eq!(over("198.51.100.1", "192.0.2.1", 0), Some("eth0"), "a session's");
        assert_eq!(
            over("fe80::7", "192.0.2.1", 3),
            Some("eth1"),
            "a link-local one's"
        );
        assert_eq!(over("198.51.100.1", "203.0.113.1", 0), None);
    }
}
