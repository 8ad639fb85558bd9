//! Adj-RIB-In: which prefixes a peer announces, and what becomes of them when its session ends.
//!
//! The paths themselves are in the [`Rib`]; here is the book that finds them again. A peer that restarts
//! gracefully leaves its paths behind as *stale* (RFC 4724 §4.2): they are used like any other until it has
//! announced them again, has said that it announced all (End-of-RIB), or its time is up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use crate::config::{Config, Policy};
use crate::import::{self, OwnNextHops};
use crate::rib::{Neighbor, Path, PrefixId, Rib, Route, Standing};
use crate::wire::Update;
use crate::{Family, PeerKey, Prefix};

/// A peer's Adj-RIB-In.
#[derive(Debug)]
pub(crate) struct Inbound {
    key: PeerKey,
    prefixes: BTreeSet<PrefixId>,
    accepted: u64,
    /// When stale paths are dropped, if there are any.
    pub(crate) stale_until: Option<Instant>,
}

/// What an announcement is judged by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gate<'a> {
    /// The speaker's settings.
    pub(crate) local: &'a Config,
    /// Our addresses on the session.
    pub(crate) own: OwnNextHops,
    /// The peer's import policy.
    pub(crate) policy: &'a Policy,
    /// The peer.
    pub(crate) from: &'a Arc<Neighbor>,
    /// The families that the session carries.
    pub(crate) families: &'a [Family],
}

impl Inbound {
    /// An empty one.
    pub(crate) fn new(key: PeerKey) -> Self {
        Self {
            key,
            prefixes: BTreeSet::new(),
            accepted: 0,
            stale_until: None,
        }
    }

    /// How many prefixes the peer announces.
    pub(crate) fn received(&self) -> usize {
        self.prefixes.len()
    }

    /// How many of them may be selected.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Takes an UPDATE's routes in. An end mark is [`sweep`](Self::sweep)'s.
    pub(crate) fn update(&mut self, update: Update, gate: Gate<'_>, rib: &mut Rib) {
        for id in update
            .withdrawn
            .iter()
            .filter_map(|nlri| rib.id(nlri.prefix))
            .collect::<Vec<_>>()
        {
            self.remove(id, rib);
        }
        let attributes = Arc::new(update.attributes);
        for reach in update.reach {
            let looped = import::loops(gate.local, gate.own, &attributes, reach.next_hop);
            let route = Route {
                next_hop: Some(reach.next_hop),
                attributes: attributes.clone(),
            };
            let route = rib.intern(route);
            for prefix in reach.nlri.into_iter().map(|nlri| nlri.prefix) {
                if gate.families.contains(&prefix.family()) {
                    let refusal = looped.or_else(|| import::refused(gate.policy, prefix));
                    self.insert(
                        prefix,
                        Path::new(Some(gate.from.clone()), route.clone(), refusal),
                        rib,
                    );
                }
            }
        }
    }

    /// The session is over. Paths of `kept` families become stale; those that were so already go, as do all
    /// others (RFC 4724 §4.2). That a refresh was under way is forgotten.
    pub(crate) fn lose(&mut self, kept: &[Family], rib: &mut Rib) {
        for id in self.prefixes.clone() {
            let keeps = rib
                .prefix(id)
                .is_some_and(|prefix| kept.contains(&prefix.family()));
            match rib.path_mut(id, Some(self.key)) {
                Some(path) if keeps && path.standing != Standing::Stale => path.standing = Standing::Stale,
                Some(_) | None => self.remove(id, rib),
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
    pub(crate) fn begin_refresh(&mut self, family: Family, rib: &mut Rib) {
        for id in self.of_families(&[family], rib) {
            if let Some(path) = rib.path_mut(id, Some(self.key)) {
                path.standing = Standing::Unrepeated;
            }
        }
    }

    /// The peer has repeated all its routes of a family: what it did not repeat is gone (RFC 7313 §4). An end
    /// without a beginning finds nothing.
    pub(crate) fn end_refresh(&mut self, family: Family, rib: &mut Rib) {
        self.drop_paths(&[family], Standing::Unrepeated, rib);
    }

    fn drop_paths(&mut self, families: &[Family], standing: Standing, rib: &mut Rib) {
        for id in self.of_families(families, rib) {
            if rib
                .path(id, Some(self.key))
                .is_some_and(|path| path.standing == standing)
            {
                self.remove(id, rib);
            }
        }
    }

    /// Where there are paths of these families.
    fn of_families(&self, families: &[Family], rib: &Rib) -> Vec<PrefixId> {
        let is_of = |id: &PrefixId| {
            rib.prefix(*id)
                .is_some_and(|prefix| families.contains(&prefix.family()))
        };
        self.prefixes.iter().copied().filter(is_of).collect()
    }

    /// Judges every path again: the settings have changed.
    pub(crate) fn judge_again(&mut self, gate: Gate<'_>, rib: &mut Rib) {
        for id in self.prefixes.clone() {
            let Some(prefix) = rib.prefix(id) else { continue };
            let Some(path) = rib.path(id, Some(self.key)) else {
                continue;
            };
            let Route {
                next_hop: Some(next_hop),
                ref attributes,
            } = *path.route
            else {
                continue;
            };
            let refusal = import::loops(gate.local, gate.own, attributes, next_hop)
                .or_else(|| import::refused(gate.policy, prefix));
            let mut judged = Path::new(Some(gate.from.clone()), path.route.clone(), refusal);
            judged.standing = path.standing;
            self.insert(prefix, judged, rib);
        }
    }

    fn insert(&mut self, prefix: Prefix, path: Path, rib: &mut Rib) {
        self.accepted += u64::from(path.refusal.is_none());
        let (id, earlier) = rib.insert(prefix, path);
        self.accepted -= u64::from(earlier.is_some_and(|path| path.refusal.is_none()));
        self.prefixes.insert(id);
    }

    fn remove(&mut self, id: PrefixId, rib: &mut Rib) {
        let path = rib.remove(id, Some(self.key));
        self.accepted -= u64::from(path.is_some_and(|path| path.refusal.is_none()));
        self.prefixes.remove(&id);
    }
}
