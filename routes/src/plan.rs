//! What to change in the kernel so that it holds what is wanted.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;

use crate::nexthop::Nexthop;
use crate::route::{Actual, Route};
use crate::table::Full;

/// One change of the kernel's main table, or of the nexthop objects that its routes lead through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds a route where no route of that prefix and metric is; the kernel refuses if there is one.
    Add(Route),
    /// Puts the route in the place of ours with the same prefix and metric, hops and all, in one step.
    Replace(Route),
    /// Deletes the route with this prefix, protocol and metric.
    Delete {
        /// To where.
        prefix: IpNetwork,
        /// Which protocol number it carries: one of ours.
        protocol: u8,
        /// Which metric it has.
        metric: u32,
    },
    /// Makes a nexthop object, or puts it in the place of the one with its number: every route through it follows.
    Put(Nexthop),
    /// Deletes the nexthop object with this number, which no route leads through any more.
    Drop(u32),
}

impl Change {
    /// The prefix that the change is about; none where it is a nexthop object.
    #[must_use]
    pub const fn prefix(&self) -> Option<IpNetwork> {
        match self {
            Self::Add(route) | Self::Replace(route) => Some(route.prefix),
            Self::Delete { prefix, .. } => Some(*prefix),
            Self::Put(_) | Self::Drop(_) => None,
        }
    }
}

/// The changes that make our part of `actual` equal to `wanted`, in the order to make them: what is missing
/// or different first, what is too much last, so that a prefix split or joined is never without a route.
///
/// Foreign routes are never touched. Where one holds a wanted prefix with the wanted metric, the plan says `Add`,
/// the kernel refuses it, and the owner tries again until the foreign route has gone.
#[must_use]
pub fn plan(wanted: &Full, actual: &[Actual]) -> Vec<Change> {
    let mut found: BTreeMap<IpNetwork, Found<'_>> = BTreeMap::new();
    for route in actual {
        let at = found.entry(route.prefix).or_default();
        let metric = wanted.get(&route.prefix).map(|wanted| wanted.metric);
        match (route.is_ours(), metric == Some(route.metric)) {
            (true, true) => at.ours.push(route),
            (true, false) => at.misplaced.push(route),
            (false, true) => at.foreign = true,
            (false, false) => {}
        }
    }
    let mut changes = Vec::new();
    for (prefix, route) in wanted {
        match found.get(prefix) {
            Some(found) => found.towards(route, &mut changes),
            None => changes.push(Change::Add(route.clone())),
        }
    }
    for found in found.values() {
        changes.extend(found.misplaced.iter().copied().map(delete));
    }
    changes
}

/// What the kernel holds for one prefix.
#[derive(Default)]
struct Found<'a> {
    /// Ours, with the wanted metric. More than one only if somebody appended by hand.
    ours: Vec<&'a Actual>,
    /// Ours, with a metric that is not wanted (any more).
    misplaced: Vec<&'a Actual>,
    /// Somebody else's has the wanted metric.
    foreign: bool,
}

impl Found<'_> {
    /// Pushes the changes that make `ours` be `route` alone.
    fn towards(&self, route: &Route, changes: &mut Vec<Change>) {
        match (self.ours.as_slice(), self.foreign) {
            ([only], _) if only.meets(route) => {}
            // The kernel replaces the first route of the prefix and metric: only if that is surely ours.
            ([_], false) => changes.push(Change::Replace(route.clone())),
            (ours, _) => {
                changes.extend(ours.iter().copied().map(delete));
                changes.push(Change::Add(route.clone()));
            }
        }
    }
}

pub(crate) fn delete(route: &Actual) -> Change {
    Change::Delete {
        prefix: route.prefix,
        protocol: route.protocol,
        metric: route.metric,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{Kernel, actual, as_actual, hop, net, proptest_config, update};
    use crate::{METRIC, PROTOCOL_BGP, Source, Table, Target};

    fn wanted(prefix: &str, target: Target) -> Full {
        let prefix = net(prefix);
        Full::from([(
            prefix,
            Route {
                prefix,
                target,
                backup: None,
                source: Source::Bgp,
                metric: METRIC,
            },
        )])
    }

    fn ours(prefix: &str, target: Target) -> Actual {
        Actual {
            prefix: net(prefix),
            target: Some(target),
            protocol: PROTOCOL_BGP,
            metric: METRIC,
        }
    }

    #[test]
    fn the_kernels_choice_of_device_and_order_is_no_difference() {
        let (mut a, mut b) = (hop("192.0.2.1"), hop("192.0.2.2"));
        let full = wanted("10.0.0.0/26", Target::Via(vec![a, b]));
        (a.device, b.device) = (Some(2), Some(3));
        assert_eq!(plan(&full, &[ours("10.0.0.0/26", Target::Via(vec![b, a]))]), []);
        let other = hop("192.0.2.3");
        assert!(matches!(
            plan(&full, &[ours("10.0.0.0/26", Target::Via(vec![other, a]))])[..],
            [Change::Replace(_)]
        ));
    }

    #[test]
    fn a_foreign_route_of_the_same_metric_is_never_in_danger_of_replacement() {
        let full = wanted("10.0.0.0/26", Target::Unreachable);
        let foreign = Actual {
            protocol: 4,
            ..ours("10.0.0.0/26", Target::Device(3))
        };
        assert!(matches!(
            plan(&full, std::slice::from_ref(&foreign))[..],
            [Change::Add(_)]
        ));
        let outdated = ours("10.0.0.0/26", Target::Device(2));
        assert!(matches!(
            plan(&full, &[foreign, outdated])[..],
            [Change::Delete { .. }, Change::Add(_)]
        ));
    }

    #[test]
    fn a_split_prefix_is_added_in_parts_before_the_whole_goes() {
        let full = wanted("10.0.0.0/27", Target::Unreachable);
        let changes = plan(&full, &[ours("10.0.0.0/26", Target::Unreachable)]);
        assert!(matches!(changes[..], [Change::Add(_), Change::Delete { .. }]));
    }

    fn wanted_metric(full: &Full, prefix: IpNetwork) -> Option<u32> {
        full.get(&prefix).map(|route| route.metric)
    }

    #[test]
    fn routes_of_ours_with_another_metric_are_moved() {
        let full = wanted("10.0.0.0/26", Target::Unreachable);
        let old = Actual {
            metric: 1024,
            ..ours("10.0.0.0/26", Target::Unreachable)
        };
        assert!(matches!(
            plan(&full, &[old])[..],
            [Change::Add(_), Change::Delete { metric: 1024, .. }]
        ));
    }

    proptest! {
        #![proptest_config(proptest_config())]

        #[test]
        fn makes_the_kernel_as_wanted_and_then_has_nothing_to_do(
            updates in vec(update(), 0..40),
            found in vec(actual(), 0..20),
        ) {
            let mut table = Table::new();
            for update in updates {
                table.apply(update);
            }
            let full = table.snapshot();
            let mut kernel = Kernel::holding(found);
            let foreign = kernel.foreign();
            for change in plan(&full, &kernel.dump()) {
                let blocked = foreign.iter().any(|f| Some(f.prefix) == change.prefix() && wanted_metric(&full, f.prefix) == Some(f.metric));
                prop_assert_eq!(kernel.make(&change).is_err(), blocked && matches!(change, Change::Add(_)));
            }
            prop_assert_eq!(kernel.foreign(), foreign.clone());
            let free = |r: &&Route| !foreign.iter().any(|f| f.prefix == r.prefix && f.metric == r.metric);
            let expected: Vec<Actual> = full.values().filter(free).map(as_actual).collect();
            prop_assert_eq!(kernel.ours(), expected);
            for change in plan(&full, &kernel.dump()) {
                prop_assert!(matches!(change, Change::Add(ref r) if !free(&r)), "{:?} was made already", change);
            }
        }
    }
}
