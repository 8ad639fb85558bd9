//! The wanted table: the last word of every source, and which of them wins.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;

use crate::route::{Actual, Hop, Route, Source, Target, canonical};

/// A source's word on one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// The source wants this route, and no other to this prefix. A route via no hop at all is a `Remove`.
    Set(Route),
    /// The source wants no route to this prefix.
    Remove {
        /// To where.
        prefix: IpNetwork,
        /// Whose word it is.
        source: Source,
    },
}

/// What an update changed in the table as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delta {
    /// The prefix has this route now.
    Set(Route),
    /// The prefix has no route any more.
    Unset(IpNetwork),
}

/// The whole wanted table.
pub type Full = BTreeMap<IpNetwork, Route>;

/// The wanted table.
#[derive(Debug, Default)]
pub struct Table {
    slots: BTreeMap<IpNetwork, Slot>,
    settled: [bool; Source::ALL.len()],
}

/// One prefix: what each source says.
#[derive(Debug, Default)]
struct Slot([Option<Entry>; Source::ALL.len()]);

#[derive(Debug)]
struct Entry {
    target: Target,
    backup: Option<Hop>,
    metric: u32,
    /// Adopted from the kernel, and not confirmed by its source since.
    stale: bool,
}

impl Slot {
    fn winner(&self, prefix: IpNetwork) -> Option<Route> {
        Source::ALL.into_iter().find_map(|source| {
            let entry = self.0[source as usize].as_ref()?;
            Some(Route {
                prefix,
                target: entry.target.clone(),
                backup: entry.backup,
                source,
                metric: entry.metric,
            })
        })
    }
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a source's word; returns what it changed, if anything.
    pub fn apply(&mut self, update: Update) -> Option<Delta> {
        match update {
            Update::Set(Route {
                prefix,
                mut target,
                backup,
                source,
                metric,
            }) => {
                let mut leads_somewhere = true;
                if let Target::Via(hops) = &mut target {
                    hops.sort_unstable();
                    hops.dedup();
                    leads_somewhere = !hops.is_empty();
                }
                let entry = leads_somewhere.then_some(Entry {
                    target,
                    backup,
                    metric,
                    stale: false,
                });
                self.put(canonical(prefix), source, entry)
            }
            Update::Remove { prefix, source } => self.put(canonical(prefix), source, None),
        }
    }

    /// Takes over what an earlier life left in the kernel: each route of ours becomes a stale word of its
    /// source, unless the source has spoken of the prefix already or has settled. Others' are ignored.
    pub fn adopt(&mut self, found: &[Actual]) -> Vec<Delta> {
        let mut deltas = Vec::new();
        for actual in found {
            let (Some(source), Some(target)) = (Source::of(actual), &actual.target) else {
                continue;
            };
            let prefix = canonical(actual.prefix);
            let spoken = self
                .slots
                .get(&prefix)
                .is_some_and(|slot| slot.0[source as usize].is_some());
            if !spoken && !self.settled[source as usize] {
                let entry = Entry {
                    target: target.clone(),
                    backup: None,
                    metric: actual.metric,
                    stale: true,
                };
                deltas.extend(self.put(prefix, source, Some(entry)));
            }
        }
        deltas
    }

    /// The source has said all it wants: its stale routes go. For [`Source::Bgp`] that is the speaker's
    /// `Converged`, for the others the end of the journal's replay. Returns what changed.
    pub fn settle(&mut self, source: Source) -> Vec<Delta> {
        self.settled[source as usize] = true;
        let stale: Vec<IpNetwork> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.0[source as usize].as_ref().is_some_and(|entry| entry.stale))
            .map(|(prefix, _)| *prefix)
            .collect();
        stale
            .into_iter()
            .filter_map(|prefix| self.put(prefix, source, None))
            .collect()
    }

    /// Whether the source has settled.
    #[must_use]
    pub const fn is_settled(&self, source: Source) -> bool {
        self.settled[source as usize]
    }

    /// The route wanted for exactly this prefix.
    #[must_use]
    pub fn get(&self, prefix: IpNetwork) -> Option<Route> {
        self.slots.get(&prefix)?.winner(prefix)
    }

    /// Every wanted route, by prefix.
    pub fn iter(&self) -> impl Iterator<Item = Route> + '_ {
        self.slots
            .iter()
            .filter_map(|(prefix, slot)| slot.winner(*prefix))
    }

    /// The whole table.
    #[must_use]
    pub fn snapshot(&self) -> Full {
        self.iter().map(|route| (route.prefix, route)).collect()
    }

    /// The number of prefixes that have a route.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether nothing is wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Puts one source's word in its place, and forgets the prefix with its last word.
    fn put(&mut self, prefix: IpNetwork, source: Source, entry: Option<Entry>) -> Option<Delta> {
        if entry.is_none() && !self.slots.contains_key(&prefix) {
            return None;
        }
        let slot = self.slots.entry(prefix).or_default();
        let before = slot.winner(prefix);
        slot.0[source as usize] = entry;
        let after = slot.winner(prefix);
        if after.is_none() {
            self.slots.remove(&prefix);
        }
        match after {
            _ if after == before => None,
            Some(route) => Some(Delta::Set(route)),
            None => Some(Delta::Unset(prefix)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::METRIC;
    use crate::testing::{actual, hop, net, proptest_config, update};

    fn set(prefix: &str, target: Target, source: Source) -> Update {
        Update::Set(Route {
            prefix: net(prefix),
            target,
            backup: None,
            source,
            metric: METRIC,
        })
    }

    fn left_by_earlier_life(prefix: &str, target: Target, protocol: u8) -> Actual {
        Actual {
            prefix: net(prefix),
            target: Some(target),
            protocol,
            metric: METRIC,
        }
    }

    #[test]
    fn the_stronger_source_wins_and_the_weaker_takes_over_when_it_goes() {
        let mut table = Table::new();
        let via = Target::Via(vec![hop("192.0.2.1")]);
        assert!(
            table
                .apply(set("10.0.0.1/32", via.clone(), Source::Bgp))
                .is_some()
        );
        assert!(
            table
                .apply(set("10.0.0.1/32", Target::Device(7), Source::Pod))
                .is_some()
        );
        assert_eq!(
            table.apply(set("10.0.0.1/32", Target::Unreachable, Source::Block)),
            None
        );
        assert_eq!(table.get(net("10.0.0.1/32")).unwrap().source, Source::Pod);

        let gone = |source| Update::Remove {
            prefix: net("10.0.0.1/32"),
            source,
        };
        assert!(matches!(table.apply(gone(Source::Pod)), Some(Delta::Set(r)) if r.source == Source::Block));
        assert!(matches!(table.apply(gone(Source::Block)), Some(Delta::Set(r)) if r.target == via));
        assert_eq!(
            table.apply(gone(Source::Bgp)),
            Some(Delta::Unset(net("10.0.0.1/32")))
        );
        assert!(table.is_empty());
    }

    #[test]
    fn hops_are_a_set_and_no_hop_is_no_route() {
        let mut table = Table::new();
        let (a, b) = (hop("192.0.2.1"), hop("192.0.2.2"));
        table.apply(set("10.0.0.0/26", Target::Via(vec![b, a, b]), Source::Bgp));
        assert_eq!(
            table.get(net("10.0.0.0/26")).unwrap().target,
            Target::Via(vec![a, b])
        );
        assert_eq!(
            table.apply(set("10.0.0.0/26", Target::Via(vec![a, b]), Source::Bgp)),
            None
        );
        assert!(matches!(
            table.apply(set("10.0.0.0/26", Target::Via(vec![]), Source::Bgp)),
            Some(Delta::Unset(_))
        ));
    }

    #[test]
    fn host_bits_make_no_second_prefix() {
        let mut table = Table::new();
        table.apply(set("10.0.0.5/26", Target::Unreachable, Source::Block));
        assert_eq!(
            table.apply(set("10.0.0.0/26", Target::Unreachable, Source::Block)),
            None
        );
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn adopted_routes_stay_until_their_source_settles() {
        let via = Target::Via(vec![hop("192.0.2.1")]);
        let found = [
            left_by_earlier_life("10.0.1.0/26", via.clone(), crate::PROTOCOL_BGP),
            left_by_earlier_life("10.0.2.0/26", via.clone(), crate::PROTOCOL_BGP),
            left_by_earlier_life("10.0.0.0/26", Target::Unreachable, crate::PROTOCOL_OWN),
            left_by_earlier_life("10.0.0.9/32", Target::Device(4), crate::PROTOCOL_OWN),
            left_by_earlier_life("10.9.0.0/16", via.clone(), 4),
        ];
        let mut table = Table::new();
        assert_eq!(table.adopt(&found).len(), 4, "the foreign route is not adopted");

        assert_eq!(
            table.apply(set("10.0.1.0/26", via, Source::Bgp)),
            None,
            "confirmed without a change"
        );
        assert_eq!(table.settle(Source::Bgp), [Delta::Unset(net("10.0.2.0/26"))]);
        assert_eq!(table.settle(Source::Pod), [Delta::Unset(net("10.0.0.9/32"))]);
        assert_eq!(
            table.len(),
            2,
            "the confirmed route and the block that has not settled"
        );
        assert!(
            table.adopt(&found[1..2]).is_empty(),
            "a settled source adopts nothing"
        );
    }

    fn fold(full: &mut Full, deltas: impl IntoIterator<Item = Delta>) {
        for delta in deltas {
            match delta {
                Delta::Set(route) => full.insert(route.prefix, route),
                Delta::Unset(prefix) => full.remove(&prefix),
            };
        }
    }

    fn key(update: &Update) -> (IpNetwork, Source) {
        match update {
            Update::Set(Route { prefix, source, .. }) | Update::Remove { prefix, source } => {
                (*prefix, *source)
            }
        }
    }

    proptest! {
        #![proptest_config(proptest_config())]

        #[test]
        fn deltas_folded_are_the_snapshot(
            found in vec(actual(), 0..20),
            updates in vec(update(), 0..40),
            settled in prop::sample::subsequence(&Source::ALL[..], 0..=3),
        ) {
            let (mut table, mut full) = (Table::new(), Full::new());
            fold(&mut full, table.adopt(&found));
            prop_assert_eq!(&full, &table.snapshot());
            for update in updates {
                fold(&mut full, table.apply(update));
                prop_assert_eq!(&full, &table.snapshot());
            }
            for source in settled {
                fold(&mut full, table.settle(source));
            }
            prop_assert_eq!(&full, &table.snapshot());
            prop_assert_eq!(full.len(), table.len());
        }

        #[test]
        fn only_the_last_word_of_each_source_counts_and_not_the_order_of_words(
            updates in vec(update(), 0..40),
        ) {
            let (mut table, mut last) = (Table::new(), BTreeMap::new());
            for update in &updates {
                table.apply(update.clone());
                last.insert(key(update), update.clone());
            }
            let mut reversed = Table::new();
            for update in last.into_values().rev() {
                reversed.apply(update);
            }
            prop_assert_eq!(table.snapshot(), reversed.snapshot());
        }

        #[test]
        fn once_all_have_settled_it_does_not_matter_when_adoption_was(
            found in vec(actual(), 0..20),
            updates in vec(update(), 0..40),
            when in 0..40_usize,
        ) {
            let (mut plain, mut adopting) = (Table::new(), Table::new());
            for (i, update) in updates.into_iter().enumerate() {
                if i == when {
                    adopting.adopt(&found);
                }
                plain.apply(update.clone());
                adopting.apply(update);
            }
            for source in Source::ALL {
                adopting.settle(source);
            }
            prop_assert_eq!(plain.snapshot(), adopting.snapshot());
        }
    }
}
