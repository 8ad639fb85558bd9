//! The conntrack task: has the kernel forget connections that must not go on.
//!
//! A pod's connections are forgotten when it goes, before its address is free: the next holder of the address is
//! not taken for the last one. One look at the kernel's table serves all who asked meanwhile, so a node's worth of
//! DELs costs a few. Pods that went while no agent ran are seen to at its start.

use std::collections::BTreeSet;
use std::net::IpAddr;

use manx_linux::{ConnectionSocket, Netns, Result};
use manx_policy::Family;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

use crate::ask::answer;
use crate::metrics::Metrics;

/// Requests that one look at the table serves, at most.
const AT_ONCE: usize = 256;

/// A request to the conntrack task.
#[derive(Debug)]
pub struct Forget {
    /// Every connection of these addresses.
    pub addresses: Vec<IpAddr>,
    /// It has been tried. What the kernel says against it is logged: no pod waits for ever for that.
    pub reply: oneshot::Sender<()>,
}

/// What the task works with.
#[derive(Debug)]
pub struct Inbox {
    /// Where the connections are.
    pub netns: Netns,
    /// Requests.
    pub requests: mpsc::Receiver<Forget>,
    /// What is counted.
    pub metrics: Metrics,
}

/// Runs until nobody can ask any more.
pub async fn run(inbox: &mut Inbox) {
    let mut requests = Vec::new();
    while inbox.requests.recv_many(&mut requests, AT_ONCE).await > 0 {
        let addresses: BTreeSet<IpAddr> = requests.iter().flat_map(|it| &it.addresses).copied().collect();
        let netns = inbox.netns.clone();
        match spawn_blocking(move || forget(&netns, |address| addresses.contains(&address))).await {
            Ok(Ok(forgotten)) => drop(inbox.metrics.connections_forgotten.inc_by(forgotten as u64)),
            Ok(Err(error)) => tracing::warn!(
                %error,
                "connections of pods that have gone stay until they time out, and may pass as their addresses' next holders'"
            ),
            Err(error) => tracing::error!(%error, "forgetting connections panicked"),
        }
        for request in requests.drain(..) {
            answer(request.reply, ());
        }
    }
}

/// Has the kernel forget the connections of the addresses that are meant; returns how many there were.
///
/// # Errors
/// As [`ConnectionSocket::walk`] and [`ConnectionSocket::forget`].
pub fn forget(netns: &Netns, is_meant: impl Fn(IpAddr) -> bool) -> Result<usize> {
    if !netns.run(ConnectionSocket::any)? {
        return Ok(0);
    }
    let mut socket = ConnectionSocket::open_in(netns)?;
    let mut found = Vec::new();
    for family in Family::ALL {
        socket.walk(family, |connection| {
            if connection.ends().iter().any(|end| is_meant(end.ip())) {
                found.push(connection);
            }
        })?;
    }
    socket.forget(&found)
}
