//! Networks, and how sets take them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use manx_api::policy::Family;

use crate::ruleset::{Member, Sense};

/// A set's members; the whole address space goes in as its halves, unless a half has a word of its own.
pub(crate) fn members(
    family: Family,
    nets: impl IntoIterator<Item = (IpNetwork, Sense)>,
) -> BTreeMap<Member, Sense> {
    let mut nets: BTreeMap<IpNetwork, Sense> = nets.into_iter().collect();
    let whole = nets.iter().find(|(net, _)| net.prefix() == 0);
    if let Some((whole, sense)) = whole.map(|(net, sense)| (*net, *sense)) {
        nets.remove(&whole);
        for half in halves(family) {
            nets.entry(half).or_insert(sense);
        }
    }
    nets.into_iter()
        .map(|(net, sense)| (Member::Net(net), sense))
        .collect()
}

/// The halves of a family's address space.
pub(crate) const fn halves(family: Family) -> [IpNetwork; 2] {
    const V4: [IpNetwork; 2] = [v4([0, 0, 0, 0], 1), v4([128, 0, 0, 0], 1)];
    const V6: [IpNetwork; 2] = [v6(0, 1), v6(0x8000, 1)];
    match family {
        Family::V4 => V4,
        Family::V6 => V6,
    }
}

/// A constant network.
pub(crate) const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> IpNetwork {
    match Ipv4Network::new_checked(Ipv4Addr::new(a, b, c, d), prefix) {
        Some(net) => IpNetwork::V4(net),
        None => panic!("longer than an IPv4 address"),
    }
}

/// A constant network whose address is zeros behind its first group.
pub(crate) const fn v6(group: u16, prefix: u8) -> IpNetwork {
    match Ipv6Network::new_checked(Ipv6Addr::new(group, 0, 0, 0, 0, 0, 0, 0), prefix) {
        Some(net) => IpNetwork::V6(net),
        None => panic!("longer than an IPv6 address"),
    }
}

/// The network without host bits.
pub(crate) fn canonical(net: IpNetwork) -> IpNetwork {
    IpNetwork::new(net.network(), net.prefix()).unwrap_or(net)
}

/// Whether `inner` is a part of `outer`, and not all of it; both of one family.
pub(crate) fn contains(outer: IpNetwork, inner: IpNetwork) -> bool {
    outer.prefix() < inner.prefix() && outer.contains(inner.network())
}
