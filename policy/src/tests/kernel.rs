//! What the kernel does with rendered rules, and that it is what the explanation says.

use manx_api::policy::{Icmp, Not, PortRange, Protocol};
use proptest::prelude::*;

use super::worlds::{HOST, PODS, updates};
use super::*;

/// The first packet of a connection.
struct Packet {
    family: Family,
    ends: [(IpAddr, String); 2],
    traffic: Traffic,
    mark: u32,
    tracked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Accept,
    Drop,
    /// Whoever asked goes on.
    Return,
}

impl Packet {
    fn port(&self, end: End) -> Option<u16> {
        match end {
            End::Source => self.traffic.source_port,
            End::Destination => self.traffic.port,
        }
    }

    fn end(&self, end: End) -> &(IpAddr, String) {
        match end {
            End::Source => &self.ends[0],
            End::Destination => &self.ends[1],
        }
    }

    /// What a chain says; no verdict is the end of the chain.
    fn chain(&mut self, full: &Full, table: Table, name: &str) -> Verdict {
        let chain = ChainId {
            family: self.family,
            table,
            name: name.to_owned(),
        };
        for rule in &full.chains[&chain] {
            if !rule.matches.iter().all(|part| self.meets(full, part)) {
                continue;
            }
            match &rule.target {
                Target::Accept => return Verdict::Accept,
                Target::Drop => return Verdict::Drop,
                Target::Return => return Verdict::Return,
                Target::Goto(chain) => return self.chain(full, table, chain),
                Target::Jump(chain) => match self.chain(full, table, chain) {
                    Verdict::Return => {}
                    verdict @ (Verdict::Accept | Verdict::Drop) => return verdict,
                },
                Target::SetMark { value, mask } => self.mark = (self.mark & !mask) ^ value,
                Target::Log { .. } => {}
                Target::NoTrack => self.tracked = false,
                Target::Masquerade => panic!("no policy does this"),
            }
        }
        Verdict::Return
    }

    /// What becomes of what a host endpoint gets or sends.
    fn is_dropped_by_host(&mut self, full: &Full, direction: Direction) -> bool {
        let bases: &[(Table, &str)] = match direction {
            Direction::Ingress => &[
                (Table::Raw, "PREROUTING"),
                (Table::Mangle, "PREROUTING"),
                (Table::Filter, "INPUT"),
            ],
            Direction::Egress => &[(Table::Raw, "OUTPUT"), (Table::Filter, "OUTPUT")],
        };
        bases.iter().any(|(table, base)| {
            let mut hooks = full.hooks.iter();
            hooks.any(|hook| {
                let is_there =
                    (hook.chain.family, hook.chain.table, hook.base) == (self.family, *table, *base);
                is_there && self.chain(full, *table, &hook.chain.name) == Verdict::Drop
            })
        })
    }

    fn meets(&self, full: &Full, part: &Match) -> bool {
        match part {
            Match::Interface(end, name) => {
                let own = &self.end(*end).1;
                name.strip_suffix('+')
                    .map_or(own == name, |prefix| own.starts_with(prefix))
            }
            Match::Protocol(protocol) => is(protocol, |protocol| *protocol == self.traffic.protocol),
            Match::Address(end, net) => is(net, |net| net.contains(self.end(*end).0)),
            Match::In(end, kind, set) => is(set, |set| self.is_in(full, *end, (*kind, set))),
            Match::ToItself(set) => {
                let (address, interface) = (self.ends[1].0, &self.ends[0].1);
                let member = Member::NetBehind(address.into(), interface.as_str().into());
                full.sets[set].members.contains_key(&member)
            }
            Match::Ports(end, ports) => {
                assert!(
                    self.traffic.protocol.has_ports(),
                    "the protocol is matched before"
                );
                let port = self.port(*end).unwrap();
                is(ports, |ports| {
                    let slots = ports
                        .iter()
                        .map(|range| if range.first == range.last { 1 } else { 2 });
                    assert!(slots.sum::<usize>() <= 15);
                    ports
                        .iter()
                        .any(|PortRange { first, last }| (*first..=*last).contains(&port))
                })
            }
            Match::Icmp(family, icmp) => {
                assert_eq!(*family, self.family);
                let message = self.traffic.icmp.unwrap();
                is(icmp, |Icmp { kind, code }| {
                    *kind == message.kind && (code.is_none() || *code == message.code)
                })
            }
            Match::Connection(Connection::Untracked) => !self.tracked,
            Match::Connection(Connection::Known | Connection::Invalid) => false,
            Match::Mark { value, mask } => self.mark & mask == *value,
            Match::Limit { .. } => true,
        }
    }

    fn is_in(&self, full: &Full, end: End, (kind, set): (SetKind, &str)) -> bool {
        let (address, interface) = self.end(end);
        let set = &full.sets[set];
        assert_eq!((set.family, set.kind), (self.family, kind));
        let around = set.members.iter().filter_map(|(member, sense)| match member {
            Member::Net(net) => net.contains(*address).then_some((net.prefix(), *sense)),
            Member::NetBehind(net, behind) => {
                (net.contains(*address) && **behind == **interface).then_some((net.prefix(), *sense))
            }
            Member::Port(known, protocol, port) => {
                let is_it =
                    (*known, *protocol, Some(*port)) == (*address, self.traffic.protocol, self.port(end));
                is_it.then_some((0, *sense))
            }
        });
        around
            .max_by_key(|(length, _)| *length)
            .is_some_and(|(_, sense)| sense == Sense::Match)
    }
}

fn is<T>(condition: &Not<T>, holds: impl Fn(&T) -> bool) -> bool {
    match condition {
        Not::Is(value) => holds(value),
        Not::Not(value) => !holds(value),
    }
}

/// Does to rules and sets what a step of a change does.
fn step(full: &mut Full, change: Change) {
    match change {
        Change::CreateSet {
            name, family, kind, ..
        } => {
            let members = BTreeMap::new();
            full.sets.insert(
                name,
                Set {
                    family,
                    kind,
                    members,
                },
            );
        }
        Change::PutMember { set, member, sense } => {
            full.sets.get_mut(&set).unwrap().members.insert(member, sense);
        }
        Change::RemoveMember { set, member } => {
            full.sets.get_mut(&set).unwrap().members.remove(&member);
        }
        Change::DestroySet { name } => drop(full.sets.remove(&name)),
        Change::WriteChain { chain, rules } => drop(full.chains.insert(chain, rules)),
        Change::RemoveChain(chain) => drop(full.chains.remove(&chain)),
        Change::InsertHook(_) | Change::DeleteRule { .. } => panic!("pods that come and go change no hook"),
    }
}

/// Whether forwarded packets get past rules and sets, for all that the first pod sends and gets.
fn passes(full: &Full) -> Vec<bool> {
    let interface = |number: u8| {
        if number < 3 {
            format!("mxp{number}")
        } else {
            "eth0".to_owned()
        }
    };
    let end = |number: u8| (addresses_of(number)[0], interface(number));
    let pairs = (1..6).flat_map(|other| [[0, other], [other, 0]]);
    pairs
        .flat_map(|[from, to]| traffics().into_iter().map(move |traffic| (from, to, traffic)))
        .map(|(from, to, traffic)| {
            let mut packet = Packet {
                family: Family::V4,
                ends: [end(from), end(to)],
                traffic,
                mark: 0,
                tracked: true,
            };
            packet.chain(full, Table::Filter, "manx-forward") != Verdict::Drop
        })
        .collect()
}

/// A pod by its number; other numbers are of strangers. The first three are of this node.
fn party(number: u8, told: &[Update]) -> (Party, bool, String) {
    let name = PODS.get(usize::from(number)).copied().unwrap_or("nobody");
    let (mut known, mut interface) = (false, None);
    for update in told {
        if let Update::Endpoint(id, endpoint) = update
            && id == name
        {
            known = endpoint.is_some();
        }
        if let Update::Local(id, local) = update
            && id == name
        {
            interface = local.as_ref().map(|local| local.interface.clone());
        }
    }
    let is_local = known && interface.is_some();
    let interface = interface
        .filter(|_| is_local)
        .unwrap_or_else(|| "eth0".to_owned());
    (Party::Address(addresses_of(number)[0]), is_local, interface)
}

/// The host endpoints that are there, by their numbers, each with an interface that is its own.
fn host_interfaces(told: &[Update]) -> Vec<(u8, String)> {
    let mut hosts: Vec<(u8, HostInterface)> = Vec::new();
    for number in 0..2 {
        let name = format!("host{number}");
        let (mut known, mut interface) = (false, None);
        for update in told {
            match update {
                Update::Endpoint(id, endpoint) if *id == name => known = endpoint.is_some(),
                Update::Host(id, is) if *id == name => interface.clone_from(is),
                Update::SetPool { .. }
                | Update::RemovePool { .. }
                | Update::Enforce(_)
                | Update::Failsafes(_)
                | Update::Tier(..)
                | Update::Policy(..)
                | Update::Namespace(..)
                | Update::ServiceAccount(..)
                | Update::Endpoint(..)
                | Update::Local(..)
                | Update::Host(..)
                | Update::NetworkSet(..)
                | Update::Service(..) => {}
            }
        }
        hosts.extend(interface.filter(|_| known).map(|interface| (number, interface)));
    }
    // Of two that are all interfaces, the first by name is it.
    hosts.dedup_by_key(|(_, interface)| interface.clone());
    let own = |(number, interface)| match interface {
        HostInterface::Named(name) => (number, name),
        HostInterface::All => (number, "wan".to_owned()),
    };
    hosts.into_iter().map(own).collect()
}

fn traffics() -> Vec<Traffic> {
    let with_ports = |protocol, port| Traffic {
        protocol,
        source_port: Some(80),
        port: Some(port),
        icmp: None,
    };
    let icmp = |kind, code| Traffic {
        protocol: Protocol::ICMP,
        source_port: None,
        port: None,
        icmp: Some(Icmp {
            kind,
            code: Some(code),
        }),
    };
    vec![
        with_ports(Protocol::TCP, 80),
        with_ports(Protocol::TCP, 81),
        with_ports(Protocol::TCP, 443),
        with_ports(Protocol::TCP, 179),
        with_ports(Protocol::UDP, 53),
        icmp(8, 0),
        icmp(3, 1),
        Traffic {
            protocol: Protocol(47),
            source_port: None,
            port: None,
            icmp: None,
        },
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 128,
        rng_seed: prop::test_runner::RngSeed::Fixed(6),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_kernel_does_with_pods_what_is_explained(told in updates()) {
        let mut engine = Engine::new();
        let without = |update: &&Update| matches!(update, Update::Enforce(None) | Update::Host(..));
        engine.apply(told.iter().filter(|update| !without(update)).cloned());
        let full = engine.snapshot();
        for (from, to) in (0..6).flat_map(|from| (0..6).map(move |to| (from, to))) {
            let (source, destination) = (party(from, &told), party(to, &told));
            for traffic in traffics() {
                let mut packet = Packet {
                    family: Family::V4,
                    ends: [(addresses_of(from)[0], source.2.clone()), (addresses_of(to)[0], destination.2.clone())],
                    traffic,
                    mark: 0xabcd_ffff,
                    tracked: true,
                };
                let explained = explain(&engine, &source.0, &destination.0, traffic).unwrap();
                let allowed = |walk: &Option<Walk>, local: bool| {
                    !local || from == to || walk.as_ref().unwrap().allowed
                };
                let expected = allowed(&explained.egress, source.1) && allowed(&explained.ingress, destination.1);
                let drops = packet.chain(&full, Table::Filter, "manx-forward") == Verdict::Drop;
                prop_assert_eq!(!drops, expected, "{:?}", explained);
                prop_assert_eq!(packet.mark & !0x3_0000, 0xabcc_ffff, "others' bits are left alone");
            }
        }
    }

    #[test]
    fn a_pod_that_comes_or_goes_is_never_more_open_than_when_it_is_there(told in updates()) {
        let mut engine = Engine::new();
        let is_first = |update: &Update| matches!(update, Update::Local(name, _) if name == PODS[0]);
        let without = |update: &&Update| is_first(update) || matches!(update, Update::Enforce(None) | Update::Host(..));
        engine.apply(told.iter().filter(|update| !without(update)).cloned());
        let local = Local { interface: "mxp0".to_owned(), sources: Vec::new() };
        let mut full = engine.snapshot();
        let come = engine.apply([Update::Local(PODS[0].to_owned(), Some(local))]);
        let there = passes(&engine.snapshot());
        let go = engine.apply([Update::Local(PODS[0].to_owned(), None)]);
        for change in come.into_iter().chain(go) {
            step(&mut full, change.clone());
            let open = passes(&full).into_iter().zip(&there).any(|(now, then)| now && !then);
            prop_assert!(!open, "{:?}", change);
        }
    }

    #[test]
    fn the_kernel_does_with_host_endpoints_what_is_explained(told in updates()) {
        let mut engine = Engine::new();
        engine.apply(told.iter().filter(|update| !matches!(update, Update::Enforce(None))).cloned());
        let full = engine.snapshot();
        for (number, interface) in host_interfaces(&told) {
            // The node's own pods are behind other interfaces.
            let others = (0..6).filter(|other| !party(*other, &told).1);
            for (other, traffic) in others.flat_map(|other| traffics().into_iter().map(move |traffic| (other, traffic))) {
                let host = addresses_of(HOST + number)[0];
                let outside = addresses_of(other)[0];
                for direction in [Direction::Ingress, Direction::Egress] {
                    let (from, to) = match direction {
                        Direction::Ingress => (outside, host),
                        Direction::Egress => (host, outside),
                    };
                    let mut packet = Packet {
                        family: Family::V4,
                        ends: [(from, interface.clone()), (to, interface.clone())],
                        traffic,
                        mark: 0xabcd_ffff,
                        tracked: true,
                    };
                    let explained =
                        explain(&engine, &Party::Address(from), &Party::Address(to), traffic).unwrap();
                    let walk = match direction {
                        Direction::Ingress => explained.ingress,
                        Direction::Egress => explained.egress,
                    };
                    let drops = packet.is_dropped_by_host(&full, direction);
                    prop_assert_eq!(!drops, walk.as_ref().unwrap().allowed, "{:?}", walk);
                }
            }
        }
    }
}
