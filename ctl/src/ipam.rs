//! How full pools and blocks are, and who holds an address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::{IpNetwork, NetworkSize};
use manx_api::ipam::Allocation;
use manx_api::rpc::Method;
use manx_api::status::BlockStatus;
use manx_api::{Kind, Resource};
use manx_store::Store as _;
use serde::Serialize;

use crate::cli::IpamShow;
use crate::cluster::Cluster;
use crate::error::Error;
use crate::output::{self, Cell, Heads, Row};
use crate::resources::listing;

/// How full a pool or a block is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Usage {
    grouping: &'static str,
    cidr: IpNetwork,
    total: u128,
    in_use: u128,
    free: u128,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
}

impl Row for Usage {
    fn heads() -> Heads {
        Heads { narrow: &["GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS FREE"], wide: &["NODE"] }
    }

    fn cells(&self) -> Vec<Cell> {
        let share = |part: u128| format!("{part} ({}%)", part.saturating_mul(100) / self.total.max(1));
        vec![
            self.grouping.into(),
            self.cidr.into(),
            self.total.into(),
            share(self.in_use).into(),
            share(self.free).into(),
            Cell::or_dash(self.node.as_ref()),
        ]
    }

    fn name(&self) -> String {
        self.cidr.to_string()
    }
}

/// Who holds an address.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Holder {
    node: String,
    block: IpNetwork,
    #[serde(flatten)]
    allocation: Allocation,
}

impl Row for Holder {
    fn heads() -> Heads {
        Heads { narrow: &["IP", "NAMESPACE", "POD", "NODE"], wide: &["BLOCK", "CONTAINERID", "INTERFACE", "SEQUENCE"] }
    }

    fn cells(&self) -> Vec<Cell> {
        let owner = &self.allocation.owner;
        vec![
            self.allocation.address.into(),
            Cell::from(&owner.namespace),
            Cell::from(&owner.pod),
            Cell::from(&self.node),
            self.block.into(),
            Cell::from(&owner.container_id),
            Cell::from(&owner.ifname),
            self.allocation.sequence.into(),
        ]
    }

    fn name(&self) -> String {
        self.allocation.address.to_string()
    }
}

/// `ipam show`.
pub(crate) async fn show(cluster: &Cluster, arguments: &IpamShow) -> Result<(), Error> {
    let format = arguments.output.format;
    let blocks = blocks(cluster).await?;
    if let Some(address) = arguments.ip {
        return output::list(&holders(&blocks, address), format);
    }
    let mut rows = Vec::new();
    for resource in listing(cluster, Kind::IpPool, None).await?.items {
        let Resource::IpPool(pool) = resource else { continue };
        let within: Vec<&BlockStatus> = blocks.values().filter(|block| block.pool == pool.metadata.name).collect();
        let in_use = within.iter().map(|block| block.allocations.len() as u128).sum();
        rows.push(usage("IP Pool", pool.spec.cidr, in_use, None));
        if arguments.show_blocks {
            rows.extend(within.into_iter().map(|block| {
                usage("Block", block.cidr, block.allocations.len() as u128, Some(block.node.clone()))
            }));
        }
    }
    output::list(&rows, format)
}

/// Every block by address. A block's owner knows best; where it does not answer, its last checkpoint in the
/// datastore, which may be seconds old, has to do.
async fn blocks(cluster: &Cluster) -> Result<BTreeMap<IpNetwork, BlockStatus>, Error> {
    let store = cluster.store().await?;
    let stored = store
        .list(Kind::IpBlock, None)
        .await
        .map_err(|source| Error::Store { path: cluster.store_path(), source })?;
    let mut blocks = BTreeMap::new();
    for resource in stored.items {
        let Resource::IpBlock(block) = resource else { continue };
        let Some(node) = block.spec.node else { continue };
        let status = BlockStatus {
            node,
            cidr: block.spec.cidr,
            pool: block.spec.pool,
            capacity: 0,
            allocations: block.spec.allocations,
        };
        blocks.insert(status.cidr, status);
    }
    let (live, _silent) = cluster.ask::<Vec<BlockStatus>>(None, Method::IpamShow)?;
    blocks.extend(live.into_iter().flatten().map(|block| (block.cidr, block)));
    Ok(blocks)
}

fn holders(blocks: &BTreeMap<IpNetwork, BlockStatus>, address: IpAddr) -> Vec<Holder> {
    let holding = |block: &BlockStatus| {
        let allocation = block.allocations.iter().find(|allocation| allocation.address == address)?.clone();
        Some(Holder { node: block.node.clone(), block: block.cidr, allocation })
    };
    blocks.values().filter_map(holding).collect()
}

fn usage(grouping: &'static str, cidr: IpNetwork, in_use: u128, node: Option<String>) -> Usage {
    let total = match cidr.size() {
        NetworkSize::V4(size) => size.into(),
        NetworkSize::V6(size) => size,
    };
    Usage { grouping, cidr, total, in_use, free: total.saturating_sub(in_use), node }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_pool_has_shares_too() {
        let pool = usage("IP Pool", "::/0".parse().unwrap(), 3, None);
        let cells: Vec<String> = pool.cells().iter().map(ToString::to_string).collect();
        assert_eq!(cells[3], "3 (0%)");
        assert_eq!(pool.total, u128::MAX);
    }
}
