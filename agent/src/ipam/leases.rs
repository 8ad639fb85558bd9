//! Leases: parts of other nodes' blocks for pods that find no room, and parts of ours for others.
//!
//! What is due follows from the allocator and the resources ([`manx_ipam::duties`]). Records are journalled
//! first; what they allow to be written is written by a job, once they are durable, and looked at again with each
//! view and each tick until there is nothing due.

use std::collections::BTreeSet;
use std::time::Duration;

use ipnetwork::IpNetwork;
use manx_api::Resource;
use manx_api::ipam::{IpBlock, LeaseState, block_name};
use manx_ipam::{Duty, Family, Surroundings};
use manx_store::{Error, Store};
use tokio::time::Instant;

use super::assign::{Need, Site};
use super::blocks::{Done, key, read};
use super::{GRACE, IpamError, Task};

/// How long a lender may take before another one is asked.
const LENDERS_TIME: Duration = Duration::from_secs(3);

/// For how long a lender that did not answer is not asked again.
const LENDERS_SILENCE: Duration = Duration::from_secs(60);

/// A part that this node has asked for.
#[derive(Debug)]
pub(super) struct Asked {
    part: IpNetwork,
    /// Of which node.
    lender: String,
    since: Instant,
    /// Whether the view has shown the request: if it is gone then, it was refused.
    seen: bool,
    /// What was asked for before, in vain.
    tried: BTreeSet<IpNetwork>,
    /// Why a lease is needed.
    error: IpamError,
}

impl<S: Store> Task<S> {
    /// Asks for a part of another node's block, unless that is under way for this need.
    pub(super) fn borrow(&mut self, need: Need, error: IpamError) {
        if !self.asked_parts.contains_key(&need) {
            self.propose(need, BTreeSet::new(), error);
        }
    }

    /// Asks for the next part that might be had.
    fn propose(&mut self, need: Need, tried: BTreeSet<IpNetwork>, error: IpamError) {
        let proposals = self.proposals(&need);
        let next = proposals.into_iter().find(|(_, part)| !tried.contains(part));
        let Some((lender, part)) = next else {
            self.failed(need, error, true);
            return self.retry();
        };
        let request = manx_ipam::lease_request(&lender, part, &self.identity.name, self.clock.now());
        tracing::info!(%part, of = %lender.spec.cidr, node = lender.spec.node, "asking for a lease");
        let asked = Asked {
            part,
            lender: lender.spec.node.unwrap_or_default(),
            since: Instant::now(),
            seen: false,
            tried,
            error,
        };
        self.asked_parts.insert(need, asked);
        let store = self.store.clone();
        self.jobs.spawn(async move {
            if let Err(error) = store.create(Resource::IpBlock(request)).await {
                tracing::debug!(%part, %error, "a lease cannot be asked for");
            }
            Done::Wrote
        });
    }

    /// What might be lent for this need.
    fn proposals(&self, need: &Need) -> Vec<(IpBlock, IpNetwork)> {
        let blocks = &self.view.blocks;
        if let Site::Part { of, part } = need.site {
            let lender = blocks.get(&block_name(of));
            return lender.map(|lender| (lender.clone(), part)).into_iter().collect();
        }
        let me = Some(self.identity.name.as_str());
        let is_lender = |block: &&IpBlock| {
            let spec = &block.spec;
            let pool = manx_api::ipam::pool_of(spec.cidr, self.view.pools.values());
            let owner = spec.node.as_ref();
            let silent = owner.and_then(|owner| self.silent_lenders.get(owner));
            let serves = pool.is_some_and(|pool| need.pools.contains(&pool.metadata.name));
            spec.node.is_some()
                && spec.node.as_deref() != me
                && spec.lease.is_none()
                && silent.is_none_or(|since| since.elapsed() >= LENDERS_SILENCE)
                && serves
                && Family::of_network(spec.cidr) == need.family
        };
        let lenders: Vec<&IpBlock> = blocks.values().filter(is_lender).collect();
        let leases = self.leases.iter().map(|lease| lease.spec.cidr).collect();
        let proposals = manx_ipam::proposals(&lenders, &leases, &self.reserved(), &self.identity.name);
        proposals
            .into_iter()
            .map(|(block, part)| (block.clone(), part))
            .collect()
    }

    /// Looks after what was asked for: a request that is gone was refused; one that nobody answers is given up.
    pub(super) fn review_requests(&mut self) {
        let me = self.identity.name.clone();
        let view = self.view.clone();
        let mut over = Vec::new();
        for (need, asked) in &mut self.asked_parts {
            let age = asked.since.elapsed();
            let resource = view.blocks.get(&block_name(asked.part));
            let ours = resource.filter(|block| block.spec.node.as_deref() == Some(me.as_str()));
            let state = ours
                .and_then(|block| block.spec.lease.as_ref())
                .map(|lease| lease.state);
            let in_vain = match state {
                Some(LeaseState::Granted) => false,
                Some(LeaseState::Requested) => age > LENDERS_TIME,
                Some(LeaseState::Returned) => true,
                None => resource.is_some() || asked.seen || age > LENDERS_TIME,
            };
            asked.seen |= state.is_some();
            match state {
                Some(LeaseState::Requested) if in_vain => {
                    self.silent_lenders.insert(asked.lender.clone(), Instant::now());
                }
                Some(LeaseState::Granted) => drop(self.silent_lenders.remove(&asked.lender)),
                Some(LeaseState::Requested | LeaseState::Returned) | None => {}
            }
            if in_vain {
                over.push(need.clone());
            }
        }
        for need in over {
            if let Some(asked) = self.asked_parts.remove(&need) {
                let mut tried = asked.tried;
                tried.insert(asked.part);
                self.propose(need, tried, asked.error);
            }
        }
    }

    /// Journals what is due about leases.
    pub(super) fn journal_leases(&mut self) {
        let mut adopted = false;
        for duty in self.duties() {
            let done = match &duty {
                Duty::Lend { part, to, generation } => self.allocator.lend(*part, to, *generation),
                Duty::TakeBack { part, generation } => {
                    let now = self.clock.now();
                    self.allocator.take_back(*part, *generation, now)
                }
                Duty::Adopt(block) => {
                    adopted = true;
                    self.asked_parts.retain(|_, asked| asked.part != block.spec.cidr);
                    self.allocator.add_block(block)
                }
                Duty::Update(_) | Duty::Create(_) | Duty::Delete(_) => continue,
            };
            match done {
                Ok(record) => {
                    tracing::info!(?duty, "lease");
                    self.staged.push(record);
                }
                // Of two who ask for the same addresses at once, one is refused at the next look.
                Err(error) => tracing::debug!(?duty, %error, "what was due about a lease is not any more"),
            }
        }
        if adopted {
            self.retry();
        }
    }

    /// Writes what is due about leases, once what it follows from is durable.
    pub(super) fn write_leases(&mut self) {
        if !self.leases_due || self.writing_leases || self.journal.is_behind() {
            return;
        }
        self.leases_due = false;
        let is_write = |duty: &Duty| matches!(duty, Duty::Update(_) | Duty::Create(_) | Duty::Delete(_));
        let duties: Vec<Duty> = self.duties().into_iter().filter(is_write).collect();
        if duties.is_empty() {
            return;
        }
        // Whoever borrows chooses by what a checkpoint says is free.
        self.dirty.hurry_all();
        self.writing_leases = true;
        let store = self.store.clone();
        self.jobs.spawn(async move {
            for duty in duties {
                if let Err(error) = write(&store, duty).await {
                    tracing::debug!(%error, "a lease cannot be written yet");
                }
            }
            Done::WroteLeases
        });
    }

    fn duties(&self) -> Vec<Duty> {
        let lends = |block: &manx_ipam::Block| block.lent() > 0;
        if !self.is_recovered() || (self.leases.is_empty() && !self.allocator.blocks().any(lends)) {
            return Vec::new();
        }
        let wanted = self.asked_parts.values().map(|asked| asked.part).collect();
        let blocks = self.allocator.blocks().map(manx_ipam::Block::cidr);
        let around = Surroundings {
            node: &self.identity.name,
            strict: self.view.ipam.strict_affinity,
            wanted: &wanted,
            closed: &blocks.filter(|cidr| self.is_closed(*cidr)).collect(),
            rest: self.rest(),
        };
        manx_ipam::duties(&self.allocator, &self.leases, around)
    }

    /// Lets empty leases go: those of one address at once, others after a while.
    pub(super) fn let_leases_go(&mut self) {
        let is_over = |(cidr, since): &(&IpNetwork, &Instant)| {
            let is_lease = self
                .allocator
                .block(**cidr)
                .is_some_and(manx_ipam::Block::is_leased);
            let single = cidr.iter().nth(1).is_none();
            is_lease && (single || self.is_closed(**cidr) || since.elapsed() >= GRACE)
        };
        let over: Vec<IpNetwork> = self.empty.iter().filter(is_over).map(|(cidr, _)| *cidr).collect();
        for cidr in over {
            match self.allocator.remove_block(cidr) {
                Ok(record) => self.staged.push(record),
                Err(error) => tracing::error!(block = %cidr, %error, "an empty lease stays"),
            }
            self.leases_due = true;
        }
    }

    /// Gives nobody what others have of a block that this node has just become the owner of.
    pub(super) fn carve(&mut self, parts: &[IpBlock]) {
        for part in parts {
            let Some(borrower) = part.spec.node.as_deref() else {
                continue;
            };
            let block = self.allocator.block_of(part.spec.cidr.network());
            if block.is_some_and(|block| block.loans().any(|(lent, _)| lent == part.spec.cidr)) {
                continue;
            }
            match self
                .allocator
                .lend(part.spec.cidr, borrower, part.spec.generation)
            {
                Ok(record) => self.staged.push(record),
                Err(error) => {
                    tracing::error!(part = %part.spec.cidr, %error, "a lease of an earlier owner overlaps another")
                }
            }
        }
    }
}

/// Writes one thing, if the resource is as it was when that became due.
async fn write<S: Store>(store: &S, duty: Duty) -> Result<(), Error> {
    match duty {
        Duty::Update(block) => store.update(Resource::IpBlock(*block)).await.map(drop),
        Duty::Create(block) => store.create(Resource::IpBlock(*block)).await.map(drop),
        Duty::Delete(block) => {
            let Some(present) = read(store, block.spec.cidr).await? else {
                return Ok(());
            };
            if present.spec != block.spec {
                return Ok(());
            }
            let revision = present.metadata.resource_version.as_ref();
            store.delete(&key(block.spec.cidr), revision).await.map(drop)
        }
        Duty::Lend { .. } | Duty::TakeBack { .. } | Duty::Adopt(_) => Ok(()),
    }
}
