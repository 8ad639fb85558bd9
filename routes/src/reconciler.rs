//! The wanted table and the kernel's, kept equal change by change.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use ipnetwork::IpNetwork;

use crate::groups::{Bundle, Groups};
use crate::nexthop::Found;
use crate::plan::{Change, delete, plan};
use crate::route::{Actual, Hop, PROTOCOL_BGP, PROTOCOL_OWN, Route, Source, Target};
use crate::table::{Delta, Full, Table, Update};

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

/// A route's place in the kernel's table: prefix and metric.
type Place = (IpNetwork, u32);

/// A route of ours in the kernel.
#[derive(Debug)]
struct Held {
    /// As far as we were told. Without a target: something of ours may be there, but not surely all of what we put there.
    actual: Actual,
    /// What is wanted of it, where it leads through a group.
    bundle: Option<Arc<Bundle>>,
}

impl Held {
    /// The group that it leads through.
    const fn group(&self) -> Option<u32> {
        match self.actual.target {
            Some(Target::Group(id)) => Some(id),
            Some(Target::Via(_) | Target::Device(_) | Target::Unreachable) | None => None,
        }
    }
}

/// Keeps one kernel table as wanted. The owner feeds updates and observations, takes [`Self::changes`],
/// makes them, and reports each with [`Self::committed`].
#[derive(Debug, Default)]
pub struct Reconciler {
    table: Table,
    /// What the kernel holds of ours.
    held: BTreeMap<Place, Held>,
    /// The groups that learned routes lead through; without, each route names its routers itself.
    groups: Option<Groups>,
    /// What the last reading of the kernel's table asks for, as far as it was not handed out.
    planned: VecDeque<Change>,
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

    /// The same for a kernel that has nexthop objects: learned routes lead through groups of them.
    #[must_use]
    pub fn with_groups() -> Self {
        Self {
            groups: Some(Groups::default()),
            ..Self::default()
        }
    }

    /// Takes a source's word.
    pub fn apply(&mut self, update: Update) {
        let delta = self.table.apply(update);
        self.wanted_changed(delta);
    }

    /// Takes over what an earlier life left in the kernel (see [`Table::adopt`]): once, at the start.
    /// Follow it with [`Self::resync`], which knows what to do about the rest.
    pub fn adopt(&mut self, found: &Found) {
        let deltas = self.table.adopt(&found.expanded());
        self.wanted_changed(deltas);
    }

    /// The source has said all it wants: its stale routes go (see [`Table::settle`]).
    pub fn settle(&mut self, source: Source) {
        let deltas = self.table.settle(source);
        self.wanted_changed(deltas);
    }

    /// These routers are lost: until they are [found](Self::find), whatever leads through them goes around them, as far as
    /// its source has said how. One change a group moves all of its routes, and comes before all others.
    ///
    /// What the sources say meanwhile is compared with where packets go in fact: who comes to want what the group does
    /// by now costs no change.
    pub fn lose(&mut self, routers: &[Hop]) {
        if let Some(groups) = &mut self.groups {
            groups.lose(routers);
        }
    }

    /// The sources know by now of these routers: what they still want through them goes there again.
    pub fn find(&mut self, routers: &[Hop]) {
        if let Some(groups) = &mut self.groups {
            groups.find(routers);
            groups.follow();
            groups.doubt();
            self.part();
        }
    }

    /// Has the routes compared whose group does not lead where they are to lead; whether there are any.
    fn part(&mut self) -> bool {
        let Some(groups) = &mut self.groups else {
            return false;
        };
        let parting = groups.take_parting();
        if !parting.is_empty() {
            let leaves = |held: &&Held| held.group().is_some_and(|id| parting.contains(&id));
            let leaving = self.held.values().filter(leaves).map(|held| &held.actual);
            self.dirty
                .extend(leaving.map(|actual| urgency(actual.prefix, actual.protocol)));
        }
        !parting.is_empty()
    }

    /// The wanted table.
    #[must_use]
    pub const fn table(&self) -> &Table {
        &self.table
    }

    /// The next changes to make, some `limit` of routes; none when there is nothing left to do.
    pub fn changes(&mut self, limit: usize) -> Vec<Change> {
        if let Some(groups) = &mut self.groups {
            groups.follow();
        }
        let mut routes: Vec<Change> = self.planned.drain(..self.planned.len().min(limit)).collect();
        // What was planned comes first, and by itself: what changed since is compared with what became of it.
        if routes.is_empty() {
            self.compare(limit, &mut routes);
        }
        if routes.is_empty() && self.part() {
            self.compare(limit, &mut routes);
        }
        let Some(groups) = &mut self.groups else {
            return routes;
        };
        let mut changes = groups.take_puts();
        changes.append(&mut routes);
        if changes.is_empty() {
            changes = groups.sweep();
        }
        changes
    }

    /// Compares prefixes that may differ until there are so many changes.
    fn compare(&mut self, limit: usize, changes: &mut Vec<Change>) {
        while changes.len() < limit {
            let Some((_, prefix)) = self.dirty.pop_first() else {
                break;
            };
            // It may wait on account of a learned route, too.
            self.dirty.remove(&(true, prefix));
            self.towards(prefix, changes);
        }
    }

    /// What came of a change: the kernel's refusal, if any, in words.
    pub fn committed(&mut self, change: &Change, outcome: Result<(), String>) {
        match change {
            Change::Put(nexthop) => {
                if let Some(groups) = &mut self.groups {
                    groups.committed(nexthop, outcome);
                }
            }
            // What is left behind leads nobody anywhere.
            Change::Drop(_) => {}
            Change::Add(route) | Change::Replace(route) => match outcome {
                Err(words) => self.refused(route, words),
                Ok(()) => {
                    self.failed.remove(&route.prefix);
                    let actual = Actual {
                        target: Some(route.target.clone()),
                        ..unsure(route)
                    };
                    self.hold(actual);
                }
            },
            Change::Delete { prefix, metric, .. } => match outcome {
                Err(words) => drop(self.failed.insert(*prefix, words)),
                Ok(()) => {
                    // What is wanted in its place may have been refused.
                    if self.table.get(*prefix).is_none() {
                        self.failed.remove(prefix);
                    }
                    self.release((*prefix, *metric));
                }
            },
        }
    }

    /// The kernel refused a route: because of its group, where it has refused that.
    fn refused(&mut self, route: &Route, words: String) {
        let groups = self.groups.as_ref();
        let of_group = match route.target {
            Target::Group(id) => groups.and_then(|groups| groups.refusal(id).cloned()),
            Target::Via(_) | Target::Device(_) | Target::Unreachable => None,
        };
        self.failed.insert(route.prefix, of_group.unwrap_or(words));
    }

    /// Somebody else changed the kernel's table. Whether that has to be read again: beside a route through a group, IPv6
    /// keeps another one of the same prefix and metric that names its routers itself, and replacing would meet only one.
    pub fn observed(&mut self, observed: Observed) -> bool {
        let (present, actual) = match observed {
            Observed::Present(actual) => (true, actual),
            Observed::Absent(actual) => (false, actual),
        };
        let at = (actual.prefix, actual.metric);
        let wanted = |route: Route| route.metric == actual.metric;
        if !actual.is_ours() && !self.held.contains_key(&at) && !self.table.get(at.0).is_some_and(wanted) {
            return false;
        }
        self.mark(actual.prefix, actual.protocol);
        let through_group = self.held.get(&at).is_some_and(|held| held.group().is_some());
        let beside = through_group && present && actual.prefix.is_ipv6();
        let several = matches!(
            self.held.get(&at).map(|held| &held.actual),
            Some(Actual { target: Some(Target::Via(hops)), .. }) if hops.len() > 1
        );
        match (actual.is_ours(), present) {
            (true, true) => self.hold(actual),
            // IPv6 tells of one hop gone in the same words as of the whole route.
            (true, false) if several => self.hold(Actual {
                target: None,
                ..actual
            }),
            // Ours is gone, or a foreign route took its place or left it.
            (true | false, _) => self.release(at),
        }
        beside
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
                self.hold(unsure(route));
                self.dirty.insert(urgency(*prefix, route.source.protocol()));
            }
            wanted.is_some()
        });
        if !prefixes.is_empty() {
            self.by_device.insert(index, prefixes);
        }
    }

    /// The whole truth, as just read from the kernel; what it asks for comes with [`Self::changes`]. It takes the place of
    /// all that was observed, pending or failed.
    pub fn resync(&mut self, found: &Found) {
        self.dirty.clear();
        self.failed.clear();
        self.planned.clear();
        self.held.clear();
        if let Some(groups) = &mut self.groups {
            groups.read(&found.nexthops);
        }
        for actual in found.routes.iter().filter(|actual| actual.is_ours()) {
            self.hold(actual.clone());
        }
        let wanted = self.as_things_are();
        for change in plan(&wanted, &self.expanded(found)) {
            let change = self.written(change);
            self.planned.push_back(change);
        }
    }

    /// What was found, where groups lead to what they are about to lead to.
    fn expanded(&mut self, found: &Found) -> Vec<Actual> {
        let Some(groups) = &mut self.groups else {
            return found.expanded();
        };
        groups.follow();
        let target = |target: &Option<Target>| match target {
            Some(Target::Group(id)) => groups.members(*id).map(|hops| Target::Via(hops.to_vec())),
            other => other.clone(),
        };
        let routes = found.routes.iter().map(|route| Actual {
            target: target(&route.target),
            ..route.clone()
        });
        routes.collect()
    }

    /// The wanted table, around the routers that are lost.
    fn as_things_are(&self) -> Full {
        let mut full = self.table.snapshot();
        if let Some(groups) = &self.groups {
            for route in full.values_mut() {
                if let Some(bundle) = Bundle::of(route) {
                    route.target = Target::Via(groups.now(&bundle).into_owned());
                }
            }
        }
        full
    }

    /// Whether the kernel refused a change that is still due: time to read its table again.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        !self.failed.is_empty() || self.groups.as_ref().is_some_and(Groups::has_refusals)
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
            (None, Some(held)) if self.meets(held, route) => State::Installed,
            (None, _) => State::Pending,
        }
    }

    /// Whether that is `route` as we would have it.
    fn meets(&self, held: &Held, route: &Route) -> bool {
        match (&self.groups, held.group(), &held.bundle) {
            (Some(groups), Some(id), Some(bundle)) => {
                held.actual.protocol == route.source.protocol() && groups.meets(id, bundle)
            }
            _ => held.actual.meets(route),
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
                    self.ask(route.prefix, Some(&route));
                    self.mark(route.prefix, route.source.protocol());
                }
                Delta::Unset(prefix) => {
                    self.ask(prefix, None);
                    let protocol = self
                        .held_at(prefix)
                        .next()
                        .map_or(PROTOCOL_BGP, |held| held.actual.protocol);
                    self.mark(prefix, protocol);
                }
            }
        }
    }

    /// Groups learn what is asked of them for a prefix from now on.
    fn ask(&mut self, prefix: IpNetwork, wanted: Option<&Route>) {
        let Some(groups) = &mut self.groups else { return };
        for ((_, metric), held) in self.held.range_mut((prefix, 0)..=(prefix, u32::MAX)) {
            if let Some(id) = held.group() {
                let asked = wanted.filter(|route| route.metric == *metric);
                let bundle = asked.and_then(Bundle::of).map(|it| groups.intern(it));
                groups.leave(id, held.bundle.as_ref());
                groups.join(id, bundle.as_ref());
                held.bundle = bundle;
            }
        }
    }

    /// The kernel holds this from now on.
    fn hold(&mut self, actual: Actual) {
        let at = (actual.prefix, actual.metric);
        let mut held = Held { actual, bundle: None };
        if let (Some(groups), Some(id)) = (&mut self.groups, held.group()) {
            let wanted = self.table.get(at.0).filter(|route| route.metric == at.1);
            held.bundle = wanted.as_ref().and_then(Bundle::of).map(|it| groups.intern(it));
            groups.join(id, held.bundle.as_ref());
        }
        let before = self.held.insert(at, held);
        self.left(before);
    }

    /// The kernel no longer holds anything of ours there.
    fn release(&mut self, at: Place) {
        let before = self.held.remove(&at);
        self.left(before);
    }

    fn left(&mut self, held: Option<Held>) {
        if let (Some(groups), Some(held)) = (&mut self.groups, held)
            && let Some(id) = held.group()
        {
            groups.leave(id, held.bundle.as_ref());
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
                None => changes.push(self.written(Change::Add(route))),
                Some(held) if !self.meets(held, &route) => changes.push(self.written(Change::Replace(route))),
                Some(_) => {}
            }
        }
        let elsewhere = self
            .held_at(prefix)
            .filter(|held| Some(held.actual.metric) != metric);
        changes.extend(elsewhere.map(|held| delete(&held.actual)));
        if changes.len() == before {
            self.failed.remove(&prefix);
        }
    }

    /// The change as it is asked of the kernel: through the group that leads where it is to lead.
    fn written(&mut self, mut change: Change) -> Change {
        if let (Some(groups), Change::Add(route) | Change::Replace(route)) = (&mut self.groups, &mut change)
            && let Some(bundle) = self.table.get(route.prefix).as_ref().and_then(Bundle::of)
        {
            let bundle = groups.intern(bundle);
            route.target = Target::Group(groups.choose(&bundle));
        }
        change
    }

    /// What the kernel holds of ours for a prefix: one route, but for the moment of a change of metric.
    fn held_at(&self, prefix: IpNetwork) -> impl Iterator<Item = &Held> {
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
    use crate::nexthop::Object;
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
            backup: None,
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
        second.adopt(&kernel.read());
        second.resync(&kernel.read());
        assert_eq!(second.changes(9), [], "a restart adopts it as it is");
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
            backup: None,
            source: Source::Pod,
            metric: METRIC,
        }));
        assert_eq!(reconciler.changes(1)[0].prefix(), Some(prefix));
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
        second.adopt(&kernel.read());
        second.resync(&kernel.read());
        assert_eq!(second.changes(9), [], "adopted as it was");
        second.apply(wants("10.0.0.0/26", via));
        assert_eq!(drain(&mut second, &mut kernel), 0, "confirmed without a change");
        second.settle(Source::Bgp);
        assert_eq!(drain(&mut second, &mut kernel), 1);
        assert_eq!(kernel.dump().len(), 1, "what was not confirmed is swept");
    }

    /// A thousand routes, each of which asks for that.
    fn thousand(target: &[&str], backup: Option<&str>) -> Vec<Update> {
        let of = |number: usize| {
            Update::Set(Route {
                prefix: net(&format!("10.{}.{}.0/24", number / 256, number % 256)),
                target: Target::Via(target.iter().map(|it| hop(it)).collect()),
                backup: backup.map(hop),
                source: Source::Bgp,
                metric: METRIC,
            })
        };
        (0..1000).map(of).collect()
    }

    fn leads_to(kernel: &Kernel) -> BTreeMap<Option<Target>, usize> {
        let mut counts = BTreeMap::new();
        for route in kernel.dump() {
            *counts.entry(route.target).or_default() += 1;
        }
        counts
    }

    #[test]
    fn a_lost_router_costs_one_change_and_what_the_source_says_then_none() {
        let (a, b) = ("192.0.2.1", "192.0.2.2");
        for (before, backup, after) in [(&[a, b][..], None, b), (&[a][..], Some(b), b)] {
            let (mut reconciler, mut kernel) = (Reconciler::with_groups(), Kernel::default());
            let apply = |reconciler: &mut Reconciler, updates: Vec<Update>| {
                updates.into_iter().for_each(|update| reconciler.apply(update));
            };
            apply(&mut reconciler, thousand(before, backup));
            drain(&mut reconciler, &mut kernel);
            reconciler.lose(&[hop(a)]);
            let changes = reconciler.changes(9);
            let groups = changes.iter().filter(
                |it| matches!(it, Change::Put(nexthop) if matches!(nexthop.object, Object::Group(_))),
            );
            assert_eq!(groups.count(), 1, "{changes:?}");
            assert!(changes.iter().all(|it| it.prefix().is_none()), "{changes:?}");
            run(&mut reconciler, &mut kernel, &changes);
            let around = BTreeMap::from([(Some(Target::Via(vec![hop(after)])), 1000)]);
            assert_eq!(leads_to(&kernel), around);

            apply(&mut reconciler, thousand(&[after], None));
            reconciler.find(&[hop(a)]);
            assert_eq!(drain(&mut reconciler, &mut kernel), 0, "packets go there already");
            apply(&mut reconciler, thousand(before, backup));
            assert!(
                drain(&mut reconciler, &mut kernel) <= 2,
                "all of them agree: one change again"
            );
            assert_eq!(leads_to(&kernel).values().sum::<usize>(), 1000);
            assert_eq!(plan(&reconciler.table().snapshot(), &kernel.dump()), []);
        }
    }

    #[test]
    fn what_is_taken_for_lost_and_is_not_comes_back() {
        let (mut reconciler, mut kernel) = (Reconciler::with_groups(), Kernel::default());
        for update in thousand(&["192.0.2.1"], Some("192.0.2.2")) {
            reconciler.apply(update);
        }
        drain(&mut reconciler, &mut kernel);
        let before = leads_to(&kernel);
        reconciler.lose(&[hop("192.0.2.1")]);
        drain(&mut reconciler, &mut kernel);
        assert_ne!(leads_to(&kernel), before);
        reconciler.find(&[hop("192.0.2.1")]);
        assert_eq!(drain(&mut reconciler, &mut kernel), 1);
        assert_eq!(leads_to(&kernel), before);
        reconciler.lose(&["192.0.2.1", "192.0.2.2"].map(hop));
        assert_eq!(
            drain(&mut reconciler, &mut kernel),
            0,
            "there is no way around both"
        );
    }

    /// The kernel took the router out when its link went down; it does not take it in again before that is up.
    #[test]
    fn a_group_that_is_refused_leads_where_it_did() {
        let (mut reconciler, mut kernel) = (Reconciler::with_groups(), Kernel::default());
        for update in thousand(&["192.0.2.1", "192.0.2.2"], None) {
            reconciler.apply(update);
        }
        drain(&mut reconciler, &mut kernel);
        kernel.unplug(&hop("192.0.2.1"));
        reconciler.resync(&kernel.read());
        for change in reconciler.changes(9) {
            assert!(matches!(change, Change::Put(_)), "{change:?}");
            reconciler.committed(&change, Err("out of reach".to_owned()));
        }
        assert!(reconciler.has_failed());
        for update in thousand(&["192.0.2.2"], None) {
            reconciler.apply(update);
        }
        assert_eq!(drain(&mut reconciler, &mut kernel), 0, "packets go there already");
    }

    #[test]
    fn a_refused_group_says_why_its_routes_are_refused() {
        let mut reconciler = Reconciler::with_groups();
        reconciler.apply(wants("10.0.0.0/26", Target::Via(vec![hop("192.0.2.1")])));
        let changes = reconciler.changes(9);
        assert_eq!(changes.len(), 3, "{changes:?}");
        for (change, words) in changes
            .iter()
            .zip(["out of reach", "no such member", "no such group"])
        {
            reconciler.committed(change, Err(words.to_owned()));
        }
        assert!(reconciler.has_failed());
        let state = reconciler.state(net("10.0.0.0/26"));
        assert_eq!(state, Some(State::Failed("out of reach".to_owned())));
    }

    proptest! {
        #![proptest_config(proptest_config())]

        #[test]
        fn change_by_change_it_reaches_what_a_plan_of_the_whole_would(
            found in vec(actual(), 0..10),
            updates in vec(update(), 0..30),
            tampering in vec(actual(), 0..10),
            grouped in any::<bool>(),
        ) {
            let mut kernel = Kernel::holding(found);
            let mut reconciler = if grouped { Reconciler::with_groups() } else { Reconciler::new() };
            reconciler.resync(&kernel.read());
            drain(&mut reconciler, &mut kernel);
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

        /// Routers come and go, known to be lost before the sources say so, or falsely: what the kernel holds in the end
        /// is what it would hold had nobody been told.
        #[test]
        fn what_was_lost_and_found_leaves_no_trace(
            updates in vec((update(), 0..6_usize), 0..40),
        ) {
            let routers = ["192.0.2.1", "192.0.2.2", "fe80::3"].map(hop);
            let mut kernel = Kernel::default();
            let mut reconciler = Reconciler::with_groups();
            for (update, what) in updates {
                reconciler.apply(update);
                match what {
                    0..3 => reconciler.lose(&routers[what..=what]),
                    3 => reconciler.find(&routers),
                    4 => {
                        drain(&mut reconciler, &mut kernel);
                    }
                    _ => {
                        let mut next = Reconciler::with_groups();
                        std::mem::swap(&mut reconciler.table, &mut next.table);
                        next.resync(&kernel.read());
                        reconciler = next;
                    }
                }
            }
            reconciler.find(&routers);
            drain(&mut reconciler, &mut kernel);
            prop_assert_eq!(plan(&reconciler.table().snapshot(), &kernel.dump()), []);
            prop_assert!(reconciler.status().all(|(_, state)| state == State::Installed));
            let mut second = Reconciler::with_groups();
            second.adopt(&kernel.read());
            second.resync(&kernel.read());
            prop_assert_eq!(drain(&mut second, &mut kernel), 0, "a restart adopts it as it is");
        }
    }
}
