//! The blocks of this node, as others are told of them.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;
use manx_api::ipam::{LeaseState, block_name, pool_of};

use crate::view::View;

/// The blocks of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    /// Those that its journal has.
    pub blocks: BTreeSet<IpNetwork>,
    /// Whether those are among them that the datastore gave it before this life.
    pub recovered: bool,
}

impl Owned {
    /// The blocks that `node` announces: all but those of pools that say otherwise, and those that the
    /// datastore gives to another node, which announces them itself.
    #[must_use]
    pub fn exported(&self, view: &View, node: &str) -> BTreeSet<IpNetwork> {
        let hidden = |cidr: IpNetwork| {
            let pool = pool_of(cidr, view.pools.values());
            pool.is_some_and(|pool| pool.spec.disable_bgp_export)
        };
        let blocks = self.blocks.iter().copied();
        blocks
            .filter(|cidr| !hidden(*cidr) && !is_elsewhere(view, *cidr, node))
            .collect()
    }
}

/// Whether the datastore says that another node than `node` owns the block, or that it was lent and is returned.
pub(super) fn is_elsewhere(view: &View, block: IpNetwork, node: &str) -> bool {
    let Some(block) = view.blocks.get(&block_name(block)) else {
        return false;
    };
    let lease = block.spec.lease.as_ref();
    let owner = block.spec.node.as_deref();
    owner.is_some_and(|owner| owner != node) || lease.is_some_and(|lease| lease.state == LeaseState::Returned)
}
