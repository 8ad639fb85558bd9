//! Telling the datastore, off the path of any ADD, who holds what.
//!
//! Whoever starts anew has the journal, and who wants to know asks the agent. So a checkpoint in a Kubernetes cluster, whose
//! API server serves everybody, may wait until there is something to tell.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnetwork::IpNetwork;
use manx_api::ipam::{Allocation, IpBlock, IpBlockSpec, block_name};
use manx_api::{Metadata, Resource};
use manx_store::{Error, Store};
use tokio::time::Instant;

use super::Task;
use super::blocks::{Done, read};

/// How far behind a checkpoint may be in a Kubernetes cluster, unless as much has changed as the block has addresses.
const LATEST: Duration = Duration::from_secs(600);

/// The blocks whose checkpoints are behind.
#[derive(Debug, Default)]
pub(super) struct Dirty(BTreeMap<IpNetwork, Behind>);

/// How far.
#[derive(Clone, Copy, Debug)]
struct Behind {
    since: Instant,
    changes: usize,
    /// Somebody waits for it.
    urgent: bool,
}

impl Dirty {
    /// Somebody has an address of the block, or has it no more.
    pub(super) fn changed(&mut self, block: IpNetwork) {
        self.behind(block).changes += 1;
    }

    /// The block's checkpoint is to be written with the next tick.
    pub(super) fn hurry(&mut self, block: IpNetwork) {
        self.behind(block).urgent = true;
    }

    /// The same of all that are behind.
    pub(super) fn hurry_all(&mut self) {
        self.0.values_mut().for_each(|behind| behind.urgent = true);
    }

    /// The block is this node's no more.
    pub(super) fn remove(&mut self, block: IpNetwork) {
        self.0.remove(&block);
    }

    fn behind(&mut self, block: IpNetwork) -> &mut Behind {
        self.0.entry(block).or_insert_with(|| Behind {
            since: Instant::now(),
            changes: 0,
            urgent: false,
        })
    }

    /// Takes those out that are due: `enough` changes are.
    fn take_due(&mut self, enough: impl Fn(IpNetwork) -> usize) -> Vec<IpNetwork> {
        let is_due = |cidr: &IpNetwork, behind: &mut Behind| {
            behind.urgent || behind.since.elapsed() >= LATEST || behind.changes >= enough(*cidr)
        };
        self.0
            .extract_if(.., |cidr, behind| is_due(cidr, behind))
            .map(|(cidr, _)| cidr)
            .collect()
    }
}

impl<S: Store> Task<S> {
    pub(super) fn checkpoint(&mut self) {
        if self.checkpointing {
            return;
        }
        // A file of this machine is written at once.
        if self.store.cluster().is_none() {
            self.dirty.hurry_all();
        }
        let (allocator, view) = (&self.allocator, self.view.clone());
        let size = |cidr| allocator.block(cidr).map_or(0, manx_ipam::Block::capacity);
        let due = self.dirty.take_due(size);
        if due.is_empty() {
            return;
        }
        let blocks = due.iter().filter_map(|cidr| self.allocator.block(*cidr));
        let states: Vec<(State, Option<IpBlock>)> = blocks
            .map(|block| {
                let stored = view.blocks.get(&block_name(block.cidr()));
                (State::of(block, self.pool_of(block)), stored.cloned())
            })
            .collect();
        self.checkpointing = true;
        let (store, node) = (self.store.clone(), self.identity.name.clone());
        self.jobs
            .spawn(async move { Done::Checkpointed(checkpoint(&store, states, &node).await) });
    }
}

/// A block as it is to be checkpointed.
struct State {
    cidr: IpNetwork,
    pool: String,
    generation: u64,
    allocations: Vec<Allocation>,
    /// Its lender sees to it that the resource is there.
    is_leased: bool,
}

impl State {
    fn of(block: &manx_ipam::Block, pool: String) -> Self {
        Self {
            cidr: block.cidr(),
            pool,
            generation: block.generation(),
            allocations: block.allocations().collect(),
            is_leased: block.is_leased(),
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
async fn checkpoint<S: Store>(
    store: &S,
    states: Vec<(State, Option<IpBlock>)>,
    node: &str,
) -> Vec<IpNetwork> {
    let mut again = Vec::new();
    for (state, known) in states {
        let cidr = state.cidr;
        match write(store, state, known, node).await {
            Ok(()) => {}
            Err(
                Error::Conflict { .. }
                | Error::AlreadyExists(_)
                | Error::Denied { .. }
                | Error::Unavailable { .. },
            ) => again.push(cidr),
            Err(error) => tracing::error!(block = %cidr, %error, "a block cannot be checkpointed"),
        }
    }
    again
}

/// Writes one, over what is known to be stored; where that is not so any more, whoever tries again knows better.
async fn write<S: Store>(store: &S, state: State, known: Option<IpBlock>, node: &str) -> Result<(), Error> {
    let stored = match known {
        Some(block) => Some(block),
        None => read(store, state.cidr).await?,
    };
    let Some(stored) = stored else {
        if state.is_leased {
            return Ok(());
        }
        tracing::warn!(block = %state.cidr, "somebody deleted a block of this node; it is there again");
        return store.create(Resource::IpBlock(state.block(node))).await.map(drop);
    };
    match manx_ipam::checkpoint(&stored, node, state.generation, state.allocations) {
        Ok(mut block) => {
            block.spec.pool = state.pool;
            let before = Resource::IpBlock(stored);
            store.amend(&before, Resource::IpBlock(block)).await?;
        }
        Err(error) => tracing::error!(block = %state.cidr, %error, "a block's checkpoint is refused"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_checkpoint_is_due_when_enough_has_changed_or_long_enough_ago_or_somebody_asks() {
        let [many, one, asked] =
            ["10.0.0.0/26", "10.0.0.64/26", "10.0.0.128/26"].map(|it| it.parse().unwrap());
        let mut dirty = Dirty::default();
        let enough = |_| 64;
        (0..63).for_each(|_| dirty.changed(many));
        dirty.changed(one);
        dirty.changed(asked);
        assert!(dirty.take_due(enough).is_empty());
        dirty.changed(many);
        assert_eq!(dirty.take_due(enough), [many]);
        dirty.hurry(asked);
        assert_eq!(dirty.take_due(enough), [asked]);
        tokio::time::advance(LATEST).await;
        dirty.changed(many);
        assert_eq!(dirty.take_due(enough), [one], "the others begin anew");
        dirty.hurry_all();
        assert_eq!(dirty.take_due(enough), [many]);
        assert!(dirty.take_due(enough).is_empty());
    }
}
