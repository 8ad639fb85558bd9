//! One step: what has changed of some prefixes is worked out, booked and put into words, once for a whole group.

use std::collections::BTreeSet;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::batch::{Audience, Batch, Change, Slot};
use super::told::{self, Entry, Place, Told};
use crate::export::Target;
use crate::filter::{self, Verdict};
use crate::rib::{Neighbor, Path, PrefixId, Rib, Route};
use crate::wire::Nlri;
use crate::{Family, PeerKey, Prefix};

/// Looks at prefixes for a group.
pub(super) struct Stepper<'a> {
    pub(super) target: Target<'a>,
    /// The group.
    pub(super) members: &'a BTreeSet<PeerKey>,
    /// What it has been told.
    pub(super) told: &'a mut Told,
    pub(super) rib: &'a mut Rib,
    /// What it will be told.
    pub(super) batch: Batch<'a>,
    /// Whether changes are kept, for members that are not told now.
    pub(super) notes: bool,
    /// What becomes of a route from a source on the way out: it is the same for all prefixes of a family that one rule
    /// lets through.
    pub(super) found: HashMap<Way, Option<Found>, FixedState>,
    pub(super) last: Option<(Way, Option<Found>)>,
}

/// A route and its source, by their places in memory, where the table keeps them meanwhile; of a family, let through by
/// a rule.
pub(super) type Way = (
    *const Route,
    Option<*const Neighbor>,
    Family,
    Option<*const filter::Step>,
);

/// A route as the group is told it.
#[derive(Clone)]
pub(super) struct Found {
    entry: Entry,
    /// The member that it came from, if it came from one.
    whose: Option<PeerKey>,
    slot: Slot,
}

fn way(path: &Path, family: Family, verdict: &Verdict<'_>) -> Way {
    (
        Arc::as_ptr(&path.route),
        path.from.as_ref().map(Arc::as_ptr),
        family,
        verdict.step.map(std::ptr::from_ref),
    )
}

impl Stepper<'_> {
    /// Works out what the group is to be told of a prefix, and books that it has been told.
    pub(super) fn look(&mut self, id: PrefixId) {
        let Some(prefix) = self.rib.prefix(id) else { return };
        match self.target.egress.paths(prefix.family()) {
            Some(paths) => self.look_at_all(id, prefix, paths),
            None => {
                let found = self.best(id, prefix);
                self.tell((id, 0), prefix, found);
            }
        }
    }

    /// Of the paths that the peer may have, it is told the first few.
    fn look_at_all(&mut self, id: PrefixId, prefix: Prefix, paths: usize) {
        let candidates = self.target.candidates(id, prefix.family(), self.rib).into_iter();
        let admitted =
            candidates.filter_map(|path| Some((path.clone(), self.target.admit(prefix, path).ok()?)));
        let wanted: Vec<(Path, Verdict<'_>)> = admitted.take(paths).collect();
        let mut gone = self.told.labels(id);
        for (path, verdict) in wanted {
            gone.retain(|label| *label != path.label);
            let way = way(&path, prefix.family(), &verdict);
            let found = match self.known(&way) {
                Some(found) => found,
                None => self.find(way, &path, &verdict),
            };
            self.tell((id, path.label), prefix, found);
        }
        for label in gone {
            self.tell((id, label), prefix, None);
        }
    }

    /// What becomes of the best path.
    fn best(&mut self, id: PrefixId, prefix: Prefix) -> Option<Found> {
        let path = self.rib.best(id)?;
        let verdict = self.target.admit(prefix, path).ok()?;
        let way = way(path, prefix.family(), &verdict);
        if let Some(found) = self.known(&way) {
            return found;
        }
        let path = path.clone();
        self.find(way, &path, &verdict)
    }

    /// What becomes of a route, where this step has met it before.
    fn known(&self, way: &Way) -> Option<Option<Found>> {
        match &self.last {
            Some((last, found)) if last == way => Some(found.clone()),
            Some(_) | None => self.found.get(way).cloned(),
        }
    }

    /// The same where it has not.
    fn find(&mut self, way: Way, path: &Path, verdict: &Verdict<'_>) -> Option<Found> {
        let family = way.2;
        let from = path.from.as_deref();
        let route = self.target.route(family, from, &path.route, verdict.operations());
        let found = route.and_then(|route| {
            let route = self.rib.intern(route);
            let whose = told::peer(&path.from).filter(|key| self.members.contains(key));
            let slot = self.batch.slot(&route, family, Audience::AllBut(whose))?;
            let from = path.from.clone();
            let entry = Entry { route, from };
            Some(Found { entry, whose, slot })
        });
        self.found.insert(way, found.clone());
        self.last = Some((way, found.clone()));
        found
    }

    /// Tells the group what is now of a path, where that is something else than before.
    fn tell(&mut self, place: Place, prefix: Prefix, found: Option<Found>) {
        let nlri = nlri(prefix, place.1);
        let found = found.filter(|found| self.batch.takes(found.slot, &nlri));
        let before = self.told.get(place);
        match (before, &found) {
            (None, None) => return,
            (Some(before), Some(found)) if before.is_as(&found.entry) => return,
            (Some(_), _) | (None, Some(_)) => {}
        }
        if self.notes {
            self.rib.hold(place.0);
            self.batch.note(Change {
                id: place.0,
                before: before.map(|it| it.from.clone()),
                after: found.as_ref().map(|it| it.entry.from.clone()),
            });
        }
        match found {
            None => self.withdraw(place, nlri),
            Some(found) => self.announce(place, nlri, found),
        }
    }

    fn withdraw(&mut self, place: Place, nlri: Nlri) {
        if let Some(before) = self.told.remove(place, self.rib) {
            let was = self.whose(&before);
            self.batch.withdraw(nlri, Audience::AllBut(was));
            self.book(-1, was, None);
        }
    }

    fn announce(&mut self, place: Place, nlri: Nlri, Found { entry, whose, slot }: Found) {
        let route = entry.route.clone();
        let Some(before) = self.told.insert(place, entry, self.rib) else {
            self.batch.announce(slot, nlri);
            return self.book(1, None, whose);
        };
        let was = self.whose(&before);
        if !Arc::ptr_eq(&before.route, &route) {
            self.batch.announce(slot, nlri);
        } else if let Some(was) = was
            && let Some(slot) = self.batch.slot(&route, nlri.prefix.family(), Audience::Only(was))
        {
            // The same from somebody else: news only to whose own it was.
            self.batch.announce(slot, nlri);
        }
        if let Some(whose) = whose.filter(|_| was != whose) {
            self.batch.withdraw(nlri, Audience::Only(whose));
        }
        self.book(0, was, whose);
    }

    /// The member that a route came from.
    fn whose(&self, entry: &Entry) -> Option<PeerKey> {
        told::peer(&entry.from).filter(|key| self.members.contains(key))
    }

    /// Books how many paths members have more than before.
    fn book(&mut self, gained: isize, was: Option<PeerKey>, is: Option<PeerKey>) {
        self.batch.gain(gained);
        if was != is {
            if let Some(was) = was {
                self.batch.hide(was, -1);
            }
            if let Some(is) = is {
                self.batch.hide(is, 1);
            }
        }
    }
}

/// A path's place on the wire.
pub(super) fn nlri(prefix: Prefix, label: u32) -> Nlri {
    Nlri {
        path_id: (label != 0).then_some(label),
        prefix,
    }
}
