//! What operators ask a block's owner to free.

use std::collections::BTreeMap;

use manx_api::ipam::{IpBlock, Release};

use crate::NotOwner;
use crate::ownership::owned;

/// What the owner did about a [`Release`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// There is no such allocation any more.
    Gone,
    /// An interface carries the address: it stays with its holder.
    Kept,
}

/// The block resource after its owner dealt with `settled`: these requests are gone from it, and with them what
/// is no longer allocated. The checkpoint that says so may come later, yet whoever asked has to see at once that
/// an address whose request is gone, and that is still listed, was kept.
///
/// # Errors
/// The block is not `node`'s.
pub fn settle_releases(
    block: &IpBlock,
    node: &str,
    settled: &BTreeMap<Release, Settled>,
) -> Result<IpBlock, NotOwner> {
    let mut block = owned(block, node)?;
    block
        .spec
        .releases
        .retain(|release| !settled.contains_key(release));
    block.spec.allocations.retain(|allocation| {
        let release = Release {
            address: allocation.address,
            sequence: allocation.sequence,
        };
        settled.get(&release) != Some(&Settled::Gone)
    });
    Ok(block)
}
