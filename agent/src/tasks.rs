//! The task graph: which tasks there are, what flows between them, and what their ends mean.
//!
//! ```text
//!  store watch ──view──┬─► node task (1x)      writes our own Node resource
//!     (1x)             ├─► policy task (1x) ◄──join, leave, look── cni task     linux: rules and sets; one owner
//!                      ├─► announcing task (1x) ──services' prefixes──► bgp task
//!                      ├─► reclaim task (1x)   frees deleted nodes' blocks
//!                      ├─► releases task (1x)  hands operators' releases to the cni task
//!                      ├─► ipam task (1x) ◄──assign, release── cni task (1x) ──attach, detach──► endpoint task (1x)
//!                      │      │                                  ▲   │  │ one job per attachment   linux: pods' links
//!                      │      │      tombstone task (1x) ──bury──┤   │  └─put, remove─► workload task (1x)
//!                      │      │      connections (Nx) ──calls────┘   │                  writes WorkloadEndpoints
//!                      │      │                                      │
//!                      │      ├─owned blocks─────────────────────┐   └─pods' routes─┐
//!                      │      ▼                                  ▼                  ▼
//!                      └─► bgp task (1x) ──selected routes──► route task (1x)   linux: netlink routes; one owner
//!                             ▲ │
//!                    events   │ ▼ peers, announcements
//!                          speaker, on its own runtime thread: one reader and one writer per peer (Nx)
//! ```
//!
//! The policy task also hands what is wrong with policies to the verdicts task (1x), which writes it to their status.
//! The denies task (1x) has the policy task write rules that log while somebody follows denied packets, and asks it what
//! those say; it alone listens to what the kernel logs.
//!
//! In a Kubernetes cluster there is no workload task: WorkloadEndpoints are the cluster's Pods, and an ADD waits until the
//! policy task has heard of its own. The node task hears of Kubernetes' node, and tells the availability task (1x), which says there
//! whether pods have their network. The events task (1x) records what the cni and verdicts tasks have for operators,
//! and the sessions task (1x), which asks the bgp task how peers' sessions are.
//!
//! The cni task also asks the conntrack task (1x), which has the kernel forget the connections of pods that went.
//!
//! Every arrow is a bounded channel or a last-writer-wins value (view, owned blocks, what is in force); answers
//! are `oneshot`s. Arrows only point down or right, so no two tasks ever wait for each other. Four tasks enter
//! the kernel, so that neither a full table being programmed nor somebody else's lock on iptables holds up a
//! pod's link.
//!
//! | task | after a panic |
//! |---|---|
//! | store watch, announcing, node, availability, events, sessions, verdicts, reclaim, releases, workload, endpoint, conntrack, denies, cni, connections | runs again: its state is in the store, the kernel or its inbox |
//! | ipam, bgp, route, policy, tombstones, HTTP | the agent ends non-zero and is started again: start-up adopts what is there |
//!
//! Neither touches the kernel, so packets flow on.

mod assembly;

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use manx_bgpd::control::{Claim, SocketError};
use manx_store::Store;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::identity::Identity;
use crate::journal::JournalError;
use crate::startup::Machine;
use crate::{bgp, supervise};

/// How long calls under way may take to end at shutdown.
const CALLS_GRACE: Duration = Duration::from_secs(5);

/// How long the speaker may take to end.
const BGP_GRACE: Duration = Duration::from_secs(3);

/// What the task that accepts calls is named.
const SERVER: &str = "control socket";

/// Why the agent could not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The kernel.
    #[error(transparent)]
    Linux(#[from] manx_linux::Error),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The control socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Something else of the machine's.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A task that the agent cannot do without.
    #[error("the {task} task ended: {reason}")]
    Task {
        /// Which.
        task: &'static str,
        /// Why.
        reason: String,
    },
}

impl RunError {
    fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

/// What the agent was started with.
#[derive(Debug)]
pub struct Start<S> {
    /// The configuration.
    pub config: Config,
    /// The right to the control socket.
    pub claim: Claim,
    /// The machine as it was found.
    pub machine: Machine,
    /// Who this node is.
    pub identity: Identity,
    /// The datastore.
    pub store: S,
    /// The speakers' runtime.
    pub bgp_runtime: Handle,
}

/// Runs the agent until `stop` resolves, then ends it so that forwarding goes on and peers keep our routes.
///
/// # Errors
/// It could not start, or a task that it cannot do without ended. The kernel is left as it is.
pub async fn run<S: Store>(start: Start<S>, stop: impl Future<Output = ()>) -> Result<(), RunError> {
    let calls = TaskTracker::new();
    let mut tasks = Tasks::default();
    let prepared = assembly::prepare(&start).await?;
    let doors = assembly::spawn(start, prepared, &mut tasks, &calls).await;
    tokio::select! {
        () = stop => tracing::info!("stopping; routes and pods stay as they are"),
        ended = tasks.ended() => return Err(ended),
    }
    tasks.abort(SERVER);
    calls.close();
    if timeout(CALLS_GRACE, calls.wait()).await.is_err() {
        tracing::warn!(
            calls = calls.len(),
            "calls under way are cut; the runtime will repeat them"
        );
    }
    let (done, wait) = oneshot::channel();
    if doors.bgp.send(bgp::Question::Shutdown(done)).await.is_ok() && timeout(BGP_GRACE, wait).await.is_err()
    {
        tracing::warn!("the speaker does not end in time");
    }
    Ok(())
}

/// The tasks, and which is which.
#[derive(Debug, Default)]
struct Tasks {
    set: JoinSet<Result<(), String>>,
    names: HashMap<Id, (&'static str, AbortHandle)>,
}

impl Tasks {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = Result<(), String>> + Send + 'static) {
        let handle = self.set.spawn(task);
        self.names.insert(handle.id(), (name, handle));
    }

    fn abort(&self, name: &str) {
        self.names
            .values()
            .filter(|(task, _)| *task == name)
            .for_each(|(_, handle)| handle.abort());
    }

    /// Waits for the first task to end: none should.
    async fn ended(&mut self) -> RunError {
        let (id, reason) = match self.set.join_next_with_id().await {
            Some(Ok((id, Ok(())))) => (id, "it had nothing more to do".to_owned()),
            Some(Ok((id, Err(reason)))) => (id, reason),
            Some(Err(error)) => (error.id(), panicked(error)),
            None => return std::future::pending().await,
        };
        let task = self.names.get(&id).map_or("unknown", |(name, _)| name);
        RunError::Task { task, reason }
    }
}

fn panicked(error: JoinError) -> String {
    let panic = supervise::panic_of(error);
    format!("panic: {}", supervise::reason(&*panic))
}
