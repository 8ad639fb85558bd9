//! The reclaim task: frees what deleted nodes left in the datastore, their blocks and WorkloadEndpoints, and leases that
//! were returned to a block that is nobody's.
//!
//! Every agent watches for blocks whose owner has no Node any more. A node that is gone from the datastore may
//! still run: as long as somebody announces the block, its pods may be there. So a block is freed when no route
//! of it has been seen for [`SETTLED`], by an agent that is not cut off from all its peers; or after [`LEASE`],
//! whatever is seen. One agent is enough for that: they take turns, the first by name at once, each further one
//! [`TURN`] later, and compare-and-swap keeps two from doing it twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use manx_api::ipam::{IpBlock, LeaseState, covers};
use manx_api::{Key, Kind, Resource};
use manx_store::{Error, Store};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::ask::ask;
use crate::bgp;
use crate::identity::Identity;
use crate::view::View;

/// How often it is looked at while there is something to look at.
const TICK: Duration = Duration::from_secs(2);

/// For how long no route of a block may have been seen.
const SETTLED: Duration = Duration::from_secs(10);

/// How long a deleted node keeps blocks that somebody announces, or nobody could see.
const LEASE: Duration = Duration::from_secs(600);

/// By how much later each further agent acts.
const TURN: Duration = Duration::from_secs(4);

/// What the task works with.
#[derive(Debug)]
pub struct Inbox<S> {
    /// Who we are.
    pub identity: Arc<Identity>,
    /// The datastore.
    pub store: S,
    /// The cluster.
    pub view: watch::Receiver<Arc<View>>,
    /// Where routes are seen.
    pub bgp: mpsc::Sender<bgp::Question>,
}

/// Runs until the agent ends.
pub async fn run<S: Store>(inbox: &mut Inbox<S>) {
    let mut watched = Watched::default();
    loop {
        let view = inbox.view.borrow_and_update().clone();
        let orphans = orphans(&view);
        if orphans.is_empty() {
            watched = Watched::default();
            if inbox.view.changed().await.is_err() {
                return;
            }
            continue;
        }
        let Some(mut routed) = routed(inbox).await else {
            return;
        };
        if let Some(routed) = &mut routed {
            // What a node has leased of a block is announced whether the block's owner is there or not.
            let leases = leases(&view);
            routed.retain(|prefix| !leases.iter().any(|lease| covers(*lease, *prefix)));
        }
        watched.look(Instant::now(), &orphans, routed.as_ref());
        let patience = TURN * turn(&view, &inbox.identity.name);
        let due = orphans
            .into_iter()
            .filter(|block| watched.is_due(Instant::now(), block.spec.cidr, patience));
        for cidr in free(&inbox.store, &view, due.collect()).await {
            watched.begin_anew(cidr);
        }
        tokio::select! {
            changed = inbox.view.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

/// Blocks whose owner is no node, and leases that were returned to nobody.
fn orphans(view: &View) -> Vec<&IpBlock> {
    let is_orphan = |block: &&IpBlock| {
        let owner = block.spec.node.as_ref();
        match &block.spec.lease {
            Some(lease) if lease.state == LeaseState::Returned => {
                let lender = view.blocks.get(&lease.of);
                lender.is_none_or(|lender| lender.spec.node.is_none())
            }
            Some(_) | None => owner.is_some_and(|owner| !view.nodes.contains_key(owner)),
        }
    };
    if !view.complete {
        return Vec::new();
    }
    view.blocks.values().filter(is_orphan).collect()
}

/// The leases of nodes that are there.
fn leases(view: &View) -> Vec<IpNetwork> {
    let is_there = |block: &&IpBlock| {
        let node = block.spec.node.as_ref();
        block.spec.lease.is_some() && node.is_some_and(|node| view.nodes.contains_key(node))
    };
    let leases = view.blocks.values().filter(is_there);
    leases.map(|block| block.spec.cidr).collect()
}

/// How many agents act before this one.
fn turn(view: &View, node: &str) -> u32 {
    let before = view.nodes.keys().take_while(|name| name.as_str() < node).count();
    u32::try_from(before).unwrap_or(u32::MAX)
}

/// What peers announce, unless there are sessions to hear it over and none is up; none when the agent ends.
async fn routed<S>(inbox: &Inbox<S>) -> Option<Option<BTreeSet<IpNetwork>>> {
    let peers = ask(&inbox.bgp, bgp::Question::Peers).await.ok()?;
    let deaf = !peers.is_empty() && peers.iter().all(|peer| peer.state != "Established");
    if deaf {
        return Some(None);
    }
    let routes = ask(&inbox.bgp, bgp::Question::Routes).await.ok()?;
    let learned = routes.iter().filter(|route| route.peer.is_some());
    Some(Some(learned.map(|route| route.prefix).collect()))
}

/// Since when blocks are orphans, and since when nobody announces them.
#[derive(Debug, Default)]
struct Watched(BTreeMap<IpNetwork, Seen>);

#[derive(Clone, Copy, Debug)]
struct Seen {
    since: Instant,
    silent_since: Option<Instant>,
}

impl Watched {
    /// Takes in what is announced; none where nothing can be heard.
    fn look(&mut self, now: Instant, orphans: &[&IpBlock], routed: Option<&BTreeSet<IpNetwork>>) {
        let cidrs: BTreeSet<IpNetwork> = orphans.iter().map(|block| block.spec.cidr).collect();
        self.0.retain(|cidr, _| cidrs.contains(cidr));
        for cidr in cidrs {
            let seen = self.0.entry(cidr).or_insert(Seen {
                since: now,
                silent_since: None,
            });
            let silent = routed.is_some_and(|routed| !routed.iter().any(|prefix| covers(cidr, *prefix)));
            seen.silent_since = silent.then(|| seen.silent_since.unwrap_or(now));
        }
    }

    /// A block cannot be freed yet: it is seen to anew, and not at once.
    fn begin_anew(&mut self, cidr: IpNetwork) {
        self.0.remove(&cidr);
    }

    /// Whether the block may be freed by somebody who waits this much longer than the first.
    fn is_due(&self, now: Instant, cidr: IpNetwork, patience: Duration) -> bool {
        let past = |since: Instant, time: Duration| {
            now.saturating_duration_since(since) >= time.saturating_add(patience)
        };
        self.0.get(&cidr).is_some_and(|seen| {
            past(seen.since, LEASE) || seen.silent_since.is_some_and(|since| past(since, SETTLED))
        })
    }
}

/// Frees blocks, and before them what the datastore says of their owners' pods: a block is the last thing to go,
/// so that an agent that dies midway leaves the rest to the next. Returns the blocks whose owners' pods are still there.
async fn free<S: Store>(store: &S, view: &View, blocks: Vec<&IpBlock>) -> Vec<IpNetwork> {
    let owners = blocks.iter().filter_map(|block| block.spec.node.as_deref());
    let gone: BTreeSet<&str> = owners.filter(|owner| !view.nodes.contains_key(*owner)).collect();
    let mut kept = BTreeSet::new();
    for owner in gone {
        match is_without_pods(store, owner).await {
            Ok(true) => continue,
            Ok(false) => tracing::debug!(owner, "Kubernetes still has this node, or pods on it"),
            Err(error) => {
                tracing::warn!(owner, %error, "the pods of a node that is gone cannot be forgotten yet");
            }
        }
        kept.insert(owner);
    }
    let mut left = Vec::new();
    for block in blocks {
        let Some(owner) = block.spec.node.as_deref() else {
            continue;
        };
        if kept.contains(owner) {
            left.push(block.spec.cidr);
            continue;
        }
        match give_up(store, block, owner).await {
            Ok(()) => tracing::info!(block = %block.spec.cidr, owner, "freed: its owner is gone"),
            Err(Error::Conflict { .. } | Error::NotFound(_)) => {
                tracing::debug!(block = %block.spec.cidr, owner, "somebody else changed the block");
            }
            Err(error) => {
                tracing::warn!(block = %block.spec.cidr, owner, %error, "a block cannot be freed yet");
            }
        }
    }
    left
}

async fn give_up<S: Store>(store: &S, block: &IpBlock, owner: &str) -> Result<(), Error> {
    let freed = match &block.spec.lease {
        // Nobody has it, and nobody is there who would take it back.
        Some(lease) if lease.state == LeaseState::Returned => {
            let key = Key::cluster(Kind::IpBlock, &block.metadata.name);
            let revision = block.metadata.resource_version.as_ref();
            return store.delete(&key, revision).await.map(drop);
        }
        // Its lender has it back.
        Some(_) => manx_ipam::return_lease(block, owner),
        None => manx_ipam::release_block(block, owner),
    };
    match freed {
        Ok(next) => store.update(Resource::IpBlock(next)).await.map(drop),
        Err(_) => Ok(()),
    }
}

/// Whether a node has no pods any more: a cluster sees to its Pods, elsewhere they are forgotten with their node.
async fn is_without_pods<S: Store>(store: &S, node: &str) -> Result<bool, Error> {
    match store.cluster() {
        Some(cluster) => cluster.is_done_with(node).await,
        None => forget_pods(store, node).await.map(|()| true),
    }
}

async fn forget_pods<S: Store>(store: &S, node: &str) -> Result<(), Error> {
    for resource in store.list(Kind::WorkloadEndpoint, None).await?.items {
        let key: Key = resource.key();
        let Resource::WorkloadEndpoint(endpoint) = resource else {
            continue;
        };
        if endpoint.spec.node != node {
            continue;
        }
        match store
            .delete(&key, endpoint.metadata.resource_version.as_ref())
            .await
        {
            Ok(_) | Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(cidr: &str, node: Option<&str>) -> IpBlock {
        let cidr: IpNetwork = cidr.parse().unwrap();
        let name = manx_api::ipam::block_name(cidr);
        let json = serde_json::json!({
            "metadata": {"name": name},
            "spec": {"cidr": cidr, "pool": "main", "node": node, "generation": 1},
        });
        serde_json::from_value(json).unwrap()
    }

    fn view(nodes: &[&str], blocks: &[IpBlock]) -> View {
        let mut view = View {
            complete: true,
            ..View::default()
        };
        for name in nodes {
            let json = serde_json::json!({
                "apiVersion": "manx.network/v1", "kind": "Node", "metadata": {"name": name}, "spec": {},
            });
            view.put(serde_json::from_value(json).unwrap());
        }
        for block in blocks {
            view.put(Resource::IpBlock(block.clone()));
        }
        view
    }

    #[test]
    fn only_blocks_of_deleted_nodes_are_orphans() {
        let blocks = [
            block("10.0.0.0/26", Some("alive")),
            block("10.0.0.64/26", None),
            block("10.0.0.128/26", Some("gone")),
        ];
        let mut view = view(&["alive"], &blocks);
        assert_eq!(orphans(&view), [&blocks[2]]);
        view.complete = false;
        assert!(orphans(&view).is_empty(), "absence means nothing yet");
    }

    #[test]
    fn a_lease_that_was_returned_to_nobody_is_an_orphan() {
        let (name, part) = (manx_api::ipam::block_name, "10.0.0.0/28");
        let lender = |node| block("10.0.0.0/26", node);
        let mut lease = block(part, Some("alive"));
        lease.spec.lease = Some(manx_api::ipam::Lease {
            of: name(lender(None).spec.cidr),
            state: LeaseState::Returned,
        });
        let mut orphans = |lender: &[IpBlock], state| {
            lease.spec.lease.as_mut().unwrap().state = state;
            let blocks = [lender, &[lease.clone()]].concat();
            orphans(&view(&["alive"], &blocks)).len()
        };
        assert_eq!(orphans(&[lender(None)], LeaseState::Returned), 1);
        assert_eq!(orphans(&[], LeaseState::Returned), 1);
        assert_eq!(orphans(&[lender(Some("alive"))], LeaseState::Returned), 0);
        assert_eq!(orphans(&[lender(None)], LeaseState::Granted), 0);
    }

    #[test]
    fn a_block_is_due_when_it_was_silent_for_long_enough_or_its_lease_has_run_out() {
        let orphan = block("10.0.0.0/26", Some("gone"));
        let cidr = orphan.spec.cidr;
        let part: BTreeSet<IpNetwork> = ["10.0.0.9/32".parse().unwrap()].into();
        let nothing = BTreeSet::new();
        let begin = Instant::now();
        let mut watched = Watched::default();
        let mut due = |seconds: u64, routed: Option<&BTreeSet<IpNetwork>>| {
            let now = begin + Duration::from_secs(seconds);
            watched.look(now, &[&orphan], routed);
            watched.is_due(now, cidr, Duration::ZERO)
        };
        assert!(!due(0, Some(&nothing)));
        assert!(!due(9, Some(&nothing)));
        assert!(!due(10, Some(&part)), "a part of it is announced");
        assert!(!due(12, Some(&nothing)), "silence begins anew");
        assert!(!due(23, None), "who hears nothing knows nothing");
        assert!(!due(24, Some(&nothing)));
        assert!(due(34, Some(&nothing)));
        assert!(!due(599, Some(&part)));
        assert!(due(600, Some(&part)), "its lease has run out");
    }

    #[test]
    fn agents_take_turns_by_name() {
        let view = view(&["a", "b", "c"], &[]);
        assert_eq!(["a", "b", "c"].map(|node| turn(&view, node)), [0, 1, 2]);
        let orphan = block("10.0.0.0/26", Some("gone"));
        let begin = Instant::now();
        let mut watched = Watched::default();
        watched.look(begin, &[&orphan], Some(&BTreeSet::new()));
        let later = begin + SETTLED;
        assert!(watched.is_due(later, orphan.spec.cidr, Duration::ZERO));
        assert!(!watched.is_due(later, orphan.spec.cidr, TURN));
        assert!(watched.is_due(later + TURN, orphan.spec.cidr, TURN));
    }
}
