//! How far a peer is with what its group is told.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::batch::{Audience, Batch, Change, Step};
use super::step::nlri;
use super::told::{Source, Told, peer};
use super::{BATCH, Group, GroupId, release};
use crate::rib::{PrefixId, PrefixSet, Rib};
use crate::session::Session;
use crate::speaker::SEND_BUDGET;
use crate::wire::{self, Message, RouteRefresh, update};
use crate::{Family, PeerKey};

/// How far a peer is.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    /// Which group it is of, while its session is up.
    pub(crate) group: Option<GroupId>,
    /// The number of the group's step that it takes next; none where it is behind.
    pub(super) next: Option<u64>,
    /// Prefixes of which it is to be told what stands in the group's table: of those in which it is behind, and of those
    /// that it wants to hear again.
    behind: PrefixSet,
    /// Of those in which it is behind, what it has been told of, whatever that was. The table keeps their numbers.
    had: PrefixSet,
    /// How many paths it has been told of.
    advertised: usize,
    /// Families whose initial routes it has not been told all.
    unfinished: Vec<Family>,
    /// Families that it wants to hear again, once all before is said.
    requested: BTreeSet<Family>,
    /// Families that it hears again.
    repeated: BTreeSet<Family>,
    /// Bytes sent and not yet taken.
    pub(crate) in_flight: usize,
}

impl Outbound {
    /// A session is up: an end mark is due per family.
    pub(crate) fn expect(&mut self, families: &[Family]) {
        self.unfinished = families.to_vec();
    }

    /// Joins a group.
    pub(super) fn start(&mut self, key: PeerKey, id: GroupId, group: &mut Group) {
        group.members.insert(key);
        let told = &group.told;
        self.behind.extend(told.ids().filter(|id| told.has(*id, key)));
        self.settle(id, group);
    }

    /// Is of a group, from whose table it differs in what it is behind in.
    pub(super) fn settle(&mut self, id: GroupId, group: &Group) {
        self.group = Some(id);
        let in_step = self.behind.is_empty() || group.egress.alone.is_some();
        self.next = in_step.then(|| group.log.end());
    }

    /// Leaves its group.
    pub(super) fn stop(self, key: PeerKey, group: &mut Group, rib: &mut Rib) {
        for id in self.had.iter() {
            rib.release(id);
        }
        for number in self.next.unwrap_or(u64::MAX)..group.log.end() {
            release(group.log.told(number), rib);
        }
        group.members.remove(&key);
    }

    /// The peer wants to hear all of a family again (RFC 2918).
    pub(crate) fn repeat(&mut self, family: Family) {
        self.requested.insert(family);
    }

    /// Whether more may be sent to it.
    pub(crate) fn has_room(&self) -> bool {
        self.in_flight < SEND_BUDGET
    }

    /// Whether it takes the group's next step as it is said.
    pub(crate) fn takes_next(&self, group: &Group) -> bool {
        self.has_room() && self.next == Some(group.log.end())
    }

    /// Nothing waits to be said.
    pub(crate) fn has_said_all(&self, group: &Group) -> bool {
        let heard = self.next == Some(group.log.end()) && !group.has_pending();
        heard && self.behind.is_empty() && self.requested.is_empty()
    }

    /// How many paths it has been told of.
    pub(crate) fn advertised(&self) -> usize {
        self.advertised
    }

    /// Takes a step: the messages.
    pub(crate) fn take(&mut self, key: PeerKey, step: &Step) -> Vec<Bytes> {
        self.advertised = self.advertised.saturating_add_signed(step.gained(key));
        step.messages(key)
    }

    /// Takes the next step from the group's log, where it is not at the log's end: the messages.
    pub(crate) fn next_step(&mut self, key: PeerKey, group: &mut Group, rib: &mut Rib) -> Option<Vec<Bytes>> {
        let number = self.next?;
        let messages = self.take(key, group.log.get(number)?);
        self.next = Some(number + 1);
        release(group.log.told(number), rib);
        Some(messages)
    }

    /// The group has gone on by a step that is not in its log for this peer: one that it has taken, or one that it misses.
    /// Whether it is in the log for this peer.
    pub(crate) fn pass(&mut self, key: PeerKey, step: &Step, rib: &mut Rib) -> bool {
        if self.next.is_none() {
            self.miss(key, step, rib);
        }
        self.next.is_some()
    }

    /// It has taken what the group's log ends with.
    pub(crate) fn keep_up(&mut self, group: &Group) {
        self.next = Some(group.log.end());
    }

    /// Takes no more from the group's log: of what is there it hears the last word.
    pub(crate) fn fall_behind(&mut self, key: PeerKey, group: &mut Group, rib: &mut Rib) {
        let Some(next) = self.next.filter(|next| *next < group.log.end()) else {
            return;
        };
        for step in group.log.since(next) {
            self.miss(key, step, rib);
        }
        for number in next..group.log.end() {
            release(group.log.told(number), rib);
        }
        self.next = self.behind.is_empty().then(|| group.log.end());
    }

    /// Is not told a step.
    fn miss(&mut self, key: PeerKey, step: &Step, rib: &mut Rib) {
        let sees = |source: &Option<Source>| source.as_ref().is_some_and(|from| peer(from) != Some(key));
        for Change { id, before, after } in &step.changes {
            self.differ(*id, sees(before), sees(after), rib);
        }
    }

    /// Of a prefix of which it is told something or nothing before, and something else or nothing from now on.
    fn differ(&mut self, id: PrefixId, before: bool, after: bool, rib: &mut Rib) {
        if !self.behind.contains(id) {
            if before {
                self.had.insert(id);
                rib.hold(id);
            }
            if before || after {
                self.behind.insert(id);
            }
        } else if !after && !self.had.contains(id) {
            self.behind.remove(id);
        }
    }

    /// Moves from the table of one group to that of another: it is behind in what they differ in.
    pub(super) fn compare(&mut self, key: PeerKey, old: &Told, new: &Told, rib: &mut Rib) {
        let seen = |told: &Told, id| {
            let entry = told.get((id, 0)).filter(|entry| entry.is_for(key));
            entry.map(|entry| std::sync::Arc::as_ptr(&entry.route))
        };
        for id in old.ids().chain(new.ids()) {
            let (before, after) = (seen(old, id), seen(new, id));
            if before != after || self.behind.contains(id) {
                self.differ(id, before.is_some(), after.is_some(), rib);
            }
        }
    }

    /// Whether there is something to be told from the group's table.
    pub(crate) fn is_behind(&self) -> bool {
        !self.behind.is_empty()
    }

    /// What stands in the group's table of the next prefixes in which it is behind, but for those that the group has to
    /// look at first.
    pub(crate) fn catch_up(&mut self, key: PeerKey, group: &Group, rib: &mut Rib) -> Bytes {
        let mut batch = Batch::new(&group.egress.context);
        let known = self.behind.iter().filter(|id| !group.pending.contains(*id));
        for id in known.take(BATCH).collect::<Vec<_>>() {
            if batch.is_full() {
                break;
            }
            self.behind.remove(id);
            self.tell(id, key, &group.told, &mut batch, rib);
            if self.had.remove(id) {
                rib.release(id);
            }
        }
        if self.behind.is_empty() {
            self.next = Some(group.log.end());
        }
        batch.encode().into_octets()
    }

    fn tell(&mut self, id: PrefixId, key: PeerKey, told: &Told, batch: &mut Batch<'_>, rib: &Rib) {
        let Some(prefix) = rib.prefix(id) else { return };
        let everybody = Audience::AllBut(None);
        for (label, entry) in told.of(id, key) {
            if let Some(slot) = batch.slot(&entry.route, prefix.family(), everybody) {
                batch.announce(slot, nlri(prefix, label));
            }
        }
        match (self.had.contains(id), told.has(id, key)) {
            (true, false) => {
                batch.withdraw(nlri(prefix, 0), everybody);
                self.advertised -= 1;
            }
            (false, true) if self.next.is_none() => self.advertised += 1,
            (true, true) | (false, _) => {}
        }
    }

    /// Once all is said: the end of what was said, or the beginning of what is said again.
    pub(crate) fn next_marks(
        &mut self,
        key: PeerKey,
        group: &Group,
        session: &Session,
        rib: &mut Rib,
    ) -> Option<Vec<Bytes>> {
        if !self.unfinished.is_empty() || !self.repeated.is_empty() {
            let ends = self.unfinished.drain(..).map(update::end_of_rib);
            let mut marks: Vec<Bytes> = ends.collect();
            let repeated = std::mem::take(&mut self.repeated);
            marks.extend(demarcation(repeated, RouteRefresh::END, session));
            return Some(marks);
        }
        if self.requested.is_empty() {
            return None;
        }
        self.repeated = std::mem::take(&mut self.requested);
        let wanted = |id: &PrefixId| {
            let prefix = rib.prefix(*id);
            prefix.is_some_and(|prefix| self.repeated.contains(&prefix.family())) && group.told.has(*id, key)
        };
        let again: Vec<PrefixId> = group.told.ids().filter(wanted).collect();
        self.behind.extend(again);
        // Others than a group of one may have to be told of a withdrawal meanwhile.
        if group.egress.alone.is_none() && self.is_behind() {
            for id in self.behind.iter() {
                rib.hold(id);
            }
            self.had = self.behind.clone();
            self.next = None;
        }
        Some(demarcation(self.repeated.iter().copied(), RouteRefresh::BEGIN, session).collect())
    }
}

/// The marks before or after what is repeated, where both sides know them. They never stand before the end mark of
/// the initial routes, which is said before any request is looked at (RFC 7313 §4).
fn demarcation(
    families: impl IntoIterator<Item = Family>,
    subtype: u8,
    session: &Session,
) -> impl Iterator<Item = Bytes> {
    let families = families.into_iter().filter(|_| session.demarcates_refresh);
    families.map(move |family| {
        let mark = Message::RouteRefresh(RouteRefresh {
            family: Some(family),
            subtype,
        });
        wire::encode(&mark, &session.context)
    })
}
