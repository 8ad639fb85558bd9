//! The blocks of this node, as others are told of them.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;
use manx_api::ipam::block_name;

use crate::view::View;

/// The blocks of this node, each with the name of its pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned(pub BTreeMap<IpNetwork, String>);

impl Owned {
    /// The blocks that `node` announces: all but those of pools that say otherwise, and those that the
    /// datastore gives to another node, which announces them itself.
    #[must_use]
    pub fn exported(&self, view: &View, node: &str) -> BTreeSet<IpNetwork> {
        let hidden = |pool: &String| {
            view.pools
                .get(pool)
                .is_some_and(|pool| pool.spec.disable_bgp_export)
        };
        self.0
            .iter()
            .filter(|(cidr, pool)| !hidden(pool) && !is_elsewhere(view, **cidr, node))
            .map(|(cidr, _)| *cidr)
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
