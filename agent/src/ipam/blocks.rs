//! What the ipam task does in the datastore: claiming blocks, taking over those of an earlier life,
//! checkpointing. Each runs as a job beside the task.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;
use manx_api::ipam::{Allocation, IpBlock, IpBlockSpec, IpPool, block_name};
use manx_api::{Key, Kind, Metadata, Resource};
use manx_ipam::{ClaimError, Family};
use manx_store::{Error, Store};
use tokio::task::JoinError;
use tokio::time::Instant;

use super::{CLAIM_PAUSE, IpamError, Recovery, Task, recovery};
use crate::ask::answer;
use crate::supervise;

/// Blocks of a pool that one claim tries; each that it does not get was taken by somebody just now.
const ATTEMPTS: usize = 64;

/// What a job brings.
#[derive(Debug)]
pub(super) enum Done {
    /// A block, or why there is none.
    Claimed(Family, Result<Box<IpBlock>, IpamError>),
    /// Our blocks that the journal did not know, each begun anew.
    Recovered(Result<Vec<IpBlock>, Error>),
    /// The blocks whose checkpoint has to be tried again.
    Checkpointed(Vec<IpNetwork>),
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

    fn keep_room(&mut self) {
        let mut every_family_has_a_block = true;
        let (usable, closed) = (self.usable(), self.closed());
        for (family, pools) in &usable {
            let serves = |block: &&manx_ipam::Block| {
                pools.iter().any(|pool| pool.metadata.name == block.pool()) && !closed.contains(&block.cidr())
            };
            let of_family = |block: &&manx_ipam::Block| Family::of_network(block.cidr()) == *family;
            let blocks: Vec<_> = self.allocator.blocks().filter(serves).filter(of_family).collect();
            every_family_has_a_block &= !blocks.is_empty();
            let room = blocks.iter().any(|block| block.free() > 0);
            let cool = self
                .cooling
                .get(family)
                .is_none_or(|until| *until <= Instant::now());
            if !room && cool {
                self.claim(*family);
            }
        }
        if every_family_has_a_block
            && !usable.is_empty()
            && let Some(guard) = self.claimed.take()
        {
            guard.done();
        }
    }

    /// Starts a claim for the family, unless one is under way.
    pub(super) fn claim(&mut self, family: Family) {
        if !self.claiming.insert(family) {
            return;
        }
        let pools = self.usable().remove(&family).unwrap_or_default();
        let taken = self
            .view
            .blocks
            .values()
            .filter(|block| block.spec.node.is_some())
            .map(|block| block.spec.cidr);
        let taken: BTreeSet<IpNetwork> = taken
            .chain(self.allocator.blocks().map(manx_ipam::Block::cidr))
            .collect();
        let (store, node) = (self.store.clone(), self.identity.name.clone());
        self.jobs.spawn(async move {
            Done::Claimed(
                family,
                claim(&store, family, &pools, &taken, &node).await.map(Box::new),
            )
        });
    }

    pub(super) fn checkpoint(&mut self) {
        if self.checkpointing || self.dirty.is_empty() {
            return;
        }
        let dirty = std::mem::take(&mut self.dirty);
        let blocks = dirty.iter().filter_map(|cidr| self.allocator.block(*cidr));
        let states: Vec<State> = blocks.map(State::of).collect();
        self.checkpointing = true;
        let (store, node) = (self.store.clone(), self.identity.name.clone());
        self.jobs
            .spawn(async move { Done::Checkpointed(checkpoint(&store, states, &node).await) });
    }

    pub(super) fn finished(&mut self, done: Result<Done, JoinError>) {
        let done = match done {
            Ok(done) => done,
            // A job that panicked leaves a flag set that only a new life clears.
            Err(error) => std::panic::resume_unwind(supervise::panic_of(error)),
        };
        match done {
            Done::Claimed(family, outcome) => self.claimed(family, outcome),
            Done::Recovered(Ok(blocks)) => self.recovered(&blocks),
            Done::Recovered(Err(error)) => {
                tracing::warn!(%error, "cannot take over this node's blocks yet; trying again");
                self.recovery = Recovery::Due;
            }
            Done::Checkpointed(again) => {
                self.checkpointing = false;
                self.dirty.extend(again);
            }
        }
    }

    fn claimed(&mut self, family: Family, outcome: Result<Box<IpBlock>, IpamError>) {
        self.claiming.remove(&family);
        match outcome {
            Ok(block) => {
                tracing::info!(block = %block.spec.cidr, pool = block.spec.pool, "block claimed");
                self.add(&block);
                let waiting = std::mem::take(&mut self.waiting);
                waiting.into_iter().for_each(|request| self.assign(request));
            }
            Err(error) => {
                tracing::warn!(%family, %error, "no block claimed");
                self.cooling.insert(family, Instant::now() + CLAIM_PAUSE);
                for request in std::mem::take(&mut self.waiting) {
                    answer(request.reply, Err(error.clone()));
                }
            }
        }
    }

    fn recovered(&mut self, blocks: &[IpBlock]) {
        blocks.iter().for_each(|block| self.add(block));
        let within: Vec<IpNetwork> = blocks.iter().map(|block| block.spec.cidr).collect();
        let live = std::mem::take(&mut self.live);
        self.staged
            .extend(recovery::settle(&mut self.allocator, live, |address| {
                within.iter().any(|block| block.contains(address))
            }));
        self.recovery = Recovery::Done;
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_iter().for_each(|request| self.assign(request));
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

/// Claims one block of the first pool that has one.
async fn claim<S: Store>(
    store: &S,
    family: Family,
    pools: &[IpPool],
    taken: &BTreeSet<IpNetwork>,
    node: &str,
) -> Result<IpBlock, IpamError> {
    for pool in pools {
        for cidr in manx_ipam::candidates(pool, taken, node).take(ATTEMPTS) {
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
        family,
        pools: pools.iter().map(|pool| pool.metadata.name.clone()).collect(),
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

/// A block as it is to be checkpointed.
struct State {
    cidr: IpNetwork,
    pool: String,
    generation: u64,
    allocations: Vec<Allocation>,
}

impl State {
    fn of(block: &manx_ipam::Block) -> Self {
        Self {
            cidr: block.cidr(),
            pool: block.pool().to_owned(),
            generation: block.generation(),
            allocations: block.allocations().collect(),
        }
    }
}

impl State {
    /// The block's resource, where there is none.
    fn block(self, node: &str) -> IpBlock {
        IpBlock {
            metadata: Metadata {
                name: block_name(self.cidr),
                ..Metadata::default()
            },
            spec: IpBlockSpec {
                cidr: self.cidr,
                pool: self.pool,
                node: Some(node.to_owned()),
                generation: self.generation,
                allocations: self.allocations,
                releases: Vec::new(),
                lease: None,
            },
        }
    }
}

/// Writes checkpoints; returns the blocks to try again.
async fn checkpoint<S: Store>(store: &S, states: Vec<State>, node: &str) -> Vec<IpNetwork> {
    let mut again = Vec::new();
    for state in states {
        let cidr = state.cidr;
        match write(store, state, node).await {
            Ok(()) => {}
            Err(Error::Conflict { .. } | Error::AlreadyExists(_) | Error::Unavailable { .. }) => {
                again.push(cidr)
            }
            Err(error) => tracing::error!(block = %cidr, %error, "a block cannot be checkpointed"),
        }
    }
    again
}

async fn write<S: Store>(store: &S, state: State, node: &str) -> Result<(), Error> {
    let Some(block) = read(store, state.cidr).await? else {
        tracing::warn!(block = %state.cidr, "somebody deleted a block of this node; it is there again");
        return store.create(Resource::IpBlock(state.block(node))).await.map(drop);
    };
    match manx_ipam::checkpoint(&block, node, state.generation, state.allocations) {
        Ok(block) => drop(store.update(Resource::IpBlock(block)).await?),
        Err(error) => tracing::error!(block = %state.cidr, %error, "a block's checkpoint is refused"),
    }
    Ok(())
}

async fn read<S: Store>(store: &S, cidr: IpNetwork) -> Result<Option<IpBlock>, Error> {
    match store.get(&key(cidr)).await {
        Ok(resource) => Ok(IpBlock::try_from(resource).ok()),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn key(cidr: IpNetwork) -> Key {
    Key::cluster(Kind::IpBlock, block_name(cidr))
}
