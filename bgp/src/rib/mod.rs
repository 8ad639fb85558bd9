//! The routing table: every prefix with all its paths, of which some are selected (RFC 4271 §3.2).
//!
//! Adj-RIB-In and Loc-RIB are one table: a prefix's entry holds each peer's path, and the rank that the
//! decision gave it. Prefixes have small numbers, so that the peers' books ([`Inbound`](crate::inbound::Inbound), which
//! prefixes came, and those of their [groups](crate::group), which were announced) stay small, too.
//!
//! Changes are collected and decided later, once per prefix: [`Rib::next_change`].

mod intern;
mod monitor;
mod paths;
mod set;

use std::collections::VecDeque;
use std::hash::BuildHasher as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use smallvec::SmallVec;

pub(crate) use intern::Route;
use monitor::Changes;
use paths::Paths;
pub(crate) use set::{PrefixMap, PrefixSet};

use crate::decision::{self, Candidate, Source};
use crate::filter::NORMAL_PRIORITY;
use crate::import::Refusal;
use crate::seam::Choice;
use crate::speaker::monitor::{Place, ReceivedRoute};
use crate::status::PathSnapshot;
use crate::wire::Nlri;
use crate::{Gateway, PeerKey, Prefix};

/// A prefix's number, while it has paths or is announced to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PrefixId(u32);

/// A peer as its paths know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Neighbor {
    /// Who.
    pub(crate) key: PeerKey,
    /// Its BGP identifier.
    pub(crate) router_id: Ipv4Addr,
    /// It is of another AS.
    pub(crate) external: bool,
    /// We reflect for it.
    pub(crate) client: bool,
    /// Our end of the session.
    pub(crate) local: IpAddr,
}

/// A way to a prefix.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    /// From whom it came; from nobody for our own prefixes.
    pub(crate) from: Option<Arc<Neighbor>>,
    /// The identifier that its sender gave it, where the session has such (RFC 7911 §3); 0 is one like any other.
    pub(crate) id: Option<u32>,
    /// Our own identifier for it among the prefix's paths: it stays while the path does, and is never 0.
    pub(crate) label: u32,
    /// Where it leads, as we use it and pass it on.
    pub(crate) route: Arc<Route>,
    /// As it came, before the import policy changed it.
    pub(crate) received: Arc<Route>,
    /// Why it cannot be selected.
    pub(crate) refusal: Option<Refusal>,
    /// How far the peer stands by it.
    pub(crate) standing: Standing,
    rank: Rank,
}

/// How far a peer stands by a path that it announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has said nothing else since.
    Firm,
    /// It is repeating all its routes, and has not come to this one (RFC 7313 §4).
    Unrepeated,
    /// It is restarting, and has not announced it again (RFC 4724 §4.2).
    Stale,
    /// It is gone for longer, and the path is the last to be taken (RFC 9494 §4.2).
    LongLived,
}

/// What tells a prefix's paths apart: from whom they came, and the identifier that they came with.
pub(crate) type PathKey = (Option<PeerKey>, Option<u32>);

/// A path's place: 0 is the best, then those that are as good; `LOST` the others.
type Rank = u8;
const LOST: Rank = Rank::MAX;

/// Prefixes that the first table has room for.
const FEW: usize = 8;

impl Path {
    /// Our own, which has not been decided on.
    pub(crate) fn own(route: Arc<Route>) -> Self {
        Self::new(None, route.clone(), route, None)
    }

    /// A path that has not been decided on, without an identifier.
    pub(crate) fn new(
        from: Option<Arc<Neighbor>>,
        received: Arc<Route>,
        route: Arc<Route>,
        refusal: Option<Refusal>,
    ) -> Self {
        Self {
            from,
            received,
            id: None,
            label: 0,
            route,
            refusal,
            standing: Standing::Firm,
            rank: LOST,
        }
    }

    /// Whether it says the same as `other`, wherever the decision has put it.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        self.from == other.from
            && self.id == other.id
            && Arc::ptr_eq(&self.route, &other.route)
            && Arc::ptr_eq(&self.received, &other.received)
            && self.refusal == other.refusal
            && self.standing == other.standing
    }

    /// The path with its sender's identifier.
    pub(crate) fn with_id(self, id: Option<u32>) -> Self {
        Self { id, ..self }
    }

    /// As its peer announced it in this session; none where it is left from an earlier one.
    fn announced(&self) -> Option<&Arc<Route>> {
        match self.standing {
            Standing::Firm | Standing::Unrepeated => Some(&self.received),
            Standing::Stale | Standing::LongLived => None,
        }
    }

    /// The same for monitoring.
    fn as_received(&self) -> Option<ReceivedRoute> {
        let route = self.announced()?;
        Some(ReceivedRoute {
            next_hop: route.next_hop?,
            attributes: route.attributes.clone(),
        })
    }

    fn source(&self) -> Option<PeerKey> {
        self.from.as_ref().map(|from| from.key)
    }

    fn key(&self) -> PathKey {
        (self.source(), self.id)
    }

    fn gateway(&self) -> Option<Gateway> {
        gateway(&self.route, self.from.as_deref())
    }

    /// It carries traffic.
    fn selected(&self, max_paths: usize) -> bool {
        self.rank != LOST && usize::from(self.rank) < max_paths
    }

    fn candidate(&self) -> Candidate<'_> {
        let source = self.from.as_ref().map_or(Source::Own, |from| Source::Peer {
            key: from.key,
            router_id: from.router_id,
            external: from.external,
            path_id: self.id,
        });
        Candidate {
            attributes: &self.route.attributes,
            priority: self.route.priority,
            source,
        }
    }
}

/// Next hops, best first, and the priority that they have in common.
#[derive(Debug, PartialEq, Eq)]
struct Chosen {
    next_hops: SmallVec<[Gateway; 1]>,
    backup: Option<Gateway>,
    priority: u32,
}

impl Chosen {
    /// What the kernel is told where that path is the only one, or none is.
    fn only(path: Option<&Told>) -> Self {
        let gateway = path.and_then(|(route, from)| gateway(route, from.as_deref()));
        Self {
            next_hops: gateway.into_iter().collect(),
            backup: None,
            priority: path.map_or(NORMAL_PRIORITY, |(route, _)| route.priority),
        }
    }
}

impl From<Chosen> for Choice {
    fn from(chosen: Chosen) -> Self {
        Self {
            next_hops: chosen.next_hops.into_vec(),
            backup: chosen.backup,
            priority: chosen.priority,
        }
    }
}

/// Where a route's packets go; nowhere for our own prefixes.
fn gateway(route: &Route, from: Option<&Neighbor>) -> Option<Gateway> {
    let scope = from.map_or(0, |from| from.key.scope);
    Some(Gateway::new(route.next_hop?, scope))
}

#[derive(Debug)]
struct Entry {
    prefix: Prefix,
    paths: Paths,
    /// How often it is announced to peers.
    holders: u32,
}

/// A prefix that was decided on again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Which.
    pub(crate) id: PrefixId,
    /// What the kernel is to be told, if that changed.
    pub(crate) selected: Option<(Prefix, Choice)>,
    /// Whether its best path is another one, or leads elsewhere: what is told to peers that hear of one path only.
    pub(crate) best: bool,
}

/// What a prefix that had paths was before they changed.
#[derive(Debug)]
struct Before {
    best: Option<Told>,
    /// What the kernel was told, where that is asked for and more than the best path had to do with it.
    chosen: Option<Box<Chosen>>,
}

/// What peers are told of a path, and of it alone.
type Told = (Arc<Route>, Option<Arc<Neighbor>>);

/// The routing table.
#[derive(Debug)]
pub(crate) struct Rib {
    interner: intern::Interner,
    /// By their prefixes' hashes; the prefixes themselves are in `entries` only.
    ids: HashTable<PrefixId>,
    hasher: FixedState,
    entries: Vec<Option<Entry>>,
    free: Vec<PrefixId>,
    /// Prefixes that any peer may be told of, as of the last decision.
    open: PrefixSet,
    /// What is to be decided on again.
    changed: VecDeque<PrefixId>,
    /// Those of them that had paths before, in the same order.
    before: VecDeque<(PrefixId, Before)>,
    /// The same, without order.
    touched: PrefixSet,
    /// Whether anybody wants to know what is selected.
    selects: bool,
    max_paths: usize,
    /// What monitoring has not been told.
    changes: Changes,
}

impl Rib {
    /// An empty table that selects `max_paths` next hops per prefix, at most.
    pub(crate) fn new(max_paths: usize, seed: u64) -> Self {
        Self {
            interner: intern::Interner::new(seed),
            ids: HashTable::new(),
            hasher: FixedState::with_seed(seed),
            entries: Vec::new(),
            free: Vec::new(),
            open: PrefixSet::default(),
            changed: VecDeque::new(),
            before: VecDeque::new(),
            touched: PrefixSet::default(),
            selects: true,
            max_paths: max_paths.max(1),
            changes: Changes::default(),
        }
    }

    /// How many different routes are in use.
    pub(crate) fn distinct_routes(&self) -> usize {
        self.interner.in_use()
    }

    /// The one value equal to `route`.
    pub(crate) fn intern(&mut self, route: Route) -> Arc<Route> {
        self.interner.intern(route)
    }

    /// The number of a prefix that has one.
    pub(crate) fn id(&self, prefix: Prefix) -> Option<PrefixId> {
        self.find(prefix, self.hasher.hash_one(prefix))
    }

    fn find(&self, prefix: Prefix, hash: u64) -> Option<PrefixId> {
        let is_it = |id: &PrefixId| self.prefix(*id) == Some(prefix);
        self.ids.find(hash, is_it).copied()
    }

    /// The prefix of a number that is in use.
    pub(crate) fn prefix(&self, id: PrefixId) -> Option<Prefix> {
        self.entry(id).map(|entry| entry.prefix)
    }

    /// All numbers in use.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = (PrefixId, Prefix)> {
        self.entries
            .iter()
            .zip(0..)
            .filter_map(|(entry, id)| entry.as_ref().map(|entry| (PrefixId(id), entry.prefix)))
    }

    /// The numbers alone.
    pub(crate) fn ids(&self) -> Vec<PrefixId> {
        self.prefixes().map(|(id, _)| id).collect()
    }

    /// Puts a path in: the earlier path of its key.
    pub(crate) fn insert(&mut self, id: PrefixId, mut path: Path) -> Option<Path> {
        self.touch(id);
        let (key, announced) = (path.key(), path.announced().map(Arc::as_ptr));
        let entry = self.entry_mut(id)?;
        let prefix = entry.prefix;
        let earlier = if let Some(place) = entry.paths.iter().position(|it| it.key() == key) {
            path.label = entry.paths[place].label;
            entry.paths.replace(place, path)
        } else {
            path.label = entry.free_label();
            entry.paths.push(path);
            None
        };
        if earlier.as_ref().and_then(Path::announced).map(Arc::as_ptr) != announced {
            self.note(prefix, key);
        }
        earlier
    }

    /// Takes a path out.
    pub(crate) fn remove(&mut self, id: PrefixId, key: PathKey) -> Option<Path> {
        let entry = self.entry(id)?;
        let place = entry.paths.iter().position(|path| path.key() == key)?;
        let prefix = entry.prefix;
        self.touch(id);
        let path = self.entry_mut(id)?.paths.remove(place)?;
        if path.announced().is_some() {
            self.note(prefix, key);
        }
        Some(path)
    }

    /// What a peer announces has changed.
    fn note(&mut self, prefix: Prefix, (source, path_id): PathKey) {
        if let Some(peer) = source {
            let nlri = Nlri { path_id, prefix };
            self.changes.note(Place { peer, nlri });
        }
    }

    /// Whether [`next_change`](Self::next_change) says what the kernel is to be told.
    pub(crate) fn select(&mut self, wanted: bool) {
        self.selects = wanted;
    }

    /// Begins to note what changes in Adj-RIBs-In, or ends it.
    pub(crate) fn monitor(&mut self, wanted: bool) {
        self.changes.set(wanted);
    }

    /// Does what monitoring is not told route by route, because it is told of the session's end.
    pub(crate) fn unmonitored(&mut self, step: impl FnOnce(&mut Self)) {
        let changes = std::mem::take(&mut self.changes);
        step(self);
        self.changes = changes;
    }

    /// Where Adj-RIBs-In have changed since the last call.
    pub(crate) fn take_changes(&mut self) -> Vec<Place> {
        self.changes.take().into_iter().collect()
    }

    /// What a peer announces at a place.
    pub(crate) fn received_at(&self, Place { peer, nlri }: Place) -> Option<ReceivedRoute> {
        let id = self.id(nlri.prefix)?;
        self.path(id, (Some(peer), nlri.path_id))?.as_received()
    }

    /// What peers announce of `count` prefixes from number `from` on, and where to go on.
    pub(crate) fn received(&self, from: usize, count: usize) -> (Vec<(Place, ReceivedRoute)>, Option<usize>) {
        let until = from.saturating_add(count);
        let entries = self.entries.iter().take(until).skip(from).flatten();
        let paths = entries.flat_map(|entry| entry.paths.iter().map(|path| (entry.prefix, path)));
        let received = paths.filter_map(|(prefix, path)| {
            let nlri = Nlri {
                path_id: path.id,
                prefix,
            };
            let peer = path.source()?;
            Some((Place { peer, nlri }, path.as_received()?))
        });
        (received.collect(), (until < self.entries.len()).then_some(until))
    }

    /// A path.
    pub(crate) fn path(&self, id: PrefixId, key: PathKey) -> Option<&Path> {
        self.entry(id)?.paths.iter().find(|path| path.key() == key)
    }

    /// A path, to change what does not bear on the decision.
    pub(crate) fn path_mut(&mut self, id: PrefixId, key: PathKey) -> Option<&mut Path> {
        self.entry_mut(id)?
            .paths
            .iter_mut()
            .find(|path| path.key() == key)
    }

    /// The identifiers of a source's paths to a prefix.
    pub(crate) fn ids_from(&self, id: PrefixId, source: PeerKey) -> impl Iterator<Item = Option<u32>> {
        let paths = self.entry(id).map_or(&[][..], |entry| &entry.paths);
        let theirs = paths.iter().filter(move |path| path.source() == Some(source));
        theirs.map(|path| path.id)
    }

    /// The best path as of the last decision.
    pub(crate) fn best(&self, id: PrefixId) -> Option<&Path> {
        self.entry(id)?.best()
    }

    /// The prefixes that any peer may be told of: those that are ours, or whose best path came from another AS or from
    /// a client. What came from other internal peers is not for others of this kind (RFC 4456 §6), which are most of
    /// those in a mesh.
    pub(crate) fn open(&self) -> impl Iterator<Item = PrefixId> {
        self.open.iter()
    }

    /// Whether a prefix is one of these.
    pub(crate) fn is_open(&self, id: PrefixId) -> bool {
        self.open.contains(id)
    }

    /// Whether somebody has been told of the prefix.
    pub(crate) fn is_told(&self, id: PrefixId) -> bool {
        self.entry(id).is_some_and(|entry| entry.holders > 0)
    }

    /// Every path that may be selected, in order of preference: the best and those as good, then the best of what is
    /// left and those as good, and so on.
    pub(crate) fn in_order(&self, id: PrefixId) -> Vec<&Path> {
        self.entry(id).map_or_else(Vec::new, Entry::in_order)
    }

    /// The prefix is announced once more.
    pub(crate) fn hold(&mut self, id: PrefixId) {
        if let Some(entry) = self.entry_mut(id) {
            entry.holders += 1;
        }
    }

    /// The prefix is announced once less.
    pub(crate) fn release(&mut self, id: PrefixId) {
        if let Some(entry) = self.entry_mut(id) {
            entry.holders -= 1;
        }
        self.forget_unused(id);
    }

    /// Whether a prefix is to be decided on.
    pub(crate) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Decides on the next prefix that has changed.
    pub(crate) fn next_change(&mut self) -> Option<Change> {
        let id = self.changed.pop_front()?;
        self.touched.remove(id);
        let (max_paths, selects) = (self.max_paths, self.selects);
        let before = self.before.pop_front_if(|(it, _)| *it == id);
        let (told, chosen) = before.map_or((None, None), |(_, before)| (before.best, before.chosen));
        let entry = self.entry_mut(id)?;
        entry.decide();
        let open = entry.is_open();
        let best = !entry.is_told_as(told.as_ref());
        let selected = selects.then(|| entry.chosen(max_paths)).and_then(|after| {
            let before = chosen.map_or_else(|| Chosen::only(told.as_ref()), |chosen| *chosen);
            (before != after).then(|| (entry.prefix, after.into()))
        });
        if open {
            self.open.insert(id);
        } else {
            self.open.remove(id);
        }
        self.forget_unused(id);
        Some(Change { id, selected, best })
    }

    /// Every path, the best first within a prefix.
    pub(crate) fn snapshot(&self) -> Vec<PathSnapshot> {
        let mut entries: Vec<&Entry> = self.entries.iter().flatten().collect();
        entries.sort_by_key(|entry| entry.prefix);
        entries
            .into_iter()
            .flat_map(|entry| entry.snapshot(self.max_paths))
            .collect()
    }

    /// Every path of a prefix, the best first, as it stands and as operators see it.
    pub(crate) fn explain(&self, id: PrefixId) -> Vec<(&Path, PathSnapshot)> {
        let Some(entry) = self.entry(id) else {
            return Vec::new();
        };
        let shown = entry.snapshot(self.max_paths);
        let of = |shown: PathSnapshot| {
            let path = entry
                .paths
                .iter()
                .find(|it| it.key() == (shown.peer, shown.path_id))?;
            Some((path, shown))
        };
        shown.into_iter().filter_map(of).collect()
    }

    /// Has a prefix decided on again.
    fn touch(&mut self, id: PrefixId) {
        let max_paths = self.max_paths;
        let slot = self.entries.get(id.0 as usize).and_then(Option::as_ref);
        if let Some(entry) = slot
            && self.touched.insert(id)
        {
            self.changed.push_back(id);
            if !entry.paths.is_empty() {
                let several = self.selects && entry.paths.len() > 1;
                let before = Before {
                    best: entry.best().map(|path| (path.route.clone(), path.from.clone())),
                    chosen: several.then(|| entry.chosen(max_paths).into()),
                };
                self.before.push_back((id, before));
            }
        }
    }

    /// The number of a prefix, which gets one if it has none: a path is to follow.
    pub(crate) fn number(&mut self, prefix: Prefix) -> PrefixId {
        let hash = self.hasher.hash_one(prefix);
        if let Some(id) = self.find(prefix, hash) {
            return id;
        }
        let entry = Some(Entry {
            prefix,
            paths: Paths::None,
            holders: 0,
        });
        let id = match self.free.pop() {
            Some(id) => {
                self.entries[id.0 as usize] = entry;
                id
            }
            None => {
                self.entries.push(entry);
                // 2³² prefixes do not fit in memory.
                PrefixId(u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX))
            }
        };
        if self.ids.len() == self.ids.capacity() {
            self.grow();
        } else {
            // There is room, so nothing is hashed again.
            self.ids.insert_unique(hash, id, |_| hash);
        }
        id
    }

    /// Numbers all prefixes in a table of twice the size. Entries are read in their own order: in that of the table each
    /// would be fetched from memory by itself.
    fn grow(&mut self) {
        let mut ids = HashTable::with_capacity(self.ids.len().max(FEW) * 2);
        for (entry, id) in self.entries.iter().zip(0..) {
            if let Some(entry) = entry {
                ids.insert_unique(self.hasher.hash_one(entry.prefix), PrefixId(id), |_| 0);
            }
        }
        self.ids = ids;
    }

    fn forget_unused(&mut self, id: PrefixId) {
        let unused = |entry: &Entry| entry.paths.is_empty() && entry.holders == 0;
        if self.entry(id).is_some_and(unused)
            && !self.touched.contains(id)
            && let Some(entry) = self.entries[id.0 as usize].take()
        {
            let hash = self.hasher.hash_one(entry.prefix);
            if let Ok(known) = self.ids.find_entry(hash, |it| *it == id) {
                known.remove();
            }
            self.free.push(id);
        }
    }

    fn entry(&self, id: PrefixId) -> Option<&Entry> {
        self.entries.get(id.0 as usize)?.as_ref()
    }

    fn entry_mut(&mut self, id: PrefixId) -> Option<&mut Entry> {
        self.entries.get_mut(id.0 as usize)?.as_mut()
    }
}

impl Entry {
    fn best(&self) -> Option<&Path> {
        self.paths.iter().find(|path| path.rank == 0)
    }

    /// Whether peers are told the same of the best path as of that one.
    fn is_told_as(&self, before: Option<&Told>) -> bool {
        match (self.best(), before) {
            (Some(path), Some((route, from))) => {
                let from = from.as_ref().map(Arc::as_ptr);
                Arc::ptr_eq(&path.route, route) && path.from.as_ref().map(Arc::as_ptr) == from
            }
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// See [`Rib::open`].
    fn is_open(&self) -> bool {
        let open = |from: &Neighbor| from.external || from.client;
        self.best()
            .is_some_and(|path| path.from.as_deref().is_none_or(open))
    }

    /// Gives every path its rank.
    fn decide(&mut self) {
        if let [only] = &mut self.paths[..] {
            only.rank = if only.refusal.is_none() { 0 } else { LOST };
            return;
        }
        let ranking = self.ranking();
        for path in self.paths.iter_mut() {
            path.rank = LOST;
        }
        for (rank, place) in (0..LOST).zip(ranking) {
            self.paths[place].rank = rank;
        }
    }

    /// The lowest identifier, from 1, that no path has.
    fn free_label(&self) -> u32 {
        // Bit n for identifier n + 1; nearly always that is all of them.
        let bit = |path: &Path| 1_u64.checked_shl(path.label.wrapping_sub(1)).unwrap_or(0);
        let taken = self.paths.iter().fold(0, |taken, path| taken | bit(path));
        let is_free = |label: &u32| self.paths.iter().all(|path| path.label != *label);
        (taken.trailing_ones() + 1..).find(is_free).unwrap_or(u32::MAX)
    }

    fn in_order(&self) -> Vec<&Path> {
        let mut left: Vec<&Path> = self.paths.iter().filter(|path| path.refusal.is_none()).collect();
        let mut ordered = Vec::with_capacity(left.len());
        while !left.is_empty() {
            let candidates: SmallVec<[Candidate<'_>; 4]> = left.iter().map(|path| path.candidate()).collect();
            let ranked = decision::decide(&candidates).ranked;
            ordered.extend(ranked.iter().map(|&place| left[place]));
            let mut place = 0..;
            left.retain(|_| place.next().is_none_or(|place| !ranked.contains(&place)));
        }
        ordered
    }

    /// The places of the best path and of those that are as good, in order.
    fn ranking(&self) -> SmallVec<[usize; 4]> {
        let eligible = || {
            let paths = self.paths.iter().zip(self.paths.grades()).enumerate();
            paths.filter(|(_, (path, _))| path.refusal.is_none())
        };
        let best = eligible().map(|(_, (_, grade))| grade).min();
        let leaders = eligible().filter(|(_, (_, grade))| Some(*grade) == best);
        let mut places: SmallVec<[usize; 4]> = leaders.map(|(place, _)| place).collect();
        if places.len() > 1 {
            let leaders = places.iter().map(|&place| self.paths[place].candidate());
            let candidates: SmallVec<[Candidate<'_>; 4]> = leaders.collect();
            let ranked = decision::decide(&candidates).ranked;
            places = ranked.into_iter().map(|leader| places[leader]).collect();
        }
        places
    }

    /// What the kernel gets: the next hops of the best paths, each once; none for our own prefixes.
    fn chosen(&self, max_paths: usize) -> Chosen {
        let mut selected: SmallVec<[&Path; 4]> = self
            .paths
            .iter()
            .filter(|path| path.selected(max_paths))
            .collect();
        selected.sort_by_key(|path| path.rank);
        let mut next_hops = SmallVec::new();
        for next_hop in selected.iter().filter_map(|path| path.gateway()) {
            if !next_hops.contains(&next_hop) {
                next_hops.push(next_hop);
            }
        }
        // A path of another priority is not as good, so the best one's is that of all.
        let priority = selected
            .first()
            .map_or(NORMAL_PRIORITY, |path| path.route.priority);
        let backup = self.backup(&next_hops, max_paths);
        Chosen {
            next_hops,
            backup,
            priority,
        }
    }

    /// Where the best path leads of those that remain without these next hops; nowhere for our own prefixes.
    fn backup(&self, next_hops: &[Gateway], max_paths: usize) -> Option<Gateway> {
        if self.paths.len() < 2 || next_hops.is_empty() {
            return None;
        }
        let waits = |path: &&Path| path.refusal.is_none() && !path.selected(max_paths);
        let waiting = self.paths.iter().filter(waits);
        let elsewhere = waiting.filter_map(|path| {
            let gateway = path.gateway().filter(|it| !next_hops.contains(it))?;
            Some((gateway, path.candidate()))
        });
        let (gateways, candidates): (SmallVec<[Gateway; 4]>, SmallVec<[Candidate<'_>; 4]>) =
            elsewhere.unzip();
        let best = *decision::decide(&candidates).ranked.first()?;
        gateways.get(best).copied()
    }

    /// Every path, the best first, with the reason why it is not the best.
    fn snapshot(&self, max_paths: usize) -> Vec<PathSnapshot> {
        let mut paths: Vec<&Path> = self.paths.iter().collect();
        paths.sort_by_key(|path| (path.rank, path.key()));
        let (eligible, refused): (Vec<_>, Vec<_>) =
            paths.into_iter().partition(|path| path.refusal.is_none());
        let candidates: Vec<Candidate<'_>> = eligible.iter().map(|path| path.candidate()).collect();
        let lost = decision::explain(&candidates)
            .into_iter()
            .map(|reason| reason.map(|it| it.to_string()));
        let refusal = |path: &Path| path.refusal.map(|it| it.to_string());
        eligible
            .into_iter()
            .zip(lost)
            .chain(refused.into_iter().map(|path| (path, refusal(path))))
            .map(|(path, reason)| self.show(path, reason, max_paths))
            .collect()
    }

    fn show(&self, path: &Path, reason: Option<String>, max_paths: usize) -> PathSnapshot {
        PathSnapshot {
            prefix: self.prefix,
            next_hop: path.route.next_hop,
            peer: path.source(),
            path_id: path.id,
            attributes: path.route.attributes.clone(),
            priority: path.route.priority,
            best: path.rank == 0,
            multipath: path.rank != 0 && path.selected(max_paths),
            stale: matches!(path.standing, Standing::Stale | Standing::LongLived),
            reason,
        }
    }
}
