//! What a node knows of addresses: its blocks, and who holds which address of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use manx_api::ipam::{Allocation, AttachmentId, IpBlock};

use crate::block::Loan;
use crate::free::Free;
use crate::journal::{Freed, Record};
use crate::{Block, BlockError, Family, Reserved, Rest};

/// A node's blocks and allocations.
///
/// Every method that changes something plans a [`Record`], applies it, and returns it for the journal; so
/// the records folded give the allocator. Where the journal cannot be written, the caller takes back what was
/// assigned ([`Self::release_address`]) and begins a new file with [`crate::journal::compact`].
///
/// An attachment is known by container id and interface name, as in CNI: the runtime may name the pod at
/// ADD and not at DEL.
#[derive(Clone, Debug, Default)]
pub struct Allocator {
    blocks: BTreeMap<IpNetwork, Block>,
    /// By container id and interface name.
    owners: BTreeMap<(String, String), BTreeSet<IpAddr>>,
    /// A setting, and in no record.
    reserved: Reserved,
}

/// Allocators are equal where the same is held and free: what is reserved is a setting.
impl PartialEq for Allocator {
    fn eq(&self, other: &Self) -> bool {
        (&self.blocks, &self.owners) == (&other.blocks, &other.owners)
    }
}

impl Eq for Allocator {}

/// What an attachment asks for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who asks.
    pub owner: &'a AttachmentId,
    /// What it is to have, one of a family at most. What it holds of a family already it gets again.
    pub wants: &'a [Want],
    /// How long freed addresses rest.
    pub rest: Rest,
}

/// An address that an attachment is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// Whichever is free.
    Any {
        /// The family.
        family: Family,
        /// The blocks that it may be of, the preferred first; no other block is touched.
        blocks: Vec<IpNetwork>,
        /// Whether one that has not rested will do, because no block can be had. The longest rested is given
        /// then.
        unrested: bool,
    },
    /// This very one, reserved or not.
    Address(IpAddr),
}

impl Want {
    /// The address's family.
    #[must_use]
    pub fn family(&self) -> Family {
        match self {
            Self::Any { family, .. } => *family,
            Self::Address(address) => Family::of(*address),
        }
    }
}

/// What an attachment holds after [`Allocator::assign`] or [`Allocator::hold`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the record belongs into the journal"]
pub struct Assignment {
    /// One for each family asked for, in that order.
    pub allocations: Vec<Allocation>,
    /// What to journal before the answer; none where everything was held already.
    pub record: Option<Record>,
}

/// What [`Allocator::release`] freed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the record belongs into the journal"]
pub struct Release {
    /// What was held, ordered by address.
    pub allocations: Vec<Allocation>,
    /// What to journal before the answer.
    pub record: Record,
}

/// Why nothing was assigned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    /// The blocks are full: claim another one, and ask again.
    #[error("no free {family} address in this node's blocks")]
    NoRoom {
        /// The family without room.
        family: Family,
    },
    /// The address that was asked for cannot be had.
    #[error(transparent)]
    Hold(#[from] HoldError),
}

/// Why an attachment cannot have a given address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// No block of this node has the address.
    #[error("{address} is in no block of this node")]
    Outside {
        /// The address.
        address: IpAddr,
    },
    /// Somebody else has it.
    #[error("{address} is held by {} of container {}", .holder.ifname, .holder.container_id)]
    Held {
        /// The address.
        address: IpAddr,
        /// Who has it.
        holder: Box<AttachmentId>,
    },
}

/// Why a block stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemoveError {
    /// The block is not the allocator's.
    #[error("{cidr} is not a block of this node")]
    Unknown {
        /// The block.
        cidr: IpNetwork,
    },
    /// Somebody holds an address of it.
    #[error("block {cidr} is in use: {held} addresses are held or lent")]
    InUse {
        /// The block.
        cidr: IpNetwork,
        /// How many addresses.
        held: usize,
    },
}

/// Why a record does not follow from what the allocator knows. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The block itself is wrong.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The block shares addresses with one that is there.
    #[error("block {cidr} overlaps {with}, which this node has")]
    Overlap {
        /// The block.
        cidr: IpNetwork,
        /// The one that is there.
        with: IpNetwork,
    },
    /// The block cannot go.
    #[error(transparent)]
    Remove(#[from] RemoveError),
    /// The block is not there, or its ownership is not an earlier one.
    #[error(
        "block {cidr} cannot be renewed in generation {generation}: it is not there, or not of an earlier one"
    )]
    Renew {
        /// The block.
        cidr: IpNetwork,
        /// The generation.
        generation: u64,
    },
    /// The address is not free, or its sequence number is not above the block's last.
    #[error("{address} (sequence {sequence}) cannot be assigned: it is not free, or the number is old")]
    Assign {
        /// The address.
        address: IpAddr,
        /// Its sequence number.
        sequence: u64,
    },
    /// No block has the part, or an address of it is not free, or its generation is old.
    #[error(
        "{part} cannot be lent: it is no part of a block of this node, or not free, or its generation is old"
    )]
    Lend {
        /// The part.
        part: IpNetwork,
    },
    /// The part is not lent.
    #[error("{part} cannot be taken back: it is not lent")]
    TakeBack {
        /// The part.
        part: IpNetwork,
    },
    /// There is no such allocation.
    #[error("{address} (sequence {sequence}) cannot be released: there is no such allocation")]
    Release {
        /// The address.
        address: IpAddr,
        /// Its sequence number.
        sequence: u64,
    },
}

impl Allocator {
    /// An allocator without blocks: every assignment asks for one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over a block that this node owns in the datastore; what its checkpoint lists is held.
    ///
    /// # Errors
    /// The block is malformed or overlaps one that is here.
    pub fn add_block(&mut self, resource: &IpBlock) -> Result<Record, ApplyError> {
        self.carry_out(Record::BlockAdded(Block::from_resource(resource)?))
    }

    /// Lets an empty block go. Journal the record first, then give the block back in the datastore
    /// ([`crate::release_block`]).
    ///
    /// # Errors
    /// The block is not here, or an address of it is held.
    pub fn remove_block(&mut self, cidr: IpNetwork) -> Result<Record, ApplyError> {
        self.carry_out(Record::BlockRemoved { cidr })
    }

    /// Holds a block in a later ownership, after the datastore had given it up ([`crate::renew`]).
    ///
    /// # Errors
    /// The block is not here, or the ownership is not later than the one before.
    pub fn renew_block(&mut self, cidr: IpNetwork, generation: u64) -> Result<Record, ApplyError> {
        self.carry_out(Record::BlockRenewed { cidr, generation })
    }

    /// Lends a part of a block to another node, in the generation that it asked with, or a later one where the
    /// part had that already.
    ///
    /// # Errors
    /// No block has the part, or an address of it is not free.
    pub fn lend(&mut self, part: IpNetwork, to: &str, generation: u64) -> Result<Record, ApplyError> {
        let block = self.block_of(part.network());
        let generation = block.map_or(generation, |block| block.loan_generation(generation));
        self.carry_out(Record::Lent {
            part,
            to: to.to_owned(),
            generation,
        })
    }

    /// Has a part back that its borrower returned in this generation. `now` is in seconds of UTC.
    ///
    /// # Errors
    /// The part is not lent.
    pub fn take_back(&mut self, part: IpNetwork, generation: u64, now: u64) -> Result<Record, ApplyError> {
        self.carry_out(Record::TakenBack {
            part,
            generation,
            at: now,
        })
    }

    /// Gives nobody an address of these who does not ask for it; what is held of them stays held.
    pub fn reserve(&mut self, reserved: Reserved) {
        if self.reserved != reserved {
            self.blocks
                .values_mut()
                .for_each(|block| block.reserve(&reserved));
            self.reserved = reserved;
        }
    }

    /// Gives the attachment what it wants, all or nothing.
    ///
    /// # Errors
    /// See [`AssignError`]; nothing has changed then.
    pub fn assign(&mut self, request: &Request<'_>) -> Result<Assignment, AssignError> {
        let held: Vec<_> = self
            .held_by(&request.owner.container_id, &request.owner.ifname)
            .collect();
        let mut families: Vec<Family> = Vec::new();
        let mut allocations = Vec::new();
        let mut fresh = Vec::new();
        for want in request.wants {
            let family = want.family();
            if families.contains(&family) {
                continue;
            }
            families.push(family);
            if let Some(allocation) = held.iter().find(|held| Family::of(held.address) == family) {
                allocations.push(allocation.clone());
                continue;
            }
            let allocation = match want {
                Want::Any { blocks, unrested, .. } => {
                    let block = self.next(blocks, request.rest, *unrested);
                    let next = block.and_then(|block| {
                        let free = block.first_free()?;
                        block.next_of(free.address(), request.owner)
                    });
                    next.ok_or(AssignError::NoRoom { family })?
                }
                Want::Address(address) => self.this(*address, request.owner)?,
            };
            allocations.push(allocation.clone());
            fresh.push(allocation);
        }
        Ok(Assignment {
            allocations,
            record: self.take(fresh),
        })
    }

    /// Gives the attachment this very address, which a live interface carries.
    ///
    /// # Errors
    /// No block has the address, or somebody else holds it; nothing has changed then.
    pub fn hold(&mut self, owner: &AttachmentId, address: IpAddr) -> Result<Assignment, HoldError> {
        let allocation = self.this(address, owner)?;
        let is_held = self
            .block_of(address)
            .is_some_and(|block| block.allocation(address).is_some());
        let record = if is_held {
            None
        } else {
            self.take(vec![allocation.clone()])
        };
        Ok(Assignment {
            allocations: vec![allocation],
            record,
        })
    }

    /// Frees everything that an attachment holds; none where it holds nothing, which is no error: CNI DEL
    /// of an unknown attachment succeeds. `now` is in seconds of UTC.
    pub fn release(&mut self, container_id: &str, ifname: &str, now: u64) -> Option<Release> {
        let allocations = self.held_by(container_id, ifname).collect();
        self.free(allocations, now)
    }

    /// Frees one allocation, if it is still that one: the sequence number tells it from a later holder's.
    /// `now` is in seconds of UTC.
    pub fn release_address(&mut self, address: IpAddr, sequence: u64, now: u64) -> Option<Release> {
        let allocation = self.block_of(address)?.allocation(address)?;
        if allocation.sequence != sequence {
            return None;
        }
        self.free(vec![allocation], now)
    }

    /// Applies a record of the journal.
    ///
    /// # Errors
    /// The record does not follow from what is known; nothing has changed then.
    pub fn apply(&mut self, record: &Record) -> Result<(), ApplyError> {
        self.check(record)?;
        self.commit(record);
        Ok(())
    }

    /// The blocks, ordered by address.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.blocks.values()
    }

    /// The block with exactly these addresses.
    #[must_use]
    pub fn block(&self, cidr: IpNetwork) -> Option<&Block> {
        self.blocks.get(&cidr)
    }

    /// Every allocation, ordered by address.
    pub fn allocations(&self) -> impl Iterator<Item = Allocation> {
        self.blocks().flat_map(Block::allocations)
    }

    /// What an attachment holds, ordered by address.
    pub fn held_by(&self, container_id: &str, ifname: &str) -> impl Iterator<Item = Allocation> {
        let addresses = self.owners.get(&(container_id.to_owned(), ifname.to_owned()));
        addresses
            .into_iter()
            .flatten()
            .filter_map(|&address| self.block_of(address)?.allocation(address))
    }

    /// The block that has the address.
    #[must_use]
    pub fn block_of(&self, address: IpAddr) -> Option<&Block> {
        // Blocks are disjoint: only the last one that begins at or below the address can have it.
        let (cidr, block) = self.blocks.range(..=IpNetwork::from(address)).next_back()?;
        cidr.contains(address).then_some(block)
    }

    fn block_of_mut(&mut self, address: IpAddr) -> Option<&mut Block> {
        let (cidr, block) = self.blocks.range_mut(..=IpNetwork::from(address)).next_back()?;
        cidr.contains(address).then_some(block)
    }

    /// The block that gives the next address: the first that has a rested one, so that the others drain and
    /// can be given back; else, if need be, the one whose address rested longest.
    fn next(&self, blocks: &[IpNetwork], rest: Rest, unrested: bool) -> Option<&Block> {
        let blocks = || blocks.iter().filter_map(|cidr| self.block(*cidr));
        let first = |block: &&Block| block.first_free().map(Free::freed);
        let longest = || {
            let unrested = blocks().filter(|block| unrested && first(block).is_some());
            unrested.min_by_key(first)
        };
        blocks()
            .find(|block| first(block).is_some_and(|freed| rest.is_over(freed)))
            .or_else(longest)
    }

    /// The allocation of this very address: the present one, where it is the attachment's already.
    fn this(&self, address: IpAddr, owner: &AttachmentId) -> Result<Allocation, HoldError> {
        let block = self.block_of(address).ok_or(HoldError::Outside { address })?;
        match block.allocation(address) {
            Some(allocation) if key(&allocation.owner) == key(owner) => Ok(allocation),
            Some(allocation) => Err(HoldError::Held {
                address,
                holder: Box::new(allocation.owner),
            }),
            None => block
                .next_of(address, owner)
                .ok_or(HoldError::Outside { address }),
        }
    }

    /// Commits allocations that the blocks offered.
    fn take(&mut self, allocations: Vec<Allocation>) -> Option<Record> {
        if allocations.is_empty() {
            return None;
        }
        let record = Record::Assigned(allocations);
        self.commit(&record);
        Some(record)
    }

    fn free(&mut self, allocations: Vec<Allocation>, now: u64) -> Option<Release> {
        if allocations.is_empty() {
            return None;
        }
        let freed = |held: &Allocation| Freed {
            address: held.address,
            sequence: held.sequence,
            at: Some(now),
        };
        let record = Record::Released(allocations.iter().map(freed).collect());
        self.commit(&record);
        Some(Release { allocations, record })
    }

    fn carry_out(&mut self, record: Record) -> Result<Record, ApplyError> {
        self.apply(&record)?;
        Ok(record)
    }

    /// Whether a record follows from what is known.
    fn check(&self, record: &Record) -> Result<(), ApplyError> {
        match record {
            Record::BlockAdded(block) => {
                block.check()?;
                let cidr = block.cidr();
                let overlaps = |other: &&IpNetwork| other.contains(cidr.ip()) || cidr.contains(other.ip());
                match self.blocks.keys().find(overlaps) {
                    Some(&with) => Err(ApplyError::Overlap { cidr, with }),
                    None => Ok(()),
                }
            }
            Record::BlockRemoved { cidr } => {
                let block = self.block(*cidr).ok_or(RemoveError::Unknown { cidr: *cidr })?;
                match block.held().saturating_add(block.lent()) {
                    0 => Ok(()),
                    held => Err(RemoveError::InUse { cidr: *cidr, held }.into()),
                }
            }
            Record::BlockRenewed { cidr, generation } => {
                let (cidr, generation) = (*cidr, *generation);
                let can = self.block(cidr).map(|block| block.can_renew(generation));
                require(
                    can.transpose()? == Some(true),
                    ApplyError::Renew { cidr, generation },
                )
            }
            Record::Assigned(allocations) => each_once(
                allocations,
                |a| (a.address, a.sequence),
                |a| self.block_of(a.address).is_some_and(|block| block.can_take(a)),
            )
            .map_err(|(address, sequence)| ApplyError::Assign { address, sequence }),
            Record::Released(freed) => each_once(
                freed,
                |f| (f.address, f.sequence),
                |f| {
                    let held = self
                        .block_of(f.address)
                        .and_then(|block| block.allocation(f.address));
                    held.is_some_and(|held| held.sequence == f.sequence)
                },
            )
            .map_err(|(address, sequence)| ApplyError::Release { address, sequence }),
            Record::Lent { part, generation, .. } => {
                let block = self.block_of(part.network());
                let good = block.is_some_and(|block| {
                    block.can_lend(*part) && block.loan_generation(*generation) == *generation
                });
                require(good, ApplyError::Lend { part: *part })
            }
            Record::TakenBack { part, .. } => {
                let block = self.block_of(part.network());
                let good = block.is_some_and(|block| block.loans().any(|(lent, _)| lent == *part));
                require(good, ApplyError::TakeBack { part: *part })
            }
        }
    }

    /// Carries out a record that has been checked, or planned from the present state.
    fn commit(&mut self, record: &Record) {
        match record {
            Record::BlockAdded(block) => {
                for allocation in block.allocations() {
                    self.owners
                        .entry(key(&allocation.owner))
                        .or_default()
                        .insert(allocation.address);
                }
                let mut block = block.clone();
                block.reserve(&self.reserved);
                self.blocks.insert(block.cidr(), block);
            }
            Record::BlockRemoved { cidr } => {
                self.blocks.remove(cidr);
            }
            Record::BlockRenewed { cidr, generation } => {
                if let Some(block) = self.blocks.get_mut(cidr) {
                    block.renew(*generation);
                }
            }
            Record::Assigned(allocations) => {
                for allocation in allocations {
                    if let Some(block) = self.block_of_mut(allocation.address) {
                        block.take(allocation);
                    }
                    self.owners
                        .entry(key(&allocation.owner))
                        .or_default()
                        .insert(allocation.address);
                }
            }
            Record::Released(freed) => freed.iter().for_each(|freed| self.give_back(*freed)),
            Record::Lent { part, to, generation } => {
                if let Some(block) = self.block_of_mut(part.network()) {
                    let (to, generation) = (to.clone(), *generation);
                    block.lend(*part, Loan { to, generation });
                }
            }
            Record::TakenBack { part, generation, at } => {
                if let Some(block) = self.block_of_mut(part.network()) {
                    block.take_back(*part, *generation, *at);
                }
            }
        }
    }

    fn give_back(&mut self, Freed { address, at, .. }: Freed) {
        let Some(block) = self.block_of_mut(address) else {
            return;
        };
        let Some(allocation) = block.allocation(address) else {
            return;
        };
        block.give_back(address, at);
        let owner = key(&allocation.owner);
        if let Some(addresses) = self.owners.get_mut(&owner) {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.owners.remove(&owner);
            }
        }
    }
}

fn require(good: bool, otherwise: ApplyError) -> Result<(), ApplyError> {
    if good { Ok(()) } else { Err(otherwise) }
}

/// What tells attachments apart.
fn key(owner: &AttachmentId) -> (String, String) {
    (owner.container_id.clone(), owner.ifname.clone())
}

/// Checks that every item passes, and that no address comes twice; else gives the first that fails.
fn each_once<T>(
    items: &[T],
    id: impl Fn(&T) -> (IpAddr, u64),
    passes: impl Fn(&T) -> bool,
) -> Result<(), (IpAddr, u64)> {
    let mut seen = BTreeSet::new();
    match items
        .iter()
        .find(|item| !seen.insert(id(item).0) || !passes(item))
    {
        Some(item) => Err(id(item)),
        None => Ok(()),
    }
}
