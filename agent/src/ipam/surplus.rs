//! Giving back blocks that the node can do without ([`manx_ipam::surplus`]).
//!
//! A block that nobody has held an address of for a while leaves in this order: out of the allocator and its
//! journal, out of what is announced, and then, by a job that is tried until it succeeds, out of this node's hands
//! in the datastore. A node that dies between two of these owns an empty block in its next life, and gives it
//! back then.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnetwork::IpNetwork;
use manx_api::Resource;
use manx_api::ipam::{IpBlock, block_name, pool_of};
use manx_ipam::{Block, Family, Holding, objection, release_block, surplus};
use manx_store::{Error, Store};
use tokio::time::Instant;

use super::blocks::{Done, read};
use super::{GRACE, Task};

/// What is on its way back.
#[derive(Debug, Default)]
pub(super) struct Spare {
    /// Blocks that were let go of, and that the datastore is to hear of, with the generation that ends.
    leaving: BTreeMap<IpNetwork, u64>,
    /// A job tells the datastore.
    giving_back: bool,
}

impl Spare {
    /// What the datastore was told.
    pub(super) fn told(&mut self, told: &[IpNetwork]) {
        self.giving_back = false;
        self.leaving.retain(|cidr, _| !told.contains(cidr));
    }

    /// Whether the block was let go of, and the datastore has not heard of it.
    pub(super) fn is_leaving(&self, cidr: IpNetwork) -> bool {
        self.leaving.contains_key(&cidr)
    }
}

impl<S: Store> Task<S> {
    /// Lets go of what can be spared, and gives back in the datastore what was let go of before.
    pub(super) fn give_surplus_back(&mut self) {
        if !self.is_recovered() || !self.view.complete {
            return;
        }
        self.give_back();
        if !self.view.ipam.auto_allocate_blocks {
            return;
        }
        for cidr in self.spared() {
            let generation = self.allocator.block(cidr).map(Block::generation);
            match self.allocator.remove_block(cidr) {
                Ok(record) => {
                    tracing::info!(block = %cidr, "block given back: it was empty for long enough");
                    self.staged.push(record);
                    self.spare
                        .leaving
                        .extend(generation.map(|generation| (cidr, generation)));
                    self.dirty.remove(cidr);
                }
                Err(error) => tracing::error!(block = %cidr, %error, "an empty block cannot be given back"),
            }
        }
    }

    /// Notes since when blocks are empty. One of which others have parts is in use.
    pub(super) fn note_empty(&mut self) {
        let blocks = self.allocator.blocks();
        let empty = blocks.filter(|block| block.held() == 0 && block.lent() == 0);
        let since = |block: &Block| {
            let known = self.empty.get(&block.cidr()).copied();
            (block.cidr(), known.unwrap_or_else(Instant::now))
        };
        self.empty = empty.map(since).collect();
    }

    /// The blocks that were empty for long enough and that the others can stand in for.
    fn spared(&self) -> Vec<IpNetwork> {
        let rest = Duration::from_secs(self.view.ipam.ip_cooldown_seconds.into());
        let grace = GRACE.max(rest);
        let labels = self.labels(&self.view);
        let mut families: BTreeMap<Family, Vec<Holding>> = BTreeMap::new();
        for block in self.allocator.blocks().filter(|block| !block.is_leased()) {
            let cidr = block.cidr();
            let pool = pool_of(cidr, self.view.pools.values());
            let closed = self.is_closed(cidr);
            let open = pool.is_some_and(|pool| objection(pool, labels).is_none()) && !closed;
            let empty = self.empty.get(&cidr);
            let idle = empty.is_some_and(|since| closed || since.elapsed() >= grace);
            let holding = Holding::of(block, open, idle);
            families
                .entry(Family::of_network(cidr))
                .or_default()
                .push(holding);
        }
        families.values().flat_map(|holdings| surplus(holdings)).collect()
    }

    /// Tells the datastore of blocks that were let go of, once the journal has it.
    fn give_back(&mut self) {
        if self.spare.giving_back || self.spare.leaving.is_empty() || self.journal.is_behind() {
            return;
        }
        self.spare.giving_back = true;
        let stored = |cidr: IpNetwork| self.view.blocks.get(&block_name(cidr)).cloned();
        let blocks = self.spare.leaving.iter();
        let blocks: Vec<_> = blocks
            .map(|(cidr, generation)| (*cidr, *generation, stored(*cidr)))
            .collect();
        let (store, node) = (self.store.clone(), self.identity.name.clone());
        self.jobs.spawn(async move {
            let mut told = Vec::new();
            for (cidr, generation, known) in blocks {
                match give_up(&store, (cidr, generation), known, &node).await {
                    Ok(()) => told.push(cidr),
                    Err(error) => tracing::debug!(block = %cidr, %error, "a block is not given back yet"),
                }
            }
            Done::GivenBack(told)
        });
    }
}

/// Makes the block nobody's, if it is ours in this generation. In a later one it was given back, whatever was
/// answered, and claimed again.
async fn give_up<S: Store>(
    store: &S,
    (cidr, generation): (IpNetwork, u64),
    known: Option<IpBlock>,
    node: &str,
) -> Result<(), Error> {
    // What is known may be older, but not of an older generation that is ours.
    let known = known.filter(|block| block.spec.generation == generation);
    let block = match known {
        Some(block) => Some(block),
        None => read(store, cidr).await?,
    };
    let Some(block) = block else {
        return Ok(());
    };
    match release_block(&block, node) {
        Ok(next) if block.spec.generation == generation => store
            .amend(&Resource::IpBlock(block), Resource::IpBlock(next))
            .await
            .map(drop),
        Ok(_) | Err(_) => Ok(()),
    }
}
