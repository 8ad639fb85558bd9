//! What `manxctl ipam check` compares: the journal, the kernel, the tombstones, read one after the other.

use std::collections::BTreeMap;
use std::path::Path;

use manx_api::report::{NodeReport, PodInterface, Tombstone};
use manx_api::status::BlockStatus;

use crate::ipam::recovery;
use crate::{startup, tombstones};

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The kernel does not tell.
    #[error("the kernel does not say which interfaces there are: {0}")]
    Kernel(#[from] manx_linux::Error),
    /// The tombstones cannot be read.
    #[error("the tombstones cannot be read: {0}")]
    Tombstones(#[from] std::io::Error),
}

/// Adds what the kernel and the state directory say to the journal's `blocks` of `node`. It waits for the kernel.
///
/// # Errors
/// See [`ReportError`].
pub fn gather(node: &str, blocks: Vec<BlockStatus>, state_dir: &Path) -> Result<NodeReport, ReportError> {
    let owners = blocks
        .iter()
        .flat_map(|block| &block.allocations)
        .map(|held| held.owner.clone());
    let mut owners: BTreeMap<String, _> = owners
        .map(|owner| (recovery::interface(&owner.container_id, &owner.ifname), owner))
        .collect();
    let interfaces = startup::carried()?.into_iter().map(|live| PodInterface {
        attachment: owners.remove(&live.interface),
        name: live.interface,
        addresses: live.addresses,
    });
    let tombstones = tombstones::found(state_dir)?.into_iter().map(|left| Tombstone {
        container_id: left.container_id.as_str().to_owned(),
        ifname: left.ifname.as_str().to_owned(),
    });
    Ok(NodeReport {
        node: node.to_owned(),
        interfaces: interfaces.collect(),
        tombstones: tombstones.collect(),
        blocks,
    })
}
