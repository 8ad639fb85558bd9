//! A step's worth of things to say, and the octets that say it.

use std::collections::BTreeMap;
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::told::Source;
use crate::rib::{PrefixId, Route};
use crate::speaker::SEND_BUDGET;
use crate::wire::update::{self, LONGEST, Shared};
use crate::wire::{Context, Nlri};
use crate::{Family, PeerKey};

/// Octets after which a step says no more, whatever attributes a route has.
const STEP: usize = SEND_BUDGET;

/// Prefixes that a route has room for at first: as many as share theirs usually, or more.
const USUAL: usize = 16;

/// Whom of a group something is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Audience {
    /// Everybody, but for one where one is named.
    AllBut(Option<PeerKey>),
    /// Nobody else.
    Only(PeerKey),
}

/// Where in a batch prefixes of a route go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(usize);

/// What is to be said at once.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    context: &'a Context,
    /// No fewer than what there is to say will take.
    octets: usize,
    withdrawn: BTreeMap<Audience, Vec<Nlri>>,
    /// Prefixes by route.
    announced: Vec<Announced<'a>>,
    /// Where in `announced` a route is, and which was asked for last: neighbouring prefixes often share theirs.
    slots: HashMap<SlotKey, Slot, FixedState>,
    last: Option<(SlotKey, Slot)>,
    /// How many more paths everybody is told than before.
    gained: isize,
    /// How many more of them are whose own, so that he is not told: in pieces that add up.
    hidden: Vec<(PeerKey, isize)>,
    /// What may have to be noted for those that are not told now.
    changes: Vec<Change>,
}

/// A route by its place in memory, where the batch keeps it.
type SlotKey = (*const Route, Family, Audience);

#[derive(Debug)]
struct Announced<'a> {
    #[expect(dead_code, reason = "held so that no other route takes its place in memory")]
    route: Arc<Route>,
    audience: Audience,
    shared: Shared<'a>,
    /// Octets that the last message has room for.
    left: usize,
    nlri: Vec<Nlri>,
    /// Prefixes had to be left out: there is no room for them.
    refuses: bool,
}

/// What has changed of a prefix: the sources of what was told before and of what is told now, where anything is.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) id: PrefixId,
    pub(crate) before: Option<Source>,
    pub(crate) after: Option<Source>,
}

/// What a group is told at once.
#[derive(Debug, Default)]
pub(crate) struct Step {
    /// Whole messages, for everybody.
    octets: Bytes,
    /// Who is told otherwise.
    others: BTreeMap<PeerKey, Otherwise>,
    /// How many more paths everybody has been told of.
    gained: isize,
    /// What has changed. The table keeps these prefixes' numbers.
    pub(crate) changes: Vec<Change>,
}

/// How one peer is told otherwise than all.
#[derive(Debug, Default)]
struct Otherwise {
    /// Octets that are not for it, in order.
    without: Vec<Range<usize>>,
    /// Messages for it alone.
    alone: BytesMut,
    /// How many of the paths gained it is not told of.
    hidden: isize,
}

impl<'a> Batch<'a> {
    /// Nothing yet.
    pub(crate) fn new(context: &'a Context) -> Self {
        Self {
            context,
            octets: 0,
            withdrawn: BTreeMap::new(),
            announced: Vec::new(),
            slots: HashMap::default(),
            last: None,
            gained: 0,
            hidden: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// Whether it is enough for a step.
    pub(crate) fn is_full(&self) -> bool {
        self.octets >= STEP
    }

    /// Where prefixes of a route go; nowhere if it cannot be said in this session.
    pub(crate) fn slot(&mut self, route: &Arc<Route>, family: Family, audience: Audience) -> Option<Slot> {
        let key = (Arc::as_ptr(route), family, audience);
        if let Some((last, slot)) = self.last
            && last == key
        {
            return Some(slot);
        }
        let slot = match self.slots.get(&key) {
            Some(slot) => *slot,
            None => {
                let slot = self.new_slot(route, family, audience)?;
                self.slots.insert(key, slot);
                slot
            }
        };
        self.last = Some((key, slot));
        Some(slot)
    }

    fn new_slot(&mut self, route: &Arc<Route>, family: Family, audience: Audience) -> Option<Slot> {
        let shared = Shared::new(&route.attributes, route.next_hop?, family, self.context);
        let shared = shared
            .inspect_err(|error| tracing::warn!(%error, "a route cannot be announced to some peers"))
            .ok()?;
        self.announced.push(Announced {
            route: route.clone(),
            audience,
            shared,
            left: 0,
            nlri: Vec::with_capacity(USUAL),
            refuses: false,
        });
        Some(Slot(self.announced.len() - 1))
    }

    /// Whether a prefix can be said there.
    pub(crate) fn takes(&mut self, slot: Slot, nlri: &Nlri) -> bool {
        let announced = &mut self.announced[slot.0];
        let takes = announced.shared.has_room_for(nlri);
        if !takes && !mem::replace(&mut announced.refuses, true) {
            let error = announced.shared.too_long();
            tracing::warn!(%error, "routes cannot be announced to some peers");
        }
        takes
    }

    /// Announces a prefix that can be said there.
    pub(crate) fn announce(&mut self, slot: Slot, nlri: Nlri) {
        let announced = &mut self.announced[slot.0];
        let size = announced.shared.size(&nlri);
        if announced.left < size {
            self.octets += announced.shared.overhead();
            announced.left = announced.shared.room();
        }
        announced.left = announced.left.saturating_sub(size);
        self.octets += size;
        announced.nlri.push(nlri);
    }

    /// Withdraws a prefix.
    pub(crate) fn withdraw(&mut self, nlri: Nlri, audience: Audience) {
        self.octets += LONGEST;
        self.withdrawn.entry(audience).or_default().push(nlri);
    }

    /// Books that everybody has been told of so many more paths.
    pub(crate) fn gain(&mut self, paths: isize) {
        self.gained += paths;
    }

    /// Books that of the paths that everybody is told of, so many more are this peer's own.
    pub(crate) fn hide(&mut self, key: PeerKey, paths: isize) {
        match self.hidden.last_mut() {
            Some((last, hidden)) if *last == key => *hidden += paths,
            Some(_) | None => self.hidden.push((key, paths)),
        }
    }

    /// Keeps what has changed of a prefix.
    pub(crate) fn note(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// The messages. Withdrawals go first, and what is not for one peer stands together, so that this peer is told the
    /// rest in few pieces.
    pub(crate) fn encode(mut self) -> Step {
        let mut octets = BytesMut::with_capacity(self.octets);
        let mut others: BTreeMap<PeerKey, Otherwise> = BTreeMap::new();
        for (audience, nlri) in &self.withdrawn {
            put(*audience, &mut octets, &mut others, |out| {
                update::put_withdrawn(nlri, self.context, out);
            });
        }
        self.announced.sort_by_key(|announced| announced.audience);
        for Announced {
            audience,
            shared,
            nlri,
            ..
        } in self.announced.iter().filter(|it| !it.nlri.is_empty())
        {
            put(*audience, &mut octets, &mut others, |out| shared.put(nlri, out));
        }
        for (key, hidden) in self.hidden {
            others.entry(key).or_default().hidden += hidden;
        }
        Step {
            octets: octets.freeze(),
            others,
            gained: self.gained,
            changes: self.changes,
        }
    }
}

/// Appends messages for an audience.
fn put(
    audience: Audience,
    octets: &mut BytesMut,
    others: &mut BTreeMap<PeerKey, Otherwise>,
    put: impl FnOnce(&mut BytesMut),
) {
    match audience {
        Audience::AllBut(None) => put(octets),
        Audience::AllBut(Some(key)) => {
            let start = octets.len();
            put(octets);
            let without = &mut others.entry(key).or_default().without;
            match without.last_mut() {
                Some(last) if last.end == start => last.end = octets.len(),
                Some(_) | None => without.push(start..octets.len()),
            }
        }
        Audience::Only(key) => put(&mut others.entry(key).or_default().alone),
    }
}

impl Step {
    /// The messages for a peer of the group.
    pub(crate) fn messages(&self, key: PeerKey) -> Vec<Bytes> {
        let Some(other) = self.others.get(&key) else {
            return Some(self.octets.clone())
                .filter(|it| !it.is_empty())
                .into_iter()
                .collect();
        };
        let mut messages = Vec::new();
        let mut start = 0;
        let end = self.octets.len();
        for without in other.without.iter().chain([&(end..end)]) {
            messages.push(self.octets.slice(start..without.start));
            start = without.end;
        }
        messages.push(Bytes::copy_from_slice(&other.alone));
        messages.retain(|it| !it.is_empty());
        messages
    }

    /// How many more paths the peer has once it has these.
    pub(crate) fn gained(&self, key: PeerKey) -> isize {
        self.gained - self.others.get(&key).map_or(0, |other| other.hidden)
    }

    /// The memory that it takes, about.
    pub(crate) fn octets(&self) -> usize {
        self.octets.len() + self.changes.len() * size_of::<Change>()
    }

    /// All of it, where it is for one peer.
    pub(crate) fn into_octets(self) -> Bytes {
        self.octets
    }
}
