//! Host endpoints in the graph. A node has few of them, so that all follow whenever one may have to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use manx_api::policy::{DefaultAction, Direction, Family, Origin};

use super::{Graph, PolicyChain};
use crate::chains;
use crate::hosts::{self, HostLists, Point};
use crate::input::HostInterface;
use crate::lists::{List, Stage};
use crate::ruleset::{ChainId, Hook};

/// An interface of this node.
#[derive(Clone, Debug)]
pub(super) struct Host {
    interface: HostInterface,
    pub(super) selected: BTreeSet<Arc<Origin>>,
}

/// What is there for host endpoints.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    pub(super) chains: BTreeSet<ChainId>,
    led_into: BTreeSet<PolicyChain>,
}

impl Graph {
    pub(super) fn set_host(&mut self, name: &str, interface: Option<HostInterface>) {
        let id: Arc<str> = name.into();
        let before = self.hosts.remove(&id);
        let is_host = interface.is_some();
        if before.as_ref().map(|host| &host.interface) == interface.as_ref() {
            self.hosts.extend(before.map(|host| (id, host)));
            return;
        }
        let selected = before.map(|host| host.selected).unwrap_or_default();
        match interface {
            Some(interface) => drop(self.hosts.insert(id.clone(), Host { interface, selected })),
            None => self.release_policies(&selected),
        }
        self.set_local_thing(&id, is_host);
        self.touched.hosts = true;
    }

    /// The host endpoint that an interface is, if it is no pod's.
    pub(crate) fn host_behind(&self, interface: Option<&str>) -> Option<&Arc<str>> {
        let is_one = |host: &Host, one: &HostInterface| host.interface == *one;
        let named = HostInterface::Named(interface?.to_owned());
        let find = |one: &HostInterface| self.hosts.iter().find(|(_, host)| is_one(host, one));
        let found = find(&named).or_else(|| find(&HostInterface::All));
        found.map(|(id, _)| id)
    }

    /// Finds host endpoints' policies, and writes their chains.
    pub(super) fn follow_hosts(&mut self) {
        if !std::mem::take(&mut self.touched.hosts) {
            return;
        }
        for (id, mut host) in std::mem::take(&mut self.hosts) {
            let thing = self.things.endpoint(&id).map(|(_, thing)| thing);
            let selected = thing.map(|thing| self.by_subject.selecting(&self.things, thing));
            let selected: BTreeSet<Arc<Origin>> = selected.into_iter().flatten().collect();
            self.acquire_policies(&selected);
            let before = std::mem::replace(&mut host.selected, selected);
            self.release_policies(&before);
            self.hosts.insert(id, host);
        }
        self.show_hosts();
    }

    /// The lists of all host endpoints, at the points where any has one.
    fn host_lists(&self) -> HostLists {
        let mut lists = HostLists::new();
        for point in Point::ALL {
            let mut by_interface = BTreeMap::new();
            for (id, host) in &self.hosts {
                if let Some((_, thing)) = self.things.endpoint(id) {
                    let list = self.host_list(point, &host.selected, thing.closed);
                    by_interface.entry(host.interface.clone()).or_insert(list);
                }
            }
            if by_interface.values().any(Option::is_some) {
                lists.insert(point, by_interface);
            }
        }
        lists
    }

    fn host_list(&self, point: Point, selected: &BTreeSet<Arc<Origin>>, closed: bool) -> Option<List> {
        let direction = point.direction();
        let stages = self.stages(direction, selected, |hook| point.is_of(hook));
        let mut list = self.list(direction, stages, point.is_early()).unwrap_or(List {
            direction,
            stages: Vec::new(),
        });
        if closed && matches!(point, Point::Own(_)) {
            list.stages.push(Stage {
                tier: CLOSED.to_owned(),
                policies: Vec::new(),
                decides: true,
                end: DefaultAction::Deny,
            });
        }
        (!list.stages.is_empty()).then_some(list)
    }

    fn show_hosts(&mut self) {
        let before = std::mem::take(&mut self.shown_hosts);
        let mut shown = Shown::default();
        let mut hooks: BTreeSet<Hook> = BTreeSet::new();
        if let Some(settings) = &self.settings {
            let lists = self.host_lists();
            hooks = chains::hooks();
            for family in Family::ALL {
                let through = [Direction::Ingress, Direction::Egress]
                    .map(|direction| lists.contains_key(&Point::Through(direction)));
                let (mut all, own_hooks) = hosts::chains(family, &lists, (settings, &self.failsafes));
                hooks.extend(own_hooks);
                for (chain, rules) in chains::changing(family, through) {
                    all.entry(chain).or_insert(rules);
                }
                for (chain, rules) in all {
                    shown.chains.insert(chain.clone());
                    self.chains.put(chain, rules, &mut self.sets);
                }
                for list in lists.values().flat_map(BTreeMap::values).flatten() {
                    let policies = list.stages.iter().flat_map(|stage| &stage.policies);
                    shown
                        .led_into
                        .extend(policies.map(|origin| (family, list.direction, origin.clone())));
                }
            }
        }
        for chain in before.chains.difference(&shown.chains) {
            self.chains.remove(chain, &mut self.sets);
        }
        self.chains.set_hooks(hooks);
        for chain in &shown.led_into {
            *self.led_into.entry(chain.clone()).or_default() += 1;
        }
        for chain in &before.led_into {
            if let Some(led_into) = self.led_into.get_mut(chain) {
                *led_into = led_into.saturating_sub(1);
            }
        }
        let touched = shown.led_into.symmetric_difference(&before.led_into);
        self.touched.policy_chains.extend(touched.cloned());
        self.shown_hosts = shown;
    }
}

/// What stands for a tier's name where an endpoint that nothing opens ends.
pub(crate) const CLOSED: &str = "(closed)";
