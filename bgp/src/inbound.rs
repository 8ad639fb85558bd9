//! Adj-RIB-In: which prefixes a peer announces, and what becomes of them when its session ends.
//!
//! The paths themselves are in the [`Rib`]; here is the book that finds them again. A peer that restarts
//! gracefully leaves its paths behind as *stale* (RFC 4724 §4.2): they are used like any other until it has
//! announced them again, has said that it announced all (End-of-RIB), or its time is up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use crate::config::{Config, PeerConfig};
use crate::filter::{NORMAL_PRIORITY, Step, Verdict};
use crate::import::{self, OwnNextHops, Refusal};
use crate::leak::Relation;
use crate::repetition::Repetitions;
use crate::rib::{Neighbor, Path, PrefixId, Rib, Route, Standing};
use crate::wire::{Attributes, NextHop, Nlri, Update};
use crate::{Family, PeerKey, Prefix};

/// A peer's Adj-RIB-In.
#[derive(Debug)]
pub(crate) struct Inbound {
    key: PeerKey,
    /// Where it has paths.
    prefixes: BTreeSet<PrefixId>,
    /// How many paths the peer announces, by family.
    received: [u64; Family::ALL.len()],
    accepted: u64,
    /// When stale paths are dropped, if there are any.
    pub(crate) stale_until: Option<Instant>,
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
        let mut path = Path::new(Some(self.from.clone()), received.clone(), refusal);
        if refusal.is_none() {
            let by = verdict.step.map(std::ptr::from_ref);
            let known = changed
                .iter()
                .find(|(step, _)| step.map(std::ptr::from_ref) == by);
            path.route = match known {
                Some((_, route)) => route.clone(),
                None => {
                    let route = self.changed(received, verdict, rib);
                    changed.push((verdict.step, route.clone()));
                    route
                }
            };
        }
        path
    }

    /// A received route as the peer's settings and the rule that let it in change it.
    fn changed(&self, received: &Arc<Route>, verdict: Verdict<'_>, rib: &mut Rib) -> Arc<Route> {
        let (handling, external) = (&self.peer.handling, self.from.external);
        match handling.received(&received.attributes, external, verdict.operations()) {
            Some(attributes) => rib.intern(Route {
                next_hop: received.next_hop,
                attributes: Arc::new(attributes),
                priority: verdict.priority(),
            }),
            None => received.clone(),
        }
    }
}

impl Inbound {
    /// An empty one.
    pub(crate) fn new(key: PeerKey) -> Self {
        Self {
            key,
            prefixes: BTreeSet::new(),
            received: [0; Family::ALL.len()],
            accepted: 0,
            stale_until: None,
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
        let mut attributes = update.attributes;
        if let Some(relation) = gate.relation {
            relation.mark_incoming(&mut attributes);
        }
        let attributes = Arc::new(attributes);
        for reach in update.reach {
            let looped = gate.refusal(&attributes, reach.next_hop);
            let route = Route {
                next_hop: Some(reach.next_hop),
                attributes: attributes.clone(),
                priority: NORMAL_PRIORITY,
            };
            let received = rib.intern(route);
            let mut changed = Changed::default();
            for Nlri { path_id, prefix } in reach.nlri {
                if gate.families.contains(&prefix.family()) {
                    let path = gate.judge(prefix, &received, looped, &mut changed, rib);
                    self.insert(prefix, path.with_id(path_id), rib);
                }
            }
        }
    }

    /// The session is over. Paths of `kept` families become stale; those that were so already go, as do all
    /// others (RFC 4724 §4.2). That a refresh was under way is forgotten.
    pub(crate) fn lose(&mut self, kept: &[Family], rib: &mut Rib) {
        self.repetitions = Repetitions::default();
        for place in self.places(&Family::ALL, rib) {
            let prefix = rib.prefix(place.0);
            let keeps = prefix.is_some_and(|prefix| kept.contains(&prefix.family()));
            match self.path_mut(place, rib) {
                Some(path) if keeps && path.standing != Standing::Stale => path.standing = Standing::Stale,
                Some(_) | None => self.remove(place, rib),
            }
        }
    }

    /// Drops the stale paths of some families.
    pub(crate) fn sweep(&mut self, families: &[Family], rib: &mut Rib) {
        if self.stale_until.is_some() {
            self.drop_paths(families, Standing::Stale, rib);
        }
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
        self.drop_paths(&[family], Standing::Unrepeated, rib);
    }

    /// When [`expire`](Self::expire) is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.stale_until
            .into_iter()
            .chain(self.repetitions.deadline())
            .min()
    }

    /// Drops what the peer has taken too long to announce again.
    pub(crate) fn expire(&mut self, now: Instant, rib: &mut Rib) {
        if self.stale_until.is_some_and(|until| until <= now) {
            self.drop_stale(rib);
        }
        for family in self.repetitions.take_overdue(now) {
            tracing::warn!(peer = %self.key.address, %family, "the peer does not end its route refresh");
            self.drop_paths(&[family], Standing::Unrepeated, rib);
        }
    }

    /// Drops all stale paths.
    pub(crate) fn drop_stale(&mut self, rib: &mut Rib) {
        self.sweep(&Family::ALL, rib);
        self.stale_until = None;
    }

    fn drop_paths(&mut self, families: &[Family], standing: Standing, rib: &mut Rib) {
        for place in self.places(families, rib) {
            if self
                .path(place, rib)
                .is_some_and(|path| path.standing == standing)
            {
                self.remove(place, rib);
            }
        }
    }

    /// The peer's paths of these families.
    fn places(&self, families: &[Family], rib: &Rib) -> Vec<Place> {
        let is_of = |id: &PrefixId| {
            rib.prefix(*id)
                .is_some_and(|prefix| families.contains(&prefix.family()))
        };
        let prefixes = self.prefixes.iter().copied().filter(is_of);
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
            if self.path(place, rib).is_some_and(|path| !path.is_as(&judged)) {
                self.insert(prefix, judged, rib);
            }
        }
    }

    fn insert(&mut self, prefix: Prefix, path: Path, rib: &mut Rib) {
        self.accepted += u64::from(path.refusal.is_none());
        let (id, earlier) = rib.insert(prefix, path);
        self.received[prefix.family() as usize] += u64::from(earlier.is_none());
        self.accepted -= u64::from(earlier.is_some_and(|path| path.refusal.is_none()));
        self.prefixes.insert(id);
    }

    fn remove(&mut self, (id, path_id): Place, rib: &mut Rib) {
        let Some(prefix) = rib.prefix(id) else { return };
        if let Some(path) = rib.remove(id, (Some(self.key), path_id)) {
            self.received[prefix.family() as usize] -= 1;
            self.accepted -= u64::from(path.refusal.is_none());
            if rib.ids_from(id, self.key).next().is_none() {
                self.prefixes.remove(&id);
            }
        }
    }
}
