//! The ipam task: owner of the node's allocator and its journal.
//!
//! Addresses are assigned from memory. Requests that wait together are planned together, journalled with one
//! sync, and only then answered. What needs the datastore (claiming a block, checkpointing one) runs beside
//! the task and reports back, so that an ADD waits for it only when every block is full.
//!
//! In each life: the journal's allocator is here at the start and serves at once; when the first view is in,
//! blocks that are ours in the datastore and unknown to the journal are taken over (`takeover`); from then
//! on the task is *recovered*, and claims blocks so that each family has a free address at hand.

mod assign;
mod blocks;
mod checkpoint;
mod clock;
mod commit;
mod count;
mod leases;
mod owned;
pub mod recovery;
mod surplus;
mod takeover;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use manx_api::ipam::{Allocation, AttachmentId, IpBlock, QUARANTINE, block_name, pool_of};
use manx_api::status::BlockStatus;
use manx_ipam::journal::Record;
use manx_ipam::{Allocator, AnnotationError, Family, HoldError, Live, PlaceError, Reserved, Rest};
use manx_store::Store;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

pub use self::assign::Wish;
use self::assign::{Failure, Need, Waiting};
use self::blocks::Done;
use self::checkpoint::Dirty;
pub use self::clock::Clock;
use self::commit::Answer;
use self::leases::Asked;
pub use self::owned::Owned;
use self::owned::is_elsewhere;
use self::surplus::Spare;
use crate::ask::answer;
use crate::identity::Identity;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::ready::Guard;
use crate::view::View;

/// Requests planned together, at most.
const BATCH: usize = 256;

/// How often checkpoints go out and overdue requests are refused.
const TICK: Duration = Duration::from_secs(1);

/// How long a block or a lease is kept at least after its last address was freed; a block longer, where addresses rest
/// longer, and a lease of one address not at all.
const GRACE: Duration = Duration::from_secs(60);

/// How long an ADD waits for a block.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pause before a claim that nobody waits for is tried again.
const CLAIM_PAUSE: Duration = Duration::from_secs(5);

/// A request to the ipam task.
#[derive(Debug)]
pub enum Request {
    /// One address of each family that has a pool for the pod; those held already, where there are any.
    Assign {
        /// For whom.
        owner: AttachmentId,
        /// What is said of the pod.
        wish: Wish,
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
    /// What the datastore is not told yet is to be told: somebody is about to compare.
    Checkpoint,
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
    /// No pool gives the pod addresses.
    #[error("no IPPool gives addresses to pods of namespace {namespace} on node {node}: create one, or enable one that \
             selects both{}", explained(.why))]
    NoPool {
        /// This node.
        node: String,
        /// The pod's namespace.
        namespace: String,
        /// What is against the pools that there are.
        why: Vec<String>,
    },
    /// An annotation cannot be obeyed.
    #[error(transparent)]
    Annotation(#[from] AnnotationError),
    /// The address that was asked for cannot be had.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// The address that was asked for can be had by nobody, or is somebody else's.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The address that was asked for is in another node's block.
    #[error(
        "{address} is in block {block}, which node {node} owns: run the pod there, or ask for another address"
    )]
    Elsewhere {
        /// The address.
        address: IpAddr,
        /// The block.
        block: IpNetwork,
        /// Its owner.
        node: String,
    },
    /// The node may not have more blocks.
    #[error(
        "no free {family} address: node {node} has {max} blocks, the most that maxBlocksPerHost allows; raise it in \
             the IPAMConfiguration, or set it to 0"
    )]
    Limit {
        /// The family.
        family: Family,
        /// This node.
        node: String,
        /// The limit.
        max: u32,
    },
    /// The node may not claim blocks.
    #[error(
        "no free {family} address: the IPAMConfiguration's autoAllocateBlocks is false, so that node {node} claims \
             no further block"
    )]
    NoClaims {
        /// The family.
        family: Family,
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

impl IpamError {
    /// Whether no block can be had, of which others may have addresses to spare.
    pub(crate) fn is_shortage(&self) -> bool {
        matches!(
            self,
            Self::Exhausted { .. } | Self::Limit { .. } | Self::NoClaims { .. }
        )
    }
}

fn explained(why: &[String]) -> String {
    match why {
        [] => String::new(),
        why => format!(" ({})", why.join(". ")),
    }
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
    /// What time it is.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Metrics,
    /// Done when each family has a block.
    pub claimed: Guard,
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
    clock: Clock,
    /// Needs with a claim under way.
    claiming: BTreeSet<Need>,
    /// Needs that could not be met a moment ago.
    failures: BTreeMap<Need, Failure>,
    /// Leases of ours, and of our blocks, in the view.
    leases: Vec<IpBlock>,
    /// Parts that were asked for.
    asked_parts: BTreeMap<Need, Asked>,
    /// Lenders that did not answer, and when that was noticed.
    silent_lenders: BTreeMap<String, Instant>,
    /// Since when blocks are empty.
    empty: BTreeMap<IpNetwork, Instant>,
    /// Whether something may have to be written about leases, and whether that is under way.
    leases_due: bool,
    writing_leases: bool,
    waiting: Vec<Waiting>,
    /// Who wants to know that the task is recovered.
    asked: Vec<oneshot::Sender<Vec<Allocation>>>,
    /// Blocks to checkpoint.
    dirty: Dirty,
    checkpointing: bool,
    spare: Spare,
    staged: Vec<Record>,
    answers: Vec<Answer>,
}

/// How far the blocks of an earlier life are taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recovery {
    Due,
    Running,
    Done,
    /// Done, and blocks are being taken over that have come to be ours unnoticed.
    Again,
}

/// The task, and what it waits for.
fn begin<S>(inbox: Inbox<S>) -> (Task<S>, watch::Receiver<Arc<View>>, mpsc::Receiver<Request>) {
    let Inbox {
        identity,
        store,
        mut view,
        owned,
        requests,
        allocator,
        journal,
        live,
        clock,
        metrics,
        claimed,
    } = inbox;
    let mut task = Task {
        identity,
        store,
        view: view.borrow_and_update().clone(),
        owned,
        dirty: Dirty::default(),
        allocator,
        journal,
        live,
        metrics,
        claimed: Some(claimed),
        jobs: JoinSet::new(),
        recovery: Recovery::Due,
        clock,
        claiming: BTreeSet::new(),
        failures: BTreeMap::new(),
        leases: Vec::new(),
        asked_parts: BTreeMap::new(),
        silent_lenders: BTreeMap::new(),
        empty: BTreeMap::new(),
        leases_due: true,
        writing_leases: false,
        waiting: Vec::new(),
        asked: Vec::new(),
        checkpointing: false,
        spare: Spare::default(),
        staged: Vec::new(),
        answers: Vec::new(),
    };
    let known: Vec<IpNetwork> = task.allocator.blocks().map(manx_ipam::Block::cidr).collect();
    known.into_iter().for_each(|cidr| task.dirty.changed(cidr));
    (task, view, requests)
}

/// Runs until the agent ends.
pub async fn run<S: Store>(inbox: Inbox<S>) {
    let (mut task, mut view, mut requests) = begin(inbox);
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
                let view = view.borrow_and_update().clone();
                task.look(view);
            }
            _ = tick.tick() => task.tick(),
            count = requests.recv_many(&mut batch, BATCH) => match count {
                0 => return,
                _ => batch.drain(..).for_each(|request| task.plan(request)),
            },
        }
        task.journal_leases();
        task.commit();
        task.write_leases();
    }
}

impl<S: Store> Task<S> {
    fn plan(&mut self, request: Request) {
        match request {
            Request::Assign { owner, wish, reply } => {
                self.assign(Waiting {
                    owner,
                    wish,
                    reply,
                    until: Instant::now() + PATIENCE,
                });
            }
            Request::Release {
                container_id,
                ifname,
                reply,
            } => {
                let allocations = self.release(&container_id, &ifname);
                self.answers.push(Answer::Released { reply, allocations });
            }
            Request::Held {
                container_id,
                ifname,
                reply,
            } => {
                let held = recovery::held(&self.allocator, &container_id, &ifname);
                answer(reply, held);
            }
            Request::Recovered(reply) => self.asked.push(reply),
            Request::Show(reply) => answer(reply, self.status()),
            Request::Checkpoint => self.dirty.hurry_all(),
        }
    }

    /// Frees what an attachment holds, also where only its interface is known to hold it.
    fn release(&mut self, container_id: &str, ifname: &str) -> Vec<Allocation> {
        let (interface, now) = (recovery::interface(container_id, ifname), self.clock.now());
        let mut freed = Vec::new();
        for (container_id, ifname) in [(container_id, ifname), (QUARANTINE, &interface)] {
            if let Some(release) = self.allocator.release(container_id, ifname, now) {
                self.staged.push(release.record);
                freed.extend(release.allocations);
            }
        }
        // Whatever is recovered later, it is gone.
        self.live.retain(|live| live.interface != interface);
        freed
    }

    /// Takes in what the cluster is by now.
    fn look(&mut self, view: Arc<View>) {
        self.view = view;
        self.failures.clear();
        self.allocator.reserve(self.reserved());
        let leases = self
            .view
            .blocks
            .values()
            .filter(|block| block.spec.lease.is_some());
        self.leases = leases.cloned().collect();
        self.leases_due = true;
        self.review_requests();
        self.mark_stale();
    }

    /// What is reserved.
    fn reserved(&self) -> Reserved {
        let reserved = self.view.reservations.values();
        Reserved::new(reserved.flat_map(|reservation| reservation.spec.reserved_cidrs.iter().copied()))
    }

    fn is_recovered(&self) -> bool {
        matches!(self.recovery, Recovery::Done | Recovery::Again)
    }

    /// How long freed addresses rest.
    fn rest(&self) -> Rest {
        Rest {
            now: self.clock.now(),
            seconds: self.view.ipam.ip_cooldown_seconds.into(),
        }
    }

    /// Marks blocks of ours for a checkpoint that the datastore has not (any more), which makes them anew: their
    /// addresses are in use, and no other node may claim them. And those whose pool was split.
    fn mark_stale(&mut self) {
        let stale = |block: &&manx_ipam::Block| {
            let stored = self.view.blocks.get(&block_name(block.cidr()));
            stored.is_none_or(|stored| stored.spec.pool != self.pool_of(block))
        };
        let stale = self.allocator.blocks().filter(stale).map(manx_ipam::Block::cidr);
        let stale: Vec<IpNetwork> = stale.collect();
        stale.into_iter().for_each(|cidr| self.dirty.hurry(cidr));
    }

    /// The name of the pool that a block belongs to by now; while there is none, of the one it was claimed from.
    fn pool_of(&self, block: &manx_ipam::Block) -> String {
        let pool = pool_of(block.cidr(), self.view.pools.values());
        pool.map_or_else(|| block.pool().to_owned(), |pool| pool.metadata.name.clone())
    }

    /// Whether the datastore gives a block of ours to another node or to nobody: somebody edited it, or this node was
    /// away until its blocks were given up. It assigns nothing more, so that no address is held twice.
    fn is_closed(&self, block: IpNetwork) -> bool {
        let own = self.allocator.block(block);
        match self.view.blocks.get(&block_name(block)) {
            Some(stored) => {
                let is_nobodys = own.is_some_and(|own| takeover::is_nobodys(stored, own));
                is_nobodys || is_elsewhere(&self.view, block, &self.identity.name)
            }
            // A block that somebody deleted is made anew; a lease may have been returned in this node's name.
            None => self.view.complete && own.is_some_and(manx_ipam::Block::is_leased),
        }
    }

    /// Publishes the blocks if they changed, and counts.
    fn publish(&self) {
        let owned = Owned {
            blocks: self.allocator.blocks().map(manx_ipam::Block::cidr).collect(),
            recovered: self.is_recovered(),
        };
        self.metrics
            .blocks
            .set(i64::try_from(owned.blocks.len()).unwrap_or(i64::MAX));
        let held: usize = self.allocator.blocks().map(manx_ipam::Block::held).sum();
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
        self.leases_due = true;
        self.review_requests();
        self.note_empty();
        self.let_leases_go();
        self.checkpoint();
        self.count();
        self.give_surplus_back();
        self.take_over_strays();
    }

    fn status(&self) -> Vec<BlockStatus> {
        let rest = self.rest();
        let status = |block: &manx_ipam::Block| BlockStatus {
            node: self.identity.name.clone(),
            cidr: block.cidr(),
            pool: self.pool_of(block),
            capacity: u64::try_from(block.capacity()).unwrap_or(u64::MAX),
            cooling: u64::try_from(block.cooling(rest)).unwrap_or(u64::MAX),
            allocations: block.allocations().collect(),
        };
        self.allocator.blocks().map(status).collect()
    }
}
