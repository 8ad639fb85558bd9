//! Peers that are told the same are told together (RFC 4271 §3.2, Adj-RIB-Out).
//!
//! A group is all peers with an equal [`Egress`]. It has one table of what they are told, each route with the peer that
//! it came from, who is told nothing of it. Nothing is queued but the numbers of prefixes: what is said of a prefix is
//! worked out when some member has room to hear it, from the routing table as it is then, and put into messages once
//! for all: a [`Step`]. A member takes the steps at its own pace, as the same octets, from the group's [`log`]. One that
//! is too late for the log, and one that has come later, is *behind*: it has a set of prefixes of which it is told what
//! stands in the group's table, and then takes steps again. So a peer that reads slowly holds up nobody and hears only the
//! last word (RFC 4271 §9.2).
//!
//! Where paths carry identifiers, a peer is told several of a prefix and not its own, so which it is told depends on who
//! it is: it is a group of one.

mod batch;
mod log;
mod outbound;
mod step;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::PeerKey;
use crate::config::Config;
use crate::egress::Egress;
use crate::export::Target;
use crate::rib::{PrefixId, PrefixSet, Rib};
use batch::Batch;
pub(crate) use batch::Step;
use log::Log;
pub(crate) use outbound::Outbound;
use step::Stepper;
use told::Told;

/// Prefixes looked at per step: enough to fill messages, few enough to notice soon that a peer is slow.
const BATCH: usize = 4096;

/// A group's number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupId(u64);

/// All groups that have members.
#[derive(Debug)]
pub(crate) struct Groups {
    ids: HashMap<Arc<Egress>, GroupId, FixedState>,
    groups: BTreeMap<GroupId, Group>,
    /// The number that the next group gets.
    next: GroupId,
}

/// Peers that are told the same.
#[derive(Debug)]
pub(crate) struct Group {
    egress: Arc<Egress>,
    members: BTreeSet<PeerKey>,
    /// What they are told.
    told: Told,
    /// What is to be looked at.
    pending: PrefixSet,
    /// What was said and some members have not heard.
    log: Log,
}

impl Groups {
    /// None.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            ids: HashMap::with_hasher(FixedState::with_seed(seed)),
            groups: BTreeMap::new(),
            next: GroupId::default(),
        }
    }

    /// A group that there is.
    pub(crate) fn get(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(&id)
    }

    /// A group that there is.
    pub(crate) fn get_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        self.groups.get_mut(&id)
    }

    /// All groups of a kind may have to be told of these prefixes: which groups that are.
    pub(crate) fn mark(&mut self, ids: &[PrefixId], kind: impl Fn(&Egress) -> bool) -> Vec<GroupId> {
        if ids.is_empty() {
            return Vec::new();
        }
        let of_kind = self.groups.iter_mut().filter(|(_, group)| kind(&group.egress));
        let marked = of_kind.map(|(id, group)| {
            group.pending.extend(ids.iter().copied());
            *id
        });
        marked.collect()
    }

    /// A peer's session is up: it has nothing yet, and gets all that the peers like it have.
    pub(crate) fn join(&mut self, key: PeerKey, outbound: &mut Outbound, egress: &Arc<Egress>, rib: &Rib) {
        let id = match self.ids.get(egress) {
            Some(id) => *id,
            None => {
                let pending = if egress.hears_inside() {
                    everything(rib)
                } else {
                    rib.open().collect()
                };
                self.add(Group::new(egress.clone(), Told::default(), pending))
            }
        };
        if let Some(group) = self.groups.get_mut(&id) {
            outbound.start(key, id, group);
        }
    }

    /// A peer's session is over: it has nothing.
    pub(crate) fn leave(&mut self, key: PeerKey, outbound: &mut Outbound, rib: &mut Rib) {
        let outbound = std::mem::take(outbound);
        if let Some(id) = outbound.group
            && let Some(group) = self.groups.get_mut(&id)
        {
            outbound.stop(key, group, rib);
            self.forget_empty(id, rib);
        }
    }

    /// Another thing may decide what a peer is told from now on. It hears of the differences only.
    pub(crate) fn move_to(
        &mut self,
        egress: &Arc<Egress>,
        key: PeerKey,
        outbound: &mut Outbound,
        rib: &mut Rib,
    ) {
        let Some(old) = outbound.group else { return };
        let Some(group) = self.groups.get_mut(&old).filter(|group| group.egress != *egress) else {
            return;
        };
        outbound.fall_behind(key, group, rib);
        if let Some(new) = self.ids.get(egress).copied() {
            if let Some(new) = self.groups.get(&new)
                && let Some(old) = self.groups.get(&old)
            {
                outbound.compare(key, &old.told, &new.told, rib);
            }
            if let Some(group) = self.groups.get_mut(&new) {
                group.members.insert(key);
                outbound.settle(new, group);
            }
        } else {
            // A group like the old one at first, whose table is all judged anew.
            let told = group.told.fork(rib);
            let mut new = Group::new(egress.clone(), told, everything(rib));
            new.members.insert(key);
            let id = self.add(new);
            if let Some(group) = self.groups.get_mut(&id) {
                outbound.settle(id, group);
            }
        }
        if let Some(group) = self.groups.get_mut(&old) {
            group.members.remove(&key);
        }
        self.forget_empty(old, rib);
    }

    fn add(&mut self, group: Group) -> GroupId {
        let id = self.next;
        self.next = GroupId(id.0 + 1);
        self.ids.insert(group.egress.clone(), id);
        self.groups.insert(id, group);
        id
    }

    fn forget_empty(&mut self, id: GroupId, rib: &mut Rib) {
        if self.groups.get(&id).is_some_and(|group| group.members.is_empty())
            && let Some(mut group) = self.groups.remove(&id)
        {
            self.ids.remove(&group.egress);
            group.told.clear(rib);
        }
    }
}

impl Group {
    fn new(egress: Arc<Egress>, told: Told, pending: PrefixSet) -> Self {
        Self {
            egress,
            members: BTreeSet::new(),
            told,
            pending,
            log: Log::default(),
        }
    }

    /// Its members, in order.
    pub(crate) fn members(&self) -> impl Iterator<Item = PeerKey> {
        self.members.iter().copied()
    }

    /// Whether there is something to be looked at.
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Looks at the next prefixes, and books what has changed as told. Where `notes`, the changes are kept for those that
    /// are not told now: [`Step::changes`].
    pub(crate) fn step(&mut self, local: &Config, rib: &mut Rib, notes: bool) -> Step {
        let egress = &self.egress;
        let mut stepper = Stepper {
            target: Target {
                local,
                egress,
                peer: egress.alone,
            },
            members: &self.members,
            told: &mut self.told,
            rib,
            batch: Batch::new(&egress.context),
            notes,
            found: HashMap::default(),
            last: None,
        };
        for _ in 0..BATCH {
            if stepper.batch.is_full() {
                break;
            }
            let Some(id) = self.pending.pop_first() else { break };
            stepper.look(id);
        }
        stepper.batch.encode()
    }

    /// Keeps a step that so many members take later, if any.
    pub(crate) fn keep(&mut self, step: Step, waiting: usize, rib: &mut Rib) {
        if waiting == 0 {
            release(vec![step], rib);
        } else {
            self.log.push(step, waiting);
        }
    }

    /// Whether its log is too long: who has to be told its first step has to be told otherwise.
    pub(crate) fn is_late(&self, outbound: &Outbound) -> bool {
        self.log.is_long() && outbound.next == Some(self.log.first())
    }
}

fn everything(rib: &Rib) -> PrefixSet {
    rib.ids().into_iter().collect()
}

/// Nobody waits for these steps: the numbers of their prefixes may be given to others.
fn release(steps: Vec<Step>, rib: &mut Rib) {
    for change in steps.iter().flat_map(|step| &step.changes) {
        rib.release(change.id);
    }
}
