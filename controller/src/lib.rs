//! What one of a cluster's controllers does for all nodes: load balancers' addresses, nodes that are gone, and who may act.
//!
//! ```text
//!  store watches ─┬─► services task: addresses::decide (pure) ──► status of Services, events
//!       ▲         ├─► hosts task: hosts::changes (pure) ──► HostEndpoints
//!       │         ├─► nodes task ──► Nodes of ours that Kubernetes has no more
//!       │         └─► pools task ──► a new cluster's first IPPools, once
//!       │
//!  leading: election (pure) ──► a Lease; whoever has it runs the tasks, and drops them the moment it may act no more
//! ```
//!
//! Any number of processes may run; the cluster's network does not wait for any of them: routes, policies and pods'
//! addresses are the agents' own.

pub mod addresses;
pub mod election;
pub mod hosts;
mod leading;
mod mirror;
mod nodes;
pub mod pools;
mod services;

use std::convert::Infallible;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use manx_api::ipam::IpPool;
use manx_store::{Cluster, Error, LeaseName, Store};
use tokio::time::Instant;

pub use self::leading::lead;
use crate::election::{Election, Timing};

/// The lease's name, in the namespace that the controller is in.
pub const LEASE: &str = "manx-controller";

/// How long a task must have gone on for its next fault to be a first one.
const STEADY: Duration = Duration::from_secs(60);

/// What a controller is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What people shall know it by: the pod's or the machine's name.
    pub name: String,
    /// The lease's length in seconds: so long at most nobody acts when the one who did is gone.
    pub lease_seconds: u32,
    /// Whether each node is to have a host endpoint.
    pub host_endpoints: bool,
    /// For how long Kubernetes must have had no Node for ours to be deleted.
    pub node_grace: Duration,
    /// The pools that a cluster without any is given, once.
    pub default_pools: Vec<IpPool>,
}

/// Runs a controller on a cluster, whose store `store` is, until `stop`.
pub async fn run<S: Store>(
    store: &S,
    cluster: &Cluster,
    settings: &Settings,
    stop: impl Future<Output = ()>,
) {
    // Whoever starts anew is somebody else: the lease that an earlier life held is not known to be over.
    let me = format!("{}_{}", settings.name, uuid::Uuid::new_v4());
    let timing = Timing {
        seconds: settings.lease_seconds,
    };
    let lease = LeaseName {
        namespace: cluster.namespace().to_owned(),
        name: LEASE.to_owned(),
    };
    let work = || async {
        tokio::join!(
            keep_up("services", || services::run(store, cluster, &settings.name)),
            keep_up("host endpoints", || hosts::run(store, settings.host_endpoints)),
            keep_up("nodes", || nodes::run(store, cluster, settings.node_grace)),
            keep_up("pools", || pools::run(
                store,
                cluster,
                &settings.name,
                &settings.default_pools
            )),
        );
    };
    lead(cluster, &lease, Election::new(me, timing), work, stop).await;
}

/// Runs a task for ever: after a fault it begins anew, each time a little later.
async fn keep_up<F: Future<Output = Result<Infallible, Error>>>(task: &str, run: impl Fn() -> F) {
    let pauses = || {
        let builder = ExponentialBuilder::default().with_min_delay(Duration::from_millis(200));
        builder
            .with_max_delay(Duration::from_secs(30))
            .with_jitter()
            .without_max_times()
            .build()
    };
    let mut next = pauses();
    loop {
        let begin = Instant::now();
        let Err(error) = run().await;
        if begin.elapsed() > STEADY {
            next = pauses();
        }
        match error {
            Error::Conflict { .. } | Error::Expired(_) => tracing::debug!(task, %error, "it begins anew"),
            Error::NotFound(_)
            | Error::AlreadyExists(_)
            | Error::Invalid { .. }
            | Error::Denied { .. }
            | Error::Unavailable { .. } => tracing::warn!(task, %error, "it begins anew"),
        }
        tokio::time::sleep(next.next().unwrap_or_default()).await;
    }
}
