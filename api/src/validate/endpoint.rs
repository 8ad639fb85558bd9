//! Rules of host endpoints and network sets.

use super::{Problem, interface, no_host_bits, rule};
use crate::host_endpoint::{ALL_INTERFACES, DEFAULT_ALLOW, HostEndpointSpec};
use crate::network_set::NetworkSetSpec;
use crate::policy::GIVEN_LABELS;
use crate::{Metadata, names};

pub(super) fn host_endpoint(metadata: &Metadata, spec: &HostEndpointSpec, problems: &mut Vec<Problem>) {
    no_given_labels(metadata, problems);
    names::subdomain("spec.node", &spec.node, problems);
    match &spec.interface_name {
        Some(name) if name == ALL_INTERFACES => {}
        Some(name) => interface("spec.interfaceName", name, problems),
        None if spec.expected_ips.is_empty() => problems.push(Problem::new(
            "spec.interfaceName",
            "",
            "is missing: name the interface, '*' for all, or write its addresses in expectedIPs",
        )),
        None => {}
    }
    for (i, address) in spec.expected_ips.iter().enumerate() {
        let field = format!("spec.expectedIPs[{i}]");
        if address.is_unspecified() || address.is_multicast() {
            let message = "is no interface's address: write a unicast address";
            problems.push(Problem::new(&field, address, message));
        }
        if spec.expected_ips[..i].contains(address) {
            problems.push(Problem::new(&field, address, "is named twice: once is enough"));
        }
    }
    for (i, profile) in spec.profiles.iter().enumerate() {
        if profile != DEFAULT_ALLOW {
            let message =
                format!("is no profile: write {DEFAULT_ALLOW}, or a policy that says what the profile said");
            problems.push(Problem::new(format!("spec.profiles[{i}]"), profile, message));
        }
    }
    rule::named_ports("spec.ports", &spec.ports, problems);
}

pub(super) fn network_set(metadata: &Metadata, spec: &NetworkSetSpec, problems: &mut Vec<Problem>) {
    no_given_labels(metadata, problems);
    for (i, network) in spec.nets.iter().enumerate() {
        no_host_bits(&format!("spec.nets[{i}]"), *network, problems);
    }
}

/// Labels by which things would pass for pods.
fn no_given_labels(metadata: &Metadata, problems: &mut Vec<Problem>) {
    for label in GIVEN_LABELS {
        if let Some(value) = metadata.labels.get(label) {
            let message = "is a label that pods are given, and nobody writes: leave it out";
            problems.push(Problem::new(format!("metadata.labels[{label}]"), value, message));
        }
    }
}
