//! What the peers of a group have been told, by prefix.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::PeerKey;
use crate::rib::{Neighbor, PrefixId, PrefixMap, Rib, Route};

/// A path's place: its prefix, and the identifier that we gave it there (RFC 7911 §3), 0 where there are none.
pub(crate) type Place = (PrefixId, u32);

/// From whom a route came; from nobody for our own prefixes.
pub(crate) type Source = Option<Arc<Neighbor>>;

/// A route, told to all of the group but to whom it came from.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// As it was told.
    pub(crate) route: Arc<Route>,
    /// From whom it came.
    pub(crate) from: Source,
}

/// All that was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// Paths without an identifier: one of a prefix.
    plain: PrefixMap<Entry>,
    labelled: BTreeMap<Place, Entry>,
}

/// The peer that a route came from.
pub(crate) fn peer(from: &Source) -> Option<PeerKey> {
    from.as_ref().map(|from| from.key)
}

impl Entry {
    /// Whether it says the same to the same peers.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.route, &other.route) && peer(&self.from) == peer(&other.from)
    }

    /// Whether the peer has been told it.
    pub(crate) fn is_for(&self, key: PeerKey) -> bool {
        peer(&self.from) != Some(key)
    }
}

impl Told {
    /// What is told of a path.
    pub(crate) fn get(&self, place: Place) -> Option<&Entry> {
        match place {
            (id, 0) => self.plain.get(id),
            _ => self.labelled.get(&place),
        }
    }

    /// What a peer is told of a prefix, by identifier.
    pub(crate) fn of(&self, id: PrefixId, key: PeerKey) -> impl Iterator<Item = (u32, &Entry)> {
        let plain = self.plain.get(id).map(|entry| (0, entry));
        let labelled = self.labelled.range((id, 1)..=(id, u32::MAX));
        let labelled = labelled.map(|((_, label), entry)| (*label, entry));
        plain
            .into_iter()
            .chain(labelled)
            .filter(move |(_, entry)| entry.is_for(key))
    }

    /// Whether a peer is told something of a prefix.
    pub(crate) fn has(&self, id: PrefixId, key: PeerKey) -> bool {
        self.of(id, key).next().is_some()
    }

    /// The identifiers of a prefix's paths.
    pub(crate) fn labels(&self, id: PrefixId) -> Vec<u32> {
        let labelled = self.labelled.range((id, 1)..=(id, u32::MAX));
        labelled.map(|((_, label), _)| *label).collect()
    }

    /// Tells a path: what was told of it before. The table keeps the prefix's number meanwhile.
    pub(crate) fn insert(&mut self, place: Place, entry: Entry, rib: &mut Rib) -> Option<Entry> {
        let before = match place {
            (id, 0) => self.plain.insert(id, entry),
            _ => self.labelled.insert(place, entry),
        };
        if before.is_none() {
            rib.hold(place.0);
        }
        before
    }

    /// Withdraws a path: what was told of it.
    pub(crate) fn remove(&mut self, place: Place, rib: &mut Rib) -> Option<Entry> {
        let before = match place {
            (id, 0) => self.plain.remove(id),
            _ => self.labelled.remove(&place),
        };
        if before.is_some() {
            rib.release(place.0);
        }
        before
    }

    /// The prefixes of which something is told, some of them more than once.
    pub(crate) fn ids(&self) -> impl Iterator<Item = PrefixId> {
        let labelled = self.labelled.keys().map(|(id, _)| *id);
        self.plain.ids().chain(labelled)
    }

    /// The same again, for another group.
    pub(crate) fn fork(&self, rib: &mut Rib) -> Self {
        self.ids().for_each(|id| rib.hold(id));
        self.clone()
    }

    /// Nobody is told anything any more.
    pub(crate) fn clear(&mut self, rib: &mut Rib) {
        let told = std::mem::take(self);
        told.ids().for_each(|id| rib.release(id));
    }
}
