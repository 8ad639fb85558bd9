//! The wanted table and the kernel's, kept equal change by change.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use foldhash::fast::FixedState;
use ipnetwork::IpNetwork;
use smallvec::SmallVec;

use crate::by_prefix::{ByPrefix, Key};
use crate::groups::Groups;
use crate::nexthop::Found;
use crate::plan::{Change, plan};
use crate::route::{Actual, Hop, PROTOCOL_BGP, PROTOCOL_OWN, Route, Source, Target};
use crate::table::{Bundle, Entry, Full, Goal, Table, Update};

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

/// A route of ours in the kernel.
#[derive(Debug)]
struct Held {
    metric: u32,
    protocol: u8,
    /// As far as we were told. Without: something of ours may be there, but not surely all of what we put there.
    target: Option<Target>,
    /// What is wanted of it, where it leads through a group.
    bundle: Option<Arc<Bundle>>,
}

impl Held {
    /// The group that it leads through.
    const fn group(&self) -> Option<u32> {
        match self.target {
            Some(Target::Group(id)) => Some(id),
            Some(Target::Via(_) | Target::Device(_) | Target::Unreachable) | None => None,
        }
    }

    /// The kernel may hold something of ours in the place of what is wanted.
    const fn unsure(wanted: &Entry) -> Self {
        Self {
            metric: wanted.metric,
            protocol: wanted.source.protocol(),
            target: None,
            bundle: None,
        }
    }
}

impl From<Actual> for Held {
    fn from(actual: Actual) -> Self {
        Self {
            metric: actual.metric,
            protocol: actual.protocol,
            target: actual.target,
            bundle: None,
        }
    }
}

/// What there is to a prefix beside what is wanted.
#[derive(Debug, Default)]
struct Row {
    /// What the kernel holds of ours: one route, but for the moment of a change of metric.
    held: SmallVec<[Held; 1]>,
    /// In which queue it waits to be compared.
    queued: Option<Urgency>,
}

impl Row {
    fn at(&self, metric: u32) -> Option<&Held> {
        self.held.iter().find(|held| held.metric == metric)
    }

    /// Puts this in the place of what has its metric, which is returned.
    fn put(&mut self, held: Held) -> Option<Held> {
        let same = self.held.iter_mut().find(|it| it.metric == held.metric);
        match same {
            Some(place) => Some(std::mem::replace(place, held)),
            None => {
                self.held.push(held);
                None
            }
        }
    }

    fn take(&mut self, metric: u32) -> Option<Held> {
        let place = self.held.iter().position(|held| held.metric == metric)?;
        Some(self.held.remove(place))
    }

    fn is_empty(&self) -> bool {
        self.held.is_empty() && self.queued.is_none()
    }
}

/// How soon a prefix is compared: behind those of pods and blocks come the learned ones, so that a table of many thousands
/// on its way in keeps no pod waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    Learned,
    Own,
}

impl Urgency {
    /// Of a route with this protocol.
    const fn of(protocol: u8) -> Self {
        if protocol == PROTOCOL_OWN {
            Self::Own
        } else {
            Self::Learned
        }
    }
}

/// Keeps one kernel table as wanted. The owner feeds updates and observations, takes [`Self::changes`],
/// makes them, and reports each with [`Self::committed`].
#[derive(Debug, Default)]
pub struct Reconciler {
    table: Table,
    /// Prefixes of which the kernel holds something, or that wait.
    rows: ByPrefix<Row>,
    /// The groups that learned routes lead through; without, each route names its routers itself.
    groups: Option<Groups>,
    /// What the last reading of the kernel's table asks for, as far as it was not handed out.
    planned: VecDeque<Change>,
    /// Prefixes to compare, by urgency. Of one that is here more than once, its row says when it is done.
    dirty: [VecDeque<IpNetwork>; 2],
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

    /// The same, with tables that are hashed in a way of their own: whoever chooses prefixes cannot choose such as fall
    /// together. It comes before anything is known.
    #[must_use]
    pub fn keyed(self, seed: u64) -> Self {
        Self {
            table: Table::keyed(seed),
            rows: ByPrefix::with_hasher(FixedState::with_seed(seed)),
            ..self
        }
    }

    /// Takes a source's word.
    pub fn apply(&mut self, update: Update) {
        let changed = self.table.take(update);
        self.wanted_changed(changed);
    }

    /// Takes over what an earlier life left in the kernel (see [`Table::adopt`]): once, at the start.
    /// Follow it with [`Self::resync`], which knows what to do about the rest.
    pub fn adopt(&mut self, found: &Found) {
        let changed = self.table.take_over(&found.expanded());
        self.wanted_changed(changed);
    }

    /// The source has said all it wants: its stale routes go (see [`Table::settle`]).
    pub fn settle(&mut self, source: Source) {
        let changed = self.table.close(source);
        self.wanted_changed(changed);
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
            let leaves = |held: &Held| held.group().is_some_and(|id| parting.contains(&id));
            for (key, row) in &mut self.rows {
                if let Some(held) = row.held.iter().find(|held| leaves(held)) {
                    let urgency = Urgency::of(held.protocol);
                    enqueue(&mut self.dirty, key.0, row, urgency);
                }
            }
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
            let Some(prefix) = self.next_dirty() else { break };
            self.towards(prefix, changes);
        }
    }

    /// The next prefix to compare.
    fn next_dirty(&mut self) -> Option<IpNetwork> {
        for urgency in [Urgency::Own, Urgency::Learned] {
            while let Some(prefix) = self.dirty[urgency as usize].pop_front() {
                if let Some(row) = self.rows.get_mut(&Key(prefix))
                    && row.queued == Some(urgency)
                {
                    row.queued = None;
                    return Some(prefix);
                }
            }
        }
        None
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
                    let held = Held {
                        metric: route.metric,
                        protocol: route.source.protocol(),
                        target: Some(route.target.clone()),
                        bundle: None,
                    };
                    self.hold(route.prefix, held);
                }
            },
            Change::Delete { prefix, metric, .. } => match outcome {
                Err(words) => drop(self.failed.insert(*prefix, words)),
                Ok(()) => {
                    // What is wanted in its place may have been refused.
                    if self.table.winner(*prefix).is_none() {
                        self.failed.remove(prefix);
                    }
                    self.release(*prefix, *metric);
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
        let (prefix, metric) = (actual.prefix, actual.metric);
        let wanted = self
            .table
            .winner(prefix)
            .is_some_and(|entry| entry.metric == metric);
        let held = self.held_at(prefix, metric);
        if !actual.is_ours() && held.is_none() && !wanted {
            return false;
        }
        let through_group = held.is_some_and(|held| held.group().is_some());
        let beside = through_group && present && prefix.is_ipv6();
        let several =
            matches!(held.and_then(|held| held.target.as_ref()), Some(Target::Via(hops)) if hops.len() > 1);
        self.mark(prefix, actual.protocol);
        match (actual.is_ours(), present) {
            (true, true) => self.hold(prefix, actual.into()),
            // IPv6 tells of one hop gone in the same words as of the whole route.
            (true, false) if several => {
                let target = None;
                self.hold(prefix, Actual { target, ..actual }.into());
            }
            // Ours is gone, or a foreign route took its place or left it.
            (true | false, _) => self.release(prefix, metric),
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
                .winner(*prefix)
                .filter(|entry| entry.goal == Goal::Device(index))
                .map(Held::unsure);
            let is_wanted = wanted.is_some();
            if let Some(held) = wanted {
                self.mark(*prefix, held.protocol);
                self.hold(*prefix, held);
            }
            is_wanted
        });
        if !prefixes.is_empty() {
            self.by_device.insert(index, prefixes);
        }
    }

    /// The whole truth, as just read from the kernel; what it asks for comes with [`Self::changes`]. It takes the place of
    /// all that was observed, pending or failed.
    pub fn resync(&mut self, found: &Found) {
        self.dirty = Default::default();
        self.failed.clear();
        self.planned.clear();
        self.rows.clear();
        if let Some(groups) = &mut self.groups {
            groups.read(&found.nexthops);
        }
        for actual in found.routes.iter().filter(|actual| actual.is_ours()) {
            self.hold(actual.prefix, actual.clone().into());
        }
        let wanted = self.as_things_are();
        for change in plan(&wanted, &self.expanded(found)) {
            let change = self.rewritten(change);
            self.planned.push_back(change);
        }
    }

    /// A planned change as the kernel is asked for it.
    fn rewritten(&mut self, mut change: Change) -> Change {
        if let Change::Add(route) | Change::Replace(route) = &mut change
            && let Some(entry) = self.table.winner(route.prefix)
        {
            *route = written(self.groups.as_mut(), route.prefix, entry);
        }
        change
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
            for (prefix, route) in &mut full {
                if let Some(bundle) = self.table.winner(*prefix).and_then(|entry| entry.goal.bundle()) {
                    route.target = Target::Via(groups.now(bundle).into_owned());
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
        self.table.iter().filter_map(|route| {
            let state = self.state(route.prefix)?;
            Some((route, state))
        })
    }

    /// How far the route wanted for exactly this prefix has come; none where none is wanted.
    #[must_use]
    pub fn state(&self, prefix: IpNetwork) -> Option<State> {
        let wanted = self.table.winner(prefix)?;
        let held = self.held_at(prefix, wanted.metric);
        Some(match (self.failed.get(&prefix), held) {
            (Some(refusal), _) => State::Failed(refusal.clone()),
            (None, Some(held)) if self.meets(held, wanted) => State::Installed,
            (None, _) => State::Pending,
        })
    }

    /// Whether that is as we would have it.
    fn meets(&self, held: &Held, wanted: &Entry) -> bool {
        let leads_there = match (&self.groups, held.group(), &held.bundle) {
            (Some(groups), Some(id), Some(bundle)) => groups.meets(id, bundle),
            _ => held
                .target
                .as_ref()
                .is_some_and(|found| wanted.goal.is_met_by(found)),
        };
        leads_there && held.metric == wanted.metric && held.protocol == wanted.source.protocol()
    }

    /// What has changed in the wanted table has to be compared with the kernel's.
    fn wanted_changed(&mut self, changed: impl IntoIterator<Item = IpNetwork>) {
        for prefix in changed {
            let wanted = self.table.winner(prefix);
            if let Some(index) = wanted.and_then(|entry| entry.goal.device()) {
                self.by_device.entry(index).or_default().insert(prefix);
            }
            let row = self.rows.entry(Key(prefix)).or_default();
            if let Some(groups) = &mut self.groups {
                ask(groups, row, wanted);
            }
            let protocol = match wanted {
                Some(entry) => entry.source.protocol(),
                None => row.held.first().map_or(PROTOCOL_BGP, |held| held.protocol),
            };
            enqueue(&mut self.dirty, prefix, row, Urgency::of(protocol));
        }
    }

    /// The kernel holds this from now on.
    fn hold(&mut self, prefix: IpNetwork, mut held: Held) {
        if let (Some(groups), Some(id)) = (&mut self.groups, held.group()) {
            let wanted = self.table.winner(prefix);
            let wanted = wanted.filter(|entry| entry.metric == held.metric);
            held.bundle = wanted.and_then(|entry| entry.goal.bundle()).cloned();
            groups.join(id, held.bundle.as_ref());
        }
        let before = self.rows.entry(Key(prefix)).or_default().put(held);
        self.left(before);
    }

    /// The kernel no longer holds anything of ours there.
    fn release(&mut self, prefix: IpNetwork, metric: u32) {
        let Some(row) = self.rows.get_mut(&Key(prefix)) else {
            return;
        };
        let before = row.take(metric);
        if row.is_empty() {
            self.rows.remove(&Key(prefix));
        }
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
        let row = self.rows.entry(Key(prefix)).or_default();
        enqueue(&mut self.dirty, prefix, row, Urgency::of(protocol));
    }

    /// Pushes the changes that bring one prefix where it should be: what is wanted comes before what is not goes.
    fn towards(&mut self, prefix: IpNetwork, changes: &mut Vec<Change>) {
        let (before, wanted) = (changes.len(), self.table.winner(prefix));
        if let Some(entry) = wanted {
            match self.held_at(prefix, entry.metric) {
                None => changes.push(Change::Add(written(self.groups.as_mut(), prefix, entry))),
                Some(held) if !self.meets(held, entry) => {
                    changes.push(Change::Replace(written(self.groups.as_mut(), prefix, entry)));
                }
                Some(_) => {}
            }
        }
        let metric = wanted.map(|entry| entry.metric);
        let row = self.rows.get(&Key(prefix));
        let elsewhere = row
            .into_iter()
            .flat_map(|row| &row.held)
            .filter(|held| Some(held.metric) != metric);
        changes.extend(elsewhere.map(|held| Change::Delete {
            prefix,
            protocol: held.protocol,
            metric: held.metric,
        }));
        if changes.len() == before {
            self.failed.remove(&prefix);
            if row.is_some_and(Row::is_empty) {
                self.rows.remove(&Key(prefix));
            }
        }
    }

    /// What the kernel holds of ours for a prefix at a metric.
    fn held_at(&self, prefix: IpNetwork, metric: u32) -> Option<&Held> {
        self.rows.get(&Key(prefix))?.at(metric)
    }
}

/// Has a prefix wait to be compared, unless it does so already, as soon as that.
fn enqueue(dirty: &mut [VecDeque<IpNetwork>; 2], prefix: IpNetwork, row: &mut Row, urgency: Urgency) {
    if row.queued < Some(urgency) {
        row.queued = Some(urgency);
        dirty[urgency as usize].push_back(prefix);
    }
}

/// Groups learn what is asked of them for a prefix from now on.
fn ask(groups: &mut Groups, row: &mut Row, wanted: Option<&Entry>) {
    for held in &mut row.held {
        if let Some(id) = held.group() {
            let asked = wanted.filter(|entry| entry.metric == held.metric);
            let bundle = asked.and_then(|entry| entry.goal.bundle()).cloned();
            groups.leave(id, held.bundle.as_ref());
            groups.join(id, bundle.as_ref());
            held.bundle = bundle;
        }
    }
}

/// A wanted route as the kernel is asked for it: through the group that leads where it is to lead.
fn written(groups: Option<&mut Groups>, prefix: IpNetwork, wanted: &Entry) -> Route {
    match (groups, wanted.goal.bundle()) {
        (Some(groups), Some(bundle)) => wanted.through(prefix, groups.choose(bundle)),
        _ => wanted.route(prefix),
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
