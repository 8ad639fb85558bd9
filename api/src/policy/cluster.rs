//! Kubernetes' policies of administrators, in tiers of their own.

use super::kubernetes::{Service, combined, network, pods};
use super::{
    ADMIN_TIER, Action, BASELINE_TIER, Direction, Hook, Policy, Port, PortRange, Protocol, Rule, Scope, Side,
    Subject,
};
use crate::Selector;
use crate::cluster_policy::{
    ClusterAction, ClusterEgressPeer, ClusterPolicySpec, ClusterPort, ClusterProtocol, ClusterSubject,
    ClusterTier, NamespacedPods,
};
use crate::kubernetes::LabelSelector;

pub(super) fn policy(spec: &ClusterPolicySpec) -> Policy {
    let ingress = spec.ingress.iter().flat_map(|rule| {
        let peers = rule.from.iter();
        let peers = peers.filter_map(|peer| pods_of(peer.namespaces.as_ref(), peer.pods.as_ref()));
        let services = services(&rule.protocols);
        combined(
            action(rule.action),
            Direction::Ingress,
            peers,
            services.as_deref(),
        )
    });
    let egress = spec.egress.iter().flat_map(|rule| {
        let peers = rule.to.iter().filter_map(egress_peer);
        let services = services(&rule.protocols);
        combined(action(rule.action), Direction::Egress, peers, services.as_deref())
    });
    let said = |rules: Vec<Rule>| (!rules.is_empty()).then_some(rules);
    Policy {
        tier: match spec.tier {
            ClusterTier::Admin => ADMIN_TIER,
            ClusterTier::Baseline => BASELINE_TIER,
        }
        .to_owned(),
        order: u32::from(spec.priority).into(),
        subject: subject(&spec.subject),
        hook: Hook::Normal,
        staged: false,
        ingress: said(ingress.collect()),
        egress: said(egress.collect()),
    }
}

fn action(action: ClusterAction) -> Action {
    match action {
        ClusterAction::Accept => Action::Allow,
        ClusterAction::Deny => Action::Deny,
        ClusterAction::Pass => Action::Pass,
    }
}

fn subject(subject: &ClusterSubject) -> Subject {
    let (namespaces, pods) = match (&subject.namespaces, &subject.pods) {
        (_, Some(pods)) => (pods.namespace_selector.selector(), pods.pod_selector.selector()),
        (namespaces, None) => {
            let namespaces = namespaces.as_ref().map(LabelSelector::selector);
            (namespaces.unwrap_or_default(), Selector::all())
        }
    };
    Subject {
        scope: Scope::Namespaces(namespaces),
        labels: pods,
        service_accounts: None,
    }
}

fn pods_of(namespaces: Option<&LabelSelector>, some: Option<&NamespacedPods>) -> Option<Side> {
    match (namespaces, some) {
        (_, Some(some)) => {
            let namespaces = Scope::Namespaces(some.namespace_selector.selector());
            Some(pods(namespaces, Some(&some.pod_selector)))
        }
        (Some(namespaces), None) => Some(pods(Scope::Namespaces(namespaces.selector()), None)),
        (None, None) => None,
    }
}

fn egress_peer(peer: &ClusterEgressPeer) -> Option<Side> {
    if peer.networks.is_empty() {
        return pods_of(peer.namespaces.as_ref(), peer.pods.as_ref());
    }
    Some(Side {
        nets: peer.networks.iter().copied().map(network).collect(),
        ..Side::default()
    })
}

/// None: whatever protocol.
fn services(protocols: &[ClusterProtocol]) -> Option<Vec<Service>> {
    if protocols.is_empty() {
        return None;
    }
    let mut services = Vec::new();
    for entry in protocols {
        let ports = [
            (Protocol::TCP, entry.tcp),
            (Protocol::UDP, entry.udp),
            (Protocol::SCTP, entry.sctp),
        ];
        for (protocol, ports) in ports {
            if let Some(range) = ports.and_then(|ports| range(ports.destination_port)) {
                let ports = vec![Port::Numbers(range)];
                services.push(Service { protocol, ports });
            }
            if let Some(name) = &entry.destination_named_port {
                let ports = vec![Port::Named(name.clone())];
                services.push(Service { protocol, ports });
            }
        }
    }
    Some(services)
}

fn range(port: ClusterPort) -> Option<PortRange> {
    let numbers = port.range.map(|range| PortRange {
        first: range.start,
        last: range.end,
    });
    port.number.map(PortRange::from).or(numbers)
}
