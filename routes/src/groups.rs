//! Which group of nexthops a route leads through, and what each group leads to.
//!
//! Routes that ask for the same share a group. The group remembers what they ask for, not the routes: that is enough to
//! move all of them at once when a router is lost, and when they have come to agree on something else.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;

use crate::nexthop::{Nexthop, Object, hops};
use crate::plan::Change;
use crate::route::{Hop, are_met_by};
use crate::table::Bundle;

/// Where our numbers start: far from those that the kernel gives out by itself, which count from 1.
const FIRST: u32 = 0x6d78_0000;

/// A group in the kernel.
#[derive(Debug, Default)]
struct Group {
    /// The routers that it leads to.
    members: Vec<Hop>,
    /// The routes through it.
    routes: usize,
    /// What how many of them ask for.
    wants: BTreeMap<Arc<Bundle>, usize>,
}

impl Group {
    /// What all of its routes ask for, if that is one thing.
    fn common(&self) -> Option<&Arc<Bundle>> {
        let (bundle, count) = self.wants.first_key_value()?;
        (*count == self.routes).then_some(bundle)
    }

    /// What most of its routes ask for.
    fn most(&self) -> Option<&Arc<Bundle>> {
        self.wants
            .iter()
            .max_by_key(|(_, count)| **count)
            .map(|(it, _)| it)
    }
}

/// The groups, and the routers in them.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    hops: BTreeMap<Hop, u32>,
    groups: BTreeMap<u32, Group>,
    /// The group that was made last for what routes ask for.
    by_bundle: BTreeMap<Arc<Bundle>, u32>,
    /// The groups that lead to these gateways, over whichever interfaces.
    by_gateways: BTreeMap<Vec<IpAddr>, BTreeSet<u32>>,
    /// Routers to go around.
    lost: BTreeSet<Hop>,
    /// Groups whose routes have changed their mind.
    shifted: BTreeSet<u32>,
    /// Those of them whose routes are to move to another group that leads there already.
    parting: BTreeSet<u32>,
    /// What the kernel said to the objects that it refused.
    refused: BTreeMap<u32, String>,
    /// How many numbers were given.
    given: u32,
    /// What is to be done before any route is changed.
    puts: Vec<Change>,
    /// Where the groups led that are to lead elsewhere now, until the kernel has agreed.
    before: BTreeMap<u32, Vec<Hop>>,
}

impl Groups {
    /// Takes what was read from the kernel in the place of what was known. No route leads through any of it yet.
    pub(crate) fn read(&mut self, found: &[Nexthop]) {
        let highest = found.iter().map(|it| it.id).max().unwrap_or(0);
        self.given = self.given.max(highest.saturating_sub(FIRST));
        self.hops.clear();
        self.groups.clear();
        self.by_bundle.clear();
        self.by_gateways.clear();
        self.shifted.clear();
        self.parting.clear();
        self.refused.clear();
        self.puts.clear();
        self.before.clear();
        let mut leads_to = hops(found);
        for Nexthop { id, object } in found {
            match object {
                Object::Hop(hop) => {
                    self.hops.insert(*hop, *id);
                }
                Object::Group(_) => {
                    self.groups.insert(*id, Group::default());
                    self.set_members(*id, leads_to.remove(id).unwrap_or_default());
                }
            }
        }
    }

    /// Where what routes ask for leads as things are: around the routers that are lost, where there is a way.
    pub(crate) fn now<'a>(&self, bundle: &'a Bundle) -> Cow<'a, [Hop]> {
        let lost = |hop: &Hop| {
            self.lost
                .iter()
                .any(|lost| lost.is_met_by(hop) || hop.is_met_by(lost))
        };
        if self.lost.is_empty() || !bundle.via.iter().any(lost) {
            return (&bundle.via).into();
        }
        let left: Vec<Hop> = bundle.via.iter().copied().filter(|hop| !lost(hop)).collect();
        let backup = || bundle.backup.filter(|hop| !lost(hop)).map(|hop| vec![hop]);
        let around = if left.is_empty() { backup() } else { Some(left) };
        around.map_or_else(|| (&bundle.via).into(), Into::into)
    }

    /// Whether a group leads where that is to lead.
    pub(crate) fn meets(&self, id: u32, bundle: &Bundle) -> bool {
        self.groups
            .get(&id)
            .is_some_and(|group| are_met_by(&self.now(bundle), &group.members))
    }

    /// The routers that a group leads to.
    pub(crate) fn members(&self, id: u32) -> Option<&[Hop]> {
        self.groups.get(&id).map(|group| &group.members[..])
    }

    /// A route leads through a group from now on, and asks for that.
    pub(crate) fn join(&mut self, id: u32, bundle: Option<&Arc<Bundle>>) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.routes += 1;
            if let Some(bundle) = bundle {
                *group.wants.entry(bundle.clone()).or_default() += 1;
            }
            self.shifted.insert(id);
        }
    }

    /// It does no longer, or asks for something else.
    pub(crate) fn leave(&mut self, id: u32, bundle: Option<&Arc<Bundle>>) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.routes = group.routes.saturating_sub(1);
            self.shifted.insert(id);
            if let Some(bundle) = bundle
                && let Some(count) = group.wants.get_mut(bundle)
            {
                *count -= 1;
                if *count == 0 {
                    group.wants.remove(bundle);
                }
            }
        }
    }

    /// The group for a route that asks for that; made where there is none.
    pub(crate) fn choose(&mut self, bundle: &Arc<Bundle>) -> u32 {
        if let Some(id) = self.by_bundle.get(bundle)
            && self.meets(*id, bundle)
        {
            return *id;
        }
        let id = self.fitting(bundle).unwrap_or_else(|| {
            let id = self.number();
            self.groups.insert(id, Group::default());
            let members = self.now(bundle).into_owned();
            self.put(id, members);
            id
        });
        self.by_bundle.insert(bundle.clone(), id);
        id
    }

    /// A group that leads where that is to lead.
    fn fitting(&self, bundle: &Bundle) -> Option<u32> {
        let alike = self.by_gateways.get(&gateways(&self.now(bundle)))?;
        alike.iter().copied().find(|id| self.meets(*id, bundle))
    }

    /// Routers are lost: groups lead around them, the way that most of their routes ask for.
    pub(crate) fn lose(&mut self, lost: &[Hop]) {
        self.lost.extend(lost);
        let detour = |(id, group): (&u32, &Group)| {
            let way = self.now(group.most()?);
            (!are_met_by(&way, &group.members)).then(|| (*id, way.into_owned()))
        };
        let detours: Vec<_> = self.groups.iter().filter_map(detour).collect();
        for (id, members) in detours {
            self.put(id, members);
        }
    }

    /// Routers are no longer to be gone around.
    pub(crate) fn find(&mut self, found: &[Hop]) {
        for hop in found {
            self.lost.remove(hop);
        }
        self.shifted.extend(self.groups.keys());
    }

    /// Moves the groups whose routes all ask for something else by now, where no other group leads: of two that lead
    /// to the same, each would have to be moved when a router is lost.
    pub(crate) fn follow(&mut self) {
        for id in mem::take(&mut self.shifted) {
            let Some(bundle) = self.groups.get(&id).and_then(Group::common).cloned() else {
                continue;
            };
            if self.meets(id, &bundle) {
                continue;
            }
            if self.fitting(&bundle).is_some() {
                self.parting.insert(id);
            } else {
                let members = self.now(&bundle).into_owned();
                self.put(id, members);
            }
        }
    }

    /// Has every group looked at whose routes may ask for something else than where it leads.
    pub(crate) fn doubt(&mut self) {
        self.parting.extend(self.groups.keys());
    }

    /// Of the groups to be looked at, those that it is true of.
    pub(crate) fn take_parting(&mut self) -> BTreeSet<u32> {
        let mut parting = mem::take(&mut self.parting);
        let differs = |id, group: &Group| group.wants.keys().any(|it| !self.meets(id, it));
        parting.retain(|id| self.groups.get(id).is_some_and(|group| differs(*id, group)));
        parting
    }

    /// What is to be done before any route is changed.
    pub(crate) fn take_puts(&mut self) -> Vec<Change> {
        mem::take(&mut self.puts)
    }

    /// Gives up what no route leads through, in the order in which it can be deleted.
    pub(crate) fn sweep(&mut self) -> Vec<Change> {
        let unused = |group: &Group| group.routes == 0;
        let gone = self.groups.iter().filter(|(_, group)| unused(group));
        let gone: Vec<u32> = gone.map(|(id, _)| *id).collect();
        if gone.is_empty() {
            return Vec::new();
        }
        for id in &gone {
            self.set_members(*id, Vec::new());
            self.groups.remove(id);
        }
        self.by_bundle.retain(|_, id| self.groups.contains_key(id));
        let members = self.groups.values().flat_map(|group| &group.members);
        let used: BTreeSet<IpAddr> = members.map(|hop| hop.gateway).collect();
        let routers = self.hops.extract_if(.., |hop, _| !used.contains(&hop.gateway));
        let routers: Vec<u32> = routers.map(|(_, id)| id).collect();
        gone.into_iter().chain(routers).map(Change::Drop).collect()
    }

    /// The kernel took an object, or refused it.
    pub(crate) fn committed(&mut self, nexthop: &Nexthop, outcome: Result<(), String>) {
        let before = self.before.remove(&nexthop.id);
        let Err(words) = outcome else { return };
        let words = match &nexthop.object {
            Object::Hop(hop) => {
                self.hops.remove(hop);
                words
            }
            Object::Group(ids) => {
                self.by_bundle.retain(|_, id| *id != nexthop.id);
                self.set_members(nexthop.id, before.unwrap_or_default());
                let of_member = ids.iter().find_map(|id| self.refused.get(id).cloned());
                of_member.unwrap_or(words)
            }
        };
        self.refused.insert(nexthop.id, words);
    }

    /// Why a route through this object was refused, where the object was.
    pub(crate) fn refusal(&self, id: u32) -> Option<&String> {
        self.refused.get(&id)
    }

    /// Whether the kernel has refused an object.
    pub(crate) fn has_refusals(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Has a group lead to these from now on.
    fn put(&mut self, id: u32, members: Vec<Hop>) {
        let ids = members.iter().map(|hop| self.router(*hop)).collect();
        let object = Object::Group(ids);
        self.puts.push(Change::Put(Nexthop { id, object }));
        let group = self.groups.get(&id);
        let before = group.map_or_else(Vec::new, |group| group.members.clone());
        self.before.entry(id).or_insert(before);
        self.set_members(id, members);
    }

    fn set_members(&mut self, id: u32, members: Vec<Hop>) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let after = gateways(&members);
        let before = gateways(&mem::replace(&mut group.members, members));
        if let Some(ids) = self.by_gateways.get_mut(&before) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_gateways.remove(&before);
            }
        }
        if !after.is_empty() {
            self.by_gateways.entry(after).or_default().insert(id);
        }
    }

    /// The object of a router; made where there is none.
    fn router(&mut self, hop: Hop) -> u32 {
        let first = Hop { device: None, ..hop };
        let same = self
            .hops
            .range(first..)
            .take_while(|(it, _)| it.gateway == hop.gateway);
        if let Some((_, id)) = same.into_iter().find(|(it, _)| hop.is_met_by(it)) {
            return *id;
        }
        let id = self.number();
        self.hops.insert(hop, id);
        let object = Object::Hop(hop);
        self.puts.push(Change::Put(Nexthop { id, object }));
        id
    }

    fn number(&mut self) -> u32 {
        self.given += 1;
        FIRST + self.given
    }
}

/// The hops' gateways, in order.
fn gateways(hops: &[Hop]) -> Vec<IpAddr> {
    let mut gateways: Vec<IpAddr> = hops.iter().map(|hop| hop.gateway).collect();
    gateways.sort_unstable();
    gateways
}
