//! Addresses that a pod asks for by name: what it asks for, and where such an address is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use manx_api::ipam::{AttachmentId, IpBlock, IpPool, covers, pool_of};

use crate::selection::{annotation, strings};
use crate::{AnnotationError, Blocks, Chooser, Family};

/// Where an address is that a node has not in a block of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// In a block that nobody owns: it can be claimed.
    Free {
        /// The block's pool.
        pool: &'a IpPool,
        /// The block.
        block: IpNetwork,
    },
    /// In a block of another node, which gives it to nobody.
    Elsewhere {
        /// The block.
        block: &'a IpBlock,
    },
}

/// Why an address cannot be had by whoever asks for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// No pool has it.
    #[error("{address} is in no IPPool: ask for an address of [{}], or create a pool that has it", .pools.join(", "))]
    Outside {
        /// The address.
        address: IpAddr,
        /// The pools of its family.
        pools: Vec<String>,
    },
    /// Its pool gives out nothing new.
    #[error("{address} is in IPPool {pool}, which is disabled: enable the pool, or ask for another address")]
    Disabled {
        /// The address.
        address: IpAddr,
        /// The pool.
        pool: String,
    },
    /// Somebody on another node has it.
    #[error("{address} is held by pod {}/{} on node {node}", .holder.namespace, .holder.pod)]
    Held {
        /// The address.
        address: IpAddr,
        /// Who has it.
        holder: Box<AttachmentId>,
        /// Where.
        node: String,
    },
}

/// The addresses that a pod asks for, one of a family at most: those of its annotation `ipAddrs`, else those that the
/// runtime names.
///
/// # Errors
/// The annotation cannot be obeyed.
pub fn requested(
    annotations: &BTreeMap<String, String>,
    runtime: &[IpAddr],
) -> Result<Vec<IpAddr>, AnnotationError> {
    let Some((key, value)) = annotation(annotations, "ipAddrs") else {
        return Ok(runtime.to_vec());
    };
    let by = Chooser::Pod(key);
    let mut addresses: Vec<IpAddr> = Vec::new();
    for entry in strings(&by, value, r#"["10.244.7.1"]"#)? {
        let Ok(address) = entry.parse::<IpAddr>() else {
            return Err(AnnotationError::NoAddress { by, entry });
        };
        let of_family = |other: &&IpAddr| other.is_ipv4() == address.is_ipv4();
        if let Some(&first) = addresses.iter().find(of_family) {
            return Err(AnnotationError::Two {
                by,
                family: Family::of(address),
                addresses: [first, address],
            });
        }
        addresses.push(address);
    }
    Ok(addresses)
}

/// Where an address is, of which this node has no block.
///
/// # Errors
/// Nobody can have it for the time being.
pub fn place<'a>(
    address: IpAddr,
    pools: impl IntoIterator<Item = &'a IpPool> + Clone,
    blocks: impl IntoIterator<Item = &'a IpBlock>,
) -> Result<Place<'a>, PlaceError> {
    let cidr = IpNetwork::from(address);
    let Some(pool) = pool_of(cidr, pools.clone()) else {
        let of_family = |pool: &&IpPool| pool.spec.cidr.is_ipv4() == address.is_ipv4();
        let pools = pools.into_iter().filter(of_family);
        return Err(PlaceError::Outside {
            address,
            pools: pools.map(|pool| pool.spec.cidr.to_string()).collect(),
        });
    };
    let around = blocks.into_iter().filter(|block| covers(block.spec.cidr, cidr));
    let owned = around.filter(|block| block.spec.node.is_some());
    let block = owned.max_by_key(|block| block.spec.cidr.prefix());
    let allocations = block.into_iter().flat_map(|block| &block.spec.allocations);
    let holder = allocations
        .map(|held| (held.address, &held.owner))
        .find(|(held, _)| *held == address);
    match (block, holder) {
        (Some(block), Some((_, holder))) => Err(PlaceError::Held {
            address,
            holder: Box::new(holder.clone()),
            node: block.spec.node.clone().unwrap_or_default(),
        }),
        _ if pool.spec.disabled => Err(PlaceError::Disabled {
            address,
            pool: pool.metadata.name.clone(),
        }),
        (Some(block), None) => Ok(Place::Elsewhere { block }),
        (None, _) => {
            let blocks = Blocks::of(pool);
            let block = blocks.get(blocks.number_of(address)).unwrap_or(cidr);
            Ok(Place::Free { pool, block })
        }
    }
}
