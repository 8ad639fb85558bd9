//! Who owns a block, as functions from one block resource to the next.
//!
//! None of them writes: the caller writes the answer by compare-and-swap on what it read, and whoever
//! loses reads again. So two nodes never own one block, however their calls interleave.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use manx_api::Metadata;
use manx_api::ipam::{Allocation, IpBlock, IpBlockSpec, IpPool, block_name};

use crate::Blocks;

/// Why a block cannot be claimed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// The pool gives out nothing new.
    #[error("pool {pool} is disabled: no block can be claimed from it")]
    Disabled {
        /// The pool.
        pool: String,
    },
    /// The pool is not cut that way.
    #[error("{cidr} is not a block of pool {pool} ({pool_cidr} in blocks of /{prefix})")]
    NotABlock {
        /// What was asked for.
        cidr: IpNetwork,
        /// The pool.
        pool: String,
        /// The pool's addresses.
        pool_cidr: IpNetwork,
        /// Prefix length of the pool's blocks.
        prefix: u8,
    },
    /// The resource read is another block's.
    #[error("asked for {cidr}, but the block read is {found}")]
    OtherBlock {
        /// What was asked for.
        cidr: IpNetwork,
        /// What was read.
        found: IpNetwork,
    },
    /// Another node owns it.
    #[error("block {cidr} is owned by node {owner}")]
    Owned {
        /// The block.
        cidr: IpNetwork,
        /// Its owner.
        owner: String,
    },
}

/// A node speaks for a block that is not its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("block {cidr} is not node {node}'s: {}", owned_by(.owner.as_deref()))]
pub struct NotOwner {
    /// The block.
    pub cidr: IpNetwork,
    /// Who spoke.
    pub node: String,
    /// The owner; none while the block is free.
    pub owner: Option<String>,
}

fn owned_by(owner: Option<&str>) -> String {
    owner.map_or_else(
        || "nobody owns it".to_owned(),
        |owner| format!("node {owner} owns it"),
    )
}

/// Why a checkpoint is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The block is another's by now.
    #[error(transparent)]
    NotOwner(#[from] NotOwner),
    /// The writer knows an earlier ownership of the block.
    #[error("block {cidr} is of generation {current}, the checkpoint of generation {given}")]
    Generation {
        /// The block.
        cidr: IpNetwork,
        /// The block's generation.
        current: u64,
        /// The writer's.
        given: u64,
    },
    /// The address is not the block's.
    #[error("{address} is not in block {cidr}")]
    Outside {
        /// The block.
        cidr: IpNetwork,
        /// The address.
        address: IpAddr,
    },
    /// The address is there twice.
    #[error("{address} is allocated twice")]
    Twice {
        /// The address.
        address: IpAddr,
    },
}

/// The block resource that makes `node` the owner of `cidr`, a block of `pool`.
///
/// `existing` is the block as read from the datastore: none means *create this*, some means *update by
/// compare-and-swap to this*. A block that `node` owns already comes back unchanged.
///
/// # Errors
/// See [`ClaimError`]; an owned block is never taken.
pub fn claim(
    existing: Option<&IpBlock>,
    pool: &IpPool,
    cidr: IpNetwork,
    node: &str,
) -> Result<IpBlock, ClaimError> {
    let name = &pool.metadata.name;
    if !Blocks::of(pool).contains(cidr) {
        return Err(ClaimError::NotABlock {
            cidr,
            pool: name.clone(),
            pool_cidr: pool.spec.cidr,
            prefix: pool.spec.block_size(),
        });
    }
    let mut block = match existing {
        Some(block) if block.spec.cidr != cidr => {
            return Err(ClaimError::OtherBlock {
                cidr,
                found: block.spec.cidr,
            });
        }
        Some(block) => match &block.spec.node {
            Some(owner) if owner == node && block.spec.lease.is_none() => return Ok(block.clone()),
            Some(owner) => {
                return Err(ClaimError::Owned {
                    cidr,
                    owner: owner.clone(),
                });
            }
            None => block.clone(),
        },
        None => unowned(cidr),
    };
    if pool.spec.disabled {
        return Err(ClaimError::Disabled { pool: name.clone() });
    }
    block.spec.pool.clone_from(name);
    block.spec.allocations.clear();
    set_owner(&mut block, Some(node));
    Ok(block)
}

/// The block resource after `node` gave the block back.
///
/// Only the owner knows whether the block is empty (its checkpoint may be behind): it calls this once
/// [`crate::Allocator::remove_block`] has let the block go.
///
/// # Errors
/// The block is not `node`'s.
pub fn release_block(block: &IpBlock, node: &str) -> Result<IpBlock, NotOwner> {
    let mut block = owned(block, node)?;
    block.spec.allocations.clear();
    // What was to be freed is free.
    block.spec.releases.clear();
    set_owner(&mut block, None);
    Ok(block)
}

/// The block resource after `node` began a new generation of its own block.
///
/// What a node does with a block that is its own in the datastore and unknown to its journal: the next
/// generation's sequence numbers are above everything that the lost journal may have given. And with one of its
/// journal that was given up in its name while it was away, and that nobody has claimed since.
///
/// # Errors
/// The block is another node's.
pub fn renew(block: &IpBlock, node: &str) -> Result<IpBlock, NotOwner> {
    let mut block = match block.spec.node {
        Some(_) => owned(block, node)?,
        None => block.clone(),
    };
    set_owner(&mut block, Some(node));
    Ok(block)
}

/// The block resource with the owner's present allocations, ordered by address whatever order they come in.
///
/// # Errors
/// The writer does not own the block in this `generation`, or an allocation is not the block's to make.
pub fn checkpoint(
    block: &IpBlock,
    node: &str,
    generation: u64,
    allocations: impl IntoIterator<Item = Allocation>,
) -> Result<IpBlock, CheckpointError> {
    let mut block = owned(block, node)?;
    let cidr = block.spec.cidr;
    if block.spec.generation != generation {
        return Err(CheckpointError::Generation {
            cidr,
            current: block.spec.generation,
            given: generation,
        });
    }
    let mut seen = BTreeSet::new();
    let mut allocations: Vec<_> = allocations.into_iter().collect();
    for address in allocations.iter().map(|allocation| allocation.address) {
        if !cidr.contains(address) {
            return Err(CheckpointError::Outside { cidr, address });
        }
        if !seen.insert(address) {
            return Err(CheckpointError::Twice { address });
        }
    }
    allocations.sort_by_key(|allocation| allocation.address);
    block.spec.allocations = allocations;
    Ok(block)
}

/// A block as it is before its first owner.
fn unowned(cidr: IpNetwork) -> IpBlock {
    IpBlock {
        metadata: Metadata {
            name: block_name(cidr),
            ..Metadata::default()
        },
        spec: IpBlockSpec {
            cidr,
            pool: String::new(),
            node: None,
            generation: 0,
            allocations: Vec::new(),
            releases: Vec::new(),
            lease: None,
        },
    }
}

pub(crate) fn owned(block: &IpBlock, node: &str) -> Result<IpBlock, NotOwner> {
    if block.spec.node.as_deref() == Some(node) {
        return Ok(block.clone());
    }
    Err(NotOwner {
        cidr: block.spec.cidr,
        node: node.to_owned(),
        owner: block.spec.node.clone(),
    })
}

fn set_owner(block: &mut IpBlock, owner: Option<&str>) {
    block.spec.node = owner.map(str::to_owned);
    block.spec.generation = block.spec.generation.saturating_add(1);
}
