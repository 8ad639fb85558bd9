//! How full pools and blocks are, and what is being done to them.

use std::collections::BTreeSet;
use std::fmt;

use ipnetwork::IpNetwork;
use manx_api::ipam::{IpPool, LeaseState};
use serde::Serialize;

use super::cluster::{Block, Cluster, size};
use crate::output::Row;

/// How full a pool or a block is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Usage {
    /// `IP Pool` or `Block`.
    grouping: &'static str,
    /// The pool's name; none of a block outside all pools.
    pool: Option<String>,
    /// Which addresses.
    cidr: IpNetwork,
    /// How many there are.
    total: u128,
    /// How many pods have.
    in_use: u64,
    /// How many are given only to pods that ask for them, in use or not.
    reserved: u128,
    /// How many are left to be given.
    free: u128,
    /// How many of these rest, as far as their owners' agents were asked.
    cooling: u64,
    /// The block's owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// What is being done to it.
    #[serde(flatten)]
    state: State,
}

/// What is being done to a pool or a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum State {
    /// Nothing: addresses are given.
    Active,
    /// The pool gives nothing new, and waits until what is held is given back.
    Draining {
        /// How many addresses that is.
        left: u64,
        /// On how many nodes.
        nodes: usize,
    },
    /// Nobody holds an address of the pool, which gives nothing new.
    Drained {
        /// Nodes' blocks that are not given back yet.
        blocks: usize,
    },
    /// The pool is being split.
    Splitting {
        /// Into how many.
        parts: u32,
        /// How many of them are there.
        made: usize,
    },
    /// The block is nobody's.
    Unowned,
    /// The block's owner is no node (any more).
    OwnerGone,
    /// The block is in no pool.
    NoPool,
    /// The block is part of another.
    Lease {
        /// The name of that one.
        of: String,
        /// How far the lease is.
        lease: LeaseState,
    },
}

impl State {
    fn of_pool(cluster: &Cluster, pool: &IpPool) -> Self {
        if let Some(parts) = pool.split_into() {
            let made = cluster.pools.iter().filter(|part| part.is_part_of(pool)).count();
            return Self::Splitting { parts, made };
        }
        if !pool.spec.disabled {
            return Self::Active;
        }
        let owned = || cluster.blocks_of(pool).filter(|block| block.node().is_some());
        let left = owned().map(|block| block.allocations.len() as u64).sum();
        if left == 0 {
            let blocks = owned().count();
            return Self::Drained { blocks };
        }
        let holding = owned().filter(|block| !block.allocations.is_empty());
        let nodes = holding.filter_map(Block::node).collect::<BTreeSet<_>>().len();
        Self::Draining { left, nodes }
    }

    fn of_block(cluster: &Cluster, block: &Block) -> Self {
        let Some(node) = block.node() else {
            return Self::Unowned;
        };
        if cluster.pool_of(block.cidr()).is_none() {
            return Self::NoPool;
        }
        if !cluster.nodes.contains(node) {
            return Self::OwnerGone;
        }
        let lease = block.resource.spec.lease.as_ref();
        lease.map_or(Self::Active, |lease| Self::Lease {
            of: lease.of.clone(),
            lease: lease.state,
        })
    }
}

/// Empty where nothing is being done.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Active => Ok(()),
            Self::Draining { left, nodes: 1 } => write!(f, "draining, {left} left on 1 node"),
            Self::Draining { left, nodes } => write!(f, "draining, {left} left on {nodes} nodes"),
            Self::Drained { blocks: 0 } => f.write_str("drained"),
            Self::Drained { blocks: 1 } => f.write_str("drained, 1 block not given back yet"),
            Self::Drained { blocks } => write!(f, "drained, {blocks} blocks not given back yet"),
            Self::Splitting { parts, made } => write!(f, "being split, {made} of {parts} parts there"),
            Self::Unowned => f.write_str("nobody's"),
            Self::OwnerGone => f.write_str("its node is gone"),
            Self::NoPool => f.write_str("in no pool"),
            Self::Lease { of, lease } => match lease {
                LeaseState::Requested => write!(f, "asked for of {of}"),
                LeaseState::Granted => write!(f, "lent by {of}"),
                LeaseState::Returned => write!(f, "returned to {of}"),
            },
        }
    }
}

impl Usage {
    fn of_pool(cluster: &Cluster, pool: &IpPool) -> Self {
        let blocks: Vec<&Block> = cluster.blocks_of(pool).collect();
        let state = State::of_pool(cluster, pool);
        Self::counted(cluster, pool.spec.cidr, &blocks, Some(pool), state)
    }

    fn of_block(cluster: &Cluster, block: &Block) -> Self {
        let state = State::of_block(cluster, block);
        let pool = cluster.pool_of(block.cidr());
        Self {
            grouping: "Block",
            node: block.node().map(str::to_owned),
            ..Self::counted(cluster, block.cidr(), &[block], pool, state)
        }
        .without(cluster.lent_of(block))
    }

    /// Less what is lent to others, who have lines of their own.
    fn without(self, lent: u128) -> Self {
        Self {
            total: self.total.saturating_sub(lent),
            free: self.free.saturating_sub(lent),
            ..self
        }
    }

    fn counted(
        cluster: &Cluster,
        cidr: IpNetwork,
        blocks: &[&Block],
        pool: Option<&IpPool>,
        state: State,
    ) -> Self {
        let held = || blocks.iter().flat_map(|block| &block.allocations);
        let reserved_and_held = held()
            .filter(|held| cluster.reserved.contains(held.address))
            .count();
        let (total, in_use) = (size(cidr), held().count() as u64);
        let reserved = cluster.reserved.count_in(cidr);
        let withheld = reserved.saturating_sub(reserved_and_held as u128);
        Self {
            grouping: "IP Pool",
            pool: pool.map(|pool| pool.metadata.name.clone()),
            cidr,
            total,
            in_use,
            reserved,
            free: total.saturating_sub(u128::from(in_use)).saturating_sub(withheld),
            cooling: blocks.iter().map(|block| block.cooling).sum(),
            node: None,
            state,
        }
    }
}

/// A line for each pool, or for the one that is asked for; if wanted, with its blocks. Blocks in no pool come last.
pub(super) fn usage(cluster: &Cluster, only: Option<&IpPool>, blocks: bool) -> Vec<Usage> {
    let wanted = |pool: &&IpPool| only.is_none_or(|only| only.metadata.name == pool.metadata.name);
    let mut lines = Vec::new();
    for pool in cluster.pools.iter().filter(wanted) {
        lines.push(Usage::of_pool(cluster, pool));
        if blocks {
            lines.extend(
                cluster
                    .blocks_of(pool)
                    .map(|block| Usage::of_block(cluster, block)),
            );
        }
    }
    if only.is_none() {
        let strays = cluster.blocks.iter();
        let strays = strays.filter(|block| blocks && cluster.pool_of(block.cidr()).is_none());
        lines.extend(strays.map(|block| Usage::of_block(cluster, block)));
    }
    lines
}

/// A large number as calicoctl writes it, five digits of it.
fn short(number: u128) -> String {
    if number < 10_u128.pow(10) {
        number.to_string()
    } else {
        format!("{:.4e}", number as f64)
    }
}

impl Row for Usage {
    const COLUMNS: (&'static [&'static str], usize) = (
        &[
            "GROUPING",
            "CIDR",
            "IPS TOTAL",
            "IPS IN USE",
            "IPS RESERVED",
            "IPS FREE",
            "NODE",
            "STATE",
            "IPS COOLING",
            "POOL",
        ],
        8,
    );

    fn cells(&self) -> Vec<String> {
        // calicoctl says how much that is of the whole, too.
        let part = |part: u128| {
            let percent = part as f64 * 100.0 / self.total.max(1) as f64;
            format!("{} ({percent:.0}%)", short(part))
        };
        vec![
            self.grouping.to_owned(),
            self.cidr.to_string(),
            short(self.total),
            part(self.in_use.into()),
            part(self.reserved),
            part(self.free),
            self.node.clone().unwrap_or_default(),
            self.state.to_string(),
            part(self.cooling.into()),
            self.pool.clone().unwrap_or_default(),
        ]
    }

    fn name(&self) -> String {
        self.cidr.to_string()
    }

    fn is_well(&self) -> bool {
        match self.state {
            State::NoPool | State::OwnerGone => false,
            State::Active
            | State::Draining { .. }
            | State::Drained { .. }
            | State::Splitting { .. }
            | State::Unowned
            | State::Lease { .. } => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::cluster::tests::{cluster, held};
    use super::*;
    use crate::output::{self, Format};

    fn shown(cluster: &Cluster, blocks: bool) -> String {
        let text = output::text(&usage(cluster, None, blocks), Format::Table).unwrap();
        anstream::adapter::strip_str(&text).to_string()
    }

    #[test]
    fn a_pool_is_as_full_as_its_blocks() {
        let cluster = cluster(json!([
            ["Node", "node1", {}],
            ["IPPool", "default", {"cidr": "10.244.0.0/24"}],
            ["IPPool", "six", {"cidr": "fd00::/48"}],
            ["IPReservation", "gateways", {"reservedCIDRs": ["10.244.0.0/31", "10.0.0.0/24"]}],
            ["IPBlock", "10-244-0-0-26", {"cidr": "10.244.0.0/26", "pool": "default", "node": "node1",
                "generation": 1, "allocations": [held("10.244.0.1", 1), held("10.244.0.2", 2)]}],
            ["IPBlock", "10-244-0-64-26", {"cidr": "10.244.0.64/26", "pool": "default", "generation": 3}],
            ["IPBlock", "10-244-0-128-26", {"cidr": "10.244.0.128/26", "pool": "default", "node": "node9",
                "generation": 1}],
            ["IPBlock", "10-9-0-0-26", {"cidr": "10.9.0.0/26", "pool": "gone", "node": "node1", "generation": 1}],
        ]));
        insta::assert_snapshot!(shown(&cluster, true), @r"
        GROUPING  CIDR             IPS TOTAL  IPS IN USE  IPS RESERVED  IPS FREE          NODE   STATE
        IP Pool   10.244.0.0/24    256        2 (1%)      2 (1%)        253 (99%)         -      -
        Block     10.244.0.0/26    64         2 (3%)      2 (3%)        61 (95%)          node1  -
        Block     10.244.0.64/26   64         0 (0%)      0 (0%)        64 (100%)         -      nobody's
        Block     10.244.0.128/26  64         0 (0%)      0 (0%)        64 (100%)         node9  its node is gone
        IP Pool   fd00::/48        1.2089e24  0 (0%)      0 (0%)        1.2089e24 (100%)  -      -
        Block     10.9.0.0/26      64         0 (0%)      0 (0%)        64 (100%)         node1  in no pool
        ");
        assert_eq!(shown(&cluster, false).lines().count(), 3);
    }

    #[test]
    fn a_cordoned_pool_says_how_far_it_is() {
        let pool = |disabled| json!(["IPPool", "old", {"cidr": "10.1.0.0/24", "disabled": disabled}]);
        let block = |third: u8, node, addresses: &[&str]| {
            let allocations: Vec<_> = addresses.iter().map(|address| held(address, 1)).collect();
            json!(["IPBlock", format!("10-1-0-{third}-26"), {"cidr": format!("10.1.0.{third}/26"), "pool": "old",
                "node": node, "generation": 1, "allocations": allocations}])
        };
        let state = |manifests| usage(&cluster(manifests), None, false)[0].state.to_string();
        let two = [
            block(0, "a", &["10.1.0.0", "10.1.0.1"]),
            block(64, "b", &["10.1.0.64"]),
        ];
        assert_eq!(state(json!([pool(false), two[0], two[1]])), "");
        assert_eq!(
            state(json!([pool(true), two[0], two[1]])),
            "draining, 3 left on 2 nodes"
        );
        assert_eq!(
            state(json!([pool(true), two[1], block(0, "b", &[])])),
            "draining, 1 left on 1 node"
        );
        assert_eq!(
            state(json!([pool(true), block(0, "b", &[])])),
            "drained, 1 block not given back yet"
        );
        assert_eq!(state(json!([pool(true)])), "drained");
    }

    #[test]
    fn a_split_and_a_lease_say_how_far_they_are() {
        let mut cluster = cluster(json!([
            ["Node", "a", {}],
            ["Node", "b", {}],
            ["IPPool", "split-whole-0", {"cidr": "10.1.0.0/25"}],
            ["IPPool", "whole", {"cidr": "10.1.0.0/24"}],
            ["IPBlock", "10-1-0-0-26", {"cidr": "10.1.0.0/26", "pool": "whole", "node": "a", "generation": 1}],
            ["IPBlock", "10-1-0-0-28", {"cidr": "10.1.0.0/28", "pool": "whole", "node": "b", "generation": 1,
                "lease": {"of": "10-1-0-0-26", "state": "Granted"}}],
            ["IPBlock", "10-1-0-128-26", {"cidr": "10.1.0.128/26", "pool": "whole", "node": "a", "generation": 1}],
        ]));
        let annotation = (manx_api::ipam::SPLIT_INTO.to_owned(), "2".to_owned());
        cluster.pools[1].metadata.annotations.extend([annotation]);
        insta::assert_snapshot!(shown(&cluster, true), @r"
        GROUPING  CIDR           IPS TOTAL  IPS IN USE  IPS RESERVED  IPS FREE    NODE  STATE
        IP Pool   10.1.0.0/25    128        0 (0%)      0 (0%)        128 (100%)  -     -
        Block     10.1.0.0/26    48         0 (0%)      0 (0%)        48 (100%)   a     -
        Block     10.1.0.0/28    16         0 (0%)      0 (0%)        16 (100%)   b     lent by 10-1-0-0-26
        IP Pool   10.1.0.0/24    256        0 (0%)      0 (0%)        256 (100%)  -     being split, 1 of 2 parts there
        Block     10.1.0.128/26  64         0 (0%)      0 (0%)        64 (100%)   a     -
        ");
    }

    #[test]
    fn scripts_find_the_promised_fields_of_a_pool() {
        let mut cluster = cluster(json!([
            ["IPPool", "default", {"cidr": "10.244.0.0/24", "disabled": true}],
            ["IPBlock", "10-244-0-0-26", {"cidr": "10.244.0.0/26", "pool": "default", "node": "node1",
                "generation": 1, "allocations": [held("10.244.0.1", 1)]}],
            ["Node", "node2", {}],
            ["IPBlock", "10-244-0-16-28", {"cidr": "10.244.0.16/28", "pool": "default", "node": "node2",
                "generation": 1, "lease": {"of": "10-244-0-0-26", "state": "Granted"}}],
        ]));
        cluster.blocks[0].cooling = 2;
        let lines = serde_json::to_value(usage(&cluster, None, true)).unwrap();
        let pool = json!({
            "grouping": "IP Pool", "pool": "default", "cidr": "10.244.0.0/24", "total": 256, "inUse": 1,
            "reserved": 0, "free": 255, "cooling": 2, "state": "draining", "left": 1, "nodes": 1,
        });
        let block = json!({
            "grouping": "Block", "pool": "default", "cidr": "10.244.0.0/26", "total": 48, "inUse": 1,
            "reserved": 0, "free": 47, "cooling": 2, "node": "node1", "state": "ownerGone",
        });
        let lease = json!({
            "grouping": "Block", "pool": "default", "cidr": "10.244.0.16/28", "total": 16, "inUse": 0,
            "reserved": 0, "free": 16, "cooling": 0, "node": "node2", "state": "lease", "of": "10-244-0-0-26", "lease": "Granted",
        });
        assert_eq!(lines, json!([pool, block, lease]));
    }
}
