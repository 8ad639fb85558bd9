//! Blocks: each by itself, beside the others, and as its owner knows it.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use manx_api::ipam::{Allocation, IpBlock, LeaseState, covers};
use manx_api::status::BlockStatus;
use manx_api::{Resource, validate};

use super::{Class, Evidence, Finding, in_force};
use crate::Block;

/// What is wrong with blocks.
pub(super) fn check(evidence: &Evidence) -> Vec<Finding> {
    let mut findings = Vec::new();
    for block in &evidence.blocks {
        let found = [by_itself(block), in_pool(evidence, block), lease(evidence, block)];
        let details = found.into_iter().flatten();
        findings.extend(details.map(|detail| inconsistent(block, detail)));
        findings.extend(owner(evidence, block));
        if let Some(reported) = evidence.reported(block) {
            findings.extend(behind(block, reported));
        }
    }
    findings.extend(overlaps(evidence));
    findings.extend(strangers(evidence));
    findings
}

fn inconsistent(block: &IpBlock, detail: String) -> Finding {
    Finding::of_block(
        Class::InconsistentBlock,
        block.spec.cidr,
        block.spec.node.as_deref(),
        detail,
    )
}

/// What the resource says that cannot be.
fn by_itself(block: &IpBlock) -> Vec<String> {
    let problems = validate(&Resource::IpBlock(block.clone()));
    if !problems.is_empty() {
        return problems.iter().map(ToString::to_string).collect();
    }
    // What the resource's rules leave to the owner: sequence numbers and generations.
    let mut details: Vec<String> = Block::from_resource(block)
        .err()
        .iter()
        .map(ToString::to_string)
        .collect();
    if block.spec.node.is_none() && !block.spec.allocations.is_empty() {
        details.push("nobody owns it, and addresses are held in it".to_owned());
    }
    details
}

fn in_pool(evidence: &Evidence, block: &IpBlock) -> Vec<String> {
    let prefix = block.spec.cidr.prefix();
    match evidence.pool_of(block.spec.cidr) {
        _ if block.spec.node.is_none() => Vec::new(),
        None => vec!["it is in no IPPool".to_owned()],
        Some(pool) if block.spec.lease.is_none() && pool.spec.block_size() != prefix => {
            let (name, size) = (&pool.metadata.name, pool.spec.block_size());
            vec![format!(
                "it is a /{prefix}, and IPPool {name} is cut into /{size}"
            )]
        }
        Some(_) => Vec::new(),
    }
}

/// A lease needs a lender other than its borrower, which keeps away from what is lent.
fn lease(evidence: &Evidence, block: &IpBlock) -> Vec<String> {
    let Some(lease) = &block.spec.lease else {
        return Vec::new();
    };
    let lender = evidence
        .blocks
        .iter()
        .find(|other| other.metadata.name == lease.of);
    let Some(lender) = lender else {
        return vec![format!("it is lent by {}, which is not there", lease.of)];
    };
    // Whoever owns it next keeps away from what is lent.
    let Some(owner) = &lender.spec.node else {
        return Vec::new();
    };
    if Some(owner) == block.spec.node.as_ref() {
        return vec![format!("{owner} lends it to itself")];
    }
    let reported = evidence.reported(lender).map(|reported| &reported.allocations);
    let kept = reported.unwrap_or(&lender.spec.allocations).iter();
    let kept =
        kept.filter(|held| lease.state == LeaseState::Granted && block.spec.cidr.contains(held.address));
    kept.map(|held| format!("{} is held in {}, which lends it", held.address, lender.spec.cidr))
        .collect()
}

fn owner(evidence: &Evidence, block: &IpBlock) -> Vec<Finding> {
    let cidr = block.spec.cidr;
    let Some(node) = block.spec.node.as_deref() else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    if !evidence.nodes.contains(node) {
        let detail = "its owner is no Node: the other nodes' agents free it when its routes are gone";
        findings.push(Finding::of_block(Class::OwnerGone, cidr, Some(node), detail));
    }
    if evidence.report(node).is_some() && evidence.reported(block).is_none() && in_force(block) {
        findings.push(inconsistent(
            block,
            "its owner's agent knows nothing of it".to_owned(),
        ));
    }
    findings
}

/// What the owner's journal and its checkpoint say differently.
fn behind(block: &IpBlock, reported: &BlockStatus) -> Vec<Finding> {
    let about = |held: &Allocation, detail: &str| Finding {
        address: Some(held.address),
        sequence: Some(held.sequence),
        owner: Some(held.owner.clone()),
        ..Finding::of_block(
            Class::CheckpointBehind,
            block.spec.cidr,
            block.spec.node.as_deref(),
            detail,
        )
    };
    let only = |these: &'_ [Allocation], those: &'_ [Allocation], detail: &'static str| -> Vec<Finding> {
        let those: BTreeMap<_, _> = those.iter().map(|held| (held.address, held)).collect();
        let missing = these.iter().filter(|held| those.get(&held.address) != Some(held));
        missing.map(|held| about(held, detail)).collect()
    };
    let (journal, checkpoint) = (&reported.allocations, &block.spec.allocations);
    let mut findings = only(
        journal,
        checkpoint,
        "the owner holds it, and its checkpoint does not say so",
    );
    findings.extend(only(
        checkpoint,
        journal,
        "the checkpoint holds it, and its owner does not (any more)",
    ));
    findings
}

/// Owned blocks that share addresses though neither is lent by the other.
fn overlaps(evidence: &Evidence) -> Vec<Finding> {
    let mut owned: Vec<&IpBlock> = evidence
        .blocks
        .iter()
        .filter(|block| block.spec.node.is_some())
        .collect();
    owned.sort_by_key(|block| (block.spec.cidr.network(), block.spec.cidr.prefix()));
    let (mut around, mut findings) = (Vec::<&IpBlock>::new(), Vec::new());
    for block in owned {
        // Of two networks that share an address, one contains the other, and stands before it here.
        while around
            .last()
            .is_some_and(|outer| !covers(outer.spec.cidr, block.spec.cidr))
        {
            around.pop();
        }
        if let Some(outer) = around.last() {
            let lent = block
                .spec
                .lease
                .as_ref()
                .is_some_and(|lease| lease.of == outer.metadata.name);
            if !lent {
                let owner = outer.spec.node.as_deref().unwrap_or_default();
                let detail = format!(
                    "it overlaps {} of {owner}, which does not lend it",
                    outer.spec.cidr
                );
                findings.push(inconsistent(block, detail));
            }
        }
        around.push(block);
    }
    findings
}

/// Blocks that an agent takes for its own and the datastore does not, and counts that cannot be.
fn strangers(evidence: &Evidence) -> Vec<Finding> {
    let stored: BTreeMap<IpNetwork, &IpBlock> = evidence
        .blocks
        .iter()
        .map(|block| (block.spec.cidr, block))
        .collect();
    let mut findings = Vec::new();
    for reported in evidence.reports.iter().flat_map(|report| &report.blocks) {
        let node = reported.node.as_str();
        let owner = stored.get(&reported.cidr).map(|block| block.spec.node.as_deref());
        let mut found = |detail: String| {
            let finding = Finding::of_block(Class::InconsistentBlock, reported.cidr, Some(node), detail);
            findings.push(finding);
        };
        match owner {
            None => found(format!("{node} has it, and the datastore has not")),
            Some(None) => found(format!(
                "{node} has it, and the datastore says that it is nobody's"
            )),
            Some(Some(owner)) if owner != node => {
                found(format!("{node} has it, and the datastore gives it to {owner}"));
            }
            Some(Some(_)) => {}
        }
        let (held, capacity) = (reported.allocations.len() as u128, u128::from(reported.capacity));
        let size = crate::Family::of_network(reported.cidr)
            .bits()
            .saturating_sub(reported.cidr.prefix());
        if held > capacity || capacity > 1_u128.checked_shl(size.into()).unwrap_or(u128::MAX) {
            found(format!(
                "its owner counts {capacity} addresses, {held} of them held"
            ));
        }
    }
    findings
}
