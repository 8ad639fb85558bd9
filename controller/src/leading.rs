//! Doing something while one has a lease, and not a moment longer.

use std::pin::pin;
use std::time::Instant;

use manx_store::{Cluster, Error, LeaseName};
use tokio::time::{sleep, timeout};

use crate::election::{Election, Move};

/// Runs `work` whenever and as long as we have the lease, until `stop`; then gives the lease back. What `work` is in the
/// midst of ends with the lease: it is dropped wherever it waits.
pub async fn lead<F: Future<Output = ()>>(
    cluster: &Cluster,
    lease: &LeaseName,
    mut election: Election,
    work: impl Fn() -> F,
    stop: impl Future<Output = ()>,
) {
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            () = campaign(cluster, lease, &mut election) => {}
        }
        tracing::info!(
            me = election.me(),
            lease = lease.name,
            "this controller acts from now on"
        );
        tokio::select! {
            biased;
            () = &mut stop => break,
            () = hold(cluster, lease, &mut election) => {
                tracing::warn!(lease = lease.name, "the lease is lost: this controller acts no more");
            }
            () = work() => tracing::error!("the controller's work has ended; it begins anew"),
        }
    }
    if let Some(ours) = election.resign() {
        let given = cluster.write_lease(lease, Some(&ours), None, 1);
        match timeout(election.timing().pause(), given).await {
            Ok(Ok(_)) => tracing::info!(lease = lease.name, "the lease is given back"),
            Ok(Err(error)) => tracing::warn!(%error, "the lease cannot be given back; it runs out"),
            Err(_) => tracing::warn!("the lease cannot be given back in time; it runs out"),
        }
    }
}

/// Tries until we have the lease.
async fn campaign(cluster: &Cluster, lease: &LeaseName, election: &mut Election) {
    let timing = election.timing();
    loop {
        attempt(cluster, lease, election, timing.acting()).await;
        if election.until(Instant::now()).is_some() {
            return;
        }
        sleep(timing.pause()).await;
    }
}

/// Writes the lease again and again, until it is not ours or our time is over.
async fn hold(cluster: &Cluster, lease: &LeaseName, election: &mut Election) {
    let timing = election.timing();
    while let Some(until) = election.until(Instant::now()) {
        let left = || until.saturating_duration_since(Instant::now());
        sleep(timing.pause().min(left())).await;
        attempt(cluster, lease, election, left()).await;
    }
}

/// Looks at the lease, and writes it if that is our move; within `patience`.
async fn attempt(
    cluster: &Cluster,
    lease: &LeaseName,
    election: &mut Election,
    patience: std::time::Duration,
) {
    match timeout(patience, look(cluster, lease, election)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "cannot see to the lease; trying again"),
        Err(_) => tracing::warn!(
            lease = lease.name,
            "the API server does not answer about the lease"
        ),
    }
}

async fn look(cluster: &Cluster, lease: &LeaseName, election: &mut Election) -> Result<(), Error> {
    let found = cluster.lease(lease).await?;
    let Move::Write(before) = election.look(Instant::now(), found) else {
        return Ok(());
    };
    let (sent, seconds) = (Instant::now(), election.timing().seconds);
    let me = Some(election.me().to_owned());
    if let Some(ours) = cluster
        .write_lease(lease, before.as_ref(), me.as_deref(), seconds)
        .await?
    {
        election.wrote(sent, ours);
    }
    Ok(())
}
