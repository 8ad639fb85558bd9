//! What would change: every sort of packet between every two ends, before and after some news.
//!
//! Nothing is decided here. Ends that no rule of either side tells apart are a group ([`ends`]), packets that none tells
//! apart a sort ([`packets`]); one packet of each sort between one end of each group and one of each other is walked
//! ([`crate::explain`]) as it is before, and as it is after. Two ends of which both sides say the same are not walked.
//! What has the same outcome is put together, so that the answer is as long as the change is complicated, and not as
//! the cluster is large.
//!
//! A flow is one sort of packets from one end to another, where rules of the whole cluster tell sorts apart. Nothing is
//! known of the ports that packets come from, as in an explanation: rules that name such ports are for none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnetwork::IpNetwork;
use manx_api::policy::{DefaultAction, Direction, Family, Origin, Policy, Rule};

use crate::compile::rules_of;
use crate::engine::Engine;
use crate::explain::{At, Decided, between};
use crate::graph::Graph;
use crate::hosts::Point;
use crate::lists::DIRECTIONS;

mod ends;
mod gather;
mod packets;

use ends::{Group, Member};
pub use gather::{Change, WhatIf};
use packets::{Landmarks, Sort, Spoken};
pub use packets::{Message, Packets};

/// Who sends or gets packets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The endpoint of this name.
    Endpoint(String),
    /// Whoever has an address in this network and is no endpoint, and is in no smaller network that somebody speaks of.
    Outside(IpNetwork),
}

/// What becomes of packets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Verdict {
    /// Whether they arrive.
    pub allowed: bool,
    /// Who decides; none: no policy speaks of them.
    pub decided: Option<Decided>,
}

/// Compares two engines, with so many walks at most; what is not walked then is counted as left out.
#[must_use]
pub fn what_if(before: &Engine, after: &Engine, walks: u64) -> WhatIf {
    let graphs = [&before.graph, &after.graph];
    let groups = ends::groups(graphs);
    let mut comparison = Comparison::of(graphs, &groups, walks);
    comparison.compare();
    gather::gather(comparison, &groups)
}

/// All rules of all policies.
fn rules(graph: &Graph) -> impl Iterator<Item = &Rule> {
    graph.policies.values().flat_map(|policy| {
        let of = move |direction| rules_of(policy, direction).into_iter().flatten();
        DIRECTIONS.into_iter().flat_map(of)
    })
}

/// The policies of a group's ends for a direction.
struct Own {
    /// The number of their list of policies, of either side.
    list: usize,
    /// Whether they say the same before and after.
    steady: bool,
}

/// Between which groups packets go, by what they are told apart.
type Key = (usize, usize, Family, bool);

/// What changes between two groups.
struct Found {
    from: usize,
    to: usize,
    family: Family,
    before: Verdict,
    after: Verdict,
    packets: Vec<Packets>,
    flows: u64,
}

/// Two states of knowledge, seen from groups of ends.
struct Comparison<'a> {
    graphs: [&'a Graph; 2],
    groups: &'a [Group],
    /// By group, of egress and ingress.
    own: Vec<[Own; 2]>,
    lists: Vec<BTreeSet<Arc<Origin>>>,
    landmarks: Landmarks<'a>,
    /// What all rules speak of, by family.
    all: BTreeMap<Family, Spoken>,
    sorts: BTreeMap<Key, Arc<[Sort]>>,
    walks: u64,
    found: Vec<Found>,
    flows: u64,
    left_out: u64,
}

impl<'a> Comparison<'a> {
    fn of(graphs: [&'a Graph; 2], groups: &'a [Group], walks: u64) -> Self {
        let mut lists: BTreeMap<BTreeSet<Arc<Origin>>, usize> = BTreeMap::new();
        let own = groups.iter().map(|group| {
            DIRECTIONS.map(|direction| {
                let [before, after] = graphs.map(|graph| own(graph, group, direction));
                let steady = before == after;
                let policies = before.into_iter().chain(after).flat_map(|stage| stage.policies);
                let list = policies.map(|(origin, _)| origin).collect();
                let next = lists.len();
                let list = *lists.entry(list).or_insert(next);
                Own { list, steady }
            })
        });
        let own = own.collect();
        let mut by_number: Vec<_> = lists.into_iter().map(|(list, number)| (number, list)).collect();
        by_number.sort_unstable_by_key(|(number, _)| *number);
        let landmarks = Landmarks::of(graphs);
        let of_host = groups.iter().any(|group| group.of_host);
        let all = Family::ALL.map(|family| {
            let rules = graphs.into_iter().flat_map(rules);
            (family, Spoken::by(rules, &landmarks, family, of_host))
        });
        Self {
            graphs,
            groups,
            own,
            lists: by_number.into_iter().map(|(_, list)| list).collect(),
            landmarks,
            all: all.into(),
            sorts: BTreeMap::new(),
            walks,
            found: Vec::new(),
            flows: 0,
            left_out: 0,
        }
    }

    fn compare(&mut self) {
        let groups = self.groups;
        let counts: BTreeMap<Family, u64> = self
            .all
            .iter()
            .map(|(it, spoken)| (*it, spoken.count()))
            .collect();
        for (from, source) in groups.iter().enumerate() {
            for (to, destination) in groups.iter().enumerate() {
                let Some(ends) = pair(source, destination) else {
                    continue;
                };
                let same = if from == to { source.members.len() } else { 0 };
                let pairs = (source.members.len() * destination.members.len() - same) as u64;
                let flows = pairs * counts.get(&source.family).copied().unwrap_or_default();
                self.flows += flows;
                let [egress, ingress] = [&self.own[from][0], &self.own[to][1]];
                if source.steady && destination.steady && egress.steady && ingress.steady {
                    continue;
                }
                let of_host = source.of_host || destination.of_host;
                let sorts = self.sorts((egress.list, ingress.list, source.family, of_host));
                match self.walks.checked_sub(sorts.len() as u64) {
                    Some(rest) => {
                        self.walks = rest;
                        self.walk((from, to), ends, (&sorts, pairs));
                    }
                    None => self.left_out += flows,
                }
            }
        }
    }

    /// The packets that the policies of two lists tell apart.
    fn sorts(&mut self, key: Key) -> Arc<[Sort]> {
        if let Some(known) = self.sorts.get(&key) {
            return known.clone();
        }
        let (egress, ingress, family, of_host) = key;
        let lists = [(egress, Direction::Egress), (ingress, Direction::Ingress)];
        let rules = lists.into_iter().flat_map(|(list, direction)| {
            let origins = self.lists[list].iter();
            let policies = origins.flat_map(|origin| self.graphs.map(|graph| graph.policies.get(origin)));
            let rules = policies
                .flatten()
                .filter_map(move |policy| rules_of(policy, direction));
            rules.flatten()
        });
        let spoken = Spoken::by(rules, &self.landmarks, family, of_host);
        let sorts: Arc<[Sort]> = self
            .all
            .get(&family)
            .map(|all| spoken.sorts(all))
            .into_iter()
            .flatten()
            .collect();
        self.sorts.insert(key, sorts.clone());
        sorts
    }

    /// Finds the sorts of packets from one group to another that would be treated otherwise, by how.
    fn walk(&mut self, (from, to): (usize, usize), ends: [&Member; 2], (sorts, pairs): (&[Sort], u64)) {
        let at = self.graphs.map(|graph| ends.map(|member| at(graph, member)));
        let mut changed: BTreeMap<(Verdict, Verdict), BTreeSet<usize>> = BTreeMap::new();
        for (number, sort) in sorts.iter().enumerate() {
            let verdict = |side: usize| {
                let [source, destination] = &at[side];
                let said = between(self.graphs[side], source, destination, sort.traffic);
                let (allowed, decided) = (said.allowed(), said.decided());
                Verdict { allowed, decided }
            };
            let (before, after) = (verdict(0), verdict(1));
            if before.allowed != after.allowed {
                changed.entry((before, after)).or_default().insert(number);
            }
        }
        for ((before, after), chosen) in changed {
            let count: u64 = chosen.iter().map(|number| sorts[*number].count).sum();
            self.found.push(Found {
                from,
                to,
                family: self.groups[from].family,
                before,
                after,
                packets: packets::summary(sorts, &chosen),
                flows: pairs * count,
            });
        }
    }
}

/// One end of each of two groups, between which packets of an endpoint go; none if there are no two such.
fn pair<'a>(source: &'a Group, destination: &'a Group) -> Option<[&'a Member; 2]> {
    let is_endpoint = |group: &Group| group.members.iter().any(|member| member.endpoint.is_some());
    if source.family != destination.family || !(is_endpoint(source) || is_endpoint(destination)) {
        return None;
    }
    let mut pairs = source.members.iter().flat_map(|from| {
        let others = destination.members.iter().filter(|to| to.place != from.place);
        others.map(move |to| [from, to])
    });
    pairs.next()
}

fn at<'a>(graph: &'a Graph, member: &Member) -> At<'a> {
    let at = At::new(graph, member.address);
    match &member.endpoint {
        Some(id) => at.of_endpoint(graph, id),
        None => at,
    }
}

/// A tier's part of what an end's packets meet.
#[derive(PartialEq)]
struct Stage<'a> {
    point: Point,
    tier: &'a str,
    end: DefaultAction,
    policies: Vec<(Arc<Origin>, Option<&'a Policy>)>,
}

/// What the packets of a group's ends meet in a direction.
fn own<'a>(graph: &'a Graph, group: &Group, direction: Direction) -> Vec<Stage<'a>> {
    let endpoint = group.members.first().and_then(|member| member.endpoint.as_ref());
    let Some((id, (_, thing))) = endpoint.and_then(|id| Some((id, graph.things.endpoint(id)?))) else {
        return Vec::new();
    };
    let selected = graph.selecting(id, thing);
    let points = Point::ALL
        .into_iter()
        .filter(|point| point.acts_on_own(direction));
    let stages = points.flat_map(|point| {
        let stages = graph.stages(direction, &selected, |hook| point.is_of(hook));
        stages.into_iter().map(move |(tier, policies)| Stage {
            point,
            tier,
            end: graph.tier(tier).default_action,
            policies: policies
                .into_iter()
                .map(|origin| (origin.clone(), graph.policies.get(&origin)))
                .collect(),
        })
    });
    stages.collect()
}
