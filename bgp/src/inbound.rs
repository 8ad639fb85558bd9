//! Adj-RIB-In: which prefixes a peer announces, and what becomes of them when its session ends.
//!
//! The paths themselves are in the [`Rib`]; here is the book that finds them again. A peer that restarts
//! gracefully leaves its paths behind as *stale* (RFC 4724 §4.2): they are used like any other until it has
//! announced them again, has said that it announced all (End-of-RIB), or its time is up. Where both sides want it,
//! they stay for a long time after that, as the last to be taken (RFC 9494 §4.2).

use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use crate::config::{Config, PeerConfig};
use crate::drain;
use crate::filter::{NORMAL_PRIORITY, Step, Verdict};
use crate::import::{self, OwnNextHops, Refusal};
use crate::leak::Relation;
use crate::long_lived;
use crate::repetition::Repetitions;
use crate::rib::{Neighbor, Path, PrefixId, PrefixSet, Rib, Route, Standing};
use crate::session::retention::{Fate, Forwarding, Retention, Times};
use crate::wire::{Attributes, NextHop, Nlri, Update};
use crate::{Family, PeerKey, Prefix};

/// A peer's Adj-RIB-In.
#[derive(Debug)]
pub(crate) struct Inbound {
    key: PeerKey,
    /// Where it has paths.
    prefixes: PrefixSet,
    /// How many paths the peer announces, by family.
    received: [u64; Family::ALL.len()],
    accepted: u64,
    /// How long stale paths stay, by family.
    retention: [Retention; Family::ALL.len()],
    /// What the peer is repeating.
    repetitions: Repetitions,
}

/// Where a path of the peer's is: its prefix, and the identifier that the peer gave it.
type Place = (PrefixId, Option<u32>);

/// What an announcement is judged by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gate<'a> {
    /// The speaker's settings.
    pub(crate) local: &'a Config,
    /// Our addresses on the session.
    pub(crate) own: OwnNextHops,
    /// The peer's settings.
    pub(crate) peer: &'a PeerConfig,
    /// The peer.
    pub(crate) from: &'a Arc<Neighbor>,
    /// The families that the session carries.
    pub(crate) families: &'a [Family],
    /// What we are to the peer, where the settings say so.
    pub(crate) relation: Option<Relation>,
    /// The session is being drained: what comes over it is the last to be taken.
    pub(crate) drains: bool,
}

impl Gate<'_> {
    /// Why a path with these attributes may not be selected, whatever its prefix.
    fn refusal(&self, attributes: &Attributes, next_hop: NextHop) -> Option<Refusal> {
        let leaked = self
            .relation
            .is_some_and(|relation| relation.has_leaked(attributes));
        import::loops(self.local, self.peer, self.own, attributes, next_hop)
            .or_else(|| leaked.then_some(Refusal::Leaked))
    }
}

/// What rules have made of one received route: the same for all prefixes that a rule, or the default, lets in.
type Changed<'a> = SmallVec<[(Option<&'a Step>, Arc<Route>); 1]>;

impl<'a> Gate<'a> {
    /// The path that an announcement becomes; one that is refused is not changed.
    fn judge(
        &self,
        prefix: Prefix,
        received: &Arc<Route>,
        looped: Option<Refusal>,
        changed: &mut Changed<'a>,
        rib: &mut Rib,
    ) -> Path {
        let verdict = import::judge(self.local, &self.peer.import, self.from, prefix, received);
        let refusal = looped.or_else(|| (!verdict.accepted).then_some(Refusal::Policy));
        let route = if refusal.is_some() {
            received.clone()
        } else {
            let by = verdict.step.map(std::ptr::from_ref);
            let known = changed
                .iter()
                .find(|(step, _)| step.map(std::ptr::from_ref) == by);
            match known {
                Some((_, route)) => route.clone(),
                None => {
                    let route = self.changed(received, verdict, rib);
                    changed.push((verdict.step, route.clone()));
                    route
                }
            }
        };
        Path::new(Some(self.from.clone()), received.clone(), route, refusal)
    }

    /// A received route as our role, the peer's settings and the rule that let it in change it.
    fn changed(&self, received: &Arc<Route>, verdict: Verdict<'_>, rib: &mut Rib) -> Arc<Route> {
        let (handling, external) = (&self.peer.handling, self.from.external);
        let changed = handling.received(&received.attributes, external, verdict.operations());
        let customer_only = self
            .relation
            .and_then(|relation| relation.incoming_mark(&received.attributes));
        if changed.is_none() && customer_only.is_none() && !self.drains {
            return received.clone();
        }
        let mut attributes = changed.unwrap_or_else(|| (*received.attributes).clone());
        attributes.only_to_customer = customer_only.or(attributes.only_to_customer);
        if self.drains {
            drain::mark(&mut attributes, true);
        }
        rib.intern(Route {
            next_hop: received.next_hop,
            attributes: Arc::new(attributes),
            priority: verdict.priority(),
        })
    }
}

impl Inbound {
    /// An empty one.
    pub(crate) fn new(key: PeerKey) -> Self {
        Self {
            key,
            prefixes: PrefixSet::default(),
            received: [0; Family::ALL.len()],
            accepted: 0,
            retention: [Retention::Idle; Family::ALL.len()],
            repetitions: Repetitions::default(),
        }
    }

    /// How many paths the peer announces.
    pub(crate) fn received(&self) -> u64 {
        self.received.iter().sum()
    }

    /// How many paths of a family the peer announces.
    pub(crate) fn received_of(&self, family: Family) -> u64 {
        self.received[family as usize]
    }

    /// How many of them may be selected.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Takes an UPDATE's routes in. An end mark is [`sweep`](Self::sweep)'s.
    pub(crate) fn update(&mut self, update: Update, gate: Gate<'_>, rib: &mut Rib) {
        for nlri in &update.withdrawn {
            if let Some(id) = rib.id(nlri.prefix) {
                self.remove((id, nlri.path_id), rib);
            }
        }
        let attributes = Arc::new(update.attributes);
        for reach in update.reach {
            let looped = gate.refusal(&attributes, reach.next_hop);
            let route = Route {
                next_hop: Some(reach.next_hop),
                attributes: attributes.clone(),
                priority: NORMAL_PRIORITY,
            };
            let received = rib.intern(route);
            let mut changed = Changed::default();
            let carried = |nlri: &&Nlri| gate.families.contains(&nlri.prefix.family());
            // All at once: their places in the table are far from each other, and come from memory together.
            let ids = reach
                .nlri
                .iter()
                .filter(carried)
                .map(|nlri| rib.number(nlri.prefix));
            let ids: SmallVec<[PrefixId; 32]> = ids.collect();
            for (Nlri { path_id, prefix }, id) in reach.nlri.iter().filter(carried).zip(ids) {
                let path = gate.judge(*prefix, &received, looped, &mut changed, rib);
                self.insert(id, prefix.family(), path.with_id(*path_id), rib);
            }
        }
    }

    /// The session is over, and the paths of each family stay for the times that `times` says. That a refresh was under
    /// way is forgotten.
    pub(crate) fn lose(&mut self, now: Instant, times: impl Fn(Family) -> Times, rib: &mut Rib) {
        self.repetitions = Repetitions::default();
        for family in Family::ALL {
            let (before, times) = (self.retention[family as usize], times(family));
            self.retention[family as usize] = before.lost(now, times);
            rib.unmonitored(|rib| self.settle(family, |standing| before.fate(standing, times), rib));
            if self.received_of(family) == 0 {
                self.retention[family as usize] = Retention::Idle;
            }
        }
    }

    /// All of the peer's paths go.
    pub(crate) fn clear(&mut self, rib: &mut Rib) {
        self.repetitions = Repetitions::default();
        for family in Family::ALL {
            self.retention[family as usize] = Retention::Idle;
            self.settle(family, |_| Fate::Goes, rib);
        }
    }

    /// The session is up again: stale paths of families whose forwarding state the peer has lost go.
    pub(crate) fn resume(&mut self, now: Instant, kept: impl Fn(Family) -> Forwarding, rib: &mut Rib) {
        for family in Family::ALL {
            let kept = kept(family);
            let before = self.retention[family as usize];
            self.retention[family as usize] = before.back(now, kept);
            self.outdate(family, [!kept.restart, !kept.long_lived].map(goes), before, rib);
        }
    }

    /// Drops the stale paths of a family: the peer has announced all that it has, or stands for another one.
    pub(crate) fn sweep(&mut self, family: Family, rib: &mut Rib) {
        let before = std::mem::take(&mut self.retention[family as usize]);
        self.outdate(family, [Fate::Goes; 2], before, rib);
    }

    /// Drops all stale paths.
    pub(crate) fn drop_stale(&mut self, rib: &mut Rib) {
        for family in Family::ALL {
            self.sweep(family, rib);
        }
    }

    /// Lets time pass for stale paths, and for what the peer takes too long to announce again.
    pub(crate) fn expire(&mut self, now: Instant, rib: &mut Rib) {
        for family in self.repetitions.take_overdue(now) {
            tracing::warn!(peer = %self.key.address, %family, "the peer does not end its route refresh");
            self.end_refresh(family, rib);
        }
        for family in Family::ALL {
            let before = self.retention[family as usize];
            let (after, stale, long_lived) = before.expire(now);
            self.retention[family as usize] = after;
            self.outdate(family, [stale, long_lived], before, rib);
        }
    }

    /// When [`expire`](Self::expire) is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let retained = self.retention.iter().filter_map(|it| it.deadline());
        retained.chain(self.repetitions.deadline()).min()
    }

    /// What becomes of stale paths, and of long-lived stale ones, of a family that may have some.
    fn outdate(&mut self, family: Family, [stale, long_lived]: [Fate; 2], before: Retention, rib: &mut Rib) {
        if before == Retention::Idle || [stale, long_lived] == [Fate::Stays; 2] {
            return;
        }
        let fate = |standing| match standing {
            Standing::Stale => stale,
            Standing::LongLived => long_lived,
            Standing::Firm | Standing::Unrepeated => Fate::Stays,
        };
        self.settle(family, fate, rib);
    }

    /// Does to a family's paths what becomes of them.
    fn settle(&mut self, family: Family, fate: impl Fn(Standing) -> Fate, rib: &mut Rib) {
        for place in self.places(&[family], rib) {
            let Some(path) = self.path_mut(place, rib) else {
                continue;
            };
            match fate(path.standing) {
                Fate::Stays => {}
                Fate::Stale => path.standing = Standing::Stale,
                Fate::LongLived if !long_lived::is_unwilling(path) => {
                    let path = path.clone();
                    self.outlive(place, path, rib);
                }
                Fate::LongLived | Fate::Goes => self.remove(place, rib),
            }
        }
    }

    /// Makes a path a long-lived stale one.
    fn outlive(&mut self, (id, _): Place, mut path: Path, rib: &mut Rib) {
        let Some(prefix) = rib.prefix(id) else { return };
        path.route = rib.intern(long_lived::marked(&path.route));
        path.standing = Standing::LongLived;
        self.insert(id, prefix.family(), path, rib);
    }

    /// The peer begins to repeat all its routes of a family (RFC 7313 §4); another beginning begins anew.
    pub(crate) fn begin_refresh(&mut self, family: Family, now: Instant, rib: &mut Rib) {
        self.repetitions.begin(family, now);
        for place in self.places(&[family], rib) {
            if let Some(path) = self.path_mut(place, rib) {
                path.standing = Standing::Unrepeated;
            }
        }
    }

    /// The peer has repeated all its routes of a family: what it did not repeat is gone (RFC 7313 §4). An end
    /// without a beginning finds nothing.
    pub(crate) fn end_refresh(&mut self, family: Family, rib: &mut Rib) {
        self.repetitions.end(family);
        self.settle(family, |standing| goes(standing == Standing::Unrepeated), rib);
    }

    /// The peer's paths of these families.
    fn places(&self, families: &[Family], rib: &Rib) -> Vec<Place> {
        let is_of = |id: &PrefixId| {
            rib.prefix(*id)
                .is_some_and(|prefix| families.contains(&prefix.family()))
        };
        let prefixes = self.prefixes.iter().filter(is_of);
        prefixes
            .flat_map(|id| rib.ids_from(id, self.key).map(move |path_id| (id, path_id)))
            .collect()
    }

    fn path<'a>(&self, (id, path_id): Place, rib: &'a Rib) -> Option<&'a Path> {
        rib.path(id, (Some(self.key), path_id))
    }

    fn path_mut<'a>(&self, (id, path_id): Place, rib: &'a mut Rib) -> Option<&'a mut Path> {
        rib.path_mut(id, (Some(self.key), path_id))
    }

    /// Judges every path again: the settings have changed.
    pub(crate) fn judge_again(&mut self, gate: Gate<'_>, rib: &mut Rib) {
        for place in self.places(&Family::ALL, rib) {
            let (Some(prefix), Some(path)) = (rib.prefix(place.0), self.path(place, rib)) else {
                continue;
            };
            let (received, path_id, standing) = (path.received.clone(), path.id, path.standing);
            let Some(next_hop) = received.next_hop else {
                continue;
            };
            let looped = gate.refusal(&received.attributes, next_hop);
            let judged = gate.judge(prefix, &received, looped, &mut Changed::default(), rib);
            let mut judged = judged.with_id(path_id);
            judged.standing = standing;
            if standing == Standing::LongLived {
                judged.route = rib.intern(long_lived::marked(&judged.route));
            }
            if self.path(place, rib).is_some_and(|path| !path.is_as(&judged)) {
                self.insert(place.0, prefix.family(), judged, rib);
            }
        }
    }

    fn insert(&mut self, id: PrefixId, family: Family, path: Path, rib: &mut Rib) {
        self.accepted += u64::from(path.refusal.is_none());
        let earlier = rib.insert(id, path);
        self.received[family as usize] += u64::from(earlier.is_none());
        self.accepted -= u64::from(earlier.is_some_and(|path| path.refusal.is_none()));
        self.prefixes.insert(id);
    }

    fn remove(&mut self, (id, path_id): Place, rib: &mut Rib) {
        let Some(prefix) = rib.prefix(id) else { return };
        if let Some(path) = rib.remove(id, (Some(self.key), path_id)) {
            self.received[prefix.family() as usize] -= 1;
            self.accepted -= u64::from(path.refusal.is_none());
            if rib.ids_from(id, self.key).next().is_none() {
                self.prefixes.remove(id);
            }
        }
    }
}

/// The fate of what goes or stays.
fn goes(it: bool) -> Fate {
    if it { Fate::Goes } else { Fate::Stays }
}
