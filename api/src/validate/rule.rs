//! The rules of policies in Calico's language.

use std::fmt;

use super::policy::no_global;
use super::{Problem, no_host_bits};
use crate::names;
use crate::network_policy::{EntityRule, PolicyRule, ServiceMatch};
use crate::rule::{Direction, Family, NamedPort, Port, Protocol};

/// Checks the rule that stands in `field`; `namespaced`: its policy has a namespace.
pub(super) fn rule(
    field: &str,
    rule: &PolicyRule,
    direction: Direction,
    namespaced: bool,
    problems: &mut Vec<Problem>,
) {
    protocols(field, rule, problems);
    families(field, rule, problems);
    for (side, entity, may_be_service) in [
        ("source", &rule.source, direction == Direction::Ingress),
        ("destination", &rule.destination, direction == Direction::Egress),
    ] {
        let field = format!("{field}.{side}");
        selectors(&field, entity, problems);
        let nets = |list| format!("{field}.{list}");
        for (list, networks) in [(nets("nets"), &entity.nets), (nets("notNets"), &entity.not_nets)] {
            for (i, network) in networks.iter().enumerate() {
                no_host_bits(&format!("{list}[{i}]"), *network, problems);
            }
        }
        if let Some(service) = &entity.services {
            service_alone(&field, entity, side == "destination", problems);
            let field = format!("{field}.services");
            if !may_be_service {
                let message = "has no place here: a service is the source of ingress rules or the destination of \
                               egress rules";
                problems.push(Problem::new(&field, &service.name, message));
            }
            service_name(&field, service, namespaced, problems);
        }
    }
    for key in rule
        .metadata
        .iter()
        .flat_map(|metadata| metadata.annotations.keys())
    {
        names::label_key(&format!("{field}.metadata.annotations"), key, problems);
    }
}

/// What only some protocols have.
fn protocols(field: &str, rule: &PolicyRule, problems: &mut Vec<Problem>) {
    let mut refuse = |part: &str, value: &dyn fmt::Display, message: &str| {
        problems.push(Problem::new(format!("{field}.{part}"), value, message));
    };
    if let (Some(protocol), Some(other)) = (rule.protocol, rule.not_protocol) {
        let message = format!("stands beside protocol {protocol}, which says all: leave one out");
        refuse("notProtocol", &other, &message);
    }
    if !rule.protocol.is_some_and(Protocol::has_ports) {
        for (part, ports) in [
            ("source.ports", &rule.source.ports),
            ("source.notPorts", &rule.source.not_ports),
            ("destination.ports", &rule.destination.ports),
            ("destination.notPorts", &rule.destination.not_ports),
        ] {
            if !ports.is_empty() {
                let message = "needs a protocol that has ports: write protocol TCP, UDP, SCTP or UDPLite";
                refuse(part, &joined(ports), message);
            }
        }
    }
    let is_icmp = rule.protocol.and_then(Protocol::icmp_family).is_some();
    for (part, icmp) in [("icmp", rule.icmp), ("notICMP", rule.not_icmp)] {
        let Some(icmp) = icmp else { continue };
        if !is_icmp {
            let message = "needs its protocol: write protocol ICMP or ICMPv6";
            refuse(part, &"", message);
        }
        if icmp.kind == u8::MAX {
            refuse(
                &format!("{part}.type"),
                &icmp.kind,
                "is no type of message: write 0 to 254",
            );
        }
    }
}

fn joined(ports: &[Port]) -> String {
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    ports.join(",")
}

/// A rule speaks of packets of one family, or of both throughout.
fn families(field: &str, rule: &PolicyRule, problems: &mut Vec<Problem>) {
    let icmp = |protocol: Option<Protocol>| protocol.and_then(Protocol::icmp_family);
    let named = icmp(rule.protocol.or(rule.not_protocol));
    if let (Some(version), Some(family)) = (rule.ip_version, named)
        && version != family
    {
        let message = format!("is not the family of that ICMP: write {}", digit(family));
        problems.push(Problem::new(
            format!("{field}.ipVersion"),
            digit(version),
            message,
        ));
    }
    let by_version = rule.ip_version.map(|family| (family, "ipVersion"));
    let mut meant = icmp(rule.protocol)
        .map(|family| (family, "protocol"))
        .or(by_version);
    for (part, networks) in [
        ("source.nets", &rule.source.nets),
        ("source.notNets", &rule.source.not_nets),
        ("destination.nets", &rule.destination.nets),
        ("destination.notNets", &rule.destination.not_nets),
    ] {
        for (i, network) in networks.iter().enumerate() {
            let (family, _) = *meant.get_or_insert_with(|| (Family::of(*network), part));
            if family != Family::of(*network) {
                let by = meant.map_or("", |(_, by)| by);
                let message = format!(
                    "is of the other family than {by} says: a rule is for one; write another rule for IPv{}",
                    digit(Family::of(*network))
                );
                problems.push(Problem::new(format!("{field}.{part}[{i}]"), network, message));
            }
        }
    }
}

fn digit(family: Family) -> u8 {
    match family {
        Family::V4 => 4,
        Family::V6 => 6,
    }
}

fn selectors(field: &str, entity: &EntityRule, problems: &mut Vec<Problem>) {
    for (part, selector) in [
        ("selector", &entity.selector),
        ("notSelector", &entity.not_selector),
    ] {
        if let Some(selector) = selector {
            no_global(&format!("{field}.{part}"), selector, problems);
        }
    }
    if let Some(selector) = &entity.namespace_selector
        && selector.mentions_global()
        && !selector.is_global()
    {
        let message = "combines global() with other selectors: write global() alone";
        problems.push(Problem::new(
            format!("{field}.namespaceSelector"),
            selector,
            message,
        ));
    }
    let Some(accounts) = &entity.service_accounts else {
        return;
    };
    if let Some(selector) = &accounts.selector {
        no_global(&format!("{field}.serviceAccounts.selector"), selector, problems);
    }
    for (i, name) in accounts.names.iter().enumerate() {
        names::subdomain(&format!("{field}.serviceAccounts.names[{i}]"), name, problems);
    }
}

/// A service says which addresses, and as a destination which ports.
fn service_alone(field: &str, entity: &EntityRule, destination: bool, problems: &mut Vec<Problem>) {
    for (part, stands) in [
        ("selector", entity.selector.is_some()),
        ("notSelector", entity.not_selector.is_some()),
        ("namespaceSelector", entity.namespace_selector.is_some()),
        ("serviceAccounts", entity.service_accounts.is_some()),
        ("nets", !entity.nets.is_empty()),
        ("notNets", !entity.not_nets.is_empty()),
        ("ports", destination && !entity.ports.is_empty()),
        ("notPorts", destination && !entity.not_ports.is_empty()),
    ] {
        if stands {
            let message = "stands beside services, which says what is meant: leave one out";
            problems.push(Problem::new(format!("{field}.{part}"), "", message));
        }
    }
}

fn service_name(field: &str, service: &ServiceMatch, namespaced: bool, problems: &mut Vec<Problem>) {
    names::label(&format!("{field}.name"), &service.name, problems);
    match &service.namespace {
        Some(namespace) => names::namespace(&format!("{field}.namespace"), namespace, problems),
        None if namespaced => {}
        None => problems.push(Problem::new(
            format!("{field}.namespace"),
            "",
            "is missing: a global policy has no namespace of its own; write the service's",
        )),
    }
}

/// What an endpoint's ports are called.
pub(super) fn named_ports(field: &str, ports: &[NamedPort], problems: &mut Vec<Problem>) {
    for (i, port) in ports.iter().enumerate() {
        let mut refuse = |part: &str, value: &dyn fmt::Display, message: &str| {
            problems.push(Problem::new(format!("{field}[{i}].{part}"), value, message));
        };
        if !matches!(port.name.parse(), Ok(Port::Named(_))) {
            let message =
                "is no name of a port: use up to 128 letters, digits, '_', '.' and '-', not digits alone";
            refuse("name", &port.name, message);
        }
        if !port.protocol.has_ports() {
            let message = "has no ports: write TCP, UDP, SCTP or UDPLite";
            refuse("protocol", &port.protocol, message);
        }
        if port.port == 0 {
            refuse("port", &0, "is no port: choose 1 to 65535");
        }
        let same = |other: &&NamedPort| (&other.name, other.protocol) == (&port.name, port.protocol);
        if let Some(other) = ports[..i].iter().find(same) {
            let message = format!(
                "is port {} already: a name means one port of a protocol",
                other.port
            );
            refuse("name", &port.name, &message);
        }
    }
}
