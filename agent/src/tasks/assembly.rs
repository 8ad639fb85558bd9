//! The assembly: channels first, then each task with its ends of them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use manx_cni::Attachment;
use manx_ipam::{Allocator, Live};
use manx_linux::sync::Syncer;
use manx_store::Store;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch as channel};
use tokio_util::task::TaskTracker;

use super::{RunError, SERVER, Start, Tasks};
use crate::identity::Identity;
use crate::ipam::Owned;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::ready::Readiness;
use crate::server::{Claim, Doors};
use crate::status::Sources;
use crate::tombstones::Tombstones;
use crate::view::View;
use crate::{
    bgp, cni, endpoint, http, ipam, node, restore, route, server, startup, supervise, watch, workload,
};

/// Messages that wait in a channel, at most.
const QUEUE: usize = 256;

/// The address journal's file in the state directory.
const JOURNAL: &str = "ipam.journal";

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

/// What has to be had before the first task starts.
pub(super) struct Prepared {
    journal: Journal,
    allocator: Allocator,
    graves: (Tombstones, Vec<Attachment>),
    syncer: Syncer,
    listener: UnixListener,
    http: Option<TcpListener>,
}

/// Gets it, in the order in which it does least harm to fail.
///
/// # Errors
/// The first thing that cannot be had.
pub(super) async fn prepare<S>(start: &Start<S>) -> Result<Prepared, RunError> {
    let Start {
        config,
        claim,
        machine,
        ..
    } = start;
    let (journal, allocator) = startup::recover(&config.state_dir.join(JOURNAL), &machine.pods)?;
    let graves = Tombstones::open(&config.state_dir).map_err(RunError::io("cannot watch for tombstones"))?;
    let http = match config.http {
        Some(address) => Some(http::listen(address).await.map_err(RunError::io("HTTP"))?),
        None => None,
    };
    let (syncer, listener) = (Syncer::start()?, claim.listen()?);
    Ok(Prepared {
        journal,
        allocator,
        graves,
        syncer,
        listener,
        http,
    })
}

/// Starts every task, those that answer calls last.
pub(super) async fn spawn<S: Store>(
    start: Start<S>,
    prepared: Prepared,
    tasks: &mut Tasks,
    calls: &TaskTracker,
) -> Doors {
    let Start {
        config,
        claim,
        machine,
        identity,
        store,
        bgp_runtime,
    } = start;
    let (metrics, registry) = Metrics::new();
    let (view_out, view) = channel::channel(Arc::new(View::default()));
    let (owned, blocks) = channel::channel(Arc::new(Owned::default()));
    let (identity, readiness) = (Arc::new(identity), Readiness::default());
    let common = Common {
        identity,
        store,
        view,
        blocks,
        metrics,
        readiness,
    };
    let (senders, receivers) = channels(&common);

    spawn_store_tasks(tasks, &common, view_out, receivers.workloads);
    let Prepared {
        journal,
        allocator,
        graves,
        syncer,
        listener,
        http,
    } = prepared;
    let journalled = Journalled {
        allocator,
        journal,
        live: machine.pods,
        owned,
    };
    spawn_ipam(tasks, &common, journalled, receivers.ipam);
    spawn_bgp(
        tasks,
        &common,
        &senders,
        receivers.bgp,
        (bgp_runtime, machine.forwarding),
    );
    spawn_route(tasks, &common, syncer, receivers.routes);
    spawn_pod_tasks(
        tasks,
        &common,
        &senders,
        config.state_dir,
        (receivers.cni, receivers.endpoints),
    );
    spawn_restore(tasks, &common, &senders, graves).await;
    if let Some(http) = http {
        let (readiness, registry) = (common.readiness, Arc::new(registry));
        tasks.spawn("HTTP", async {
            http::serve(http, readiness, registry)
                .await
                .map_err(|error| error.to_string())
        });
    }
    let (doors, calls) = (senders.doors.clone(), calls.clone());
    let serving = async move |_claim: &mut Claim| server::serve(&listener, &doors, &calls).await;
    tasks.spawn(SERVER, forever(supervise::restarted(SERVER, claim, serving)));
    senders.doors
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
