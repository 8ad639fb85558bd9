//! Giving back blocks that the node can do without ([`manx_ipam::surplus`]).
//!
//! A block that nobody has held an address of for a while leaves in this order: out of the allocator and its
//! journal, out of what is announced, and then, by a job that is tried until it succeeds, out of this node's hands
//! in the datastore. A node that dies between two of these owns an empty block in its next life, and gives it
//! back then.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnetwork::IpNetwork;
use manx_api::Resource;
use manx_api::ipam::pool_of;
use manx_ipam::{Block, Family, Holding, objection, release_block, surplus};
use manx_store::{Error, Store};
use tokio::time::Instant;

use super::blocks::{Done, read};
use super::{Recovery, Task};

/// How long a block is kept at least after its last address was freed; longer, where addresses rest longer.
const GRACE: Duration = Duration::from_secs(60);

/// What may be given back, and what is on its way.
#[derive(Debug, Default)]
pub(super) struct Spare {
    /// Since when blocks are empty.
    empty: BTreeMap<IpNetwork, Instant>,
    /// Blocks that were let go of, and that the datastore is to hear of.
    leaving: BTreeSet<IpNetwork>,
    /// A job tells the datastore.
    giving_back: bool,
}

impl Spare {
    /// What the datastore could not be told yet.
    pub(super) fn told(&mut self, again: Vec<IpNetwork>) {
        self.giving_back = false;
        self.leaving.extend(again);
    }
}

impl<S: Store> Task<S> {
    /// Lets go of what can be spared, and gives back in the datastore what was let go of before.
    pub(super) fn give_surplus_back(&mut self) {
        if self.recovery != Recovery::Done || !self.view.complete {
            return;
        }
        self.give_back();
        if !self.view.ipam.auto_allocate_blocks {
            return;
        }
        self.note_empty();
        for cidr in self.spared() {
            match self.allocator.remove_block(cidr) {
                Ok(record) => {
                    tracing::info!(block = %cidr, "block given back: it was empty for long enough");
                    self.staged.push(record);
                    self.spare.leaving.insert(cidr);
                    self.dirty.remove(&cidr);
                }
                Err(error) => tracing::error!(block = %cidr, %error, "an empty block cannot be given back"),
            }
        }
    }

    /// Notes since when blocks are empty.
    fn note_empty(&mut self) {
        let empty = self.allocator.blocks().filter(|block| block.held() == 0);
        let since = |block: &Block| {
            let known = self.spare.empty.get(&block.cidr()).copied();
            (block.cidr(), known.unwrap_or_else(Instant::now))
        };
        self.spare.empty = empty.map(since).collect();
    }

    /// The blocks that were empty for long enough and that the others can stand in for.
    fn spared(&self) -> Vec<IpNetwork> {
        let rest = Duration::from_secs(self.view.ipam.ip_cooldown_seconds.into());
        let grace = GRACE.max(rest);
        let labels = self.labels(&self.view);
        let mut families: BTreeMap<Family, Vec<Holding>> = BTreeMap::new();
        for block in self.allocator.blocks() {
            let cidr = block.cidr();
            let pool = pool_of(cidr, self.view.pools.values());
            let open = pool.is_some_and(|pool| objection(pool, labels).is_none()) && !self.is_closed(cidr);
            let idle = self
                .spare
                .empty
                .get(&cidr)
                .is_some_and(|since| since.elapsed() >= grace);
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
        if self.spare.giving_back || self.spare.leaving.is_empty() {
            return;
        }
        self.spare.giving_back = true;
        let blocks = std::mem::take(&mut self.spare.leaving);
        let (store, node) = (self.store.clone(), self.identity.name.clone());
        self.jobs.spawn(async move {
            let mut again = Vec::new();
            for cidr in blocks {
                if let Err(error) = give_up(&store, cidr, &node).await {
                    tracing::debug!(block = %cidr, %error, "a block is not given back yet");
                    again.push(cidr);
                }
            }
            Done::GivenBack(again)
        });
    }
}

/// Makes the block nobody's, if it is ours.
async fn give_up<S: Store>(store: &S, cidr: IpNetwork, node: &str) -> Result<(), Error> {
    let Some(block) = read(store, cidr).await? else {
        return Ok(());
    };
    match release_block(&block, node) {
        Ok(next) => store.update(Resource::IpBlock(next)).await.map(drop),
        Err(_) => Ok(()),
    }
}
