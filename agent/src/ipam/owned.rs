//! The blocks of this node, as others are told of them.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;
use manx_api::ipam::{block_name, pool_of};

use crate::view::View;

/// The blocks of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned(pub BTreeSet<IpNetwork>);

impl Owned {
    /// The blocks that `node` announces: all but those of pools that say otherwise, and those that the
    /// datastore gives to another node, which announces them itself.
    #[must_use]
    pub fn exported(&self, view: &View, node: &str) -> BTreeSet<IpNetwork> {
        let hidden = |cidr: IpNetwork| {
            let pool = pool_of(cidr, view.pools.values());
            pool.is_some_and(|pool| pool.spec.disable_bgp_export)
        };
        let blocks = self.0.iter().copied();
        blocks
            .filter(|cidr| !hidden(*cidr) && !is_elsewhere(view, *cidr, node))
            .collect()
    }
}

/// Whether the datastore says that another node than `node` owns the block.
pub(super) fn is_elsewhere(view: &View, block: IpNetwork, node: &str) -> bool {
    let owner = view
        .blocks
        .get(&block_name(block))
        .and_then(|block| block.spec.node.as_deref());
    owner.is_some_and(|owner| owner != node)
}
