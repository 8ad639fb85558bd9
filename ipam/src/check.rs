//! What does not agree: the datastore, the owners' journals, and the interfaces that carry addresses.
//!
//! [`check`] compares and decides nothing. Things come and go while evidence is gathered, so what it finds
//! once may have been on its way; what it finds again a moment later is there to stay.

mod blocks;
mod finding;
mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use manx_api::ipam::{Allocation, AttachmentId, IpBlock, IpPool, LeaseState, pool_of};
use manx_api::report::NodeReport;
use manx_api::status::BlockStatus;
use manx_api::workload::WorkloadEndpoint;

pub use finding::{Class, Finding};

/// Everything that is compared.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The pools.
    pub pools: Vec<IpPool>,
    /// Addresses that no pod gets unless it asks.
    pub reserved: Vec<IpNetwork>,
    /// The blocks, as the datastore has them.
    pub blocks: Vec<IpBlock>,
    /// The names of the nodes that there are.
    pub nodes: BTreeSet<String>,
    /// The pods' attachments, as the datastore has them.
    pub workloads: Vec<WorkloadEndpoint>,
    /// What agents found; a node without one is judged by the datastore alone.
    pub reports: Vec<NodeReport>,
}

/// An address that somebody holds, as its block's owner says, or else as of its checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Held<'a> {
    /// The block.
    pub block: IpNetwork,
    /// Its owner; none where nobody owns it.
    pub node: Option<&'a str>,
    /// Who holds the address.
    pub allocation: &'a Allocation,
}

impl Evidence {
    /// What a node's agent found, where it was asked.
    fn report(&self, node: &str) -> Option<&NodeReport> {
        self.reports.iter().find(|report| report.node == node)
    }

    /// What a block's owner says of it.
    fn reported(&self, block: &IpBlock) -> Option<&BlockStatus> {
        let blocks = &self.report(block.spec.node.as_deref()?)?.blocks;
        blocks.iter().find(|reported| reported.cidr == block.spec.cidr)
    }

    /// Every address that is held.
    pub fn held(&self) -> impl Iterator<Item = Held<'_>> {
        self.blocks.iter().flat_map(|block| {
            let reported = self.reported(block).map(|reported| &reported.allocations);
            let allocations = reported.unwrap_or(&block.spec.allocations);
            allocations.iter().map(|allocation| Held {
                block: block.spec.cidr,
                node: block.spec.node.as_deref(),
                allocation,
            })
        })
    }

    fn pool_of(&self, cidr: IpNetwork) -> Option<&IpPool> {
        pool_of(cidr, &self.pools)
    }
}

/// Compares; what is found comes ordered by class, then by address, and each once.
#[must_use]
pub fn check(evidence: &Evidence) -> Vec<Finding> {
    let mut findings = blocks::check(evidence);
    findings.extend(usage::check(evidence));
    findings.sort();
    findings.dedup();
    findings
}

/// Whether two attachments are one: a pod's name says nothing about which of its containers.
fn same(one: &AttachmentId, other: &AttachmentId) -> bool {
    one.container_id == other.container_id && one.ifname == other.ifname
}

/// Whether a block's addresses are its owner's: those of a lease that is not granted are not.
fn in_force(block: &IpBlock) -> bool {
    let lease = block.spec.lease.as_ref();
    lease.is_none_or(|lease| lease.state == LeaseState::Granted)
}

/// By address, in order.
type ByAddress<T> = BTreeMap<IpAddr, Vec<T>>;

#[cfg(test)]
mod tests;
