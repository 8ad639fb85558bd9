//! Telling the datastore, off the path of any ADD, who holds what.

use ipnetwork::IpNetwork;
use manx_api::ipam::{Allocation, IpBlock, IpBlockSpec, block_name};
use manx_api::{Metadata, Resource};
use manx_store::{Error, Store};

use super::Task;
use super::blocks::{Done, read};

impl<S: Store> Task<S> {
    pub(super) fn checkpoint(&mut self) {
        if self.checkpointing || self.dirty.is_empty() {
            return;
        }
        let dirty = std::mem::take(&mut self.dirty);
        let blocks = dirty.iter().filter_map(|cidr| self.allocator.block(*cidr));
        let states: Vec<State> = blocks
            .map(|block| State::of(block, self.pool_of(block)))
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
async fn checkpoint<S: Store>(store: &S, states: Vec<State>, node: &str) -> Vec<IpNetwork> {
    let mut again = Vec::new();
    for state in states {
        let cidr = state.cidr;
        match write(store, state, node).await {
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

async fn write<S: Store>(store: &S, state: State, node: &str) -> Result<(), Error> {
    let Some(block) = read(store, state.cidr).await? else {
        if state.is_leased {
            return Ok(());
        }
        tracing::warn!(block = %state.cidr, "somebody deleted a block of this node; it is there again");
        return store.create(Resource::IpBlock(state.block(node))).await.map(drop);
    };
    match manx_ipam::checkpoint(&block, node, state.generation, state.allocations) {
        Ok(mut block) => {
            block.spec.pool = state.pool;
            store.update(Resource::IpBlock(block)).await?;
        }
        Err(error) => tracing::error!(block = %state.cidr, %error, "a block's checkpoint is refused"),
    }
    Ok(())
}
