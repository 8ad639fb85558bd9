//! The reference model: what every table of a network must hold once nothing happens any more.
//!
//! It knows no messages, sessions, timers or increments: a route is what the rules of RFC 4271 §9.1 and §5.1 and
//! RFC 4456 §8 make of its neighbours' best routes, and the tables are the state in which no rule has anything
//! left to change. It shares no code with the speaker, only the vocabulary of settings.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use manx_bgp::wire::{NextHop, Segment};
use manx_bgp::{NextHopMode, PathSnapshot, Policy, Prefix};

use crate::network::{Network, Node, address, node_of};
use crate::plan::{Plan, address_v6};

/// A way to a prefix, as a speaker holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// From whom; nobody for one's own.
    pub(crate) from: Option<Node>,
    /// Through whom.
    pub(crate) next_hop: Option<IpAddr>,
    /// ASes on the way, the nearest first.
    pub(crate) as_path: Vec<u32>,
    /// The degree of preference.
    pub(crate) local_pref: u32,
    /// Who brought it into the AS, where it was reflected.
    pub(crate) originator: Option<Ipv4Addr>,
    /// The clusters on its way, the nearest first.
    pub(crate) clusters: Vec<Ipv4Addr>,
}

/// What a speaker knows of a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What carries traffic, the best first.
    pub(crate) selected: Vec<Route>,
    /// Who announces the prefix, whether that may be used or not.
    pub(crate) heard: BTreeSet<Node>,
}

/// What a speaker holds.
pub(crate) type Table = BTreeMap<Prefix, Entry>;

/// A network in which some links work.
#[derive(Debug)]
pub(crate) struct Model<'a> {
    plan: &'a Plan,
    /// Whose sessions are up, by speaker.
    live: Vec<BTreeSet<Node>>,
    /// Which speakers run.
    running: Vec<bool>,
}

impl<'a> Model<'a> {
    /// The plan, as far as the network lets it be: speakers that run, and links between them that are not cut.
    pub(crate) fn new(plan: &'a Plan, network: &Network) -> Self {
        let running: Vec<bool> = network.hosts.iter().map(|host| host.speaker.is_some()).collect();
        let works = |a: Node, b: Node| {
            running[a] && running[b] && network.connected(a, b) && plan.peers[b].contains_key(&a)
        };
        let live = plan.peers.iter().enumerate();
        Self {
            plan,
            live: live
                .map(|(a, peers)| peers.keys().copied().filter(|&b| works(a, b)).collect())
                .collect(),
            running,
        }
    }

    /// The tables of all speakers.
    pub(crate) fn tables(&self) -> Vec<Table> {
        let mut tables = vec![Table::new(); self.running.len()];
        let prefixes: BTreeSet<Prefix> = self.plan.origins.iter().flatten().copied().collect();
        for prefix in prefixes {
            for (node, entry) in self.settle(prefix).into_iter().enumerate() {
                if entry != Entry::default() {
                    tables[node].insert(prefix, entry);
                }
            }
        }
        tables
    }

    /// What everybody knows of one prefix when nobody has anything left to say.
    fn settle(&self, prefix: Prefix) -> Vec<Entry> {
        let count = self.running.len();
        let mut told = vec![BTreeMap::<Node, Route>::new(); count];
        let mut selected = vec![Vec::new(); count];
        let originates = |node: &Node| self.running[*node] && self.plan.origins[*node].contains(&prefix);
        let mut restless: BTreeSet<Node> = (0..count).filter(originates).collect();
        while let Some(node) = restless.pop_first() {
            let own = originates(&node).then(Route::own);
            let choice = self.choose(node, prefix, own.into_iter().chain(told[node].values().cloned()));
            if choice == selected[node] {
                continue;
            }
            selected[node] = choice;
            for &peer in &self.live[node] {
                let best = selected[node].first();
                let says = best.and_then(|best| self.announced(node, peer, prefix, best));
                let said = match says.clone() {
                    Some(route) => told[peer].insert(node, route),
                    None => told[peer].remove(&node),
                };
                if said != says {
                    restless.insert(peer);
                }
            }
        }
        let entries = selected.into_iter().zip(told);
        entries
            .map(|(selected, told)| Entry {
                selected,
                heard: told.into_keys().collect(),
            })
            .collect()
    }

    /// What carries traffic, of all that a speaker knows: the best and its equals up to the step at which only
    /// identifiers are left to compare.
    fn choose(&self, node: Node, prefix: Prefix, known: impl Iterator<Item = Route>) -> Vec<Route> {
        let mut usable: Vec<Route> = known.filter(|route| self.usable(node, prefix, route)).collect();
        let merit = |route: &Route| {
            (
                route.from.is_some(),
                Reverse(route.local_pref),
                route.as_path.len(),
                route.from.is_some_and(|from| !self.external(node, from)),
            )
        };
        let Some(best) = usable.iter().map(merit).min() else {
            return usable;
        };
        usable.retain(|route| merit(route) == best);
        usable.sort_by_key(|route| {
            let teller = route.from.map(|from| self.plan.speakers[from].router_id);
            (
                route.originator.or(teller),
                route.clusters.len(),
                route.from.map(address),
            )
        });
        usable.truncate(self.plan.speakers[node].max_paths);
        usable
    }

    /// Loops and the import policy.
    fn usable(&self, node: Node, prefix: Prefix, route: &Route) -> bool {
        let Some(from) = route.from else { return true };
        let us = &self.plan.speakers[node];
        let ours = [address(node).into(), address_v6(node).into()];
        passes(&self.plan.peers[node][&from].import, prefix)
            && !route.as_path.contains(&us.asn)
            && route.originator != Some(us.router_id)
            && !route.clusters.contains(&self.cluster(node))
            && !route.next_hop.is_some_and(|it| ours.contains(&it))
    }

    /// What `node` tells `peer` of its best route.
    fn announced(&self, node: Node, peer: Node, prefix: Prefix, best: &Route) -> Option<Route> {
        let settings = &self.plan.peers[node][&peer];
        let carried = |families: &[_]| families.contains(&prefix.family());
        let by_ibgp = best.from.filter(|&from| !self.external(node, from));
        let client = |it: Node| self.plan.peers[node][&it].route_reflector_client;
        let reflects = by_ibgp.is_none_or(|from| self.external(node, peer) || client(from) || client(peer));
        let admitted = carried(&settings.families)
            && carried(&self.plan.peers[peer][&node].families)
            && passes(&settings.export, prefix)
            && best.from != Some(peer)
            && reflects;
        admitted.then(|| Route {
            from: Some(node),
            next_hop: Some(self.next_hop(node, peer, prefix, best)),
            ..if self.external(node, peer) {
                self.abroad(node, best)
            } else {
                self.at_home(node, best, by_ibgp)
            }
        })
    }

    /// RFC 4271 §5.1.3.
    fn next_hop(&self, node: Node, peer: Node, prefix: Prefix, best: &Route) -> IpAddr {
        let ours = match prefix.address() {
            IpAddr::V4(_) => address(node).into(),
            IpAddr::V6(_) => address_v6(node).into(),
        };
        let keeps = match self.plan.peers[node][&peer].next_hop {
            NextHopMode::Auto => !self.external(node, peer),
            NextHopMode::SelfAddress => false,
            NextHopMode::Keep => true,
        };
        best.next_hop.filter(|_| keeps).unwrap_or(ours)
    }

    /// To another AS: one more AS on the way, and nothing that is the AS's own business.
    fn abroad(&self, node: Node, best: &Route) -> Route {
        let asn = self.plan.speakers[node].asn;
        Route {
            as_path: std::iter::once(asn).chain(best.as_path.iter().copied()).collect(),
            ..Route::own()
        }
    }

    /// Within the AS: as it is, with RFC 4456's traces where it came from within.
    fn at_home(&self, node: Node, best: &Route, by_ibgp: Option<Node>) -> Route {
        let mut route = best.clone();
        if let Some(from) = by_ibgp {
            route.originator.get_or_insert(self.plan.speakers[from].router_id);
            route.clusters.insert(0, self.cluster(node));
        }
        route
    }

    fn external(&self, a: Node, b: Node) -> bool {
        self.plan.speakers[a].asn != self.plan.speakers[b].asn
    }

    fn cluster(&self, node: Node) -> Ipv4Addr {
        let speaker = &self.plan.speakers[node];
        speaker.cluster_id.unwrap_or(speaker.router_id)
    }
}

impl Route {
    fn own() -> Self {
        Self {
            from: None,
            next_hop: None,
            as_path: Vec::new(),
            local_pref: 100,
            originator: None,
            clusters: Vec::new(),
        }
    }
}

/// The first table that is not what the model says: the kernel's, or the speaker's.
pub(crate) fn difference(plan: &Plan, network: &Network) -> Option<String> {
    let tables = Model::new(plan, network).tables();
    let differs = |(node, wanted): (Node, &Table)| {
        let host = &network.hosts[node];
        let held = held(&host.speaker.as_ref()?.paths());
        let kernel: BTreeMap<Prefix, Vec<IpAddr>> = host
            .selected
            .iter()
            .map(|(&prefix, next_hops)| (prefix, next_hops.iter().map(|it| it.address).collect()))
            .collect();
        let programmed = programmed(wanted);
        let prefixes: BTreeSet<&Prefix> = wanted.keys().chain(held.keys()).chain(kernel.keys()).collect();
        prefixes.into_iter().find_map(|prefix| {
            let (speaker, model) = (held.get(prefix), wanted.get(prefix));
            let (told, tells) = (kernel.get(prefix), programmed.get(prefix));
            (speaker != model || told != tells).then(|| {
                format!(
                    "node {node}, {prefix}:\nspeaker {speaker:?}\n  model {model:?}\n kernel {told:?}, model {tells:?}"
                )
            })
        })
    };
    tables.iter().enumerate().find_map(differs)
}

/// What the kernel is to hold: the next hops of all that one does not originate, each once.
fn programmed(table: &Table) -> BTreeMap<Prefix, Vec<IpAddr>> {
    let next_hops = |entry: &Entry| {
        let mut seen = BTreeSet::new();
        let all = entry.selected.iter().filter_map(|route| route.next_hop);
        all.filter(|it| seen.insert(*it)).collect::<Vec<_>>()
    };
    table
        .iter()
        .map(|(&prefix, entry)| (prefix, next_hops(entry)))
        .filter(|(_, next_hops)| !next_hops.is_empty())
        .collect()
}

/// A speaker's paths in the model's words.
fn held(paths: &[PathSnapshot]) -> Table {
    let mut table = Table::new();
    for path in paths {
        let entry: &mut Entry = table.entry(path.prefix).or_default();
        let from = path.peer.map(|peer| node_of(peer.address));
        entry.heard.extend(from);
        if path.best || path.multipath {
            entry.selected.push(route(path, from));
        }
    }
    table
}

fn route(path: &PathSnapshot, from: Option<Node>) -> Route {
    let segments = path.attributes.as_path.segments.iter();
    Route {
        from,
        next_hop: path.next_hop.map(destination),
        as_path: segments.flat_map(Segment::numbers).copied().collect(),
        local_pref: path.attributes.local_pref.unwrap_or(100),
        originator: path.attributes.originator_id,
        clusters: path.attributes.cluster_list.to_vec(),
    }
}

fn destination(next_hop: NextHop) -> IpAddr {
    match next_hop {
        NextHop::V4(address) => address.into(),
        NextHop::V6 { global, .. } => global.into(),
    }
}

/// Whether a policy lets a prefix through. Plans have no filters, which look at more than that.
fn passes(policy: &Policy, prefix: Prefix) -> bool {
    match policy {
        Policy::Accept => true,
        Policy::Reject => false,
        Policy::Within(ranges) => ranges.iter().any(|range| range.covers(prefix)),
        Policy::Filtered(_) => panic!("the model knows no filters"),
    }
}
