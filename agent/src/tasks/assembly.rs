//! The assembly: channels first, then each task with its ends of them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use manx_bgpd::control::{self, Claim};
use manx_cni::Attachment;
use manx_ipam::{Allocator, Live};
use manx_linux::Netns;
use manx_linux::sync::Syncer;
use manx_linux::sysctl;
use manx_store::{Host, Store};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch as channel};
use tokio_util::task::TaskTracker;

use super::{RunError, SERVER, Start, Tasks};
use crate::announcing::Announced;
use crate::config::Config;
use crate::disk::FileSystem;
use crate::events::Events;
use crate::identity::Identity;
use crate::ipam::{Clock, Owned};
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::ready::Readiness;
use crate::server::Doors;
use crate::status::Sources;
use crate::tombstones::Tombstones;
use crate::view::View;
use crate::{
    announcing, availability, bgp, cni, conntrack, convert, denies, endpoint, events, http, ipam, node,
    policy, reclaim, releases, restore, route, sessions, startup, supervise, verdicts, watch, workload,
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
    events: Events,
}

/// Where messages are sent to, by tasks and by callers.
struct Senders {
    doors: Doors,
    endpoints: mpsc::Sender<endpoint::Request>,
    /// None where the cluster has WorkloadEndpoints as its Pods.
    workloads: Option<mpsc::Sender<workload::Change>>,
    news: News<mpsc::Sender<policy::News>>,
    verdicts: mpsc::Sender<verdicts::Verdict>,
    gate: policy::Gate,
}

/// The ends of the channels that news from the datastore go through.
#[derive(Clone)]
struct News<T> {
    policies: T,
    services: T,
}

/// The other ends.
struct Receivers {
    cni: mpsc::Receiver<cni::Job>,
    bgp: mpsc::Receiver<bgp::Question>,
    ipam: mpsc::Receiver<ipam::Request>,
    routes: mpsc::Receiver<route::Command>,
    endpoints: mpsc::Receiver<endpoint::Request>,
    workloads: mpsc::Receiver<workload::Change>,
    news: News<mpsc::Receiver<policy::News>>,
    verdicts: mpsc::Receiver<verdicts::Verdict>,
    policy: mpsc::Receiver<policy::Request>,
    denies: mpsc::Receiver<denies::Request>,
    services: mpsc::Receiver<announcing::Question>,
}

/// What an earlier life's addresses are known by.
struct Journalled {
    allocator: Allocator,
    journal: Journal,
    live: Vec<Live<String>>,
    clock: Clock,
}

/// What has to be had before the first task starts.
pub(super) struct Prepared {
    journalled: Journalled,
    graves: (Tombstones, Vec<Attachment>),
    syncer: Syncer,
    netns: Netns,
    listener: UnixListener,
    http: Option<TcpListener>,
}

/// Gets it.
///
/// # Errors
/// The first thing that cannot be had.
pub(super) async fn prepare<S>(start: &Start<S>) -> Result<Prepared, RunError> {
    let Config {
        state_dir,
        http,
        nexthop_compat_mode,
        ..
    } = &start.config;
    if let Some(tells) = nexthop_compat_mode {
        sysctl::set_nexthop_compat_mode(*tells)?;
    }
    let (live, clock) = (start.machine.pods.clone(), Clock::start());
    let (journal, allocator) =
        startup::recover(Arc::new(FileSystem), &state_dir.join(JOURNAL), &live, clock)?;
    let netns = Netns::current()?;
    forget_strangers(&netns, &allocator);
    let graves = Tombstones::open(state_dir).map_err(RunError::io("cannot watch for tombstones"))?;
    let http = match http {
        Some(address) => Some(http::listen(*address).await.map_err(RunError::io("HTTP"))?),
        None => None,
    };
    Ok(Prepared {
        journalled: Journalled {
            allocator,
            journal,
            live,
            clock,
        },
        graves,
        syncer: Syncer::start()?,
        netns,
        listener: start.claim.listen()?,
        http,
    })
}

/// Has the kernel forget the connections of addresses of ours that no pod holds: their pods went while no agent ran.
fn forget_strangers(netns: &Netns, allocator: &Allocator) {
    let held: BTreeSet<IpAddr> = allocator.allocations().map(|held| held.address).collect();
    let is_free = |address| allocator.block_of(address).is_some() && !held.contains(&address);
    if let Err(error) = conntrack::forget(netns, is_free) {
        tracing::warn!(%error, "connections of pods that went meanwhile stay until they time out");
    }
}

/// Starts every task, those that answer calls last.
pub(super) async fn spawn<S: Store>(
    start: Start<S>,
    prepared: Prepared,
    tasks: &mut Tasks,
    calls: &TaskTracker,
) -> Doors {
    let (metrics, registry) = Metrics::new();
    let (view_out, view) = channel::channel(Arc::new(View::default()));
    let (owned, blocks) = channel::channel(Arc::new(Owned::default()));
    let (events, to_record) = Events::of(start.store.cluster(), start.identity.name.clone());
    let common = Common {
        identity: Arc::new(start.identity),
        store: start.store,
        view,
        blocks,
        metrics,
        readiness: Readiness::default(),
        events,
    };
    let (senders, receivers) = channels(&common, start.config.state_dir.clone());
    let speaker = (start.bgp_runtime, start.machine.forwarding);
    let pods = (receivers.cni, receivers.endpoints);

    let told = (view_out, senders.news.clone());
    let said = (receivers.workloads, receivers.verdicts);
    let host = spawn_store_tasks(tasks, &common, told, said);
    spawn_cluster_tasks(tasks, &common, &senders.doors, (to_record, host));
    let announced = spawn_announcing(tasks, &common, receivers.news.services, receivers.services);
    spawn_ipam(tasks, &common, (prepared.journalled, owned), receivers.ipam);
    let secrets = start.config.secrets_dir.clone();
    spawn_bgp(
        tasks,
        &common,
        &senders,
        (receivers.bgp, announced),
        speaker,
        secrets,
    );
    spawn_route(tasks, &common, prepared.syncer, receivers.routes);
    let connections = spawn_conntrack(tasks, &common, prepared.netns.clone());
    let policies = (
        receivers.news.policies,
        receivers.policy,
        senders.verdicts.clone(),
    );
    spawn_policy(tasks, &common, prepared.netns.clone(), &start.config, policies);
    let questions = (receivers.denies, senders.doors.policy.clone());
    spawn_denies(tasks, &common, prepared.netns, &start.config, questions);
    let state_dir = start.config.state_dir;
    spawn_pod_tasks(tasks, &common, &senders, (state_dir, connections), pods);
    spawn_caretakers(tasks, &common, &senders);
    spawn_restore(tasks, &common, &senders, prepared.graves).await;
    if let Some(listener) = prepared.http {
        spawn_http(tasks, listener, common.readiness, registry);
    }
    spawn_server(tasks, (start.claim, prepared.listener), &senders.doors, calls);
    senders.doors
}

fn channels<S: Store>(common: &Common<S>, state_dir: PathBuf) -> (Senders, Receivers) {
    let (cni_out, cni) = mpsc::channel(QUEUE);
    let (bgp_out, bgp) = mpsc::channel(QUEUE);
    let (ipam_out, ipam) = mpsc::channel(QUEUE);
    let (routes_out, routes) = mpsc::channel(QUEUE);
    let (endpoints_out, endpoints) = mpsc::channel(QUEUE);
    let (workloads_out, workloads) = mpsc::channel(QUEUE);
    let (policies_out, policies) = mpsc::channel(QUEUE);
    let (services_out, services) = mpsc::channel(QUEUE);
    let (policy_out, policy) = mpsc::channel(QUEUE);
    let (denies_out, denies) = mpsc::channel(QUEUE);
    let (service_out, service) = mpsc::channel(QUEUE);
    let (verdicts_out, verdicts) = mpsc::channel(QUEUE);
    let status = Sources {
        identity: common.identity.clone(),
        view: common.view.clone(),
        readiness: common.readiness.clone(),
        started: Instant::now(),
        state_dir,
    };
    let doors = Doors {
        cni: cni_out,
        bgp: bgp_out,
        ipam: ipam_out,
        routes: routes_out,
        policy: policy_out.clone(),
        denies: denies_out,
        services: service_out,
        status,
    };
    let senders = Senders {
        doors,
        endpoints: endpoints_out,
        workloads: common.store.cluster().is_none().then_some(workloads_out),
        news: News {
            policies: policies_out,
            services: services_out,
        },
        verdicts: verdicts_out,
        gate: policy::Gate { requests: policy_out },
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
            news: News { policies, services },
            policy,
            denies,
            services: service,
            verdicts,
        },
    )
}

/// Store watch, node and workload: what stands between the agent and the datastore. Returns what Kubernetes says of the node.
fn spawn_store_tasks<S: Store>(
    tasks: &mut Tasks,
    common: &Common<S>,
    (view, news): (channel::Sender<Arc<View>>, News<mpsc::Sender<policy::News>>),
    (changes, verdicts): (
        mpsc::Receiver<workload::Change>,
        mpsc::Receiver<verdicts::Verdict>,
    ),
) -> channel::Receiver<Option<Host>> {
    let (identity, store, metrics) = (&common.identity, &common.store, &common.metrics);
    let listed = Some(common.readiness.wait_for("datastore"));
    let inbox = watch::Inbox {
        identity: identity.clone(),
        store: store.clone(),
        view,
        policies: news.policies,
        services: news.services,
        metrics: metrics.clone(),
        listed,
    };
    tasks.spawn(
        "store watch",
        forever(supervise::restarted("store watch", inbox, watch::run)),
    );
    let (host, said) = channel::channel(None);
    let inbox = node::Inbox {
        identity: identity.clone(),
        store: store.clone(),
        view: common.view.clone(),
        host,
    };
    tasks.spawn("node", forever(supervise::restarted("node", inbox, node::run)));
    let inbox = verdicts::Inbox {
        store: store.clone(),
        verdicts,
        events: common.events.clone(),
    };
    tasks.spawn(
        "verdicts",
        forever(supervise::restarted("verdicts", inbox, verdicts::run)),
    );
    if store.cluster().is_none() {
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
    said
}

/// Those who tell a Kubernetes cluster of this node, where there is one.
fn spawn_cluster_tasks<S: Store>(
    tasks: &mut Tasks,
    common: &Common<S>,
    doors: &Doors,
    (to_record, host): (Option<events::Inbox>, channel::Receiver<Option<Host>>),
) {
    let (Some(cluster), Some(to_record)) = (common.store.cluster(), to_record) else {
        return;
    };
    tasks.spawn(
        "events",
        forever(supervise::restarted("events", to_record, events::run)),
    );
    let inbox = sessions::Inbox {
        node: common.identity.name.clone(),
        bgp: doors.bgp.clone(),
        events: common.events.clone(),
    };
    tasks.spawn(
        "sessions",
        forever(supervise::restarted("sessions", inbox, sessions::run)),
    );
    let inbox = availability::Inbox {
        cluster,
        host,
        doors: doors.clone(),
    };
    tasks.spawn(
        "availability",
        forever(supervise::restarted("availability", inbox, availability::run)),
    );
}

fn spawn_ipam<S: Store>(
    tasks: &mut Tasks,
    common: &Common<S>,
    (journalled, owned): (Journalled, channel::Sender<Arc<Owned>>),
    requests: mpsc::Receiver<ipam::Request>,
) {
    let Journalled {
        allocator,
        journal,
        live,
        clock,
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
        clock,
        metrics: common.metrics.clone(),
        claimed: common.readiness.wait_for(cni::BLOCKS),
    };
    tasks.spawn("ipam", forever(ipam::run(inbox)));
}

fn spawn_bgp<S>(
    tasks: &mut Tasks,
    common: &Common<S>,
    senders: &Senders,
    (questions, services): (mpsc::Receiver<bgp::Question>, channel::Receiver<Announced>),
    (runtime, adopted): (Handle, bool),
    secrets_dir: PathBuf,
) {
    let inbox = bgp::Inbox {
        identity: common.identity.clone(),
        view: common.view.clone(),
        owned: common.blocks.clone(),
        services,
        adopted,
        questions,
        routes: senders.doors.routes.clone(),
        runtime,
        secrets_dir,
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

/// The announcing task; returns what it makes.
fn spawn_announcing<S>(
    tasks: &mut Tasks,
    common: &Common<S>,
    news: mpsc::Receiver<policy::News>,
    questions: mpsc::Receiver<announcing::Question>,
) -> channel::Receiver<Announced> {
    let (announced, made) = channel::channel(None);
    let inbox = announcing::Inbox {
        node: common.identity.name.clone(),
        view: common.view.clone(),
        news,
        questions,
        announced,
        services: None,
    };
    tasks.spawn(
        "announcing",
        forever(supervise::restarted("announcing", inbox, announcing::run)),
    );
    made
}

/// The policy task.
fn spawn_policy<S>(
    tasks: &mut Tasks,
    common: &Common<S>,
    netns: Netns,
    config: &Config,
    (news, requests, verdicts): (
        mpsc::Receiver<policy::News>,
        mpsc::Receiver<policy::Request>,
        mpsc::Sender<verdicts::Verdict>,
    ),
) {
    let inbox = policy::Inbox {
        node: common.identity.name.clone(),
        view: common.view.clone(),
        news,
        requests,
        netns,
        backend: convert::backend(config.iptables.backend),
        refresh: Duration::from_secs(config.iptables.refresh_seconds.into()),
        enforcement: convert::enforcement(&config.policy),
        failsafes: convert::failsafes(&config.policy),
        verdicts,
        metrics: common.metrics.clone(),
        programmed: Some(common.readiness.wait_for("rules")),
    };
    tasks.spawn("policy", forever(policy::run(inbox)));
}

/// The denies task.
fn spawn_denies<S>(
    tasks: &mut Tasks,
    common: &Common<S>,
    netns: Netns,
    config: &Config,
    (requests, policy): (mpsc::Receiver<denies::Request>, mpsc::Sender<policy::Request>),
) {
    let inbox = denies::Inbox {
        node: common.identity.name.clone(),
        netns,
        group: config.policy.log_group,
        always: config.policy.log_denied.is_some(),
        policy,
        requests,
    };
    tasks.spawn(
        "denies",
        forever(supervise::restarted("denies", inbox, denies::run)),
    );
}

/// The conntrack task; returns where it is asked.
fn spawn_conntrack<S>(
    tasks: &mut Tasks,
    common: &Common<S>,
    netns: Netns,
) -> mpsc::Sender<conntrack::Forget> {
    let (sender, requests) = mpsc::channel(QUEUE);
    let inbox = conntrack::Inbox {
        netns,
        requests,
        metrics: common.metrics.clone(),
    };
    tasks.spawn(
        "conntrack",
        forever(supervise::restarted("conntrack", inbox, conntrack::run)),
    );
    sender
}

/// The cni and endpoint tasks: what pods are attached by.
fn spawn_pod_tasks<S>(
    tasks: &mut Tasks,
    common: &Common<S>,
    senders: &Senders,
    (state_dir, connections): (PathBuf, mpsc::Sender<conntrack::Forget>),
    (jobs, endpoints): (mpsc::Receiver<cni::Job>, mpsc::Receiver<endpoint::Request>),
) {
    let parts = cni::Parts {
        identity: common.identity.clone(),
        state_dir,
        ipam: senders.doors.ipam.clone(),
        endpoints: senders.endpoints.clone(),
        routes: senders.doors.routes.clone(),
        gate: senders.gate.clone(),
        connections,
        events: common.events.clone(),
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

/// Those who see to blocks: operators' wishes about ours, and what deleted nodes left.
fn spawn_caretakers<S: Store>(tasks: &mut Tasks, common: &Common<S>, senders: &Senders) {
    let inbox = releases::Inbox {
        identity: common.identity.clone(),
        store: common.store.clone(),
        view: common.view.clone(),
        ipam: senders.doors.ipam.clone(),
        cni: senders.doors.cni.clone(),
    };
    tasks.spawn(
        "releases",
        forever(supervise::restarted("releases", inbox, releases::run)),
    );
    let inbox = reclaim::Inbox {
        identity: common.identity.clone(),
        store: common.store.clone(),
        view: common.view.clone(),
        bgp: senders.doors.bgp.clone(),
    };
    tasks.spawn(
        "reclaim",
        forever(supervise::restarted("reclaim", inbox, reclaim::run)),
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
        gate: senders.gate.clone(),
        restored: common.readiness.wait_for("pods of an earlier life"),
    };
    tasks.spawn("tombstones", async move {
        restore::run(doors).await;
        tombstones.run(cni).await.map_err(|error| error.to_string())
    });
}

fn spawn_http(tasks: &mut Tasks, listener: TcpListener, readiness: Readiness, registry: Registry) {
    let serving = http::serve(listener, readiness, Arc::new(registry));
    tasks.spawn("HTTP", async { serving.await.map_err(|error| error.to_string()) });
}

fn spawn_server(tasks: &mut Tasks, socket: (Claim, UnixListener), doors: &Doors, calls: &TaskTracker) {
    let (doors, calls) = (doors.clone(), calls.clone());
    let serving = async move |(_claim, listener): &mut (Claim, UnixListener)| {
        control::serve(listener, &doors, &calls).await;
    };
    tasks.spawn(SERVER, forever(supervise::restarted(SERVER, socket, serving)));
}

/// A task that is not meant to end.
async fn forever(task: impl Future<Output = ()>) -> Result<(), String> {
    task.await;
    Ok(())
}
