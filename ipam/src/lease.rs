//! Lending parts of blocks, so that a node whose pools have no block left gets a few addresses of another's.
//!
//! ```text
//!              borrower                    lender                       borrower                    lender
//!  nothing ───────────────► Requested ───────────────► Granted ───────────────────────► Returned ─────────► nothing
//!           makes the resource    journals the loan,            lets its block go            journals that it is
//!                                 then writes; or refuses:      in its journal, then writes  back, then deletes
//!                                 deletes
//! ```
//!
//! In each state one of the two has to act, and what it has to do follows from its journal and the resources that
//! there are ([`duties`]), so whoever dies midway goes on in its next life. **Only the lender deletes**, and only
//! after its journal says that the addresses are not lent: so a resource that is missing while the loan stands was
//! deleted by a stranger, and comes back.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;
use manx_api::Metadata;
use manx_api::ipam::{IpBlock, IpBlockSpec, Lease, LeaseState, block_cidr, block_name, covers};

use crate::blocks::spread;
use crate::ownership::owned;
use crate::{Allocator, Block, Family, Loan, NotOwner, Reserved, Rest};

/// Host bits of a part that is asked for where nobody asked for one address: a /28 or a /124.
const HOST_BITS: u8 = 4;

/// Of how many blocks parts are proposed.
const LENDERS: usize = 64;

/// What a node knows beside its allocator.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// This node.
    pub node: &'a str,
    /// Whether nothing is lent.
    pub strict: bool,
    /// The parts that this node has asked for, and waits for.
    pub wanted: &'a BTreeSet<IpNetwork>,
    /// Blocks that are another node's by now.
    pub closed: &'a BTreeSet<IpNetwork>,
    /// How long freed addresses rest before they are lent.
    pub rest: Rest,
}

/// Something that a lender or a borrower has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Journal a loan: [`Allocator::lend`].
    Lend {
        /// The part.
        part: IpNetwork,
        /// Who asks.
        to: String,
        /// With which generation.
        generation: u64,
    },
    /// Journal that a part is back: [`Allocator::take_back`].
    TakeBack {
        /// The part.
        part: IpNetwork,
        /// In which generation it was lent.
        generation: u64,
    },
    /// Journal a block that was lent to this node: [`Allocator::add_block`].
    Adopt(Box<IpBlock>),
    /// Write this in place of the resource that was read.
    Update(Box<IpBlock>),
    /// Write this, which somebody deleted.
    Create(Box<IpBlock>),
    /// Delete this, if it is as it was read.
    Delete(Box<IpBlock>),
}

/// The resource by which `node` asks for a part of a block. `now`, in seconds of UTC, makes generations grow over
/// the life of the name.
#[must_use]
pub fn lease_request(lender: &IpBlock, part: IpNetwork, node: &str, now: u64) -> IpBlock {
    resource(
        &lender.metadata.name,
        &lender.spec.pool,
        part,
        node,
        (now, LeaseState::Requested),
    )
}

fn resource(
    of: &str,
    pool: &str,
    part: IpNetwork,
    node: &str,
    (generation, state): (u64, LeaseState),
) -> IpBlock {
    IpBlock {
        metadata: Metadata {
            name: block_name(part),
            ..Metadata::default()
        },
        spec: IpBlockSpec {
            cidr: part,
            pool: pool.to_owned(),
            node: Some(node.to_owned()),
            generation,
            allocations: Vec::new(),
            releases: Vec::new(),
            lease: Some(Lease {
                of: of.to_owned(),
                state,
            }),
        },
    }
}

/// The lease's resource after `node` gave it up: once [`Allocator::remove_block`] has let it go, or before it was
/// granted.
///
/// # Errors
/// The lease is not `node`'s.
pub fn return_lease(lease: &IpBlock, node: &str) -> Result<IpBlock, NotOwner> {
    let mut lease = owned(lease, node)?;
    lease.spec.allocations.clear();
    lease.spec.releases.clear();
    Ok(in_state(lease, LeaseState::Returned))
}

fn in_state(mut block: IpBlock, state: LeaseState) -> IpBlock {
    if let Some(lease) = &mut block.spec.lease {
        lease.state = state;
    }
    block
}

/// What others have of a block, or were about to get, those that they surely have first: its next owner lends it to
/// them before it gives out anything.
#[must_use]
pub fn parts_of<'a>(cidr: IpNetwork, blocks: impl IntoIterator<Item = &'a IpBlock>) -> Vec<&'a IpBlock> {
    let name = block_name(cidr);
    let state = |block: &IpBlock| {
        let lease = block.spec.lease.as_ref().filter(|lease| lease.of == name);
        lease.map(|lease| lease.state)
    };
    let is_part =
        |block: &&IpBlock| matches!(state(block), Some(LeaseState::Granted | LeaseState::Requested));
    let mut parts: Vec<&IpBlock> = blocks.into_iter().filter(is_part).collect();
    parts.sort_by_key(|block| (state(block) != Some(LeaseState::Granted), block.spec.cidr));
    parts
}

/// The parts of other nodes' blocks that a node may ask for, with the block of each, the largest first: a /28 or a
/// /124, smaller ones where no such run is free, as far as the lenders' checkpoints tell. Of parts of one size,
/// those of the emptiest block come first, and in a block each node begins elsewhere, so that nodes which ask at once
/// seldom ask for the same.
#[must_use]
pub fn proposals<'a>(
    lenders: &[&'a IpBlock],
    leases: &BTreeSet<IpNetwork>,
    reserved: &Reserved,
    node: &str,
) -> Vec<(&'a IpBlock, IpNetwork)> {
    let mut emptiest = lenders.to_vec();
    emptiest.sort_by_key(|block| (block.spec.allocations.len(), block.spec.cidr));
    emptiest.truncate(LENDERS);
    let mut proposals = Vec::new();
    for host_bits in (0..=HOST_BITS).rev() {
        for &block in &emptiest {
            let cidr = block.spec.cidr;
            let prefix = Family::of_network(cidr).bits().saturating_sub(host_bits);
            let held: BTreeSet<_> = block.spec.allocations.iter().map(|held| held.address).collect();
            let is_free = |part: &IpNetwork| {
                part.prefix() > cidr.prefix()
                    && !held.iter().any(|address| part.contains(*address))
                    && !leases
                        .iter()
                        .any(|lease| covers(*lease, *part) || covers(*part, *lease))
                    && !reserved.covers(*part)
            };
            let firsts = cidr
                .iter()
                .filter_map(|address| IpNetwork::new(address, prefix).ok());
            let parts = firsts.filter(|part| part.ip() == part.network()).filter(is_free);
            let mut parts: Vec<IpNetwork> = parts.collect();
            let begin = usize::try_from(spread(node)).unwrap_or_default();
            let begin = begin.checked_rem(parts.len()).unwrap_or_default();
            parts.rotate_left(begin);
            proposals.extend(parts.into_iter().map(|part| (block, part)));
        }
    }
    proposals
}

/// What a node has to do about leases, as lender and as borrower: journal first (the records change what is due
/// then), write only what is due once the journal is durable. What is done already is not due, so nothing is lost
/// or done twice by looking again.
#[must_use]
pub fn duties<'a>(
    allocator: &Allocator,
    leases: impl IntoIterator<Item = &'a IpBlock>,
    around: Surroundings<'_>,
) -> Vec<Duty> {
    let mut duties = Vec::new();
    let mut known = BTreeSet::new();
    for resource in leases {
        let (Some(lease), Some(borrower)) = (&resource.spec.lease, resource.spec.node.as_deref()) else {
            continue;
        };
        known.insert(resource.spec.cidr);
        if borrower == around.node {
            duties.extend(as_borrower(allocator, resource, lease.state, around));
        }
        let lender = block_cidr(&lease.of).and_then(|of| allocator.block(of));
        if let Some(block) = lender.filter(|block| !around.closed.contains(&block.cidr())) {
            duties.extend(as_lender(block, resource, (borrower, lease.state), around));
        }
    }
    for block in allocator.blocks() {
        let closed = around.closed.contains(&block.cidr());
        for (part, loan) in block.loans() {
            let generation = loan.generation;
            if closed && block.held() == 0 {
                // Its next owner lends it, and this one is to forget the block.
                duties.push(Duty::TakeBack { part, generation });
            } else if !closed && !known.contains(&part) {
                let state = (generation, LeaseState::Granted);
                let of = block_name(block.cidr());
                let granted = resource(&of, block.pool(), part, &loan.to, state);
                duties.push(Duty::Create(Box::new(granted)));
            }
        }
    }
    duties
}

fn as_borrower(
    allocator: &Allocator,
    lease: &IpBlock,
    state: LeaseState,
    around: Surroundings<'_>,
) -> Option<Duty> {
    let part = lease.spec.cidr;
    if allocator.block(part).is_some() {
        return None;
    }
    // Whoever has become the owner of the whole meanwhile needs no part of it.
    let wanted = around.wanted.contains(&part) && allocator.block_of(part.network()).is_none();
    match state {
        LeaseState::Granted if wanted => Some(Duty::Adopt(Box::new(lease.clone()))),
        LeaseState::Requested if wanted => None,
        LeaseState::Granted | LeaseState::Requested => {
            let returned = return_lease(lease, around.node).ok()?;
            Some(Duty::Update(Box::new(returned)))
        }
        LeaseState::Returned => None,
    }
}

fn as_lender(
    block: &Block,
    lease: &IpBlock,
    (borrower, state): (&str, LeaseState),
    around: Surroundings<'_>,
) -> Option<Duty> {
    let part = lease.spec.cidr;
    let may_lend = !around.strict && block.can_lend(part) && block.have_rested(part, around.rest);
    let loan: Option<&Loan> = block
        .loans()
        .find_map(|(lent, loan)| (lent == part).then_some(loan));
    let lend = || Duty::Lend {
        part,
        to: borrower.to_owned(),
        generation: lease.spec.generation,
    };
    match (state, loan) {
        (LeaseState::Requested, Some(loan)) if loan.to == borrower => {
            let mut granted = in_state(lease.clone(), LeaseState::Granted);
            granted.spec.generation = loan.generation;
            Some(Duty::Update(Box::new(granted)))
        }
        (LeaseState::Requested, None) if may_lend => Some(lend()),
        (LeaseState::Requested, Some(_) | None) => Some(Duty::Delete(Box::new(lease.clone()))),
        // An owner that has lost its journal: what others have of its block it gives to nobody.
        (LeaseState::Granted, None) if block.can_lend(part) => Some(lend()),
        (LeaseState::Granted, Some(_) | None) => None,
        (LeaseState::Returned, Some(loan)) => Some(Duty::TakeBack {
            part,
            generation: loan.generation.max(lease.spec.generation),
        }),
        (LeaseState::Returned, None) => Some(Duty::Delete(Box::new(lease.clone()))),
    }
}
