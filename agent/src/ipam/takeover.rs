//! Taking over blocks that are this node's in the datastore and unknown to its allocator.
//!
//! In a life's beginning those are what a lost journal had: who holds which address, the blocks' checkpoints, the
//! WorkloadEndpoints and the interfaces that exist tell together. Later on, a block gets there by a claim that took effect
//! and was reported to have failed. Each begins a new generation, so that its sequence numbers are above all that
//! were lost.

use std::time::Duration;

use ipnetwork::IpNetwork;
use manx_api::ipam::{AttachmentId, IpBlock, LeaseState, covers};
use manx_api::workload::WorkloadEndpoint;
use manx_api::{Kind, Resource};
use manx_store::{Error, Store};

use super::blocks::{Claimed, Done, list, parts, read};
use super::recovery::{self, Owners};
use super::{Recovery, Task};

/// Pause before blocks that could not be taken over are tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Blocks that this node has from now on.
#[derive(Debug, Default)]
pub(super) struct TakenOver {
    blocks: Vec<Claimed>,
    /// Who may hold addresses of them that their checkpoints do not know yet.
    owners: Owners,
}

impl<S: Store> Task<S> {
    /// Takes over what an earlier life had.
    pub(super) fn recover(&mut self) {
        self.recovery = Recovery::Running;
        self.take_over(self.unknown().collect());
    }

    /// Takes over what has come to be ours unnoticed.
    pub(super) fn take_over_strays(&mut self) {
        // A claim that is under way knows its block before long; and a block that is leaving is ours for the last time.
        if self.recovery != Recovery::Done || !self.view.complete || !self.claiming.is_empty() {
            return;
        }
        let is_stray =
            |block: &&IpBlock| block.spec.lease.is_none() && !self.spare.is_leaving(block.spec.cidr);
        let strays = self.view.blocks.values().filter(is_stray);
        let unknown: Vec<IpNetwork> = self.unknown().collect();
        let strays: Vec<IpNetwork> = strays
            .map(|block| block.spec.cidr)
            .filter(|cidr| unknown.contains(cidr))
            .collect();
        if !strays.is_empty() {
            tracing::warn!(blocks = ?strays, "the datastore has blocks of this node that it did not know");
            self.recovery = Recovery::Again;
            self.take_over(strays);
        }
    }

    /// Blocks that are ours in the view, and that the allocator knows neither whole nor in part.
    fn unknown(&self) -> impl Iterator<Item = IpNetwork> {
        let is_known = |cidr: IpNetwork| {
            let mut blocks = self.allocator.blocks().map(manx_ipam::Block::cidr);
            blocks.any(|known| covers(known, cidr) || covers(cidr, known))
        };
        let ours = self
            .view
            .blocks
            .values()
            .filter(|block| is_had(block, &self.identity.name));
        ours.map(|block| block.spec.cidr)
            .filter(move |cidr| !is_known(*cidr))
    }

    fn take_over(&mut self, blocks: Vec<IpNetwork>) {
        let (store, node) = (self.store.clone(), self.identity.name.clone());
        self.jobs.spawn(async move {
            let renewed = renew(&store, &blocks, &node).await;
            if renewed.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
            Done::Recovered(renewed)
        });
    }

    pub(super) fn not_recovered(&mut self, error: &Error) {
        tracing::warn!(%error, "cannot take over this node's blocks yet; trying again");
        self.recovery = match self.recovery {
            Recovery::Due | Recovery::Running => Recovery::Due,
            Recovery::Again | Recovery::Done => Recovery::Done,
        };
        self.retry();
    }

    pub(super) fn recovered(&mut self, TakenOver { blocks, owners }: TakenOver) {
        let (live, now) = (std::mem::take(&mut self.live), self.clock.now());
        blocks.iter().for_each(|claimed| self.add(&claimed.block));
        let within: Vec<IpNetwork> = blocks.iter().map(|claimed| claimed.block.spec.cidr).collect();
        self.staged.extend(recovery::settle(
            &mut self.allocator,
            live,
            owners,
            now,
            |address| within.iter().any(|block| block.contains(address)),
        ));
        // What a checkpoint said last may have been freed and lent since.
        blocks.iter().for_each(|claimed| self.carve(&claimed.parts));
        self.recovery = Recovery::Done;
        self.retry();
    }

    pub(super) fn add(&mut self, block: &IpBlock) {
        match self.allocator.add_block(block) {
            Ok(record) => self.staged.push(record),
            Err(error) => {
                tracing::error!(block = %block.spec.cidr, %error, "a block of this node cannot be used")
            }
        }
    }
}

/// Whether the addresses of the block are `node`'s to give.
fn is_had(block: &IpBlock, node: &str) -> bool {
    let lease = block.spec.lease.as_ref();
    block.spec.node.as_deref() == Some(node) && lease.is_none_or(|lease| lease.state == LeaseState::Granted)
}

/// Begins a new generation of each block that is ours still.
async fn renew<S: Store>(store: &S, blocks: &[IpNetwork], node: &str) -> Result<TakenOver, Error> {
    let mut taken = TakenOver::default();
    if blocks.is_empty() {
        return Ok(taken);
    }
    taken.owners = owners(store, node).await?;
    let all = list(store).await?;
    for cidr in blocks {
        let block = read(store, *cidr).await?.filter(|block| is_had(block, node));
        let Some(Ok(next)) = block.map(|block| manx_ipam::renew(&block, node)) else {
            continue;
        };
        if let Ok(block) = IpBlock::try_from(store.update(Resource::IpBlock(next)).await?) {
            let parts = parts(block.spec.cidr, &all);
            taken.blocks.push(Claimed { block, parts });
        }
    }
    Ok(taken)
}

/// Who has which interface of the node, as its WorkloadEndpoints say.
async fn owners<S: Store>(store: &S, node: &str) -> Result<Owners, Error> {
    let items = store.list(Kind::WorkloadEndpoint, None).await?.items.into_iter();
    let endpoints = items.filter_map(|resource| WorkloadEndpoint::try_from(resource).ok());
    let own = endpoints.filter(|endpoint| endpoint.spec.node == node);
    Ok(own.map(owner).collect())
}

fn owner(WorkloadEndpoint { metadata, spec }: WorkloadEndpoint) -> (String, AttachmentId) {
    let owner = AttachmentId {
        container_id: spec.container_id,
        ifname: spec.endpoint,
        namespace: metadata.namespace.unwrap_or_default(),
        pod: spec.pod,
        network: None,
    };
    (recovery::interface(&owner.container_id, &owner.ifname), owner)
}
