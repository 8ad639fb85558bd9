//! What Kubernetes refuses of the policies of administrators.

use super::Problem;
use super::kubernetes::{label_selector, port_name};
use crate::cluster_policy::{
    ClusterEgressPeer, ClusterPolicySpec, ClusterPort, ClusterPortRange, ClusterProtocol, ClusterSubject,
    NamespacedPods,
};
use crate::kubernetes::LabelSelector;

/// Entries of a list, at most.
const MAX_ITEMS: usize = 25;
/// Characters of a rule's name, at most.
const MAX_NAME: usize = 100;
/// The last priority.
const MAX_PRIORITY: u16 = 1000;

pub(super) fn cluster_policy(spec: &ClusterPolicySpec, problems: &mut Vec<Problem>) {
    if spec.priority > MAX_PRIORITY {
        let message = format!("is no priority: choose 0 (first) to {MAX_PRIORITY}");
        problems.push(Problem::new("spec.priority", spec.priority, message));
    }
    subject("spec.subject", &spec.subject, problems);
    few("spec.ingress", spec.ingress.len(), problems);
    few("spec.egress", spec.egress.len(), problems);
    for (i, rule) in spec.ingress.iter().enumerate() {
        let field = format!("spec.ingress[{i}]");
        name(&field, &rule.name, problems);
        some("from", &field, rule.from.len(), problems);
        for (i, peer) in rule.from.iter().enumerate() {
            subject(&format!("{field}.from[{i}]"), peer, problems);
        }
        protocols(&field, &rule.protocols, problems);
    }
    for (i, rule) in spec.egress.iter().enumerate() {
        let field = format!("spec.egress[{i}]");
        name(&field, &rule.name, problems);
        some("to", &field, rule.to.len(), problems);
        for (i, it) in rule.to.iter().enumerate() {
            peer(&format!("{field}.to[{i}]"), it, problems);
        }
        protocols(&field, &rule.protocols, problems);
        let networks = rule.to.iter().any(|peer| !peer.networks.is_empty());
        for (i, protocol) in rule.protocols.iter().enumerate() {
            if let (true, Some(name)) = (networks, &protocol.destination_named_port) {
                let message = "is called so by pods alone: write another rule for networks";
                let field = format!("{field}.protocols[{i}].destinationNamedPort");
                problems.push(Problem::new(field, name, message));
            }
        }
    }
}

fn few(field: &str, count: usize, problems: &mut Vec<Problem>) {
    if count > MAX_ITEMS {
        let message = format!("are too many entries: write {MAX_ITEMS} at most");
        problems.push(Problem::new(field, count, message));
    }
}

fn some(part: &str, field: &str, count: usize, problems: &mut Vec<Problem>) {
    let field = format!("{field}.{part}");
    if count == 0 {
        let message = "is empty: name whom the rule is about; namespaces: {} is all pods";
        problems.push(Problem::new(&field, "[]", message));
    }
    few(&field, count, problems);
}

fn name(field: &str, name: &str, problems: &mut Vec<Problem>) {
    if name.chars().count() > MAX_NAME {
        let message = format!("is too long a name: write {MAX_NAME} characters at most");
        problems.push(Problem::new(format!("{field}.name"), name, message));
    }
}

fn exactly_one(field: &str, given: usize, choices: &str, problems: &mut Vec<Problem>) {
    if given != 1 {
        let message = format!("fields where one is meant: write one of {choices}");
        problems.push(Problem::new(field, given, message));
    }
}

fn subject(field: &str, subject: &ClusterSubject, problems: &mut Vec<Problem>) {
    let given = usize::from(subject.namespaces.is_some()) + usize::from(subject.pods.is_some());
    exactly_one(field, given, "namespaces and pods", problems);
    pods(
        field,
        subject.namespaces.as_ref(),
        subject.pods.as_ref(),
        problems,
    );
}

fn pods(
    field: &str,
    namespaces: Option<&LabelSelector>,
    pods: Option<&NamespacedPods>,
    problems: &mut Vec<Problem>,
) {
    for (part, selector) in [
        ("namespaces", namespaces),
        (
            "pods.namespaceSelector",
            pods.map(|pods| &pods.namespace_selector),
        ),
        ("pods.podSelector", pods.map(|pods| &pods.pod_selector)),
    ] {
        if let Some(selector) = selector {
            label_selector(&format!("{field}.{part}"), selector, problems);
        }
    }
}

fn peer(field: &str, peer: &ClusterEgressPeer, problems: &mut Vec<Problem>) {
    let given = [
        peer.namespaces.is_some(),
        peer.pods.is_some(),
        !peer.networks.is_empty(),
    ];
    let given = given.into_iter().filter(|given| *given).count();
    exactly_one(field, given, "namespaces, pods and networks", problems);
    pods(field, peer.namespaces.as_ref(), peer.pods.as_ref(), problems);
    few(&format!("{field}.networks"), peer.networks.len(), problems);
}

fn protocols(field: &str, protocols: &[ClusterProtocol], problems: &mut Vec<Problem>) {
    few(&format!("{field}.protocols"), protocols.len(), problems);
    for (i, protocol) in protocols.iter().enumerate() {
        let field = format!("{field}.protocols[{i}]");
        let ports = [
            ("tcp", protocol.tcp),
            ("udp", protocol.udp),
            ("sctp", protocol.sctp),
        ];
        let given = ports.iter().filter(|(_, ports)| ports.is_some()).count();
        let named = usize::from(protocol.destination_named_port.is_some());
        exactly_one(
            &field,
            given + named,
            "tcp, udp, sctp and destinationNamedPort",
            problems,
        );
        if let Some(name) = &protocol.destination_named_port {
            port_name(&format!("{field}.destinationNamedPort"), name, problems);
        }
        for (part, ports) in ports {
            if let Some(ports) = ports {
                port(
                    &format!("{field}.{part}.destinationPort"),
                    ports.destination_port,
                    problems,
                );
            }
        }
    }
}

fn port(field: &str, port: ClusterPort, problems: &mut Vec<Problem>) {
    let given = usize::from(port.number.is_some()) + usize::from(port.range.is_some());
    exactly_one(field, given, "number and range", problems);
    if port.number == Some(0) {
        problems.push(Problem::new(
            format!("{field}.number"),
            0,
            "is no port: choose 1 to 65535",
        ));
    }
    if let Some(ClusterPortRange { start, end }) = port.range
        && (start == 0 || start >= end)
    {
        let message = "is no range: write start from 1, and end above it; one port is a number";
        problems.push(Problem::new(
            format!("{field}.range"),
            format!("{start} to {end}"),
            message,
        ));
    }
}
