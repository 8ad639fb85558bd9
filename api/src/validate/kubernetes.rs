//! What Kubernetes refuses of its network policies.

use std::fmt;

use super::Problem;
use crate::kubernetes::{
    CidrBlock, KubernetesPolicySpec, LabelOperator, LabelSelector, Peer, PolicyPort, PortOrName,
};
use crate::names;

pub(super) fn network_policy(spec: &KubernetesPolicySpec, problems: &mut Vec<Problem>) {
    label_selector("spec.podSelector", &spec.pod_selector, problems);
    for (i, rule) in spec.ingress.iter().enumerate() {
        peers(&format!("spec.ingress[{i}].from"), &rule.from, problems);
        ports(&format!("spec.ingress[{i}].ports"), &rule.ports, problems);
    }
    for (i, rule) in spec.egress.iter().enumerate() {
        peers(&format!("spec.egress[{i}].to"), &rule.to, problems);
        ports(&format!("spec.egress[{i}].ports"), &rule.ports, problems);
    }
}

fn peers(field: &str, peers: &[Peer], problems: &mut Vec<Problem>) {
    for (i, peer) in peers.iter().enumerate() {
        let field = format!("{field}[{i}]");
        let selectors = [
            ("podSelector", &peer.pod_selector),
            ("namespaceSelector", &peer.namespace_selector),
        ];
        for (part, selector) in selectors {
            let Some(selector) = selector else { continue };
            label_selector(&format!("{field}.{part}"), selector, problems);
            if peer.ip_block.is_some() {
                let message = "stands beside ipBlock: write two peers, or leave one out";
                problems.push(Problem::new(format!("{field}.{part}"), "", message));
            }
        }
        match &peer.ip_block {
            Some(block) => cidr_block(&format!("{field}.ipBlock"), block, problems),
            None if selectors.iter().all(|(_, selector)| selector.is_none()) => {
                let message = "names nobody: write podSelector, namespaceSelector or ipBlock";
                problems.push(Problem::new(field, "", message));
            }
            None => {}
        }
    }
}

fn cidr_block(field: &str, block: &CidrBlock, problems: &mut Vec<Problem>) {
    for (i, except) in block.except.iter().enumerate() {
        if !block.cidr.contains(except.ip()) || except.prefix() <= block.cidr.prefix() {
            let message = format!(
                "is no part of cidr {}: write a smaller network inside it",
                block.cidr
            );
            problems.push(Problem::new(format!("{field}.except[{i}]"), except, message));
        }
    }
}

fn ports(field: &str, ports: &[PolicyPort], problems: &mut Vec<Problem>) {
    for (i, it) in ports.iter().enumerate() {
        let field = format!("{field}[{i}]");
        let mut refuse = |part: &str, value: &dyn fmt::Display, message: &str| {
            problems.push(Problem::new(format!("{field}.{part}"), value, message));
        };
        match (&it.port, it.end_port) {
            (Some(PortOrName::Number(0)), _) => refuse("port", &0, "is no port: choose 1 to 65535"),
            (Some(PortOrName::Number(port)), Some(end)) if end < *port => {
                let message = format!("is below port {port}: write the last port of the range");
                refuse("endPort", &end, &message);
            }
            (Some(PortOrName::Name(_)), Some(end)) => {
                refuse(
                    "endPort",
                    &end,
                    "stands beside a port's name: write port as a number",
                );
            }
            (None, Some(end)) => refuse("endPort", &end, "ends no range: write the first port in port"),
            (Some(PortOrName::Number(_)), _) | (Some(PortOrName::Name(_)) | None, None) => {}
        }
        if let Some(PortOrName::Name(name)) = &it.port {
            port_name(&format!("{field}.port"), name, problems);
        }
    }
}

/// Kubernetes' names of ports are those of IANA's service names (RFC 6335 §5.1), in lower case.
pub(super) fn port_name(field: &str, name: &str, problems: &mut Vec<Problem>) {
    let usual = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-';
    let valid = (1..=15).contains(&name.len())
        && name.bytes().all(usual)
        && name.bytes().any(|octet| octet.is_ascii_lowercase())
        && !name.contains("--")
        && !name.starts_with('-')
        && !name.ends_with('-');
    if !valid {
        let message = "is no name of a port: use up to 15 lower-case letters, digits and single '-' between them, with \
                       a letter; a number stands without quotes";
        problems.push(Problem::new(field, name, message));
    }
}

pub(super) fn label_selector(field: &str, selector: &LabelSelector, problems: &mut Vec<Problem>) {
    for (key, value) in &selector.match_labels {
        names::label_key(&format!("{field}.matchLabels"), key, problems);
        names::label_value(&format!("{field}.matchLabels[{key}]"), value, problems);
    }
    for (i, requirement) in selector.match_expressions.iter().enumerate() {
        let field = format!("{field}.matchExpressions[{i}]");
        names::label_key(&format!("{field}.key"), &requirement.key, problems);
        let wrong = match (requirement.operator, requirement.values.is_empty()) {
            (LabelOperator::In | LabelOperator::NotIn, true) => {
                Some("is missing: In and NotIn compare with values")
            }
            (LabelOperator::Exists | LabelOperator::DoesNotExist, false) => {
                Some("must be left out: Exists and DoesNotExist compare with nothing")
            }
            (LabelOperator::In | LabelOperator::NotIn, false)
            | (LabelOperator::Exists | LabelOperator::DoesNotExist, true) => None,
        };
        if let Some(message) = wrong {
            problems.push(Problem::new(
                format!("{field}.values"),
                requirement.values.join(","),
                message,
            ));
        }
        for (i, value) in requirement.values.iter().enumerate() {
            names::label_value(&format!("{field}.values[{i}]"), value, problems);
        }
    }
}
