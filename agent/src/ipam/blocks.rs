//! Claiming blocks, and taking over those of an earlier life: jobs beside the task.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;
use manx_api::ipam::{IpBlock, IpPool, block_name, covers};
use manx_api::{Key, Kind, Resource};
use manx_ipam::{ClaimError, Family, Reserved};
use manx_store::{Error, Store};
use tokio::task::JoinError;

use super::assign::Need;
use super::{IpamError, Recovery, Task, recovery};
use crate::supervise;

/// Blocks of a pool that one claim tries; each that it does not get was taken by somebody just now.
const ATTEMPTS: usize = 64;

/// The part of a block's addresses that are rested and free when the next block is claimed: one in so many.
const RESERVE: usize = 8;

/// What a job brings.
#[derive(Debug)]
pub(super) enum Done {
    /// A block, or why there is none.
    Claimed(Need, Result<Box<IpBlock>, IpamError>),
    /// Our blocks that the journal did not know, each begun anew.
    Recovered(Result<Vec<IpBlock>, Error>),
    /// The blocks whose checkpoint has to be tried again.
    Checkpointed(Vec<IpNetwork>),
    /// The blocks that are still to be given back.
    GivenBack(Vec<IpNetwork>),
}

impl<S: Store> Task<S> {
    /// Starts what is due: recovery with the first view, then a claim for each family without a free address.
    pub(super) fn advance(&mut self) {
        if !self.view.complete {
            return;
        }
        match self.recovery {
            Recovery::Due => self.recover(),
            Recovery::Running => {}
            Recovery::Done => self.keep_room(),
        }
    }

    fn recover(&mut self) {
        let ours = |block: &&IpBlock| block.spec.node.as_deref() == Some(self.identity.name.as_str());
        let unknown = |block: &&IpBlock| self.allocator.block(block.spec.cidr).is_none();
        let blocks: Vec<IpBlock> = self
            .view
            .blocks
            .values()
            .filter(ours)
            .filter(unknown)
            .cloned()
            .collect();
        self.recovery = Recovery::Running;
        let (store, node) = (self.store.clone(), self.identity.name.clone());
        self.jobs
            .spawn(async move { Done::Recovered(renew(&store, blocks, &node).await) });
    }

    /// Claims ahead of need, so that an ADD seldom waits; tells who waits for it that each family has a block.
    fn keep_room(&mut self) {
        let view = self.view.clone();
        let labels = self.labels(&view).clone();
        let serves = |pool: &&IpPool| !pool.spec.disabled && pool.spec.node_selector.matches(&labels);
        let pools: Vec<&IpPool> = view.pools.values().filter(serves).collect();
        let mut missing = pools.is_empty();
        for need in common_needs(&pools) {
            let blocks = self.serving(&view, &need.pools);
            missing |= blocks.is_empty() && view.ipam.auto_allocate_blocks;
            if self.is_tight(&blocks) && self.failure(&need).is_none() {
                self.claim(need);
            }
        }
        if !missing && let Some(guard) = self.claimed.take() {
            guard.done();
        }
    }

    /// Whether so few rested addresses are left in these blocks that it is time for another one.
    fn is_tight(&self, blocks: &[IpNetwork]) -> bool {
        let rest = self.rest();
        let blocks = || blocks.iter().filter_map(|cidr| self.allocator.block(*cidr));
        let rested: usize = blocks().map(|block| block.free() - block.cooling(rest)).sum();
        let size = blocks().map(manx_ipam::Block::capacity).max().unwrap_or_default();
        rested <= size / RESERVE
    }

    /// Starts a claim, unless one is under way that meets the need.
    pub(super) fn claim(&mut self, need: Need) {
        if !self.claiming.insert(need.clone()) {
            return;
        }
        let may = self.may_claim(need.family);
        let search = self.search(&need);
        let (store, node) = (self.store.clone(), self.identity.name.clone());
        self.jobs.spawn(async move {
            let claimed = match may {
                Ok(()) => claim(&store, &need, &search, &node).await.map(Box::new),
                Err(error) => Err(error),
            };
            Done::Claimed(need, claimed)
        });
    }

    /// Whether the settings allow this node another block.
    fn may_claim(&self, family: Family) -> Result<(), IpamError> {
        let node = self.identity.name.clone();
        let settings = &self.view.ipam;
        if !settings.auto_allocate_blocks {
            return Err(IpamError::NoClaims { family, node });
        }
        let of_family = |block: &&manx_ipam::Block| Family::of_network(block.cidr()) == family;
        let owned = self.allocator.blocks().filter(of_family).count();
        match settings.max_blocks_per_host {
            max if max > 0 && u32::try_from(owned).is_ok_and(|owned| owned >= max) => {
                Err(IpamError::Limit { family, node, max })
            }
            _ => Ok(()),
        }
    }

    /// Where a claim looks.
    fn search(&self, need: &Need) -> Search {
        let pools = &self.view.pools;
        // A pool with another one inside it is being split: that one's blocks are not its own any more.
        let is_split = |pool: &IpPool| {
            let cidr = pool.spec.cidr;
            pools
                .values()
                .any(|other| other.spec.cidr != cidr && covers(cidr, other.spec.cidr))
        };
        let named = need.pools.iter().filter_map(|name| pools.get(name));
        let owned = self
            .view
            .blocks
            .values()
            .filter(|block| block.spec.node.is_some());
        let reserved = self.view.reservations.values();
        Search {
            pools: named.filter(|pool| !is_split(pool)).cloned().collect(),
            taken: owned
                .map(|block| block.spec.cidr)
                .chain(self.allocator.blocks().map(manx_ipam::Block::cidr))
                .collect(),
            reserved: Reserved::new(reserved.flat_map(|reservation| reservation.spec.reserved_cidrs.clone())),
        }
    }

    pub(super) fn finished(&mut self, done: Result<Done, JoinError>) {
        let done = match done {
            Ok(done) => done,
            // A job that panicked leaves a flag set that only a new life clears.
            Err(error) => std::panic::resume_unwind(supervise::panic_of(error)),
        };
        match done {
            Done::Claimed(need, outcome) => self.claimed(need, outcome),
            Done::Recovered(Ok(blocks)) => self.recovered(&blocks),
            Done::Recovered(Err(error)) => {
                tracing::warn!(%error, "cannot take over this node's blocks yet; trying again");
                self.recovery = Recovery::Due;
            }
            Done::Checkpointed(again) => {
                self.checkpointing = false;
                self.dirty.extend(again);
            }
            Done::GivenBack(again) => self.spare.told(again),
        }
    }

    fn claimed(&mut self, need: Need, outcome: Result<Box<IpBlock>, IpamError>) {
        self.claiming.remove(&need);
        match outcome {
            Ok(block) => {
                tracing::info!(block = %block.spec.cidr, pool = block.spec.pool, "block claimed");
                self.add(&block);
            }
            Err(error) => {
                tracing::warn!(family = %need.family, %error, "no block claimed");
                self.failed(need, error);
            }
        }
        self.retry();
    }

    fn recovered(&mut self, blocks: &[IpBlock]) {
        blocks.iter().for_each(|block| self.add(block));
        let within: Vec<IpNetwork> = blocks.iter().map(|block| block.spec.cidr).collect();
        let (live, now) = (std::mem::take(&mut self.live), self.clock.now());
        self.staged
            .extend(recovery::settle(&mut self.allocator, live, now, |address| {
                within.iter().any(|block| block.contains(address))
            }));
        self.recovery = Recovery::Done;
        self.retry();
    }

    fn add(&mut self, block: &IpBlock) {
        match self.allocator.add_block(block) {
            Ok(record) => self.staged.push(record),
            Err(error) => {
                tracing::error!(block = %block.spec.cidr, %error, "a block of this node cannot be used")
            }
        }
    }
}

/// What every pod of the node may need: for each family a block of the pools that serve all namespaces.
fn common_needs(pools: &[&IpPool]) -> Vec<Need> {
    let common =
        |pool: &&&IpPool| pool.spec.assignment_mode.is_automatic() && pool.spec.namespace_selector.is_all();
    let mut needs: BTreeMap<Family, Vec<String>> = BTreeMap::new();
    for pool in pools.iter().filter(common) {
        let family = Family::of_network(pool.spec.cidr);
        needs.entry(family).or_default().push(pool.metadata.name.clone());
    }
    let need = |(family, pools)| Need { family, pools };
    needs.into_iter().map(need).collect()
}

/// Where a claim looks.
struct Search {
    /// The preferred first.
    pools: Vec<IpPool>,
    taken: BTreeSet<IpNetwork>,
    reserved: Reserved,
}

/// Claims one block of the first pool that has one.
async fn claim<S: Store>(store: &S, need: &Need, search: &Search, node: &str) -> Result<IpBlock, IpamError> {
    let Search {
        pools,
        taken,
        reserved,
    } = search;
    for pool in pools {
        for cidr in manx_ipam::candidates(pool, taken, reserved, node).take(ATTEMPTS) {
            match take(store, pool, cidr, node).await {
                Ok(Some(block)) => return Ok(block),
                Ok(None) => {}
                Err(error) => {
                    return Err(IpamError::NotYet {
                        reason: error.to_string(),
                    });
                }
            }
        }
    }
    Err(IpamError::Exhausted {
        family: need.family,
        pools: need.pools.clone(),
    })
}

/// Claims this very block; none when another node was first.
async fn take<S: Store>(
    store: &S,
    pool: &IpPool,
    cidr: IpNetwork,
    node: &str,
) -> Result<Option<IpBlock>, Error> {
    let existing = read(store, cidr).await?;
    let wanted = match manx_ipam::claim(existing.as_ref(), pool, cidr, node) {
        Ok(wanted) => wanted,
        Err(ClaimError::Owned { .. } | ClaimError::OtherBlock { .. }) => return Ok(None),
        // The pool changed under us: the next view says how.
        Err(ClaimError::Disabled { .. } | ClaimError::NotABlock { .. }) => return Ok(None),
    };
    let written = match existing {
        Some(_) => store.update(Resource::IpBlock(wanted)).await,
        None => store.create(Resource::IpBlock(wanted)).await,
    };
    match written {
        Ok(resource) => Ok(IpBlock::try_from(resource).ok()),
        Err(Error::Conflict { .. } | Error::AlreadyExists(_) | Error::NotFound(_)) => Ok(None),
        Err(error @ (Error::Invalid { .. } | Error::Expired(_) | Error::Unavailable { .. })) => Err(error),
    }
}

/// Begins a new generation of each block, so that its sequence numbers are above all that were lost.
async fn renew<S: Store>(store: &S, blocks: Vec<IpBlock>, node: &str) -> Result<Vec<IpBlock>, Error> {
    let mut renewed = Vec::new();
    for block in blocks {
        let Ok(next) = manx_ipam::renew(&block, node) else {
            continue;
        };
        renewed.extend(IpBlock::try_from(store.update(Resource::IpBlock(next)).await?));
    }
    Ok(renewed)
}

pub(super) async fn read<S: Store>(store: &S, cidr: IpNetwork) -> Result<Option<IpBlock>, Error> {
    match store.get(&key(cidr)).await {
        Ok(resource) => Ok(IpBlock::try_from(resource).ok()),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn key(cidr: IpNetwork) -> Key {
    Key::cluster(Kind::IpBlock, block_name(cidr))
}
