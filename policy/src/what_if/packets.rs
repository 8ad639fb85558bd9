//! Sorts of packets: those that some rules do not tell apart.

use std::collections::{BTreeMap, BTreeSet};

use manx_api::policy::{Family, Icmp, NamespacedName, Not, Port, PortRange, Protocol, Rule};

use crate::explain::Traffic;
use crate::graph::Graph;

/// Packets that a change is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Packets {
    /// Those of a protocol, to these ports; none: all of it.
    Of(Protocol, Vec<PortRange>),
    /// Such messages of ICMP.
    Messages(Protocol, Vec<Message>),
    /// Those of every protocol but these.
    Others(BTreeSet<Protocol>),
}

/// Messages of ICMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    /// Their type; none: any that no rule speaks of.
    pub kind: Option<u8>,
    /// Their code; none: any that no rule speaks of.
    pub code: Option<u8>,
}

/// Packets that are alike, and one of them.
#[derive(Clone, Debug)]
pub(super) struct Sort {
    /// None: a protocol that no rule speaks of.
    protocol: Option<Protocol>,
    detail: Detail,
    pub(super) traffic: Traffic,
    /// How many sorts it is where all rules are asked.
    pub(super) count: u64,
}

#[derive(Clone, Copy, Debug)]
enum Detail {
    All,
    Ports(PortRange),
    Message(Message),
}

/// What both sides' names and services stand for.
#[derive(Debug)]
pub(super) struct Landmarks<'a> {
    graphs: [&'a Graph; 2],
    names: BTreeMap<&'a str, BTreeSet<u16>>,
    failsafes: BTreeSet<u16>,
}

impl<'a> Landmarks<'a> {
    pub(super) fn of(graphs: [&'a Graph; 2]) -> Self {
        let mut names: BTreeMap<&str, BTreeSet<u16>> = BTreeMap::new();
        let mut failsafes = BTreeSet::new();
        for graph in graphs {
            for port in graph.things.all().flat_map(|(_, thing)| &thing.ports) {
                names.entry(&port.name).or_default().insert(port.port);
            }
            let open = graph.failsafes.inbound.iter().chain(&graph.failsafes.outbound);
            failsafes.extend(open.map(|failsafe| failsafe.port));
        }
        Self {
            graphs,
            names,
            failsafes,
        }
    }

    fn of_service(&self, service: &NamespacedName) -> impl Iterator<Item = u16> {
        let behind = self
            .graphs
            .into_iter()
            .filter_map(|graph| graph.peers.service(service));
        behind.flatten().map(|endpoint| endpoint.port)
    }
}

/// What some rules speak of, in one family.
#[derive(Clone, Debug)]
pub(super) struct Spoken {
    /// The family's ICMP.
    icmp: Protocol,
    protocols: BTreeSet<Protocol>,
    /// Where ranges of ports begin that no rule tells apart.
    starts: BTreeSet<u16>,
    /// Codes of ICMP by their types.
    messages: BTreeMap<u8, BTreeSet<u8>>,
}

impl Spoken {
    /// What these rules speak of; with host endpoints, also failsafes are told apart.
    pub(super) fn by<'a>(
        rules: impl Iterator<Item = &'a Rule>,
        landmarks: &Landmarks<'_>,
        family: Family,
        of_host: bool,
    ) -> Self {
        let (icmp, echo_request) = match family {
            Family::V4 => (Protocol::ICMP, 8),
            Family::V6 => (Protocol::ICMPV6, 128),
        };
        let mut spoken = Self {
            icmp,
            protocols: Protocol::WITH_PORTS.into_iter().chain([icmp]).collect(),
            starts: BTreeSet::from([1]),
            messages: BTreeMap::from([(echo_request, BTreeSet::from([0]))]),
        };
        rules.for_each(|rule| spoken.hear(rule, landmarks));
        if of_host {
            landmarks
                .failsafes
                .iter()
                .for_each(|port| spoken.cut(*port, *port));
        }
        spoken
    }

    fn cut(&mut self, first: u16, last: u16) {
        self.starts.insert(first.max(1));
        self.starts.extend(last.checked_add(1));
    }

    fn hear(&mut self, rule: &Rule, landmarks: &Landmarks<'_>) {
        if let Some(Not::Is(protocol) | Not::Not(protocol)) = rule.protocol {
            self.protocols.insert(protocol);
        }
        for icmp in rule.icmp.iter().chain(&rule.not_icmp) {
            self.messages.entry(icmp.kind).or_default().extend(icmp.code);
        }
        // Ports that packets come from are not known: no rule's are they.
        let side = &rule.destination;
        for port in side.ports.iter().chain(&side.not_ports) {
            match port {
                Port::Numbers(PortRange { first, last }) => self.cut(*first, *last),
                Port::Named(name) => {
                    let known = landmarks.names.get(name.as_str());
                    known
                        .into_iter()
                        .flatten()
                        .for_each(|port| self.cut(*port, *port));
                }
            }
        }
        let service = side.service.as_ref().into_iter();
        let ports = service.flat_map(|service| landmarks.of_service(service));
        ports.for_each(|port| self.cut(port, port));
    }

    fn ranges(&self) -> impl Iterator<Item = PortRange> {
        let ends = self
            .starts
            .iter()
            .skip(1)
            .map(|start| start - 1)
            .chain([u16::MAX]);
        let ranges = self.starts.iter().zip(ends);
        ranges.map(|(first, last)| PortRange { first: *first, last })
    }

    /// Messages, each with one of them.
    fn kinds(&self) -> impl Iterator<Item = (Message, Icmp)> {
        let unspoken = |spoken: &dyn Fn(u8) -> bool| (0..=u8::MAX).find(|number| !spoken(*number));
        let message = |kind, code, one: (u8, u8)| {
            let icmp = Icmp {
                kind: one.0,
                code: Some(one.1),
            };
            (Message { kind, code }, icmp)
        };
        let spoken = self.messages.iter().flat_map(move |(kind, codes)| {
            let of_kind = codes
                .iter()
                .map(move |code| message(Some(*kind), Some(*code), (*kind, *code)));
            let other = unspoken(&|code| codes.contains(&code));
            of_kind.chain(other.map(|code| message(Some(*kind), None, (*kind, code))))
        });
        let other = unspoken(&|kind| self.messages.contains_key(&kind));
        spoken.chain(other.map(|kind| message(None, None, (kind, 0))))
    }

    /// How many sorts of packets there are.
    pub(super) fn count(&self) -> u64 {
        self.sorts(self).into_iter().map(|sort| sort.count).sum()
    }

    /// The packets that these rules tell apart, each counted by `all`, which speaks of no less.
    pub(super) fn sorts(&self, all: &Self) -> Vec<Sort> {
        let traffic = |protocol| Traffic {
            protocol,
            source_port: None,
            port: None,
            icmp: None,
        };
        let mut sorts = Vec::new();
        for protocol in &self.protocols {
            let sort = |detail, traffic, count| Sort {
                protocol: Some(*protocol),
                detail,
                traffic,
                count,
            };
            let plain = traffic(*protocol);
            if protocol.has_ports() {
                sorts.extend(self.ranges().map(|range| {
                    let port = Some(range.first);
                    let count = all.starts.range(range.first..=range.last).count() as u64;
                    sort(Detail::Ports(range), Traffic { port, ..plain }, count)
                }));
            } else if *protocol == self.icmp {
                sorts.extend(self.kinds().map(|(message, one)| {
                    let icmp = Some(one);
                    let count = all
                        .kinds()
                        .filter(|(other, _)| self.finds(*other) == message)
                        .count() as u64;
                    sort(Detail::Message(message), Traffic { icmp, ..plain }, count)
                }));
            } else {
                sorts.push(sort(Detail::All, plain, 1));
            }
        }
        let mut others = (1..=u8::MAX).rev().map(Protocol);
        let other = others.find(|protocol| !self.protocols.contains(protocol));
        sorts.extend(other.map(|protocol| Sort {
            protocol: None,
            detail: Detail::All,
            traffic: traffic(protocol),
            count: 1 + all.protocols.difference(&self.protocols).count() as u64,
        }));
        sorts
    }

    /// What a message is that somebody else tells apart.
    fn finds(&self, Message { kind, code }: Message) -> Message {
        let codes = kind.and_then(|kind| self.messages.get(&kind));
        Message {
            kind: kind.filter(|_| codes.is_some()),
            code: code.filter(|code| codes.is_some_and(|codes| codes.contains(code))),
        }
    }
}

/// Some of these sorts in few words, which do not depend on what else the rules tell apart; none: all.
pub(super) fn summary(sorts: &[Sort], chosen: &BTreeSet<usize>) -> Vec<Packets> {
    if chosen.len() == sorts.len() {
        return Vec::new();
    }
    let mut by_protocol: BTreeMap<Option<Protocol>, (usize, Vec<Detail>)> = BTreeMap::new();
    for (number, sort) in sorts.iter().enumerate() {
        let (all, some) = by_protocol.entry(sort.protocol).or_default();
        *all += 1;
        some.extend(chosen.contains(&number).then_some(sort.detail));
    }
    let with_others = by_protocol
        .remove(&None)
        .is_some_and(|(_, some)| !some.is_empty());
    let mut found = Vec::new();
    let mut incomplete = BTreeSet::new();
    for (protocol, (all, some)) in by_protocol {
        let Some(protocol) = protocol else { continue };
        if some.len() < all {
            incomplete.insert(protocol);
            found.extend(partly(protocol, &some));
        } else if !with_others {
            found.push(Packets::Of(protocol, Vec::new()));
        }
    }
    found.extend(with_others.then_some(Packets::Others(incomplete)));
    found
}

/// A part of a protocol's packets, neighbours as one.
fn partly(protocol: Protocol, some: &[Detail]) -> Option<Packets> {
    let (mut ports, mut messages): (Vec<PortRange>, _) = (Vec::new(), Vec::new());
    for detail in some {
        match detail {
            Detail::All => {}
            Detail::Message(message) => messages.push(*message),
            Detail::Ports(range) => match ports.last_mut() {
                Some(last) if last.last.checked_add(1) == Some(range.first) => last.last = range.last,
                _ => ports.push(*range),
            },
        }
    }
    match (ports.is_empty(), messages.is_empty()) {
        (true, true) => None,
        (true, false) => Some(Packets::Messages(protocol, messages)),
        (false, _) => Some(Packets::Of(protocol, ports)),
    }
}
