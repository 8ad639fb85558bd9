//! The cni task: CNI's calls, in order per attachment and side by side otherwise.
//!
//! A runtime may repeat a call that it lost patience with while the first is still under way. So jobs of one
//! attachment queue up, and the second ADD finds what the first one made.

mod flow;
mod review;
mod traits;

use std::collections::{HashMap, VecDeque};

use manx_api::ipam::Release;
use manx_api::rpc::RpcError;
use manx_api::status::BlockStatus;
use manx_cni::{Attachment, Call, Code, Error, Success};
use manx_ipam::Settled;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinSet};

pub use self::flow::Parts;
pub(crate) use self::flow::attachment_of;
pub use self::traits::Traits;
use crate::supervise;

/// Something to do about attachments.
#[derive(Debug)]
pub enum Job {
    /// CNI ADD.
    Add {
        /// The runtime's call.
        call: Box<Call>,
        /// What came of it.
        reply: oneshot::Sender<Result<Success, Error>>,
    },
    /// CNI DEL.
    Del {
        /// Which attachment.
        attachment: Attachment,
        /// What came of it.
        reply: oneshot::Sender<Result<(), Error>>,
    },
    /// CNI CHECK.
    Check {
        /// The runtime's call.
        call: Box<Call>,
        /// What came of it.
        reply: oneshot::Sender<Result<(), Error>>,
    },
    /// CNI GC.
    Collect {
        /// Of which network.
        network: String,
        /// Every attachment to it that is still alive.
        valid: Vec<Attachment>,
        /// What came of it.
        reply: oneshot::Sender<Result<(), Error>>,
    },
    /// Routes and describes an attachment of an earlier life.
    Restore {
        /// Which.
        attachment: Attachment,
        /// What there is of it, or why it could not be taken up.
        reply: oneshot::Sender<Result<Restored, Error>>,
    },
    /// Gives a link that Calico made its name here, under which rules find it.
    Adopt {
        /// Whose.
        attachment: Attachment,
        /// Done, or why not.
        reply: oneshot::Sender<Result<(), Error>>,
    },
    /// Carries out what a tombstone stands for, and removes it.
    Bury(Attachment),
    /// Frees an address that an operator takes for lost, if nobody has it.
    Release {
        /// Who was given the address.
        attachment: Attachment,
        /// Which allocation.
        release: Release,
        /// What came of it.
        reply: oneshot::Sender<Result<Settled, Error>>,
    },
}

/// What there is of an attachment of an earlier life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// Its link, or nothing any more.
    Ours,
    /// A link that Calico made, which is to be adopted once rules are in force.
    Calicos,
}

impl Job {
    /// Which attachment it is about; none: all.
    fn attachment(&self) -> Option<&Attachment> {
        match self {
            Self::Add { call, .. } | Self::Check { call, .. } => Some(&call.attachment),
            Self::Del { attachment, .. }
            | Self::Restore { attachment, .. }
            | Self::Adopt { attachment, .. }
            | Self::Release { attachment, .. }
            | Self::Bury(attachment) => Some(attachment),
            Self::Collect { .. } => None,
        }
    }
}

/// What the task works with.
#[derive(Debug)]
pub struct Inbox {
    /// Jobs.
    pub jobs: mpsc::Receiver<Job>,
    /// What they are done with.
    pub parts: Parts,
}

/// Jobs by attachment: the one that runs is not among them.
#[derive(Debug, Default)]
struct Queues {
    waiting: HashMap<Attachment, VecDeque<Job>>,
    running: HashMap<Id, Attachment>,
    tasks: JoinSet<()>,
}

/// Runs until nobody can send jobs any more, and every job is done.
pub async fn run(inbox: &mut Inbox) {
    let mut queues = Queues::default();
    let mut open = true;
    while open || !queues.tasks.is_empty() {
        tokio::select! {
            // Jobs that stand in line come before those that join it.
            biased;
            Some(ended) = queues.tasks.join_next_with_id() => queues.ended(ended, &inbox.parts),
            job = inbox.jobs.recv(), if open => match job {
                Some(job) => queues.submit(job, &inbox.parts),
                None => open = false,
            },
        }
    }
}

impl Queues {
    fn submit(&mut self, job: Job, parts: &Parts) {
        let Some(attachment) = job.attachment().cloned() else {
            self.tasks.spawn(flow::run(job, parts.clone()));
            return;
        };
        match self.waiting.get_mut(&attachment) {
            Some(queue) => queue.push_back(job),
            None => {
                self.waiting.insert(attachment.clone(), VecDeque::new());
                self.start(attachment, job, parts);
            }
        }
    }

    fn start(&mut self, attachment: Attachment, job: Job, parts: &Parts) {
        let task = self.tasks.spawn(flow::run(job, parts.clone()));
        self.running.insert(task.id(), attachment);
    }

    /// Starts the next job of the attachment whose job ended. A job that panicked is a job that ended: its
    /// caller hears that there is no answer.
    fn ended(&mut self, ended: Result<(Id, ()), JoinError>, parts: &Parts) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                let id = error.id();
                let panic = supervise::panic_of(error);
                tracing::error!(reason = supervise::reason(&*panic), "a CNI call panicked");
                id
            }
        };
        let Some(attachment) = self.running.remove(&id) else {
            return;
        };
        match self.waiting.get_mut(&attachment).and_then(VecDeque::pop_front) {
            Some(job) => self.start(attachment, job, parts),
            None => drop(self.waiting.remove(&attachment)),
        }
    }
}

/// CNI STATUS: whether an ADD could succeed.
///
/// # Errors
/// [`Code::NotAvailable`], with what is waited for, or the family without a free address.
pub fn available(waiting_for: &[String], blocks: &[BlockStatus]) -> Result<(), RpcError> {
    if waiting_for.iter().any(|what| what == BLOCKS) {
        let message = format!(
            "node is not ready for pods: waiting for {}",
            waiting_for.join(", ")
        );
        return Err(Error::new(Code::NotAvailable, message).into());
    }
    for (family, is_of) in [("IPv4", true), ("IPv6", false)] {
        let of_family = || blocks.iter().filter(|block| block.cidr.is_ipv4() == is_of);
        let free = |block: &BlockStatus| {
            u64::try_from(block.allocations.len()).is_ok_and(|held| held < block.capacity)
        };
        if of_family().next().is_some() && !of_family().any(free) {
            let message =
                format!("every {family} address of this node's blocks is held: add an IPPool, or end pods");
            return Err(Error::new(Code::NotAvailable, message).into());
        }
    }
    Ok(())
}

/// What readiness calls the wait for blocks of addresses.
pub const BLOCKS: &str = "address blocks";
