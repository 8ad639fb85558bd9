//! The reference model: what every table of a network must hold once nothing happens any more.
//!
//! It knows no messages, sessions, timers or increments: a route is what the rules of RFC 4271 §9.1 and §5.1 and
//! RFC 4456 §8, those of RFC 9234 §5, and the laws of the plan make of its neighbours' best routes, and the tables are the state in which no rule has anything
//! left to change. It shares no code with the speaker, only the vocabulary of settings.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use manx_bgp::wire::{NextHop, Role, Segment};
use manx_bgp::{AddPathConfig, NextHopMode, PathSnapshot, Policy, Prefix};

use crate::laws::{Law, NO_ADVERTISE, NO_EXPORT, Way, When};
use crate::network::{Network, Node, address, node_of};
use crate::plan::{Plan, address_v6};

/// The priority of routes that no law gives another.
const NORMAL: u32 = 1025;

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
    /// The metric among routes through one neighbouring AS.
    pub(crate) med: Option<u32>,
    /// What rules have put on it.
    pub(crate) communities: BTreeSet<u32>,
    /// ONLY_TO_CUSTOMER (RFC 9234 §5).
    pub(crate) only_to_customer: Option<u32>,
    /// What a rule of this speaker's import made of its rank in the kernel.
    pub(crate) priority: u32,
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
    /// How many paths each peer announces, whether they may be used or not.
    pub(crate) heard: BTreeMap<Node, usize>,
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
        let drained = |a: Node, b: Node| plan.drained.contains(&(a, b)) || plan.drained.contains(&(b, a));
        let works = |a: Node, b: Node| {
            let both = running[a] && running[b] && plan.peers[b].contains_key(&a);
            both && network.connected(a, b) && !drained(a, b)
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
        let mut told = vec![BTreeMap::<Node, Vec<Route>>::new(); count];
        let mut usable = vec![Vec::new(); count];
        let mut selected = vec![Vec::new(); count];
        let originates = |node: &Node| self.running[*node] && self.plan.origins[*node].contains(&prefix);
        let mut restless: BTreeSet<Node> = (0..count).filter(originates).collect();
        while let Some(node) = restless.pop_first() {
            let own = originates(&node).then(Route::own);
            let heard = told[node]
                .iter()
                .flat_map(|(&from, routes)| routes.iter().map(move |it| (from, it)));
            let imported = heard.filter_map(|(from, route)| self.imported(node, from, prefix, route));
            let known: Vec<Route> = own.into_iter().chain(imported).collect();
            if known == usable[node] {
                continue;
            }
            selected[node] = self.choose(node, known.clone());
            usable[node] = known;
            for &peer in &self.live[node] {
                let candidates = if self.adds_paths(node, peer, prefix) {
                    &usable[node][..]
                } else {
                    &selected[node][..selected[node].len().min(1)]
                };
                let says: Vec<Route> = candidates
                    .iter()
                    .filter_map(|route| self.announced(node, peer, prefix, route))
                    .collect();
                let said = told[peer].insert(node, says.clone()).unwrap_or_default();
                if said != says {
                    restless.insert(peer);
                }
            }
        }
        let entries = selected.into_iter().zip(told);
        entries
            .map(|(selected, told)| Entry {
                selected,
                heard: told
                    .into_iter()
                    .map(|(from, routes)| (from, routes.len()))
                    .filter(|(_, count)| *count > 0)
                    .collect(),
            })
            .collect()
    }

    /// What carries traffic, of all that a speaker knows: the best and its equals up to the step at which only
    /// identifiers are left to compare.
    fn choose(&self, node: Node, mut usable: Vec<Route>) -> Vec<Route> {
        let merit = |route: &Route| {
            let own = route.from.is_none();
            (
                !own,
                route.priority,
                Reverse(route.local_pref),
                route.as_path.len(),
            )
        };
        let Some(best) = usable.iter().map(merit).min() else {
            return usable;
        };
        usable.retain(|route| merit(route) == best);
        let left = usable.clone();
        usable.retain(|route| {
            let rivals = left
                .iter()
                .filter(|it| it.as_path.first() == route.as_path.first());
            rivals.map(Route::metric).min() == Some(route.metric())
        });
        let internal = |route: &Route| route.from.is_some_and(|from| !self.external(node, from));
        let any_external = usable.iter().any(|route| !internal(route));
        usable.retain(|route| internal(route) != any_external);
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

    /// What `node` makes of a route that `from` has told: nothing, if it leads in a circle, leaks, or may not come in.
    fn imported(&self, node: Node, from: Node, prefix: Prefix, told: &Route) -> Option<Route> {
        let mut route = told.clone();
        if let Some(role) = self.role(node, from) {
            let their_asn = self.plan.speakers[from].asn;
            // RFC 9234 §5, the first three rules.
            let from_above = matches!(role, Role::Customer | Role::RouteServerClient | Role::Peer);
            match route.only_to_customer {
                Some(_) if matches!(role, Role::Provider | Role::RouteServer) => return None,
                Some(marked) if role == Role::Peer && marked != their_asn => return None,
                None if from_above => route.only_to_customer = Some(their_asn),
                Some(_) | None => {}
            }
        }
        let passes = self.is_new(node, &route)
            && self.passes(
                (node, from, Way::In),
                &self.plan.peers[node][&from].import,
                prefix,
                &mut route,
            );
        passes.then_some(route)
    }

    /// What we are to a peer of another AS.
    fn role(&self, node: Node, with: Node) -> Option<Role> {
        let role = self.plan.peers[node][&with].features.role?;
        self.external(node, with).then_some(role.role)
    }

    /// Whether a policy lets a route through, and what its laws make of it.
    fn passes(&self, session: (Node, Node, Way), policy: &Policy, prefix: Prefix, route: &mut Route) -> bool {
        match policy {
            Policy::Accept => true,
            Policy::Reject => false,
            Policy::Within(ranges) => ranges.iter().any(|range| range.covers(prefix)),
            Policy::Filtered(_) => {
                let code = &self.plan.laws[&session];
                let fits = |law: &&Law| match law.when {
                    When::Always => true,
                    When::Inside(range) => range.covers(prefix),
                    When::Carries(community) => route.communities.contains(&community),
                    When::Through(asn) => route.as_path.first() == Some(&asn),
                    When::Learned => route.from.is_some(),
                    When::Priority(priority) => route.priority == priority,
                };
                match code.laws.iter().find(fits) {
                    Some(Law { then: None, .. }) => false,
                    Some(Law {
                        then: Some(changes), ..
                    }) => {
                        changes.iter().for_each(|change| change.apply(route));
                        true
                    }
                    None => self.passes(session, &code.otherwise, prefix, route),
                }
            }
        }
    }

    /// Whether a route has not been here before.
    fn is_new(&self, node: Node, route: &Route) -> bool {
        let us = &self.plan.speakers[node];
        let ours = [address(node).into(), address_v6(node).into()];
        !route.as_path.contains(&us.asn)
            && route.originator != Some(us.router_id)
            && !route.clusters.contains(&self.cluster(node))
            && !route.next_hop.is_some_and(|it| ours.contains(&it))
    }

    /// Whether `node` tells `peer` of all its routes (RFC 7911): plans limit their number nowhere.
    fn adds_paths(&self, node: Node, peer: Node, prefix: Prefix) -> bool {
        let family = prefix.family();
        let has = |of: Node, with: Node, does: fn(&AddPathConfig) -> bool| {
            let mut settings = self.plan.peers[of][&with].features.add_path.iter();
            settings.any(|it| it.family == family && does(it))
        };
        has(node, peer, |it| it.send > 0) && has(peer, node, |it| it.receive)
    }

    /// What `node` tells `peer` of a route of its own, the best unless it tells of all.
    fn announced(&self, node: Node, peer: Node, prefix: Prefix, best: &Route) -> Option<Route> {
        let settings = &self.plan.peers[node][&peer];
        let carried = |families: &[_]| families.contains(&prefix.family());
        let by_ibgp = best.from.filter(|&from| !self.external(node, from));
        let client = |it: Node| self.plan.peers[node][&it].route_reflector_client;
        let reflects = by_ibgp.is_none_or(|from| self.external(node, peer) || client(from) || client(peer));
        let abroad = self.external(node, peer);
        let kept = best.communities.contains(&NO_ADVERTISE)
            || abroad && best.communities.contains(&NO_EXPORT)
            || self.role(node, peer).is_some_and(|role| leaks(role, best));
        let mut sent = Route {
            med: best.med.filter(|_| !abroad),
            ..best.clone()
        };
        let admitted = carried(&settings.families)
            && carried(&self.plan.peers[peer][&node].families)
            && best.from != Some(peer)
            && reflects
            && !kept
            && self.passes((node, peer, Way::Out), &settings.export, prefix, &mut sent);
        if !admitted {
            return None;
        }
        Some(Route {
            from: Some(node),
            next_hop: Some(self.next_hop(node, peer, prefix, best)),
            priority: NORMAL,
            ..if abroad {
                self.abroad(node, peer, &sent)
            } else {
                self.at_home(node, &sent, by_ibgp)
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
    fn abroad(&self, node: Node, peer: Node, best: &Route) -> Route {
        let asn = self.plan.speakers[node].asn;
        // RFC 9234 §5, the fourth rule.
        let to_below = |role| matches!(role, Role::Provider | Role::RouteServer | Role::Peer);
        let mark = self.role(node, peer).is_some_and(to_below).then_some(asn);
        Route {
            as_path: std::iter::once(asn).chain(best.as_path.iter().copied()).collect(),
            med: best.med,
            communities: best.communities.clone(),
            only_to_customer: best.only_to_customer.or(mark),
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
    /// None counts as the lowest.
    fn metric(&self) -> u32 {
        self.med.unwrap_or(0)
    }

    fn own() -> Self {
        Self {
            from: None,
            next_hop: None,
            as_path: Vec::new(),
            local_pref: 100,
            med: None,
            communities: BTreeSet::new(),
            only_to_customer: None,
            priority: NORMAL,
            originator: None,
            clusters: Vec::new(),
        }
    }
}

/// RFC 9234 §5, the last rule: what has come from above goes to those below alone.
fn leaks(role: Role, route: &Route) -> bool {
    route.only_to_customer.is_some() && matches!(role, Role::Customer | Role::RouteServerClient | Role::Peer)
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
        if let Some(from) = from {
            *entry.heard.entry(from).or_default() += 1;
        }
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
        med: path.attributes.med,
        communities: path.attributes.communities.iter().copied().collect(),
        only_to_customer: path.attributes.only_to_customer,
        priority: path.priority,
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
