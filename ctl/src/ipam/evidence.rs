//! What `ipam check` compares, gathered from the datastore and from agents.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "only the kinds that are listed come back"
)]

use std::collections::BTreeMap;

use manx_api::report::NodeReport;
use manx_api::rpc::Method;
use manx_api::{Kind, Resource};
use manx_ipam::check::Evidence;
use manx_store::Store as _;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::target::{Target, ask_each};

/// What there is to compare, and who could not be asked.
#[derive(Debug)]
pub(super) struct Gathered {
    /// What there is.
    pub(super) evidence: Evidence,
    /// Nodes whose agent did not answer.
    pub(super) unasked: Vec<Unasked>,
}

/// A node that is judged by the datastore alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unasked {
    /// Which.
    pub(super) node: String,
    /// Why.
    pub(super) reason: String,
}

/// Asks agents first, and reads the datastore then: what they hold has had its time to be written.
pub(super) async fn gather(target: &Target) -> Result<Gathered> {
    let store = target.store().await?;
    let agents = target.known_agents()?;
    let (mut evidence, mut reasons) = (Evidence::default(), BTreeMap::new());
    for (agent, answer) in ask_each::<NodeReport>(&agents, Method::IpamCheck) {
        match answer {
            Ok(report) => evidence.reports.push(report),
            Err(error) => drop(reasons.insert(agent.label(), error.to_string())),
        }
    }
    for kind in [
        Kind::IpPool,
        Kind::IpReservation,
        Kind::IpBlock,
        Kind::Node,
        Kind::WorkloadEndpoint,
    ] {
        for resource in store.list(kind, None).await?.items {
            match resource {
                Resource::IpPool(pool) => evidence.pools.push(pool),
                Resource::IpReservation(reservation) => {
                    evidence.reserved.extend(reservation.spec.reserved_cidrs);
                }
                Resource::IpBlock(block) => evidence.blocks.push(block),
                Resource::Node(node) => drop(evidence.nodes.insert(node.metadata.name)),
                Resource::WorkloadEndpoint(workload) => evidence.workloads.push(workload),
                _ => {}
            }
        }
    }
    let asked = |node: &&String| !evidence.reports.iter().any(|report| report.node == **node);
    let unasked = evidence.nodes.iter().filter(asked).map(|node| Unasked {
        node: node.clone(),
        reason: reasons
            .remove(node)
            .unwrap_or_else(|| "no agent of it can be reached from here".to_owned()),
    });
    let unasked = unasked.collect();
    Ok(Gathered { evidence, unasked })
}
