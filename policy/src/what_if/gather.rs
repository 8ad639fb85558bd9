//! What changes between groups, put together by outcome.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;
use manx_api::policy::Family;

use super::ends::Group;
use super::{Comparison, Packets, Place, Verdict};

/// What would change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WhatIf {
    /// The endpoints that were compared.
    pub endpoints: BTreeSet<String>,
    /// The networks that addresses outside are told apart by: each belongs to the smallest that it is in.
    pub networks: Vec<IpNetwork>,
    /// How many flows there are.
    pub flows: u64,
    /// How many of them would be treated otherwise.
    pub changed: u64,
    /// How many of them nobody looked at, because there are too many.
    pub left_out: u64,
    /// The ends that changes are about, those of each together.
    pub groups: Vec<BTreeSet<Place>>,
    /// What is let through before and not after, or the other way round.
    pub changes: Vec<Change>,
}

/// Packets that would be treated otherwise: from each end of a group to each other end of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Who sends them, by the group's number.
    pub from: usize,
    /// Who gets them.
    pub to: usize,
    /// In which families.
    pub families: BTreeSet<Family>,
    /// Which packets; none: all.
    pub packets: Vec<Packets>,
    /// How many flows they are.
    pub flows: u64,
    /// What becomes of them now.
    pub before: Verdict,
    /// What would become of them.
    pub after: Verdict,
}

/// The ends of changes that are put together, and how many flows those are.
#[derive(Default)]
struct Alike {
    from: BTreeSet<Place>,
    to: BTreeSet<Place>,
    families: BTreeSet<Family>,
    flows: u64,
}

/// Puts together what has the same outcome: first who sends to the same ends, then who gets from the same, then families.
pub(super) fn gather(comparison: Comparison<'_>, groups: &[Group]) -> WhatIf {
    let mut by_destination: BTreeMap<_, (BTreeSet<usize>, u64)> = BTreeMap::new();
    for it in comparison.found {
        let what = (it.before, it.after, it.packets);
        let (from, flows) = by_destination.entry((it.family, what, it.to)).or_default();
        from.insert(it.from);
        *flows += it.flows;
    }
    let mut by_source: BTreeMap<_, (BTreeSet<usize>, u64)> = BTreeMap::new();
    for ((family, what, to), (from, more)) in by_destination {
        let (destinations, flows) = by_source.entry((family, what, from)).or_default();
        destinations.insert(to);
        *flows += more;
    }
    let places = |of: &BTreeSet<usize>| -> BTreeSet<Place> {
        let members = of.iter().flat_map(|group| &groups[*group].members);
        members.map(|member| member.place.clone()).collect()
    };
    let mut by_endpoints: BTreeMap<_, Alike> = BTreeMap::new();
    for ((family, what, from), (to, flows)) in by_source {
        let (from, to) = (places(&from), places(&to));
        let alike = by_endpoints
            .entry((what, endpoints(&from), endpoints(&to)))
            .or_default();
        alike.from.extend(from);
        alike.to.extend(to);
        alike.families.insert(family);
        alike.flows += flows;
    }
    let mut all = compared(groups);
    (all.flows, all.left_out) = (comparison.flows, comparison.left_out);
    for (((before, after, packets), ..), alike) in by_endpoints {
        all.changed += alike.flows;
        let [from, to] = [alike.from, alike.to].map(|group| all.number(group));
        all.changes.push(Change {
            from,
            to,
            families: alike.families,
            packets,
            flows: alike.flows,
            before,
            after,
        });
    }
    all
}

fn endpoints(places: &BTreeSet<Place>) -> BTreeSet<Place> {
    let endpoints = places.iter().filter(|place| matches!(place, Place::Endpoint(_)));
    endpoints.cloned().collect()
}

/// Who was compared.
fn compared(groups: &[Group]) -> WhatIf {
    let mut all = WhatIf::default();
    for member in groups.iter().flat_map(|group| &group.members) {
        match &member.place {
            Place::Endpoint(name) => drop(all.endpoints.insert(name.clone())),
            Place::Outside(network) => all.networks.push(*network),
        }
    }
    all.networks.sort_unstable();
    all
}

impl WhatIf {
    fn number(&mut self, group: BTreeSet<Place>) -> usize {
        let known = self.groups.iter().position(|known| *known == group);
        known.unwrap_or_else(|| {
            self.groups.push(group);
            self.groups.len() - 1
        })
    }
}
