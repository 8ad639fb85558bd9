//! Claiming blocks, and what becomes of the jobs beside the task.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;
use manx_api::ipam::{IpBlock, IpPool, block_name, covers};
use manx_api::{Key, Kind, Resource};
use manx_ipam::{ClaimError, Family, Reserved};
use manx_store::{Error, Store};
use tokio::task::JoinError;

use super::assign::{Need, Site};
use super::takeover::TakenOver;
use super::{IpamError, Recovery, Task};
use crate::supervise;

/// Blocks of a pool that one claim tries; each that it does not get was taken by somebody just now.
const ATTEMPTS: usize = 64;

/// The part of a block's addresses that are rested and free when the next block is claimed: one in so many.
const RESERVE: usize = 8;

/// What a job brings.
#[derive(Debug)]
pub(super) enum Done {
    /// A block, or why there is none.
    Claimed(Need, Result<Box<Claimed>, IpamError>),
    /// Our blocks that the journal did not know, each begun anew.
    Recovered(Result<TakenOver, Error>),
    /// A lease was asked for, or could not be.
    Wrote,
    /// What was due about leases was written, as far as it could be.
    WroteLeases,
    /// The blocks whose checkpoint has to be tried again.
    Checkpointed(Vec<IpNetwork>),
    /// The blocks that the datastore knows by now to be given back.
    GivenBack(Vec<IpNetwork>),
}

/// A block that this node owns from now on, and what others have of it.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) block: IpBlock,
    pub(super) parts: Vec<IpBlock>,
}

impl<S: Store> Task<S> {
    /// Starts what is due: recovery with the first view, then a claim for each family without a free address.
    pub(super) fn advance(&mut self) {
        if !self.view.complete {
            return;
        }
        match self.recovery {
            Recovery::Due => self.recover(),
            Recovery::Running | Recovery::Again => {}
            Recovery::Done => self.keep_room(),
        }
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
        let size = blocks().map(manx_ipam::Block::capacity).max().unwrap_or_default();
        // Counted no further than that it is enough: this is looked at after every commit.
        let enough = (size / RESERVE).saturating_add(1);
        blocks().fold(0, |rested: usize, block| {
            rested.saturating_add(block.rested(rest, enough.saturating_sub(rested)))
        }) < enough
    }

    /// Starts a claim, unless one is under way that meets the need, or a block is being taken over that may do so.
    pub(super) fn claim(&mut self, need: Need) {
        if self.recovery == Recovery::Again || !self.claiming.insert(need.clone()) {
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
        let of_family =
            |block: &&manx_ipam::Block| Family::of_network(block.cidr()) == family && !block.is_leased();
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
        let leased = self.allocator.blocks().filter(|block| block.is_leased());
        Search {
            pools: named.filter(|pool| !is_split(pool)).cloned().collect(),
            taken: owned
                .map(|block| block.spec.cidr)
                .chain(self.allocator.blocks().map(manx_ipam::Block::cidr))
                .collect(),
            stored: self.view.blocks.values().map(|block| block.spec.cidr).collect(),
            leased: leased.map(manx_ipam::Block::cidr).collect(),
            reserved: self.reserved(),
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
            Done::Recovered(Ok(taken)) => self.recovered(taken),
            Done::Recovered(Err(error)) => self.not_recovered(&error),
            Done::Wrote => {}
            Done::WroteLeases => self.writing_leases = false,
            Done::Checkpointed(again) => {
                self.checkpointing = false;
                again.into_iter().for_each(|cidr| self.dirty.hurry(cidr));
            }
            Done::GivenBack(told) => self.spare.told(&told),
        }
    }

    fn claimed(&mut self, need: Need, outcome: Result<Box<Claimed>, IpamError>) {
        self.claiming.remove(&need);
        match outcome {
            Ok(claimed) => {
                let block = &claimed.block;
                tracing::info!(block = %block.spec.cidr, pool = block.spec.pool, "block claimed");
                self.metrics.ipam.claims.inc();
                self.add(block);
                self.carve(&claimed.parts);
            }
            Err(error) => {
                tracing::warn!(family = %need.family, %error, "no block claimed");
                self.metrics.ipam.claim_failures.inc();
                self.failed(need, error, false);
            }
        }
        self.retry();
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
    let need = |(family, pools)| Need {
        family,
        pools,
        site: Site::Any,
    };
    needs.into_iter().map(need).collect()
}

/// Where a claim looks.
struct Search {
    /// The preferred first.
    pools: Vec<IpPool>,
    taken: BTreeSet<IpNetwork>,
    /// Blocks that were some node's once: all others are made by whoever claims them first.
    stored: BTreeSet<IpNetwork>,
    /// Parts of others' blocks that this node has.
    leased: Vec<IpNetwork>,
    reserved: Reserved,
}

/// Claims one block of the first pool that has one.
async fn claim<S: Store>(store: &S, need: &Need, search: &Search, node: &str) -> Result<Claimed, IpamError> {
    let Search {
        pools,
        taken,
        stored,
        leased,
        reserved,
    } = search;
    for pool in pools {
        let any = || manx_ipam::candidates(pool, taken, reserved, node).take(ATTEMPTS);
        let candidates: Vec<IpNetwork> = match need.site {
            Site::Any => any().collect(),
            Site::Block(block) => vec![block],
            Site::Part { .. } => Vec::new(),
        };
        // A block around a lease of ours is somebody else's, or will be when we have returned that.
        let is_around = |block: &IpNetwork| leased.iter().any(|lease| covers(*block, *lease));
        for cidr in candidates.into_iter().filter(|block| !is_around(block)) {
            match take(store, pool, (cidr, stored.contains(&cidr)), node).await {
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
    if let Site::Block(block) = need.site {
        let reason = format!("another node was about to claim {block}, too");
        return Err(IpamError::NotYet { reason });
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
    (cidr, is_stored): (IpNetwork, bool),
    node: &str,
) -> Result<Option<Claimed>, Error> {
    let existing = if is_stored { read(store, cidr).await? } else { None };
    let wanted = match manx_ipam::claim(existing.as_ref(), pool, cidr, node) {
        Ok(wanted) => wanted,
        Err(ClaimError::Owned { .. } | ClaimError::OtherBlock { .. }) => return Ok(None),
        // The pool changed under us: the next view says how.
        Err(ClaimError::Disabled { .. } | ClaimError::NotABlock { .. }) => return Ok(None),
    };
    let written = match existing.clone() {
        Some(existing) => {
            store
                .amend(&Resource::IpBlock(existing), Resource::IpBlock(wanted))
                .await
        }
        None => store.create(Resource::IpBlock(wanted)).await,
    };
    match written {
        Ok(resource) => {
            let Ok(block) = IpBlock::try_from(resource) else {
                return Ok(None);
            };
            // A block that never was has no parts. Of one that was, an earlier owner may have lent some.
            let parts = match existing {
                Some(_) => parts(cidr, &list(store).await?),
                None => Vec::new(),
            };
            Ok(Some(Claimed { block, parts }))
        }
        Err(Error::Conflict { .. } | Error::AlreadyExists(_) | Error::NotFound(_)) => Ok(None),
        Err(
            error @ (Error::Invalid { .. }
            | Error::Expired(_)
            | Error::Denied { .. }
            | Error::Unavailable { .. }),
        ) => Err(error),
    }
}

pub(super) fn parts(cidr: IpNetwork, blocks: &[IpBlock]) -> Vec<IpBlock> {
    let parts = manx_ipam::parts_of(cidr, blocks);
    parts.into_iter().cloned().collect()
}

pub(super) async fn list<S: Store>(store: &S) -> Result<Vec<IpBlock>, Error> {
    let items = store.list(Kind::IpBlock, None).await?.items.into_iter();
    Ok(items
        .filter_map(|resource| IpBlock::try_from(resource).ok())
        .collect())
}

pub(super) async fn read<S: Store>(store: &S, cidr: IpNetwork) -> Result<Option<IpBlock>, Error> {
    match store.get(&key(cidr)).await {
        Ok(resource) => Ok(IpBlock::try_from(resource).ok()),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn key(cidr: IpNetwork) -> Key {
    Key::cluster(Kind::IpBlock, block_name(cidr))
}
