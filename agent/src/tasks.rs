//! The task graph: which tasks there are, what flows between them, and what their ends mean.
//!
//! ```text
//!  store watch ──view──┬─► node task (1x)      writes our own Node resource
//!     (1x)             │
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
//! Every arrow is a bounded channel or a last-writer-wins value (view, owned blocks); answers are `oneshot`s.
//! Arrows only point down or right, so no two tasks ever wait for each other. Two tasks enter the kernel, so
//! that a full table being programmed does not hold up a pod's link. Policy will stand between the store
//! watch and the endpoint task.
//!
//! | task | after a panic |
//! |---|---|
//! | store watch, node, workload, endpoint, cni, connections | runs again: its state is in the store, the kernel or its inbox |
//! | ipam, bgp, route, tombstones, HTTP | the agent ends non-zero and is started again: start-up adopts what is there |
//!
//! Neither touches the kernel, so packets flow on.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use manx_cni::Attachment;
use manx_ipam::{Allocator, Live};
use manx_linux::sync::Syncer;
use manx_store::Store;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch as channel};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::identity::Identity;
use crate::ipam::Owned;
use crate::journal::{Journal, JournalError};
use crate::metrics::Metrics;
use crate::ready::Readiness;
use crate::server::{Claim, Doors, SocketError};
use crate::startup::Machine;
use crate::status::Sources;
use crate::tombstones::Tombstones;
use crate::view::View;
use crate::{
    bgp, cni, endpoint, http, ipam, node, restore, route, server, startup, supervise, watch, workload,
};

/// Messages that wait in a channel, at most.
const QUEUE: usize = 256;

/// How long calls under way may take to end at shutdown.
const CALLS_GRACE: Duration = Duration::from_secs(5);

/// How long the speaker may take to end.
const BGP_GRACE: Duration = Duration::from_secs(3);

/// The address journal's file in the state directory.
const JOURNAL: &str = "ipam.journal";

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
    let (metrics, registry) = Metrics::new();
    let calls = TaskTracker::new();
    let mut tasks = Tasks::default();
    let doors = spawn(start, &metrics, registry, &mut tasks, &calls).await?;
    tokio::select! {
        () = stop => tracing::info!("stopping; routes and pods stay as they are"),
        ended = tasks.ended() => return Err(ended),
    }
    tasks.abort("control socket");
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

/// What nearly every task needs.
struct Common<S> {
    identity: Arc<Identity>,
    store: S,
    view: channel::Receiver<Arc<View>>,
    blocks: channel::Receiver<Arc<Owned>>,
    metrics: Metrics,
    readiness: Readiness,
}

/// Where messages are sent to, by tasks and by callers.
struct Senders {
    doors: Doors,
    endpoints: mpsc::Sender<endpoint::Request>,
    workloads: mpsc::Sender<workload::Change>,
}

/// The other ends.
struct Receivers {
    cni: mpsc::Receiver<cni::Job>,
    bgp: mpsc::Receiver<bgp::Question>,
    ipam: mpsc::Receiver<ipam::Request>,
    routes: mpsc::Receiver<route::Command>,
    endpoints: mpsc::Receiver<endpoint::Request>,
    workloads: mpsc::Receiver<workload::Change>,
}

/// Starts every task. What can fail comes before the first of them; the server comes last.
async fn spawn<S: Store>(
    start: Start<S>,
    metrics: &Metrics,
    registry: Registry,
    tasks: &mut Tasks,
    calls: &TaskTracker,
) -> Result<Doors, RunError> {
    let Start {
        config,
        claim,
        machine,
        identity,
        store,
        bgp_runtime,
    } = start;
    let (journal, allocator) = startup::recover(&config.state_dir.join(JOURNAL), &machine.pods)?;
    let graves = Tombstones::open(&config.state_dir).map_err(RunError::io("cannot watch for tombstones"))?;
    let syncer = Syncer::start()?;
    let listener = claim.listen()?;
    let http = match config.http {
        Some(address) => Some(http::listen(address).await.map_err(RunError::io("HTTP"))?),
        None => None,
    };
    let (view_out, view) = channel::channel(Arc::new(View::default()));
    let (owned, blocks) = channel::channel(Arc::new(Owned::default()));
    let (identity, readiness, metrics) = (Arc::new(identity), Readiness::default(), metrics.clone());
    let common = Common {
        identity,
        store,
        view,
        blocks,
        metrics,
        readiness,
    };
    let (senders, receivers) = channels(&common);
    let Receivers {
        cni,
        bgp,
        ipam,
        routes,
        endpoints,
        workloads,
    } = receivers;

    spawn_store_tasks(tasks, &common, view_out, workloads);
    let journalled = Journalled {
        allocator,
        journal,
        live: machine.pods,
        owned,
    };
    spawn_ipam(tasks, &common, journalled, ipam);
    spawn_bgp(tasks, &common, &senders, bgp, (bgp_runtime, machine.forwarding));
    spawn_route(tasks, &common, syncer, routes);
    spawn_pod_tasks(tasks, &common, &senders, config.state_dir, (cni, endpoints));
    spawn_restore(tasks, &common, &senders, graves).await;
    if let Some(http) = http {
        let (readiness, registry) = (common.readiness.clone(), Arc::new(registry));
        tasks.spawn("HTTP", async {
            http::serve(http, readiness, registry)
                .await
                .map_err(|e| e.to_string())
        });
    }
    let (doors, calls) = (senders.doors.clone(), calls.clone());
    let serving = async move |_claim: &mut Claim| server::serve(&listener, &doors, &calls).await;
    tasks.spawn(
        "control socket",
        forever(supervise::restarted("control socket", claim, serving)),
    );
    Ok(senders.doors)
}

fn channels<S>(common: &Common<S>) -> (Senders, Receivers) {
    let (cni_out, cni) = mpsc::channel(QUEUE);
    let (bgp_out, bgp) = mpsc::channel(QUEUE);
    let (ipam_out, ipam) = mpsc::channel(QUEUE);
    let (routes_out, routes) = mpsc::channel(QUEUE);
    let (endpoints_out, endpoints) = mpsc::channel(QUEUE);
    let (workloads_out, workloads) = mpsc::channel(QUEUE);
    let status = Sources {
        identity: common.identity.clone(),
        view: common.view.clone(),
        readiness: common.readiness.clone(),
        started: Instant::now(),
    };
    let doors = Doors {
        cni: cni_out,
        bgp: bgp_out,
        ipam: ipam_out,
        routes: routes_out,
        status,
    };
    let senders = Senders {
        doors,
        endpoints: endpoints_out,
        workloads: workloads_out,
    };
    (
        senders,
        Receivers {
            cni,
            bgp,
            ipam,
            routes,
            endpoints,
            workloads,
        },
    )
}

/// Store watch, node and workload: what stands between the agent and the datastore.
fn spawn_store_tasks<S: Store>(
    tasks: &mut Tasks,
    common: &Common<S>,
    view: channel::Sender<Arc<View>>,
    changes: mpsc::Receiver<workload::Change>,
) {
    let (identity, store, metrics) = (&common.identity, &common.store, &common.metrics);
    let listed = Some(common.readiness.wait_for("datastore"));
    let inbox = watch::Inbox {
        store: store.clone(),
        view,
        metrics: metrics.clone(),
        listed,
    };
    tasks.spawn(
        "store watch",
        forever(supervise::restarted("store watch", inbox, watch::run)),
    );
    let inbox = node::Inbox {
        identity: identity.clone(),
        store: store.clone(),
        view: common.view.clone(),
    };
    tasks.spawn("node", forever(supervise::restarted("node", inbox, node::run)));
    let (identity, store, metrics) = (identity.clone(), store.clone(), metrics.clone());
    let inbox = workload::Inbox {
        identity,
        store,
        changes,
        metrics,
    };
    tasks.spawn(
        "workload",
        forever(supervise::restarted("workload", inbox, workload::run)),
    );
}

/// What an earlier life's addresses are known by.
struct Journalled {
    allocator: Allocator,
    journal: Journal,
    live: Vec<Live<String>>,
    owned: channel::Sender<Arc<Owned>>,
}

fn spawn_ipam<S: Store>(
    tasks: &mut Tasks,
    common: &Common<S>,
    journalled: Journalled,
    requests: mpsc::Receiver<ipam::Request>,
) {
    let Journalled {
        allocator,
        journal,
        live,
        owned,
    } = journalled;
    let inbox = ipam::Inbox {
        identity: common.identity.clone(),
        store: common.store.clone(),
        view: common.view.clone(),
        owned,
        requests,
        allocator,
        journal,
        live,
        metrics: common.metrics.clone(),
        claimed: common.readiness.wait_for(cni::BLOCKS),
    };
    tasks.spawn("ipam", forever(ipam::run(inbox)));
}

fn spawn_bgp<S>(
    tasks: &mut Tasks,
    common: &Common<S>,
    senders: &Senders,
    questions: mpsc::Receiver<bgp::Question>,
    (runtime, adopted): (Handle, bool),
) {
    let inbox = bgp::Inbox {
        identity: common.identity.clone(),
        view: common.view.clone(),
        owned: common.blocks.clone(),
        adopted,
        questions,
        routes: senders.doors.routes.clone(),
        runtime,
        metrics: common.metrics.clone(),
        converged: common.readiness.wait_for("initial BGP routes"),
    };
    tasks.spawn("bgp", forever(bgp::run(inbox)));
}

fn spawn_route<S>(
    tasks: &mut Tasks,
    common: &Common<S>,
    routes: Syncer,
    commands: mpsc::Receiver<route::Command>,
) {
    let inbox = route::Inbox {
        identity: common.identity.clone(),
        routes,
        owned: common.blocks.clone(),
        commands,
        metrics: common.metrics.clone(),
    };
    tasks.spawn("route", async {
        route::run(inbox).await.map_err(|error| error.to_string())
    });
}

/// The cni and endpoint tasks: what pods are attached by.
fn spawn_pod_tasks<S>(
    tasks: &mut Tasks,
    common: &Common<S>,
    senders: &Senders,
    state_dir: PathBuf,
    (jobs, endpoints): (mpsc::Receiver<cni::Job>, mpsc::Receiver<endpoint::Request>),
) {
    let parts = cni::Parts {
        identity: common.identity.clone(),
        state_dir,
        ipam: senders.doors.ipam.clone(),
        endpoints: senders.endpoints.clone(),
        routes: senders.doors.routes.clone(),
        workloads: senders.workloads.clone(),
        jobs: senders.doors.cni.downgrade(),
        metrics: common.metrics.clone(),
    };
    let inbox = cni::Inbox { jobs, parts };
    tasks.spawn("cni", forever(supervise::restarted("cni", inbox, cni::run)));
    tasks.spawn(
        "endpoint",
        forever(supervise::restarted("endpoint", endpoints, endpoint::run)),
    );
}

/// What an earlier life left to do: DELs that nobody heard, then the pods that are still there.
async fn spawn_restore<S>(
    tasks: &mut Tasks,
    common: &Common<S>,
    senders: &Senders,
    (tombstones, found): (Tombstones, Vec<Attachment>),
) {
    let cni = senders.doors.cni.clone();
    for attachment in found {
        // The cni task takes jobs whatever they wait for, so this does not wait for the datastore.
        if cni.send(cni::Job::Bury(attachment)).await.is_err() {
            tracing::error!("the cni task has ended before it began");
        }
    }
    let doors = restore::Doors {
        ipam: senders.doors.ipam.clone(),
        cni: cni.clone(),
        routes: senders.doors.routes.clone(),
        workloads: senders.workloads.clone(),
        restored: common.readiness.wait_for("pods of an earlier life"),
    };
    tasks.spawn("tombstones", async move {
        restore::run(doors).await;
        tombstones.run(cni).await.map_err(|error| error.to_string())
    });
}

/// A task that is not meant to end.
async fn forever(task: impl Future<Output = ()>) -> Result<(), String> {
    task.await;
    Ok(())
}
