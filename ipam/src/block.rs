//! A block in its owner's hands: which addresses are free, and who holds the others.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use manx_api::ipam::{Allocation, AttachmentId, IpBlock, covers};
use serde::{Deserialize, Serialize};

use crate::address::{from_number, to_number};
use crate::free::{Free, FreeList};
use crate::{Family, Reserved, Rest};

/// The most addresses a block has: of a /20 (IPv4) or a /116 (IPv6).
const MAX_HOST_BITS: u8 = 12;

/// Sequence numbers of a generation: its number shifted by this, plus a counter.
const GENERATION_SHIFT: u32 = 32;

/// A block in its owner's hands.
///
/// Every address of the block is in exactly one of `free`, `held` and the parts that are `lent`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    cidr: IpNetwork,
    pool: String,
    generation: u64,
    /// The last sequence number given.
    sequence: u64,
    free: FreeList,
    held: BTreeMap<IpAddr, Holder>,
    /// Parts that other nodes have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    lent: BTreeMap<IpNetwork, Loan>,
    /// The highest generation that a part had, so that none has it twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_loan: Option<u64>,
    /// The name of the block that this one is a part of, lent by that one's owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lender: Option<String>,
}

/// Who has a part that is lent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loan {
    /// The node.
    pub to: String,
    /// The part's generation.
    pub generation: u64,
}

/// Who holds an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    sequence: u64,
    owner: AttachmentId,
}

/// What is wrong with a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// More addresses than a block may have.
    #[error("block {cidr} is too large: a block is a /20 (IPv4) or a /116 (IPv6) at most")]
    TooLarge {
        /// The block.
        cidr: IpNetwork,
    },
    /// The CIDR has host bits.
    #[error("block {cidr} has host bits set: the block is {}/{}", .cidr.network(), .cidr.prefix())]
    HostBits {
        /// The block.
        cidr: IpNetwork,
    },
    /// The generation is beyond what sequence numbers can carry.
    #[error("block {cidr} has generation {generation}, which no cluster reaches: its resource is damaged")]
    Generation {
        /// The block.
        cidr: IpNetwork,
        /// The generation.
        generation: u64,
    },
    /// An address outside the block, or one that is there twice or not at all.
    #[error("block {cidr} does not account for each of its addresses once: see {address}")]
    Accounts {
        /// The block.
        cidr: IpNetwork,
        /// The address.
        address: IpAddr,
    },
    /// A sequence number that the block has not given yet.
    #[error("block {cidr}: {address} has sequence {sequence}, which the block has not reached")]
    Sequence {
        /// The block.
        cidr: IpNetwork,
        /// The address.
        address: IpAddr,
        /// Its sequence number.
        sequence: u64,
    },
}

impl Block {
    /// A block as its resource says, the checkpointed allocations held.
    ///
    /// # Errors
    /// See [`BlockError`].
    pub(crate) fn from_resource(resource: &IpBlock) -> Result<Self, BlockError> {
        let spec = &resource.spec;
        let cidr = spec.cidr;
        let start = first_sequence(cidr, spec.generation)?;
        let mut held = BTreeMap::new();
        for Allocation {
            address,
            sequence,
            owner,
        } in spec.allocations.iter().cloned()
        {
            if held.insert(address, Holder { sequence, owner }).is_some() {
                return Err(BlockError::Accounts { cidr, address });
            }
        }
        let sequence = held.values().map(|holder| holder.sequence).fold(start, u64::max);
        let free = addresses(cidr)?
            .filter(|address| !held.contains_key(address))
            .map(Free::Unused)
            .collect();
        let block = Self {
            cidr,
            pool: spec.pool.clone(),
            generation: spec.generation,
            sequence,
            free,
            held,
            lent: BTreeMap::new(),
            last_loan: None,
            lender: spec.lease.as_ref().map(|lease| lease.of.clone()),
        };
        block.check()?;
        Ok(block)
    }

    /// Checks what the type cannot: that `free` and `held` share out the block's addresses, and that the
    /// sequence numbers belong to the block's generations.
    ///
    /// # Errors
    /// See [`BlockError`].
    pub(crate) fn check(&self) -> Result<(), BlockError> {
        let cidr = self.cidr;
        // First, since what is lent is listed below: a part of another size might have no end.
        if let Some(part) = self.lent.keys().find(|part| !covers(cidr, **part)) {
            let address = part.network();
            return Err(BlockError::Accounts { cidr, address });
        }
        let free = self.free.iter().map(Free::address);
        let lent = self.lent.keys().flat_map(IpNetwork::iter);
        let mut known: Vec<_> = free.chain(self.held.keys().copied()).chain(lent).collect();
        known.sort_unstable();
        let mut known = known.into_iter();
        for address in addresses(cidr)? {
            if known.next() != Some(address) {
                return Err(BlockError::Accounts { cidr, address });
            }
        }
        if let Some(address) = known.next() {
            return Err(BlockError::Accounts { cidr, address });
        }
        let start = first_sequence(cidr, self.generation)?;
        let end = start | u64::from(u32::MAX);
        if !(start..=end).contains(&self.sequence) {
            return Err(BlockError::Sequence {
                cidr,
                address: cidr.ip(),
                sequence: self.sequence,
            });
        }
        for (&address, holder) in &self.held {
            if holder.sequence > self.sequence {
                return Err(BlockError::Sequence {
                    cidr,
                    address,
                    sequence: holder.sequence,
                });
            }
        }
        Ok(())
    }

    /// The addresses.
    #[must_use]
    pub fn cidr(&self) -> IpNetwork {
        self.cidr
    }

    /// The pool it was cut from.
    #[must_use]
    pub fn pool(&self) -> &str {
        &self.pool
    }

    /// The ownership in which the node holds it.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How many addresses there are.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.free
            .len()
            .saturating_add(self.held.len())
            .saturating_add(self.lent())
    }

    /// How many addresses are free for whoever asks for any: reserved ones do not count.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.open()
    }

    /// How many of the free ones have not rested.
    #[must_use]
    pub fn cooling(&self, rest: Rest) -> usize {
        self.free.cooling(rest)
    }

    /// How many addresses are free and rested, counted as far as `most`.
    #[must_use]
    pub fn rested(&self, rest: Rest, most: usize) -> usize {
        self.free.rested(rest, most)
    }

    /// Whether all of these addresses are free and rested.
    pub(crate) fn have_rested(&self, part: IpNetwork, rest: Rest) -> bool {
        part.iter().all(|address| self.free.has_rested(address, rest))
    }

    /// How many addresses are free and reserved.
    #[must_use]
    pub fn reserved(&self) -> usize {
        self.free.len().saturating_sub(self.free.open())
    }

    /// How many addresses are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// How many addresses are lent.
    #[must_use]
    pub fn lent(&self) -> usize {
        self.lent.keys().map(|part| part.iter().count()).sum()
    }

    /// The parts that are lent, and to whom.
    pub fn loans(&self) -> impl Iterator<Item = (IpNetwork, &Loan)> {
        self.lent.iter().map(|(part, loan)| (*part, loan))
    }

    /// Whether the block itself is a part of another one, lent to this node.
    #[must_use]
    pub fn is_leased(&self) -> bool {
        self.lender.is_some()
    }

    /// The name of the block that this one is a part of.
    #[must_use]
    pub fn lender(&self) -> Option<&str> {
        self.lender.as_deref()
    }

    /// Whether the block can be held in this ownership from now on.
    pub(crate) fn can_renew(&self, generation: u64) -> Result<bool, BlockError> {
        first_sequence(self.cidr, generation).map(|_| generation > self.generation)
    }

    /// Begins an ownership that [`Self::can_renew`].
    pub(crate) fn renew(&mut self, generation: u64) {
        self.generation = generation;
        self.sequence = first_sequence(self.cidr, generation).unwrap_or(self.sequence);
    }

    /// Whether these addresses can be lent: a part of the block, and all of them free.
    #[must_use]
    pub fn can_lend(&self, part: IpNetwork) -> bool {
        let is_part = part.prefix() > self.cidr.prefix() && covers(self.cidr, part);
        is_part && self.lender.is_none() && part.iter().all(|address| self.free.contains(address))
    }

    /// The generation of a part that is asked for with this one: above all that parts had.
    pub(crate) fn loan_generation(&self, asked: u64) -> u64 {
        self.last_loan
            .map_or(asked, |last| asked.max(last.saturating_add(1)))
    }

    /// Lends what [`Self::can_lend`].
    pub(crate) fn lend(&mut self, part: IpNetwork, loan: Loan) {
        part.iter().for_each(|address| self.free.remove(address));
        self.last_loan = self.last_loan.max(Some(loan.generation));
        self.lent.insert(part, loan);
    }

    /// Has a part back that its borrower returned in this generation.
    pub(crate) fn take_back(&mut self, part: IpNetwork, generation: u64, at: u64) {
        if self.lent.remove(&part).is_some() {
            self.last_loan = self.last_loan.max(Some(generation));
            part.iter()
                .for_each(|address| self.free.push(Free::new(address, Some(at))));
        }
    }

    /// What is held, ordered by address.
    pub fn allocations(&self) -> impl Iterator<Item = Allocation> {
        self.held
            .iter()
            .map(|(&address, holder)| holder.allocation(address))
    }

    /// What holds `address`.
    pub(crate) fn allocation(&self, address: IpAddr) -> Option<Allocation> {
        self.held.get(&address).map(|holder| holder.allocation(address))
    }

    /// The free address that comes next for whoever asks for any, with the time it was freed.
    pub(crate) fn first_free(&self) -> Option<Free> {
        self.free.first()
    }

    /// The allocation that would give `owner` this address, if it is free.
    pub(crate) fn next_of(&self, address: IpAddr, owner: &AttachmentId) -> Option<Allocation> {
        let allocation = Allocation {
            address,
            sequence: self.sequence.checked_add(1)?,
            owner: owner.clone(),
        };
        self.can_take(&allocation).then_some(allocation)
    }

    /// Whether `allocation` could be the block's next: its number is of the block's generation.
    pub(crate) fn can_take(&self, allocation: &Allocation) -> bool {
        let sequence = allocation.sequence;
        sequence > self.sequence
            && sequence >> GENERATION_SHIFT == self.generation
            && self.free.contains(allocation.address)
    }

    /// Makes an allocation that [`Self::can_take`].
    pub(crate) fn take(&mut self, allocation: &Allocation) {
        self.free.remove(allocation.address);
        self.sequence = allocation.sequence;
        let holder = Holder {
            sequence: allocation.sequence,
            owner: allocation.owner.clone(),
        };
        self.held.insert(allocation.address, holder);
    }

    /// Frees a held address: it will be the last to be used again.
    pub(crate) fn give_back(&mut self, address: IpAddr, at: Option<u64>) {
        if self.held.remove(&address).is_some() {
            self.free.push(Free::new(address, at));
        }
    }

    /// Gives these to nobody who does not ask for them.
    pub(crate) fn reserve(&mut self, reserved: &Reserved) {
        self.free.reserve(reserved.clone());
    }
}

impl Holder {
    fn allocation(&self, address: IpAddr) -> Allocation {
        Allocation {
            address,
            sequence: self.sequence,
            owner: self.owner.clone(),
        }
    }
}

/// The number before a generation's first sequence number. Generations do not share numbers, so a release
/// meant for an earlier owner's allocation matches none of a later owner's.
fn first_sequence(cidr: IpNetwork, generation: u64) -> Result<u64, BlockError> {
    let fits = u32::try_from(generation).is_ok();
    fits.then_some(generation << GENERATION_SHIFT)
        .ok_or(BlockError::Generation { cidr, generation })
}

/// Every address of a block, in order.
fn addresses(cidr: IpNetwork) -> Result<impl Iterator<Item = IpAddr>, BlockError> {
    let family = Family::of_network(cidr);
    if cidr.ip() != cidr.network() {
        return Err(BlockError::HostBits { cidr });
    }
    let host_bits = family.bits().saturating_sub(cidr.prefix());
    if host_bits > MAX_HOST_BITS {
        return Err(BlockError::TooLarge { cidr });
    }
    let base = to_number(cidr.network());
    Ok((0..1u128 << host_bits).map(move |offset| from_number(family, base | offset)))
}
