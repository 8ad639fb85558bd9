//! The wanted table and the kernel's, kept equal change by change.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;

use crate::plan::{Change, delete, plan};
use crate::route::{Actual, PROTOCOL_BGP, PROTOCOL_OWN, Route, Source, Target};
use crate::table::{Delta, Table, Update};

/// What the kernel says happened to a route, not by our own hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// It was added or changed to this.
    Present(Actual),
    /// It was deleted.
    Absent(Actual),
}

/// How far a wanted route has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The kernel has it.
    Installed,
    /// The change is still to be made.
    Pending,
    /// The kernel refused it, and this is what it said.
    Failed(String),
}

/// Keeps one kernel table as wanted. The owner feeds updates and observations, takes [`Self::changes`],
/// makes them, and reports each with [`Self::committed`].
#[derive(Debug, Default)]
pub struct Reconciler {
    table: Table,
    /// What the kernel holds of ours, by prefix and metric, as far as we were told. Without a target: something
    /// of ours may be there, but not surely all of what we put there.
    held: BTreeMap<(IpNetwork, u32), Actual>,
    /// Prefixes to compare; behind those of pods and blocks (`false`) come the learned ones (`true`), so that
    /// a table of many thousands on its way in keeps no pod waiting.
    dirty: BTreeSet<(bool, IpNetwork)>,
    /// What the kernel said to the last change of a prefix, where it refused it.
    failed: BTreeMap<IpNetwork, String>,
    /// Prefixes that were wanted straight out of an interface; pruned when the interface changes.
    by_device: BTreeMap<u32, BTreeSet<IpNetwork>>,
}

impl Reconciler {
    /// Wants nothing, and believes the kernel to hold nothing of ours.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a source's word.
    pub fn apply(&mut self, update: Update) {
        let delta = self.table.apply(update);
        self.wanted_changed(delta);
    }

    /// Takes over what an earlier life left in the kernel (see [`Table::adopt`]): once, at the start.
    /// Follow it with [`Self::resync`], which knows what to do about the rest.
    pub fn adopt(&mut self, found: &[Actual]) {
        let deltas = self.table.adopt(found);
        self.wanted_changed(deltas);
    }

    /// The source has said all it wants: its stale routes go (see [`Table::settle`]).
    pub fn settle(&mut self, source: Source) {
        let deltas = self.table.settle(source);
        self.wanted_changed(deltas);
    }

    /// The wanted table.
    #[must_use]
    pub const fn table(&self) -> &Table {
        &self.table
    }

    /// The next changes to make, `limit` or hardly more; none when there is nothing left to do.
    pub fn changes(&mut self, limit: usize) -> Vec<Change> {
        let mut changes = Vec::new();
        while changes.len() < limit {
            let Some((_, prefix)) = self.dirty.pop_first() else {
                break;
            };
            self.towards(prefix, &mut changes);
        }
        changes
    }

    /// What came of a change: the kernel's refusal, if any, in words.
    pub fn committed(&mut self, change: &Change, outcome: Result<(), String>) {
        let prefix = change.prefix();
        if let Err(refusal) = outcome {
            self.failed.insert(prefix, refusal);
            return;
        }
        match change {
            Change::Add(route) | Change::Replace(route) => {
                self.failed.remove(&prefix);
                let held = Actual {
                    target: Some(route.target.clone()),
                    ..unsure(route)
                };
                self.held.insert((prefix, route.metric), held);
            }
            Change::Delete { metric, .. } => {
                // What is wanted in its place may have been refused.
                if self.table.get(prefix).is_none() {
                    self.failed.remove(&prefix);
                }
                self.held.remove(&(prefix, *metric));
            }
        }
    }

    /// Somebody else changed the kernel's table.
    pub fn observed(&mut self, observed: Observed) {
        let (present, actual) = match observed {
            Observed::Present(actual) => (true, actual),
            Observed::Absent(actual) => (false, actual),
        };
        let at = (actual.prefix, actual.metric);
        let wanted = |route: Route| route.metric == actual.metric;
        if !actual.is_ours() && !self.held.contains_key(&at) && !self.table.get(at.0).is_some_and(wanted) {
            return;
        }
        self.mark(actual.prefix, actual.protocol);
        let several = matches!(
            self.held.get(&at),
            Some(Actual { target: Some(Target::Via(hops)), .. }) if hops.len() > 1
        );
        match (actual.is_ours(), present) {
            (true, true) => self.held.insert(at, actual),
            // IPv6 tells of one hop gone in the same words as of the whole route.
            (true, false) if several => self.held.insert(
                at,
                Actual {
                    target: None,
                    ..actual
                },
            ),
            // Ours is gone, or a foreign route took its place or left it.
            (true | false, _) => self.held.remove(&at),
        };
    }

    /// An interface went up, down or away: the kernel drops IPv4 routes through it without a word.
    pub fn device_changed(&mut self, index: u32) {
        let Some(mut prefixes) = self.by_device.remove(&index) else {
            return;
        };
        prefixes.retain(|prefix| {
            let wanted = self
                .table
                .get(*prefix)
                .filter(|route| route.target == Target::Device(index));
            if let Some(route) = &wanted {
                self.held.insert((*prefix, route.metric), unsure(route));
                self.dirty.insert(urgency(*prefix, route.source.protocol()));
            }
            wanted.is_some()
        });
        if !prefixes.is_empty() {
            self.by_device.insert(index, prefixes);
        }
    }

    /// The whole truth, as just read from the kernel: the changes to make. It takes the place of all that
    /// was observed, pending or failed.
    pub fn resync(&mut self, found: &[Actual]) -> Vec<Change> {
        self.dirty.clear();
        self.failed.clear();
        let ours = found.iter().filter(|actual| actual.is_ours());
        self.held = ours
            .map(|actual| ((actual.prefix, actual.metric), actual.clone()))
            .collect();
        plan(&self.table.snapshot(), found)
    }

    /// Whether the kernel refused a change that is still due: time to read its table again.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Every wanted route and how far it has come.
    pub fn status(&self) -> impl Iterator<Item = (Route, State)> + '_ {
        self.table.iter().map(|route| {
            let state = self.state_of(&route);
            (route, state)
        })
    }

    /// How far the route wanted for exactly this prefix has come; none where none is wanted.
    #[must_use]
    pub fn state(&self, prefix: IpNetwork) -> Option<State> {
        self.table.get(prefix).map(|route| self.state_of(&route))
    }

    fn state_of(&self, route: &Route) -> State {
        let held = self.held.get(&(route.prefix, route.metric));
        match (self.failed.get(&route.prefix), held) {
            (Some(refusal), _) => State::Failed(refusal.clone()),
            (None, Some(held)) if held.meets(route) => State::Installed,
            (None, _) => State::Pending,
        }
    }

    /// What has changed in the wanted table has to be compared with the kernel's.
    fn wanted_changed(&mut self, deltas: impl IntoIterator<Item = Delta>) {
        for delta in deltas {
            match delta {
                Delta::Set(route) => {
                    if let Target::Device(index) = route.target {
                        self.by_device.entry(index).or_default().insert(route.prefix);
                    }
                    self.mark(route.prefix, route.source.protocol());
                }
                Delta::Unset(prefix) => {
                    let protocol = self
                        .held_at(prefix)
                        .next()
                        .map_or(PROTOCOL_BGP, |held| held.protocol);
                    self.mark(prefix, protocol);
                }
            }
        }
    }

    /// A prefix has to be compared, on account of a route with this protocol.
    fn mark(&mut self, prefix: IpNetwork, protocol: u8) {
        self.dirty.insert(urgency(prefix, protocol));
    }

    /// Pushes the changes that bring one prefix where it should be: what is wanted comes before what is not goes.
    fn towards(&mut self, prefix: IpNetwork, changes: &mut Vec<Change>) {
        let (before, wanted) = (changes.len(), self.table.get(prefix));
        let metric = wanted.as_ref().map(|route| route.metric);
        if let Some(route) = wanted {
            match self.held.get(&(prefix, route.metric)) {
                None => changes.push(Change::Add(route)),
                Some(held) if !held.meets(&route) => changes.push(Change::Replace(route)),
                Some(_) => {}
            }
        }
        let elsewhere = self.held_at(prefix).filter(|held| Some(held.metric) != metric);
        changes.extend(elsewhere.map(delete));
        if changes.len() == before {
            self.failed.remove(&prefix);
        }
    }

    /// What the kernel holds of ours for a prefix: one route, but for the moment of a change of metric.
    fn held_at(&self, prefix: IpNetwork) -> impl Iterator<Item = &Actual> {
        self.held
            .range((prefix, 0)..=(prefix, u32::MAX))
            .map(|(_, held)| held)
    }
}

/// The prefix's place in the queue.
const fn urgency(prefix: IpNetwork, protocol: u8) -> (bool, IpNetwork) {
    (protocol != PROTOCOL_OWN, prefix)
}

/// The kernel may hold something of ours in the place of `route`.
fn unsure(route: &Route) -> Actual {
    Actual {
        prefix: route.prefix,
        target: None,
        protocol: route.source.protocol(),
        metric: route.metric,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::METRIC;
    use crate::testing::{Kernel, actual, hop, net, proptest_config, update};

    fn run(reconciler: &mut Reconciler, kernel: &mut Kernel, changes: &[Change]) {
        for change in changes {
            reconciler.committed(change, kernel.make(change));
        }
    }

    fn drain(reconciler: &mut Reconciler, kernel: &mut Kernel) -> usize {
        let mut made = 0;
        loop {
            let changes = reconciler.changes(3);
            if changes.is_empty() {
                return made;
            }
            made += changes.len();
            run(reconciler, kernel, &changes);
        }
    }

    fn wants(prefix: &str, target: Target) -> Update {
        Update::Set(Route {
            prefix: net(prefix),
            target,
            source: Source::Bgp,
            metric: METRIC,
        })
    }

    #[test]
    fn a_deleted_route_comes_back_and_a_refused_one_says_why() {
        let (mut reconciler, mut kernel) = (Reconciler::new(), Kernel::default());
        reconciler.apply(wants("10.0.0.0/26", Target::Via(vec![hop("192.0.2.1")])));
        assert_eq!(reconciler.status().next().unwrap().1, State::Pending);
        drain(&mut reconciler, &mut kernel);
        let before = kernel.dump();
        assert_eq!(reconciler.status().next().unwrap().1, State::Installed);

        let deleted = kernel.tampered(&before[0].clone());
        reconciler.observed(deleted);
        assert_eq!(drain(&mut reconciler, &mut kernel), 1);
        assert_eq!(kernel.dump(), before);

        kernel.tampered(&before[0].clone());
        let foreign = Actual {
            protocol: 4,
            ..before[0].clone()
        };
        reconciler.observed(kernel.tampered(&foreign));
        drain(&mut reconciler, &mut kernel);
        assert_eq!(
            reconciler.status().next().unwrap().1,
            State::Failed("file exists".into())
        );
        assert_eq!(kernel.dump(), std::slice::from_ref(&foreign));

        reconciler.observed(kernel.tampered(&foreign));
        drain(&mut reconciler, &mut kernel);
        assert_eq!(
            kernel.dump(),
            before,
            "ours takes over when the foreign route goes"
        );
        assert!(!reconciler.has_failed());
    }

    #[test]
    fn one_hop_of_several_reported_gone_makes_the_whole_route_anew() {
        let (mut reconciler, mut kernel) = (Reconciler::new(), Kernel::default());
        let (a, b) = (hop("fe80::1"), hop("fe80::2"));
        reconciler.apply(wants("fd00::/64", Target::Via(vec![a, b])));
        drain(&mut reconciler, &mut kernel);
        let part = Actual {
            target: Some(Target::Via(vec![a])),
            ..kernel.dump()[0].clone()
        };
        reconciler.observed(Observed::Absent(part));
        assert!(matches!(reconciler.changes(9)[..], [Change::Replace(_)]));
    }

    #[test]
    fn a_route_that_gets_another_metric_is_there_before_the_old_one_goes() {
        let (mut reconciler, mut kernel) = (Reconciler::new(), Kernel::default());
        let with_metric = |metric| {
            let Update::Set(route) = wants("10.0.0.0/26", Target::Via(vec![hop("192.0.2.1")])) else {
                unreachable!("it wants a route")
            };
            Update::Set(Route { metric, ..route })
        };
        reconciler.apply(with_metric(METRIC));
        drain(&mut reconciler, &mut kernel);
        reconciler.apply(with_metric(512));
        let changes = reconciler.changes(9);
        assert!(
            matches!(&changes[..], [Change::Add(new), Change::Delete { metric: METRIC, .. }] if new.metric == 512),
            "{changes:?}"
        );
        run(&mut reconciler, &mut kernel, &changes);
        assert_eq!(kernel.dump().len(), 1);

        let mut second = Reconciler::new();
        second.adopt(&kernel.dump());
        assert_eq!(second.resync(&kernel.dump()), [], "a restart adopts it as it is");
        second.apply(with_metric(METRIC));
        drain(&mut second, &mut kernel);
        assert_eq!(kernel.dump().len(), 1);
        assert_eq!(kernel.dump()[0].metric, METRIC);
    }

    #[test]
    fn an_interface_that_went_away_takes_its_routes_with_it() {
        let (mut reconciler, mut kernel) = (Reconciler::new(), Kernel::default());
        reconciler.apply(wants("10.0.0.1/32", Target::Device(7)));
        reconciler.apply(wants("10.0.0.2/32", Target::Device(8)));
        drain(&mut reconciler, &mut kernel);
        reconciler.device_changed(7);
        assert!(matches!(&reconciler.changes(9)[..], [Change::Replace(r)] if r.target == Target::Device(7)));
        reconciler.apply(Update::Remove {
            prefix: net("10.0.0.2/32"),
            source: Source::Bgp,
        });
        assert_eq!(drain(&mut reconciler, &mut kernel), 1);
        reconciler.device_changed(8);
        assert!(reconciler.changes(9).is_empty());
    }

    #[test]
    fn a_pod_does_not_wait_behind_learned_routes() {
        let mut reconciler = Reconciler::new();
        for prefix in ["10.0.1.0/26", "10.0.2.0/26"] {
            reconciler.apply(wants(prefix, Target::Via(vec![hop("192.0.2.1")])));
        }
        let (prefix, target) = (net("10.9.0.1/32"), Target::Device(7));
        reconciler.apply(Update::Set(Route {
            prefix,
            target,
            source: Source::Pod,
            metric: METRIC,
        }));
        assert_eq!(reconciler.changes(1)[0].prefix(), prefix);
    }

    #[test]
    fn a_restart_flaps_nothing() {
        let (mut first, mut kernel) = (Reconciler::new(), Kernel::default());
        let via = Target::Via(vec![hop("192.0.2.1")]);
        for prefix in ["10.0.0.0/26", "10.0.1.0/26"] {
            first.apply(wants(prefix, via.clone()));
        }
        drain(&mut first, &mut kernel);

        let mut second = Reconciler::new();
        second.adopt(&kernel.dump());
        let changes = second.resync(&kernel.dump());
        assert_eq!(changes, [], "adopted as it was");
        second.apply(wants("10.0.0.0/26", via));
        assert_eq!(drain(&mut second, &mut kernel), 0, "confirmed without a change");
        second.settle(Source::Bgp);
        assert_eq!(drain(&mut second, &mut kernel), 1);
        assert_eq!(kernel.dump().len(), 1, "what was not confirmed is swept");
    }

    proptest! {
        #![proptest_config(proptest_config())]

        #[test]
        fn change_by_change_it_reaches_what_a_plan_of_the_whole_would(
            found in vec(actual(), 0..10),
            updates in vec(update(), 0..30),
            tampering in vec(actual(), 0..10),
        ) {
            let mut kernel = Kernel::holding(found);
            let mut reconciler = Reconciler::new();
            let changes = reconciler.resync(&kernel.dump());
            run(&mut reconciler, &mut kernel, &changes);
            let mut tampering = tampering.iter();
            for update in updates {
                reconciler.apply(update);
                drain(&mut reconciler, &mut kernel);
                if let Some(route) = tampering.next() {
                    reconciler.observed(kernel.tampered(route));
                }
            }
            drain(&mut reconciler, &mut kernel);
            let foreign = kernel.foreign();
            let due = plan(&reconciler.table().snapshot(), &kernel.dump());
            for change in due {
                let Change::Add(route) = &change else {
                    return Err(TestCaseError::fail(format!("{change:?} is still due")));
                };
                let blocks = |f: &Actual| f.prefix == route.prefix && f.metric == route.metric;
                prop_assert!(foreign.iter().any(blocks), "{:?} is still due", change);
            }
        }
    }
}
