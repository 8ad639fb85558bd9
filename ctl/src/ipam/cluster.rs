//! Every pool and block of the cluster: as the datastore has them, and newer where their owners' agents answer.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "only the kinds that are listed come back"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use manx_api::ipam::{
    Allocation, IpBlock, IpPool, IpReservation, IpamConfiguration, IpamConfigurationSpec, LeaseState, pool_of,
};
use manx_api::rpc::Method;
use manx_api::status::BlockStatus;
use manx_api::{Kind, Resource};
use manx_ipam::Reserved;
use manx_store::{SqliteStore, Store as _};

use crate::error::Result;
use crate::target::{Target, ask_each};

/// The pools and blocks of a cluster, at about one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Cluster {
    /// By name.
    pub(super) pools: Vec<IpPool>,
    /// Addresses given only to pods that ask for them.
    pub(super) reserved: Reserved,
    /// How nodes assign addresses.
    pub(super) configuration: IpamConfigurationSpec,
    /// By address.
    pub(super) blocks: Vec<Block>,
    /// The names of the nodes that there are.
    pub(super) nodes: BTreeSet<String>,
}

/// A block.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// As the datastore has it.
    pub(super) resource: IpBlock,
    /// What is held: as the owner's agent says, or else as of its checkpoint.
    pub(super) allocations: Vec<Allocation>,
    /// How many free addresses rest; none where the owner's agent did not say.
    pub(super) cooling: u64,
    /// Whether the owner's agent said so.
    pub(super) live: bool,
}

impl Block {
    /// The addresses.
    pub(super) fn cidr(&self) -> IpNetwork {
        self.resource.spec.cidr
    }

    /// The owner.
    pub(super) fn node(&self) -> Option<&str> {
        self.resource.spec.node.as_deref()
    }

    /// Whether its addresses are its owner's: those of a lease that is not granted yet are the lender's.
    fn is_in_force(&self) -> bool {
        let lease = self.resource.spec.lease.as_ref();
        lease.is_none_or(|lease| lease.state != LeaseState::Requested)
    }
}

impl Cluster {
    /// Reads the datastore, and asks the agents that can be reached from here. Those that do not answer are
    /// named on standard error: what is shown of their blocks is as old as their last checkpoint.
    pub(super) async fn load(target: &Target) -> Result<Self> {
        let mut cluster = Self::read(&target.store().await?).await?;
        let agents = target.known_agents()?;
        for (agent, answer) in ask_each::<Vec<BlockStatus>>(&agents, Method::IpamShow) {
            match answer {
                Ok(blocks) => cluster.take_in(blocks),
                Err(error) => anstream::eprintln!(
                    "manxctl: {error}; the addresses of {} are shown as of its last checkpoint",
                    agent.label()
                ),
            }
        }
        Ok(cluster)
    }

    async fn read(store: &SqliteStore) -> Result<Self> {
        let mut cluster = Self::default();
        let mut reserved = Vec::new();
        for kind in [
            Kind::IpPool,
            Kind::IpReservation,
            Kind::IpamConfiguration,
            Kind::IpBlock,
            Kind::Node,
        ] {
            for resource in store.list(kind, None).await?.items {
                match resource {
                    Resource::IpPool(pool) => cluster.pools.push(pool),
                    Resource::IpReservation(IpReservation { spec, .. }) => {
                        reserved.extend(spec.reserved_cidrs);
                    }
                    Resource::IpamConfiguration(IpamConfiguration { spec, .. }) => {
                        cluster.configuration = spec;
                    }
                    Resource::IpBlock(resource) => cluster.blocks.push(Block {
                        allocations: resource.spec.allocations.clone(),
                        resource,
                        cooling: 0,
                        live: false,
                    }),
                    Resource::Node(node) => drop(cluster.nodes.insert(node.metadata.name)),
                    _ => {}
                }
            }
        }
        cluster
            .blocks
            .sort_by_key(|block| (block.cidr().network(), block.cidr().prefix()));
        cluster.reserved = Reserved::new(reserved);
        Ok(cluster)
    }

    /// Takes an owner's word for its blocks. What an agent says of a block that the datastore gives to another
    /// node is not shown here: `ipam check` is for that.
    fn take_in(&mut self, reported: Vec<BlockStatus>) {
        let mut reported: BTreeMap<IpNetwork, BlockStatus> =
            reported.into_iter().map(|block| (block.cidr, block)).collect();
        for block in &mut self.blocks {
            let of_owner = |found: &BlockStatus| block.node() == Some(found.node.as_str());
            if let Some(found) = reported.remove(&block.cidr()).filter(of_owner) {
                block.allocations = found.allocations;
                block.cooling = found.cooling;
                block.live = true;
            }
        }
    }

    /// The pool that a block or an address is of.
    pub(super) fn pool_of(&self, cidr: IpNetwork) -> Option<&IpPool> {
        pool_of(cidr, &self.pools)
    }

    /// The blocks of a pool, by address.
    pub(super) fn blocks_of(&self, pool: &IpPool) -> impl Iterator<Item = &Block> {
        let name = &pool.metadata.name;
        self.blocks.iter().filter(move |block| {
            let belongs = self.pool_of(block.cidr());
            belongs.is_some_and(|belongs| belongs.metadata.name == *name)
        })
    }

    /// The block whose owner decides over `address`.
    pub(super) fn block_of(&self, address: IpAddr) -> Option<&Block> {
        self.blocks
            .iter()
            .filter(|block| block.is_in_force() && block.cidr().contains(address))
            .max_by_key(|block| block.cidr().prefix())
    }

    /// The block with this name.
    pub(super) fn block_named(&self, name: &str) -> Option<&Block> {
        self.blocks
            .iter()
            .find(|block| block.resource.metadata.name == name)
    }

    /// How many addresses of a block are lent to other nodes.
    pub(super) fn lent_of(&self, lender: &Block) -> u128 {
        let of_lender = |block: &&Block| {
            let lease = block.resource.spec.lease.as_ref();
            block.is_in_force() && lease.is_some_and(|lease| lease.of == lender.resource.metadata.name)
        };
        let lent = self.blocks.iter().filter(of_lender);
        lent.map(|block| size(block.cidr())).fold(0, u128::saturating_add)
    }
}

/// How many addresses a network has; all of IPv6 counts as one less.
pub(super) fn size(cidr: IpNetwork) -> u128 {
    let bits = match cidr {
        IpNetwork::V4(network) => 32 - u32::from(network.prefix()),
        IpNetwork::V6(network) => 128 - u32::from(network.prefix()),
    };
    1_u128.checked_shl(bits).unwrap_or(u128::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A cluster of these manifests, `[kind, name, spec]`, without any agent.
    pub(in crate::ipam) fn cluster(manifests: serde_json::Value) -> Cluster {
        let (mut cluster, mut reserved) = (Cluster::default(), Vec::new());
        for manifest in manifests.as_array().unwrap() {
            let text = json!({
                "apiVersion": "manx.network/v1", "kind": manifest[0], "metadata": {"name": manifest[1]},
                "spec": manifest[2],
            });
            match serde_json::from_value(text).unwrap() {
                Resource::IpPool(pool) => cluster.pools.push(pool),
                Resource::IpReservation(reservation) => reserved.extend(reservation.spec.reserved_cidrs),
                Resource::IpBlock(resource) => cluster.blocks.push(Block {
                    allocations: resource.spec.allocations.clone(),
                    resource,
                    cooling: 0,
                    live: false,
                }),
                Resource::Node(node) => drop(cluster.nodes.insert(node.metadata.name)),
                other @ (Resource::IpamConfiguration(_)
                | Resource::Namespace(_)
                | Resource::BgpConfiguration(_)
                | Resource::BgpPeer(_)
                | Resource::BgpFilter(_)
                | Resource::WorkloadEndpoint(_)
                | Resource::Tier(_)
                | Resource::NetworkPolicy(_)
                | Resource::GlobalNetworkPolicy(_)
                | Resource::StagedNetworkPolicy(_)
                | Resource::StagedGlobalNetworkPolicy(_)
                | Resource::NetworkSet(_)
                | Resource::GlobalNetworkSet(_)
                | Resource::HostEndpoint(_)
                | Resource::KubernetesNetworkPolicy(_)
                | Resource::ClusterNetworkPolicy(_)
                | Resource::StagedKubernetesNetworkPolicy(_)
                | Resource::Service(_)
                | Resource::EndpointSlice(_)
                | Resource::ServiceAccount(_)) => panic!("{other:?}"),
            }
        }
        cluster.reserved = Reserved::new(reserved);
        cluster
    }

    /// An allocation as a resource has it.
    pub(in crate::ipam) fn held(address: &str, sequence: u64) -> serde_json::Value {
        json!({
            "address": address, "sequence": sequence,
            "owner": {"containerID": "c1", "ifname": "eth0", "namespace": "shop", "pod": "web"},
        })
    }

    #[test]
    fn an_owner_is_believed_about_its_own_blocks_only() {
        let mut cluster = cluster(json!([
            ["IPBlock", "10-0-0-0-26", {"cidr": "10.0.0.0/26", "pool": "p", "node": "n1", "generation": 1}],
            ["IPBlock", "10-0-0-64-26", {"cidr": "10.0.0.64/26", "pool": "p", "node": "n2", "generation": 1}],
        ]));
        let says = |cidr: &str, address: &str| {
            let status = json!({"node": "n1", "cidr": cidr, "pool": "p", "capacity": 64, "cooling": 3,
                "allocations": [held(address, 1)]});
            serde_json::from_value(status).unwrap()
        };
        cluster.take_in(vec![
            says("10.0.0.0/26", "10.0.0.1"),
            says("10.0.0.64/26", "10.0.0.65"),
        ]);
        let counts: Vec<_> = cluster
            .blocks
            .iter()
            .map(|block| (block.allocations.len(), block.cooling, block.live))
            .collect();
        assert_eq!(counts, [(1, 3, true), (0, 0, false)]);
    }

    #[test]
    fn a_lease_counts_once_it_is_granted() {
        let lease = |state: &str| {
            cluster(json!([
                ["IPBlock", "10-0-0-0-26", {"cidr": "10.0.0.0/26", "pool": "p", "node": "n1", "generation": 1}],
                ["IPBlock", "10-0-0-0-28", {"cidr": "10.0.0.0/28", "pool": "p", "node": "n2", "generation": 1,
                    "lease": {"of": "10-0-0-0-26", "state": state}}],
            ]))
        };
        let owner = |state, address: &str| {
            let cluster = lease(state);
            let block = cluster.block_of(address.parse().unwrap());
            block.unwrap().node().unwrap().to_owned()
        };
        assert_eq!(owner("Requested", "10.0.0.1"), "n1");
        assert_eq!(owner("Granted", "10.0.0.1"), "n2");
        assert_eq!(owner("Returned", "10.0.0.1"), "n2");
        assert_eq!(owner("Granted", "10.0.0.16"), "n1");
    }
}
