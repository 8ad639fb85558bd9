//! The addresses that nobody gets unless he asks for one of them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// A set of reserved addresses. Looking one up takes as many steps as the number of reservations has digits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    /// The last address of each range by its first; ranges are disjoint.
    ranges: BTreeMap<IpAddr, IpAddr>,
}

impl Reserved {
    /// The addresses of all these networks, which may lie in one another.
    #[must_use]
    pub fn new(networks: impl IntoIterator<Item = IpNetwork>) -> Self {
        let mut networks: Vec<IpNetwork> = networks.into_iter().collect();
        // Networks are disjoint, or one is in the other: the larger comes first, and what it has is known.
        networks.sort_by_key(|network| (network.network(), network.prefix()));
        let mut reserved = Self::default();
        for network in networks {
            if !reserved.contains(network.network()) {
                reserved.ranges.insert(network.network(), network.broadcast());
            }
        }
        reserved
    }

    /// Whether the address is reserved.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.ranges
            .range(..=address)
            .next_back()
            .is_some_and(|(_, last)| address <= *last)
    }

    /// The last address of a range that has all of a block's.
    pub(crate) fn range_over(&self, block: IpNetwork) -> Option<IpAddr> {
        let (_, last) = self.ranges.range(..=block.network()).next_back()?;
        (block.broadcast() <= *last).then_some(*last)
    }

    /// How many addresses of a block are reserved.
    #[must_use]
    pub fn count_in(&self, block: IpNetwork) -> u128 {
        let (first, last) = (block.network(), block.broadcast());
        let number = crate::address::to_number;
        let before = self.ranges.range(..first).next_back();
        let within = self.ranges.range(first..=last);
        let overlap = |(from, to): (&IpAddr, &IpAddr)| {
            let (from, to) = ((*from).max(first), (*to).min(last));
            if from <= to && from.is_ipv4() == to.is_ipv4() {
                (number(to) - number(from)).saturating_add(1)
            } else {
                0
            }
        };
        before
            .into_iter()
            .chain(within)
            .map(overlap)
            .fold(0, u128::saturating_add)
    }

    /// Whether every address of a block is reserved: a block that it would be no use to claim.
    #[must_use]
    pub fn covers(&self, block: IpNetwork) -> bool {
        let number = crate::address::to_number;
        let size = (number(block.broadcast()) - number(block.network())).saturating_add(1);
        self.count_in(block) == size
    }
}
