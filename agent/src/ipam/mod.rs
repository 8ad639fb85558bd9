//! The ipam task: owner of the node's allocator and its journal.
//!
//! Addresses are assigned from memory. Requests that wait together are planned together, journalled with one
//! sync, and only then answered. What needs the datastore (claiming a block, checkpointing one) runs beside
//! the task and reports back, so that an ADD waits for it only when every block is full.
//!
//! In each life: the journal's allocator is here at the start and serves at once; when the first view is in,
//! blocks that are ours in the datastore and unknown to the journal are taken over ([`recovery`]); from then
//! on the task is *recovered*, and claims blocks so that each family has a free address at hand.

mod blocks;
pub mod recovery;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use manx_api::ipam::{Allocation, AttachmentId, IpPool, block_name};
use manx_api::status::BlockStatus;
use manx_ipam::journal::Record;
use manx_ipam::{Allocator, AssignError, Family, Live};
use manx_store::Store;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use self::blocks::Done;
use crate::ask::answer;
use crate::blocking;
use crate::identity::Identity;
use crate::journal::{Journal, JournalError};
use crate::metrics::Metrics;
use crate::ready::Guard;
use crate::view::View;

/// Requests planned together, at most.
const BATCH: usize = 256;

/// How often checkpoints go out and overdue requests are refused.
const TICK: Duration = Duration::from_secs(1);

/// How long an ADD waits for a block.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pause before a claim that nobody waits for is tried again.
const CLAIM_PAUSE: Duration = Duration::from_secs(5);

/// The blocks of this node, each with the name of its pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned(pub BTreeMap<IpNetwork, String>);

impl Owned {
    /// The blocks that `node` announces: all but those of pools that say otherwise, and those that the
    /// datastore gives to another node, which announces them itself.
    #[must_use]
    pub fn exported(&self, view: &View, node: &str) -> BTreeSet<IpNetwork> {
        let hidden = |pool: &String| {
            view.pools
                .get(pool)
                .is_some_and(|pool| pool.spec.disable_bgp_export)
        };
        self.0
            .iter()
            .filter(|(cidr, pool)| !hidden(pool) && !is_elsewhere(view, **cidr, node))
            .map(|(cidr, _)| *cidr)
            .collect()
    }
}

/// Whether the datastore says that another node than `node` owns the block.
fn is_elsewhere(view: &View, block: IpNetwork, node: &str) -> bool {
    let owner = view
        .blocks
        .get(&block_name(block))
        .and_then(|block| block.spec.node.as_deref());
    owner.is_some_and(|owner| owner != node)
}

/// A request to the ipam task.
#[derive(Debug)]
pub enum Request {
    /// One address of each family that has a pool; those held already, where there are any.
    Assign {
        /// For whom.
        owner: AttachmentId,
        /// Answered when the journal has it.
        reply: oneshot::Sender<Result<Assigned, IpamError>>,
    },
    /// What an attachment holds.
    Held {
        /// `CNI_CONTAINERID`.
        container_id: String,
        /// `CNI_IFNAME`.
        ifname: String,
        /// Ordered by address.
        reply: oneshot::Sender<Vec<Allocation>>,
    },
    /// Frees what an attachment holds; nothing, where it holds nothing.
    Release {
        /// `CNI_CONTAINERID`.
        container_id: String,
        /// `CNI_IFNAME`.
        ifname: String,
        /// What was held; answered when the journal has it.
        reply: oneshot::Sender<Result<Vec<Allocation>, IpamError>>,
    },
    /// Every allocation, once the task is recovered.
    Recovered(oneshot::Sender<Vec<Allocation>>),
    /// The blocks and who holds what, now.
    Show(oneshot::Sender<Vec<BlockStatus>>),
}

/// What an attachment got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// One address per family.
    pub allocations: Vec<Allocation>,
    /// Whether it held none of them before.
    pub fresh: bool,
}

/// Why addresses could not be assigned or released.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// No pool gives this node addresses.
    #[error("no IPPool gives addresses to node {node}: create one, or enable one that selects this node")]
    NoPool {
        /// This node.
        node: String,
    },
    /// Every block of the pools belongs to a node, and this node's are full.
    #[error("no free {family} address: every block of the pools [{}] is taken; add an IPPool", .pools.join(", "))]
    Exhausted {
        /// The family.
        family: Family,
        /// The pools that were tried.
        pools: Vec<String>,
    },
    /// No block could be claimed in time.
    #[error("no block of addresses could be claimed yet: {reason}")]
    NotYet {
        /// What the datastore said, or that it says nothing.
        reason: String,
    },
    /// The journal cannot be written: nothing may be promised.
    #[error("the address journal cannot be written: {reason}")]
    Journal {
        /// What the file system said.
        reason: String,
    },
}

/// What the task starts with and works with.
#[derive(Debug)]
pub struct Inbox<S> {
    /// Who we are.
    pub identity: Arc<Identity>,
    /// The datastore.
    pub store: S,
    /// The cluster.
    pub view: watch::Receiver<Arc<View>>,
    /// Where our blocks are published.
    pub owned: watch::Sender<Arc<Owned>>,
    /// Requests.
    pub requests: mpsc::Receiver<Request>,
    /// What the journal said, compared with `live`.
    pub allocator: Allocator,
    /// The journal.
    pub journal: Journal,
    /// The pods' interfaces that existed when the agent started.
    pub live: Vec<Live<String>>,
    /// What is counted.
    pub metrics: Metrics,
    /// Done when each family has a block.
    pub claimed: Guard,
}

/// An answer that waits for the journal.
enum Answer {
    Assigned {
        reply: oneshot::Sender<Result<Assigned, IpamError>>,
        assigned: Assigned,
        /// What to undo where the journal fails.
        new: Vec<Allocation>,
    },
    Released {
        reply: oneshot::Sender<Result<Vec<Allocation>, IpamError>>,
        allocations: Vec<Allocation>,
    },
}

/// An ADD that waits for a block.
struct Waiting {
    owner: AttachmentId,
    reply: oneshot::Sender<Result<Assigned, IpamError>>,
    until: Instant,
}

struct Task<S> {
    identity: Arc<Identity>,
    store: S,
    view: Arc<View>,
    owned: watch::Sender<Arc<Owned>>,
    allocator: Allocator,
    journal: Journal,
    live: Vec<Live<String>>,
    metrics: Metrics,
    claimed: Option<Guard>,
    /// What runs beside the task.
    jobs: JoinSet<Done>,
    recovery: Recovery,
    /// Families with a claim under way.
    claiming: BTreeSet<Family>,
    /// When a claim that failed may be tried again without need.
    cooling: BTreeMap<Family, Instant>,
    waiting: Vec<Waiting>,
    /// Who wants to know that the task is recovered.
    asked: Vec<oneshot::Sender<Vec<Allocation>>>,
    /// Blocks to checkpoint.
    dirty: BTreeSet<IpNetwork>,
    checkpointing: bool,
    staged: Vec<Record>,
    answers: Vec<Answer>,
}

/// How far the blocks of an earlier life are taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recovery {
    Due,
    Running,
    Done,
}

/// Runs until the agent ends.
pub async fn run<S: Store>(inbox: Inbox<S>) {
    let Inbox {
        identity,
        store,
        mut view,
        owned,
        mut requests,
        allocator,
        journal,
        live,
        metrics,
        claimed,
    } = inbox;
    let mut task = Task {
        identity,
        store,
        view: view.borrow_and_update().clone(),
        owned,
        dirty: allocator.blocks().map(manx_ipam::Block::cidr).collect(),
        allocator,
        journal,
        live,
        metrics,
        claimed: Some(claimed),
        jobs: JoinSet::new(),
        recovery: Recovery::Due,
        claiming: BTreeSet::new(),
        cooling: BTreeMap::new(),
        waiting: Vec::new(),
        asked: Vec::new(),
        checkpointing: false,
        staged: Vec::new(),
        answers: Vec::new(),
    };
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::with_capacity(BATCH);
    task.publish();
    loop {
        task.advance();
        tokio::select! {
            // What requests wait for, and what comes seldom, before the requests, which may never pause.
            biased;
            Some(done) = task.jobs.join_next() => task.finished(done),
            Ok(()) = view.changed() => {
                task.view = view.borrow_and_update().clone();
                task.cooling.clear();
                task.mark_deleted();
            }
            _ = tick.tick() => task.tick(),
            count = requests.recv_many(&mut batch, BATCH) => match count {
                0 => return,
                _ => batch.drain(..).for_each(|request| task.plan(request)),
            },
        }
        task.commit();
    }
}

impl<S: Store> Task<S> {
    fn plan(&mut self, request: Request) {
        match request {
            Request::Assign { owner, reply } => {
                self.assign(Waiting {
                    owner,
                    reply,
                    until: Instant::now() + PATIENCE,
                });
            }
            Request::Release {
                container_id,
                ifname,
                reply,
            } => {
                let release = self.allocator.release(&container_id, &ifname);
                let allocations = release.map_or_else(Vec::new, |release| {
                    self.staged.push(release.record);
                    release.allocations
                });
                self.answers.push(Answer::Released { reply, allocations });
            }
            Request::Held {
                container_id,
                ifname,
                reply,
            } => {
                answer(reply, self.allocator.held_by(&container_id, &ifname).collect());
            }
            Request::Recovered(reply) => self.asked.push(reply),
            Request::Show(reply) => answer(reply, self.status()),
        }
    }

    /// Assigns, or claims a block and lets the request wait for it.
    fn assign(&mut self, request: Waiting) {
        let pools = self.usable();
        if pools.is_empty() && self.recovery == Recovery::Done {
            let node = self.identity.name.clone();
            return answer(request.reply, Err(IpamError::NoPool { node }));
        }
        if pools.is_empty() {
            return self.waiting.push(request);
        }
        let held: Vec<_> = self
            .allocator
            .held_by(&request.owner.container_id, &request.owner.ifname)
            .collect();
        let families: Vec<Family> = pools.keys().copied().collect();
        let names: Vec<String> = pools
            .values()
            .flatten()
            .map(|pool| pool.metadata.name.clone())
            .collect();
        let asked = manx_ipam::Request {
            owner: &request.owner,
            families: &families,
            pools: &names,
            closed: &self.closed(),
        };
        match self.allocator.assign(&asked) {
            Ok(assignment) => {
                self.staged.extend(assignment.record);
                let allocations = assignment.allocations;
                let new = allocations
                    .iter()
                    .filter(|allocation| !held.contains(allocation))
                    .cloned()
                    .collect();
                let assigned = Assigned {
                    allocations,
                    fresh: held.is_empty(),
                };
                self.answers.push(Answer::Assigned {
                    reply: request.reply,
                    assigned,
                    new,
                });
            }
            Err(AssignError::NoRoom { family, pools: _ }) => {
                self.waiting.push(request);
                self.claim(family);
            }
        }
    }

    /// Makes what was planned durable, then answers; what cannot be made durable is undone and refused.
    fn commit(&mut self) {
        let records = std::mem::take(&mut self.staged);
        let answers = std::mem::take(&mut self.answers);
        if records.is_empty() && !self.journal.is_behind() {
            answers.into_iter().for_each(Answer::send);
            return self.announce_recovery();
        }
        let begun = Instant::now();
        let outcome = blocking::in_place(|| self.journal.commit(&records, &self.allocator));
        self.metrics.journal_commit.observe(begun.elapsed().as_secs_f64());
        match outcome {
            Ok(()) => answers.into_iter().for_each(Answer::send),
            Err(error) => self.undo(answers, &error),
        }
        self.touch(&records);
        self.publish();
        self.announce_recovery();
    }

    /// Answers those who wait for the recovery, after its blocks were published.
    fn announce_recovery(&mut self) {
        if self.recovery == Recovery::Done {
            for reply in std::mem::take(&mut self.asked) {
                answer(reply, self.allocator.allocations().collect());
            }
        }
    }

    fn undo(&mut self, answers: Vec<Answer>, error: &JournalError) {
        tracing::error!(%error, "the address journal cannot be written; requests are refused");
        for answer in answers {
            for allocation in answer.new_allocations() {
                // The next commit writes the whole journal anew, without it: the record is not needed.
                drop(
                    self.allocator
                        .release_address(allocation.address, allocation.sequence),
                );
            }
            answer.refuse(&IpamError::Journal {
                reason: error.to_string(),
            });
        }
    }

    /// Marks the blocks that records changed for a checkpoint.
    fn touch(&mut self, records: &[Record]) {
        let addresses = records.iter().flat_map(|record| match record {
            Record::Assigned(allocations) => allocations.iter().map(|a| a.address).collect::<Vec<_>>(),
            Record::Released(freed) => freed.iter().map(|f| f.address).collect(),
            Record::BlockAdded(_) | Record::BlockRemoved { .. } => Vec::new(),
        });
        for address in addresses {
            let block = self
                .allocator
                .blocks()
                .find(|block| block.cidr().contains(address));
            self.dirty.extend(block.map(manx_ipam::Block::cidr));
        }
    }

    /// Marks blocks of ours that the datastore has not (any more) for a checkpoint, which makes them anew:
    /// their addresses are in use, and no other node may claim them.
    fn mark_deleted(&mut self) {
        let absent = |cidr: &IpNetwork| !self.view.blocks.contains_key(&block_name(*cidr));
        self.dirty
            .extend(self.allocator.blocks().map(manx_ipam::Block::cidr).filter(absent));
    }

    /// Our blocks that the datastore gives to another node: somebody edited them, or this node was away until
    /// its blocks were given up. They assign nothing more, so that no address is held twice.
    fn closed(&self) -> BTreeSet<IpNetwork> {
        let node = &self.identity.name;
        self.allocator
            .blocks()
            .map(manx_ipam::Block::cidr)
            .filter(|cidr| is_elsewhere(&self.view, *cidr, node))
            .collect()
    }

    /// Publishes the blocks if they changed, and counts.
    fn publish(&self) {
        let blocks = self
            .allocator
            .blocks()
            .map(|block| (block.cidr(), block.pool().to_owned()));
        let owned = Owned(blocks.collect());
        self.metrics
            .blocks
            .set(i64::try_from(owned.0.len()).unwrap_or(i64::MAX));
        let held: usize = self
            .allocator
            .blocks()
            .map(|block| block.capacity() - block.free())
            .sum();
        self.metrics
            .addresses
            .set(i64::try_from(held).unwrap_or(i64::MAX));
        self.owned.send_if_modified(|published| {
            let changed = **published != owned;
            if changed {
                *published = Arc::new(owned);
            }
            changed
        });
    }

    /// The pools that this node may take addresses from, by family and name.
    fn usable(&self) -> BTreeMap<Family, Vec<IpPool>> {
        let mut usable: BTreeMap<Family, Vec<IpPool>> = BTreeMap::new();
        let labels = self
            .view
            .nodes
            .get(&self.identity.name)
            .map_or(&self.identity.labels, |node| &node.metadata.labels);
        let open = |pool: &&IpPool| !pool.spec.disabled && pool.spec.node_selector.matches(labels);
        for pool in self.view.pools.values().filter(open) {
            usable
                .entry(Family::of_network(pool.spec.cidr))
                .or_default()
                .push(pool.clone());
        }
        usable
    }

    fn tick(&mut self) {
        let now = Instant::now();
        let (overdue, waiting): (Vec<_>, Vec<_>) =
            self.waiting.drain(..).partition(|request| request.until <= now);
        self.waiting = waiting;
        for request in overdue {
            answer(
                request.reply,
                Err(IpamError::NotYet {
                    reason: "the datastore does not answer".to_owned(),
                }),
            );
        }
        self.checkpoint();
    }

    fn status(&self) -> Vec<BlockStatus> {
        let status = |block: &manx_ipam::Block| BlockStatus {
            node: self.identity.name.clone(),
            cidr: block.cidr(),
            pool: block.pool().to_owned(),
            capacity: u64::try_from(block.capacity()).unwrap_or(u64::MAX),
            allocations: block.allocations().collect(),
        };
        self.allocator.blocks().map(status).collect()
    }
}

impl Answer {
    fn send(self) {
        match self {
            Self::Assigned { reply, assigned, .. } => answer(reply, Ok(assigned)),
            Self::Released { reply, allocations } => answer(reply, Ok(allocations)),
        }
    }

    fn refuse(self, error: &IpamError) {
        match self {
            Self::Assigned { reply, .. } => answer(reply, Err(error.clone())),
            Self::Released { reply, .. } => answer(reply, Err(error.clone())),
        }
    }

    fn new_allocations(&self) -> &[Allocation] {
        match self {
            Self::Assigned { new, .. } => new,
            Self::Released { .. } => &[],
        }
    }
}
