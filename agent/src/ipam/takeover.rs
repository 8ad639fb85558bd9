//! Taking over blocks that are this node's in the datastore and unknown to its allocator.
//!
//! And bringing those in line that it knows, and that the datastore gave up in the node's name: somebody deleted the
//! Node while it was away, and its blocks were freed.
//!
//! In a life's beginning those are what a lost journal had: who holds which address, the blocks' checkpoints, the
//! WorkloadEndpoints and the interfaces that exist tell together. Later on, a block gets there by a claim that took effect
//! and was reported to have failed. Each begins a new generation, so that its sequence numbers are above all that
//! were lost.

use std::collections::BTreeSet;
use std::time::Duration;

use ipnetwork::IpNetwork;
use manx_api::ipam::{AttachmentId, IpBlock, LeaseState, block_name, covers};
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
    /// Takes over what an earlier life had, and back what was given up meanwhile.
    pub(super) fn recover(&mut self) {
        self.recovery = Recovery::Running;
        self.take_over(self.unknown().chain(self.lapsed()).collect());
    }

    /// Takes over what has come to be ours, or is not ours any more, unnoticed.
    pub(super) fn take_over_strays(&mut self) {
        // A claim that is under way knows its block before long; and a block that is leaving is ours for the last time.
        if self.recovery != Recovery::Done || !self.view.complete || !self.claiming.is_empty() {
            return;
        }
        let is_lease = |cidr: IpNetwork| {
            let block = self.view.blocks.get(&block_name(cidr));
            block.is_some_and(|block| block.spec.lease.is_some())
        };
        let strays = self
            .unknown()
            .filter(|cidr| !is_lease(*cidr) && !self.spare.is_leaving(*cidr));
        let strays: Vec<IpNetwork> = strays.chain(self.lapsed()).collect();
        if !strays.is_empty() {
            tracing::warn!(blocks = ?strays, "the datastore says otherwise than this node whose blocks these are");
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

    /// Blocks of the allocator of which the datastore has a later ownership: ours, or nobody's while somebody holds
    /// addresses of it.
    fn lapsed(&self) -> impl Iterator<Item = IpNetwork> {
        let me = self.identity.name.as_str();
        let has_lapsed = move |block: &&manx_ipam::Block| {
            let Some(stored) = self.view.blocks.get(&block_name(block.cidr())) else {
                return false;
            };
            match stored.spec.node.as_deref() {
                Some(owner) => owner == me && stored.spec.generation > block.generation(),
                None => is_nobodys(stored, block) && block.held() > 0,
            }
        };
        let own = self.allocator.blocks().filter(|block| !block.is_leased());
        own.filter(has_lapsed).map(manx_ipam::Block::cidr)
    }

    fn take_over(&mut self, blocks: Vec<IpNetwork>) {
        let (store, node) = (self.store.clone(), self.identity.name.clone());
        let known = self.allocator.blocks().map(manx_ipam::Block::cidr).collect();
        self.jobs.spawn(async move {
            let renewed = renew(&store, (&blocks, &known), &node).await;
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
        let is_known = |claimed: &Claimed| self.allocator.block(claimed.block.spec.cidr).is_some();
        let (lapsed, unknown): (Vec<_>, Vec<_>) = blocks.into_iter().partition(is_known);
        lapsed.iter().for_each(|claimed| self.renewed(&claimed.block));
        unknown.iter().for_each(|claimed| self.add(&claimed.block));
        let within: Vec<IpNetwork> = unknown.iter().map(|claimed| claimed.block.spec.cidr).collect();
        self.staged.extend(recovery::settle(
            &mut self.allocator,
            live,
            owners,
            now,
            |address| within.iter().any(|block| block.contains(address)),
        ));
        // What a checkpoint said last may have been freed and lent since.
        lapsed
            .iter()
            .chain(&unknown)
            .for_each(|claimed| self.carve(&claimed.parts));
        self.recovery = Recovery::Done;
        self.retry();
    }

    fn renewed(&mut self, IpBlock { spec, .. }: &IpBlock) {
        match self.allocator.renew_block(spec.cidr, spec.generation) {
            Ok(record) => self.staged.push(record),
            Err(error) => tracing::error!(block = %spec.cidr, %error, "a block cannot be taken back"),
        }
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

/// Whether the block is nobody's in the datastore, after it was ours.
pub(super) fn is_nobodys(stored: &IpBlock, own: &manx_ipam::Block) -> bool {
    // A claim ends a generation in which the block was nobody's, and the view may be behind.
    stored.spec.node.is_none() && stored.spec.generation >= own.generation()
}

/// Begins a new generation of each block that is ours still, or, of those that are `known`, nobody's.
async fn renew<S: Store>(
    store: &S,
    (blocks, known): (&[IpNetwork], &BTreeSet<IpNetwork>),
    node: &str,
) -> Result<TakenOver, Error> {
    let mut taken = TakenOver::default();
    if blocks.is_empty() {
        return Ok(taken);
    }
    taken.owners = owners(store, node).await?;
    let all = list(store).await?;
    for cidr in blocks {
        let is_open = |block: &IpBlock| block.spec.node.is_none() && known.contains(&block.spec.cidr);
        let block = read(store, *cidr).await?;
        let block = block.filter(|block| is_had(block, node) || is_open(block));
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
