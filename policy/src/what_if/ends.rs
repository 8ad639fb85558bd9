//! Groups of ends: those that no rule tells apart, neither before nor after.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnetwork::IpNetwork;
use manx_api::policy::{Family, NamespacedName, Origin, Port, Protocol, Side, Subject};

use super::{Place, rules};
use crate::graph::Graph;
use crate::nets::{canonical, v4, v6};
use crate::things::{ByNet, Id, Number, Thing};

/// An address, and whose it is.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) place: Place,
    pub(super) address: IpAddr,
    /// The endpoint whose address it is.
    pub(super) endpoint: Option<Arc<str>>,
}

/// Ends that are alike, all of them endpoints or none.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) family: Family,
    /// Whether they are host endpoints.
    pub(super) of_host: bool,
    /// Whether rules say the same of them before and after.
    pub(super) steady: bool,
    pub(super) members: Vec<Member>,
}

/// What tells things apart: the subjects that select it, the ports whose names rules speak of, and whether it is of this
/// node.
type Character<'a> = (Vec<usize>, Vec<(&'a str, Protocol, u16)>, bool);

/// What is known of an address on one side, in the words of the rules of both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Known<'a> {
    things: BTreeSet<Character<'a>>,
    services: Vec<(&'a NamespacedName, Protocol, u16)>,
    /// Of an endpoint: whether it is a host's, closed, and of this node.
    own: Option<[bool; 3]>,
}

/// What the rules of both sides speak of.
struct Words<'a> {
    subjects: BTreeSet<&'a Subject>,
    ports: BTreeSet<&'a str>,
    services: BTreeSet<&'a NamespacedName>,
    nets: BTreeSet<IpNetwork>,
}

impl<'a> Words<'a> {
    fn of(graphs: [&'a Graph; 2]) -> Self {
        let mut words = Self {
            subjects: BTreeSet::new(),
            ports: BTreeSet::new(),
            services: BTreeSet::new(),
            nets: BTreeSet::new(),
        };
        for rule in graphs.into_iter().flat_map(rules) {
            words.hear(&rule.source);
            words.hear(&rule.destination);
        }
        words
    }

    fn hear(&mut self, side: &'a Side) {
        self.subjects.extend(side.of.iter().chain(&side.not_of));
        self.services.extend(&side.service);
        let nets = side.nets.iter().chain(&side.not_nets);
        self.nets.extend(nets.map(|net| canonical(*net)));
        let ports = side.ports.iter().chain(&side.not_ports);
        self.ports.extend(ports.filter_map(|port| match port {
            Port::Named(name) => Some(name.as_str()),
            Port::Numbers(_) => None,
        }));
    }
}

/// One side, as these words describe it.
struct View<'a> {
    graph: &'a Graph,
    words: &'a Words<'a>,
    /// By thing.
    selected: BTreeMap<Number, Vec<usize>>,
    services: BTreeMap<IpAddr, Vec<(&'a NamespacedName, Protocol, u16)>>,
}

impl<'a> View<'a> {
    fn of(graph: &'a Graph, words: &'a Words<'a>) -> Self {
        let mut selected: BTreeMap<Number, Vec<usize>> = BTreeMap::new();
        for (index, subject) in words.subjects.iter().enumerate() {
            for number in graph.things.selected(subject) {
                selected.entry(number).or_default().push(index);
            }
        }
        let mut services: BTreeMap<IpAddr, Vec<_>> = BTreeMap::new();
        for name in &words.services {
            for endpoint in graph.peers.service(name).into_iter().flatten() {
                let behind = services.entry(endpoint.address).or_default();
                behind.push((*name, endpoint.protocol, endpoint.port));
            }
        }
        Self {
            graph,
            words,
            selected,
            services,
        }
    }

    fn character(&self, id: &Id, thing: &'a Thing) -> Character<'a> {
        let number = self.graph.things.number(id);
        let selected = number.and_then(|number| self.selected.get(&number));
        let named = thing
            .ports
            .iter()
            .filter(|port| self.words.ports.contains(&*port.name));
        let named = named.map(|port| (&*port.name, port.protocol, port.port));
        (
            selected.cloned().unwrap_or_default(),
            named.collect(),
            thing.local,
        )
    }

    fn knows(&self, member: &Member) -> Known<'a> {
        let things = self.graph.things.at(member.address).into_iter();
        let endpoint = member.endpoint.as_ref();
        let own = endpoint.and_then(|id| self.graph.things.endpoint(id));
        Known {
            things: things.map(|(id, thing)| self.character(id, thing)).collect(),
            services: self.services.get(&member.address).cloned().unwrap_or_default(),
            own: own.map(|(_, thing)| [thing.namespace.is_none(), thing.closed, thing.local]),
        }
    }

    fn policies(&self, member: &Member) -> BTreeSet<Arc<Origin>> {
        let thing = |id| self.graph.things.endpoint(id).map(|(_, thing)| (id, thing));
        let endpoint = member.endpoint.as_ref().and_then(thing);
        endpoint.map_or_else(BTreeSet::new, |(id, thing)| self.graph.selecting(id, thing))
    }
}

/// The ends of both sides, those that are alike together.
pub(super) fn groups(graphs: [&Graph; 2]) -> Vec<Group> {
    let words = Words::of(graphs);
    let views = graphs.map(|graph| View::of(graph, &words));
    let mut by_net = ByNet::default();
    for (number, net) in (0..).zip(&words.nets) {
        by_net.insert(*net, number);
    }
    let mut groups: BTreeMap<_, Group> = BTreeMap::new();
    for member in ends(graphs, &words) {
        let family = Family::of(member.address.into());
        let known = views.each_ref().map(|view| view.knows(&member));
        let policies = views.each_ref().map(|view| view.policies(&member));
        let within: BTreeSet<Number> = by_net.containing(member.address).collect();
        let steady = known[0] == known[1];
        let of_host = known.iter().any(|known| known.own.is_some_and(|[host, ..]| host));
        let group = groups
            .entry((family, known, policies, within))
            .or_insert_with(|| Group {
                family,
                of_host,
                steady,
                members: Vec::new(),
            });
        group.members.push(member);
    }
    groups.into_values().collect()
}

/// Every end: endpoints that both sides know, at the addresses that they have on both, and an address of each network
/// that somebody speaks of.
fn ends(graphs: [&Graph; 2], words: &Words<'_>) -> Vec<Member> {
    let mut nets = words.nets.clone();
    nets.extend([v4([0; 4], 0), v6(0, 0)]);
    let mut addresses: BTreeMap<(&Arc<str>, IpAddr), usize> = BTreeMap::new();
    let things = graphs.map(|graph| &graph.things).into_iter();
    for (id, thing) in things.flat_map(|things| things.all().filter_map(|(number, _)| things.named(number))) {
        match id {
            Id::NetworkSet(_) => nets.extend(thing.nets.iter().map(|net| canonical(*net))),
            Id::Endpoint(name) => {
                let own: BTreeSet<IpAddr> = thing.nets.iter().map(|net| net.ip()).collect();
                for address in own {
                    *addresses.entry((name, address)).or_default() += 1;
                }
            }
        }
    }
    for name in &words.services {
        let behind = graphs.into_iter().filter_map(|graph| graph.peers.service(name));
        nets.extend(behind.flatten().map(|endpoint| IpNetwork::from(endpoint.address)));
    }
    let spans = Spans::of(&nets, addresses.keys().map(|(_, address)| *address));
    let on_both = addresses.into_iter().filter(|(_, sides)| *sides == graphs.len());
    let endpoints = on_both.map(|((name, address), _)| Member {
        place: Place::Endpoint(name.to_string()),
        address,
        endpoint: Some(name.clone()),
    });
    let outside = nets.iter().filter_map(|net| {
        Some(Member {
            place: Place::Outside(*net),
            address: spans.free(*net)?,
            endpoint: None,
        })
    });
    endpoints.chain(outside).collect()
}

/// Networks and addresses as ranges of numbers: outer ones before those inside them.
struct Spans(BTreeSet<(Family, u128, Reverse<u128>, bool)>);

impl Spans {
    fn of(nets: &BTreeSet<IpNetwork>, taken: impl Iterator<Item = IpAddr>) -> Self {
        let nets = nets.iter().map(|net| (*net, false));
        let all = nets.chain(taken.map(|address| (IpNetwork::from(address), true)));
        let spans = all.map(|(net, taken)| {
            let (first, last) = span(net);
            (Family::of(net), first, Reverse(last), taken)
        });
        Self(spans.collect())
    }

    /// An address of the network that is in no smaller one, and that nobody has.
    fn free(&self, net: IpNetwork) -> Option<IpAddr> {
        let ((first, last), family) = (span(net), Family::of(net));
        // Behind the network itself, and those that it is in.
        let inside = (family, first, Reverse(last), true)..=(family, last, Reverse(0), true);
        let mut free = Some(first);
        for (_, start, Reverse(end), _) in self.0.range(inside) {
            match free {
                Some(address) if *start > address => break,
                Some(address) if *end >= address => free = end.checked_add(1),
                Some(_) => {}
                None => return None,
            }
        }
        let address = free.filter(|address| *address <= last)?;
        match family {
            Family::V4 => Some(Ipv4Addr::from(u32::try_from(address).ok()?).into()),
            Family::V6 => Some(Ipv6Addr::from(address).into()),
        }
    }
}

/// The first and the last address of a network, as numbers.
fn span(net: IpNetwork) -> (u128, u128) {
    match net {
        IpNetwork::V4(net) => (u32::from(net.network()).into(), u32::from(net.broadcast()).into()),
        IpNetwork::V6(net) => (net.network().into(), net.broadcast().into()),
    }
}
