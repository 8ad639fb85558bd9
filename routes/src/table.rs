//! The wanted table: the last word of every source, and which of them wins.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashSet;
use ipnetwork::IpNetwork;
use smallvec::SmallVec;

use crate::by_prefix::{ByPrefix, Key};
use crate::route::{Actual, Hop, Route, Source, Target, are_met_by, canonical};

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

/// What routes through routers ask for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Bundle {
    /// Any of these, in order, each once.
    pub(crate) via: Vec<Hop>,
    /// That one, as soon as all of these are lost.
    pub(crate) backup: Option<Hop>,
}

/// Where packets of a prefix are to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Through routers.
    Via(Arc<Bundle>),
    /// As the target says.
    Device(u32),
    Unreachable,
    Group(u32),
}

impl Goal {
    fn target(&self) -> Target {
        match self {
            Self::Via(bundle) => Target::Via(bundle.via.clone()),
            Self::Device(index) => Target::Device(*index),
            Self::Unreachable => Target::Unreachable,
            Self::Group(id) => Target::Group(*id),
        }
    }

    /// What it asks for, if it leads through routers.
    pub(crate) const fn bundle(&self) -> Option<&Arc<Bundle>> {
        match self {
            Self::Via(bundle) => Some(bundle),
            Self::Device(_) | Self::Unreachable | Self::Group(_) => None,
        }
    }

    /// The interface that it leads straight out of.
    pub(crate) const fn device(&self) -> Option<u32> {
        match self {
            Self::Device(index) => Some(*index),
            Self::Via(_) | Self::Unreachable | Self::Group(_) => None,
        }
    }

    /// Whether the kernel's `found` does that (see [`Target::is_met_by`]).
    pub(crate) fn is_met_by(&self, found: &Target) -> bool {
        match (self, found) {
            (Self::Via(want), Target::Via(have)) => are_met_by(&want.via, have),
            (Self::Device(want), Target::Device(have)) => want == have,
            (Self::Unreachable, Target::Unreachable) => true,
            (Self::Group(want), Target::Group(have)) => want == have,
            (Self::Via(_) | Self::Device(_) | Self::Unreachable | Self::Group(_), _) => false,
        }
    }
}

/// The wanted table.
#[derive(Debug, Default)]
pub struct Table {
    slots: ByPrefix<Slot>,
    /// What many routes ask for alike is one value in memory.
    bundles: HashSet<Arc<Bundle>, FixedState>,
    /// How many of those make it worth looking for what no route asks for any more.
    sweep_at: usize,
    settled: [bool; Source::ALL.len()],
}

/// One prefix: what sources say, the strongest first. Nearly always it is one.
#[derive(Debug, Default)]
struct Slot(SmallVec<[Entry; 1]>);

/// What a source says of a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) goal: Goal,
    pub(crate) metric: u32,
    pub(crate) source: Source,
    /// Adopted from the kernel, and not confirmed by its source since.
    stale: bool,
}

impl Entry {
    /// Whether it asks for the same, confirmed or not.
    fn is_as(&self, other: &Self) -> bool {
        self.source == other.source && self.metric == other.metric && self.goal == other.goal
    }

    /// In whole.
    pub(crate) fn route(&self, prefix: IpNetwork) -> Route {
        Route {
            prefix,
            target: self.goal.target(),
            backup: self.goal.bundle().and_then(|bundle| bundle.backup),
            source: self.source,
            metric: self.metric,
        }
    }

    /// The same, written through a group.
    pub(crate) const fn through(&self, prefix: IpNetwork, group: u32) -> Route {
        Route {
            prefix,
            target: Target::Group(group),
            backup: None,
            source: self.source,
            metric: self.metric,
        }
    }
}

impl Slot {
    fn of(&self, source: Source) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.source == source)
    }

    /// Puts a source's word in its place.
    fn put(&mut self, source: Source, entry: Option<Entry>) {
        let place = self.0.iter().position(|it| it.source >= source);
        let place = place.unwrap_or(self.0.len());
        let spoken = self.0.get(place).is_some_and(|it| it.source == source);
        match (entry, spoken) {
            (Some(entry), true) => self.0[place] = entry,
            (Some(entry), false) => self.0.insert(place, entry),
            (None, true) => drop(self.0.remove(place)),
            (None, false) => {}
        }
    }
}

/// How many different things routes ask for before any is looked at again.
const FIRST_SWEEP: usize = 64;

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, hashed in a way of its own: whoever chooses prefixes cannot choose such as fall together.
    pub(crate) fn keyed(seed: u64) -> Self {
        Self {
            slots: ByPrefix::with_hasher(FixedState::with_seed(seed)),
            ..Self::default()
        }
    }

    /// Takes a source's word; returns what it changed, if anything.
    pub fn apply(&mut self, update: Update) -> Option<Delta> {
        self.take(update).map(|prefix| self.delta(prefix))
    }

    /// Takes a source's word; returns the prefix that has another route now, or none any more, if one has.
    pub(crate) fn take(&mut self, update: Update) -> Option<IpNetwork> {
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
                let entry = leads_somewhere.then(|| Entry {
                    goal: self.goal(target, backup),
                    metric,
                    source,
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
        let changed = self.take_over(found);
        changed.into_iter().map(|prefix| self.delta(prefix)).collect()
    }

    /// The same, told by the prefixes that have a route now.
    pub(crate) fn take_over(&mut self, found: &[Actual]) -> Vec<IpNetwork> {
        let mut changed = Vec::new();
        for actual in found {
            let (Some(source), Some(target)) = (Source::of(actual), &actual.target) else {
                continue;
            };
            let prefix = canonical(actual.prefix);
            let slot = self.slots.get(&Key(prefix));
            let spoken = slot.is_some_and(|slot| slot.of(source).is_some());
            if !spoken && !self.settled[source as usize] {
                let entry = Entry {
                    goal: self.goal(target.clone(), None),
                    metric: actual.metric,
                    source,
                    stale: true,
                };
                changed.extend(self.put(prefix, source, Some(entry)));
            }
        }
        changed
    }

    /// The source has said all it wants: its stale routes go. For [`Source::Bgp`] that is the speaker's
    /// `Converged`, for the others the end of the journal's replay. Returns what changed.
    pub fn settle(&mut self, source: Source) -> Vec<Delta> {
        let changed = self.close(source);
        changed.into_iter().map(|prefix| self.delta(prefix)).collect()
    }

    /// The same, told by the prefixes that have another route now, or none.
    pub(crate) fn close(&mut self, source: Source) -> Vec<IpNetwork> {
        self.settled[source as usize] = true;
        let is_stale = |slot: &Slot| slot.of(source).is_some_and(|entry| entry.stale);
        let stale = self.slots.iter().filter(|(_, slot)| is_stale(slot));
        let stale: Vec<IpNetwork> = stale.map(|(key, _)| key.0).collect();
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
        self.winner(prefix).map(|entry| entry.route(prefix))
    }

    /// The word that counts for exactly this prefix.
    pub(crate) fn winner(&self, prefix: IpNetwork) -> Option<&Entry> {
        self.slots.get(&Key(prefix))?.0.first()
    }

    /// Every wanted route, by prefix.
    pub fn iter(&self) -> impl Iterator<Item = Route> + '_ {
        let mut keys: Vec<&Key> = self.slots.keys().collect();
        keys.sort_unstable();
        keys.into_iter().filter_map(|key| self.get(key.0))
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

    /// Puts one source's word in its place, and forgets the prefix with its last word; returns it where that changes
    /// what counts.
    fn put(&mut self, prefix: IpNetwork, source: Source, entry: Option<Entry>) -> Option<IpNetwork> {
        if entry.is_none() && !self.slots.contains_key(&Key(prefix)) {
            return None;
        }
        let slot = self.slots.entry(Key(prefix)).or_default();
        let before = slot.0.first().cloned();
        slot.put(source, entry);
        let changed = match (&before, slot.0.first()) {
            (Some(before), Some(after)) => !before.is_as(after),
            (None, None) => false,
            (Some(_), None) | (None, Some(_)) => true,
        };
        if slot.0.is_empty() {
            self.slots.remove(&Key(prefix));
        }
        changed.then_some(prefix)
    }

    /// What has changed of a prefix.
    fn delta(&self, prefix: IpNetwork) -> Delta {
        self.get(prefix).map_or(Delta::Unset(prefix), Delta::Set)
    }

    /// A target as it stands in the table.
    fn goal(&mut self, target: Target, backup: Option<Hop>) -> Goal {
        match target {
            Target::Via(via) => Goal::Via(self.intern(Bundle { via, backup })),
            Target::Device(index) => Goal::Device(index),
            Target::Unreachable => Goal::Unreachable,
            Target::Group(id) => Goal::Group(id),
        }
    }

    /// The one value equal to `bundle`.
    fn intern(&mut self, bundle: Bundle) -> Arc<Bundle> {
        if let Some(known) = self.bundles.get(&bundle) {
            return known.clone();
        }
        if self.bundles.len() >= self.sweep_at.max(FIRST_SWEEP) {
            self.bundles.retain(|it| Arc::strong_count(it) > 1);
            // As many have to come again before the next time, so it costs a constant for each.
            self.sweep_at = self.bundles.len() * 2;
        }
        let bundle = Arc::new(bundle);
        self.bundles.insert(bundle.clone());
        bundle
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
