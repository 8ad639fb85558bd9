//! The kernel's nexthop objects: routers, and groups of them, by numbers that routes lead through.

use std::collections::BTreeMap;

use crate::route::{Actual, Hop, Target};

/// A nexthop object of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nexthop {
    /// Its number, among all of the namespace's.
    pub id: u32,
    /// What it is.
    pub object: Object,
}

/// What a nexthop object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A router.
    Hop(Hop),
    /// Any of these routers, by number, spread by flow with equal weight.
    Group(Vec<u32>),
}

/// What was read from the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Routes of its main table.
    pub routes: Vec<Actual>,
    /// The nexthop objects that they may lead through.
    pub nexthops: Vec<Nexthop>,
}

impl Found {
    /// The routes with the routers themselves in the place of the objects' numbers; a route through an object that is
    /// not here leads we know not where.
    #[must_use]
    pub fn expanded(&self) -> Vec<Actual> {
        let hops = hops(&self.nexthops);
        let target = |target: &Option<Target>| match target {
            Some(Target::Group(id)) => hops.get(id).cloned().map(Target::Via),
            other => other.clone(),
        };
        let routes = self.routes.iter().map(|route| Actual {
            target: target(&route.target),
            ..route.clone()
        });
        routes.collect()
    }
}

/// The routers that each object leads to.
pub(crate) fn hops(nexthops: &[Nexthop]) -> BTreeMap<u32, Vec<Hop>> {
    let single = |it: &Nexthop| match it.object {
        Object::Hop(hop) => Some((it.id, hop)),
        Object::Group(_) => None,
    };
    let routers: BTreeMap<u32, Hop> = nexthops.iter().filter_map(single).collect();
    let all = nexthops.iter().map(|it| match &it.object {
        Object::Hop(hop) => (it.id, vec![*hop]),
        Object::Group(ids) => (
            it.id,
            ids.iter().filter_map(|id| routers.get(id).copied()).collect(),
        ),
    });
    all.collect()
}
