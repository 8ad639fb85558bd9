//! Addresses: who holds them, which interfaces carry them, and which pods are said to have them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use manx_api::ipam::AttachmentId;
use manx_api::report::{NodeReport, PodInterface};
use manx_api::workload::WorkloadEndpoint;

use super::{ByAddress, Class, Evidence, Finding, Held, same};
use crate::Family;

/// What is wrong with addresses.
pub(super) fn check(evidence: &Evidence) -> Vec<Finding> {
    let mut held: ByAddress<Held<'_>> = ByAddress::new();
    for one in evidence.held() {
        held.entry(one.allocation.address).or_default().push(one);
    }
    let mut findings: Vec<Finding> = held
        .values()
        .flatten()
        .flat_map(|one| of_held(evidence, one))
        .collect();
    for report in &evidence.reports {
        findings.extend(of_interfaces(evidence, report, &held));
        findings.extend(report.tombstones.iter().map(|tombstone| Finding {
            node: Some(report.node.clone()),
            ..Finding::new(
                Class::Tombstone,
                format!("container {} {}", tombstone.container_id, tombstone.ifname),
            )
        }));
    }
    findings.extend(
        evidence
            .workloads
            .iter()
            .flat_map(|it| of_workload(evidence, it, &held)),
    );
    findings.extend(duplicates(evidence));
    findings
}

/// What a node's kernel and the datastore say of an address that is held.
fn of_held(evidence: &Evidence, held: &Held<'_>) -> Vec<Finding> {
    let address = held.allocation.address;
    let mut findings = Vec::new();
    let carried = held
        .node
        .and_then(|node| evidence.report(node))
        .map(|report| carried(report, held));
    if let Some((class, detail)) = carried.flatten() {
        findings.push(Finding::of_held(class, held, detail));
    }
    let leaked = findings.iter().any(|finding| finding.class == Class::Leaked);
    if !leaked && !held.allocation.owner.is_quarantined() {
        if !evidence.workloads.iter().any(|workload| is_of(workload, held)) {
            let detail = "there is no WorkloadEndpoint for it";
            findings.push(Finding::of_held(Class::NoWorkload, held, detail));
        }
        if evidence
            .reserved
            .iter()
            .any(|reserved| reserved.contains(address))
        {
            let detail = "it is reserved: it was asked for, or given before";
            findings.push(Finding::of_held(Class::Reserved, held, detail));
        }
    }
    findings
}

/// What is wrong with the interface that should carry a held address.
fn carried(report: &NodeReport, held: &Held<'_>) -> Option<(Class, String)> {
    let (address, owner) = (held.allocation.address, &held.allocation.owner);
    let is_it = |it: &&PodInterface| it.attachment.as_ref().is_some_and(|whose| same(whose, owner));
    let Some(interface) = report.interfaces.iter().find(is_it) else {
        return Some((Class::Leaked, "its interface is gone".to_owned()));
    };
    let name = &interface.name;
    if interface.addresses.contains(&address) {
        let detail =
            || format!("interface {name} carries it, and nobody is known to hold it: given to nobody");
        return owner.is_quarantined().then(|| (Class::Quarantined, detail()));
    }
    let family = Family::of(address);
    let other = interface
        .addresses
        .iter()
        .find(|other| Family::of(**other) == family);
    Some(match other {
        Some(other) => (Class::Leaked, format!("interface {name} carries {other} instead")),
        None => (Class::Unrouted, format!("no route leads to interface {name}")),
    })
}

/// Whether a WorkloadEndpoint stands for what holds an address. A cluster's pod does not say which container it is.
fn is_of(workload: &WorkloadEndpoint, held: &Held<'_>) -> bool {
    let (spec, owner) = (&workload.spec, &held.allocation.owner);
    let same = if spec.container_id.is_empty() {
        spec.pod == owner.pod && workload.metadata.namespace.as_deref() == Some(&owner.namespace)
    } else {
        spec.container_id == owner.container_id
    };
    same && spec.endpoint == owner.ifname && spec.addresses.contains(&held.allocation.address)
}

/// Addresses that interfaces carry, and that are not held for them.
fn of_interfaces(evidence: &Evidence, report: &NodeReport, held: &ByAddress<Held<'_>>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for interface in &report.interfaces {
        for address in &interface.addresses {
            let holders = held.get(address).map_or([].as_slice(), Vec::as_slice);
            let own = |holder: &Held<'_>| {
                let whose = interface.attachment.as_ref();
                whose.is_some_and(|whose| same(whose, &holder.allocation.owner))
            };
            if !holders.iter().any(own) {
                let what = format!("interface {}", interface.name);
                findings.push(not_held(
                    evidence,
                    *address,
                    &report.node,
                    &what,
                    holders,
                    Class::NotAllocated,
                ));
            }
        }
    }
    findings
}

/// An address in use by `what` on a node, and not held for it.
fn not_held(
    evidence: &Evidence,
    address: IpAddr,
    node: &str,
    what: &str,
    holders: &[Held<'_>],
    class: Class,
) -> Finding {
    if evidence.pool_of(address.into()).is_none() {
        let detail = format!("{what} has it, and it is in no IPPool");
        return Finding::of_address(Class::OutsidePools, address, Some(node), detail);
    }
    let detail = match holders.iter().min_by_key(|held| held.block) {
        Some(Held { allocation, .. }) => {
            let AttachmentId { namespace, pod, .. } = &allocation.owner;
            format!("{what} has it, and it is held for {namespace}/{pod}")
        }
        None => format!("{what} has it, and it is held for nobody"),
    };
    Finding::of_address(class, address, Some(node), detail)
}

/// Addresses of a WorkloadEndpoint that are not held for it. What its node's agent finds in the kernel counts
/// more, and is not told of twice.
fn of_workload(evidence: &Evidence, workload: &WorkloadEndpoint, held: &ByAddress<Held<'_>>) -> Vec<Finding> {
    let spec = &workload.spec;
    let in_kernel = |address: &IpAddr| {
        let report = evidence.report(&spec.node);
        report.is_some_and(|report| report.interfaces.iter().any(|it| it.addresses.contains(address)))
    };
    let mut findings = Vec::new();
    for address in &spec.addresses {
        let holders = held.get(address).map_or([].as_slice(), Vec::as_slice);
        let own = holders.iter().any(|holder| is_of(workload, holder));
        let told =
            in_kernel(address) && (holders.is_empty() || evidence.pool_of((*address).into()).is_none());
        if !own && !told {
            let namespace = workload.metadata.namespace.as_deref().unwrap_or_default();
            let what = format!("WorkloadEndpoint {namespace}/{}", workload.metadata.name);
            let class = Class::WorkloadUnallocated;
            findings.push(not_held(evidence, *address, &spec.node, &what, holders, class));
        }
    }
    findings
}

/// Addresses with more than one place: interfaces where agents were asked, pods elsewhere; and addresses that more
/// than one node gives out.
fn duplicates(evidence: &Evidence) -> Vec<Finding> {
    let mut places: ByAddress<String> = ByAddress::new();
    let mut givers: ByAddress<&str> = ByAddress::new();
    for report in &evidence.reports {
        for interface in &report.interfaces {
            for address in &interface.addresses {
                let place = format!("interface {} of {}", interface.name, report.node);
                places.entry(*address).or_default().push(place);
            }
        }
        for held in report.blocks.iter().flat_map(|block| &block.allocations) {
            givers.entry(held.address).or_default().push(&report.node);
        }
    }
    let unasked = |it: &&WorkloadEndpoint| evidence.report(&it.spec.node).is_none();
    for workload in evidence.workloads.iter().filter(unasked) {
        let namespace = workload.metadata.namespace.as_deref().unwrap_or_default();
        for address in &workload.spec.addresses {
            let place = format!("pod {namespace}/{} on {}", workload.spec.pod, workload.spec.node);
            places.entry(*address).or_default().push(place);
        }
    }
    let several = |address: &IpAddr, who: &BTreeSet<&str>, verb: &str| {
        let who: Vec<&str> = who.iter().copied().collect();
        let detail = format!("{} {verb} it", who.join(" and "));
        Finding::of_address(Class::Duplicate, *address, None, detail)
    };
    let mut findings = Vec::new();
    for (address, places) in &places {
        let places: BTreeSet<&str> = places.iter().map(String::as_str).collect();
        if places.len() > 1 {
            findings.push(several(address, &places, "have"));
        }
    }
    for (address, givers) in &givers {
        let givers: BTreeSet<&str> = givers.iter().copied().collect();
        if givers.len() > 1 {
            findings.push(several(address, &givers, "give out"));
        }
    }
    findings
}
