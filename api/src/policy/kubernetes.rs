//! Kubernetes' own policies: what they do not allow is denied by the end of the default tier.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;

use super::convert::ORCHESTRATOR;
use super::{
    Action, DEFAULT_TIER, Direction, Hook, Not, ORCHESTRATOR_LABEL, Policy, Port, PortRange, Protocol, Rule,
    Scope, Side, Subject,
};
use crate::Selector;
use crate::kubernetes::{
    CidrBlock, KubernetesPolicySpec, LabelSelector, Peer, PolicyPort, PortOrName, Transport,
};

/// The place of Kubernetes' policies in the default tier.
const ORDER: u32 = 1000;

pub(super) fn policy(spec: &KubernetesPolicySpec, namespace: &str) -> Policy {
    let directions = spec.directions();
    let allow = |direction, peers: &[Peer], ports: &[PolicyPort]| {
        let anywhere = peers.is_empty().then(Side::default);
        let peers = peers.iter().map(|it| peer(it, namespace)).chain(anywhere);
        let services = (!ports.is_empty()).then(|| services(ports));
        combined(Action::Allow, direction, peers, services.as_deref())
    };
    let ingress = spec.ingress.iter();
    let ingress = ingress.flat_map(|rule| allow(Direction::Ingress, &rule.from, &rule.ports));
    let egress = spec.egress.iter();
    let egress = egress.flat_map(|rule| allow(Direction::Egress, &rule.to, &rule.ports));
    Policy {
        tier: DEFAULT_TIER.to_owned(),
        order: ORDER.into(),
        subject: Subject {
            scope: Scope::Namespace(namespace.to_owned()),
            labels: spec.pod_selector.selector(),
            service_accounts: None,
        },
        hook: Hook::Normal,
        staged: false,
        ingress: directions
            .contains(&Direction::Ingress)
            .then(|| ingress.collect()),
        egress: directions.contains(&Direction::Egress).then(|| egress.collect()),
    }
}

/// Packets of a protocol to some of its ports, or to any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) protocol: Protocol,
    /// Empty: any.
    pub(super) ports: Vec<Port>,
}

/// A rule for every peer and service, or for every peer and whatever service.
pub(super) fn combined(
    action: Action,
    direction: Direction,
    peers: impl Iterator<Item = Side>,
    services: Option<&[Service]>,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    for peer in peers {
        let (source, destination) = match direction {
            Direction::Ingress => (peer, Side::default()),
            Direction::Egress => (Side::default(), peer),
        };
        let any = Rule {
            action,
            family: None,
            protocol: None,
            icmp: None,
            not_icmp: None,
            source,
            destination,
        };
        let Some(services) = services else {
            rules.push(any);
            continue;
        };
        rules.extend(services.iter().map(|service| Rule {
            protocol: Some(Not::Is(service.protocol)),
            destination: Side {
                ports: service.ports.clone(),
                ..any.destination.clone()
            },
            ..any.clone()
        }));
    }
    rules
}

fn peer(peer: &Peer, namespace: &str) -> Side {
    if let Some(CidrBlock { cidr, except }) = &peer.ip_block {
        return Side {
            nets: vec![network(*cidr)],
            not_nets: except.iter().copied().map(network).collect(),
            ..Side::default()
        };
    }
    let scope = match &peer.namespace_selector {
        Some(namespaces) => Scope::Namespaces(namespaces.selector()),
        None => Scope::Namespace(namespace.to_owned()),
    };
    pods(scope, peer.pod_selector.as_ref())
}

/// Pods, and no network sets.
pub(super) fn pods(scope: Scope, labels: Option<&LabelSelector>) -> Side {
    let labels = labels.map(LabelSelector::selector).unwrap_or_default();
    let pods = Selector::equals(ORCHESTRATOR_LABEL, ORCHESTRATOR);
    Side {
        of: Some(Subject {
            scope,
            labels: Selector::every([labels, pods]),
            service_accounts: None,
        }),
        ..Side::default()
    }
}

/// Without the host bits that Kubernetes takes and passes over.
pub(super) fn network(cidr: IpNetwork) -> IpNetwork {
    match cidr {
        IpNetwork::V4(v4) => IpNetwork::new(v4.network().into(), v4.prefix()).unwrap_or(cidr),
        IpNetwork::V6(v6) => IpNetwork::new(v6.network().into(), v6.prefix()).unwrap_or(cidr),
    }
}

/// Ports by their protocols. An entry without a port is any port of its protocol.
fn services(ports: &[PolicyPort]) -> Vec<Service> {
    let mut by_protocol: BTreeMap<Transport, Option<Vec<Port>>> = BTreeMap::new();
    for port in ports {
        let known = by_protocol
            .entry(port.protocol)
            .or_insert_with(|| Some(Vec::new()));
        match (known, &port.port) {
            (Some(known), Some(PortOrName::Number(first))) => known.push(Port::Numbers(PortRange {
                first: *first,
                last: port.end_port.unwrap_or(*first),
            })),
            (Some(known), Some(PortOrName::Name(name))) => known.push(Port::Named(name.clone())),
            (known, None) => *known = None,
            (None, Some(_)) => {}
        }
    }
    let service = |(transport, ports): (Transport, Option<Vec<Port>>)| Service {
        protocol: transport.into(),
        ports: ports.unwrap_or_default(),
    };
    by_protocol.into_iter().map(service).collect()
}
